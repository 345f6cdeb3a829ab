"""A Prefect server and a Ray node, shared by the slow tests of this folder."""

import os
from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from infra.cluster.ray_cluster import ray_cluster
from infra.engines.specs import SentenceTransformersSpec
from infra.models.resolve import resolve
from infra.prefect_api.server import PrefectServer
from tests.conftest import RAY_EXTRAS, ROOT, s3_variables
from tests.infra.ray_nodes import RayNodes


@pytest.fixture(scope="package")
def services(tmp_path_factory: pytest.TempPathFactory, seaweedfs: str) -> Iterator[None]:
    """A real Prefect server and one Ray node that exports metrics, both on loopback."""
    home = tmp_path_factory.mktemp("home")
    server = PrefectServer(home)
    storage = s3_variables(seaweedfs)
    # Ray's workers have the environment of its start: they must find the toy stages and the S3 server.
    workers = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(RAY_EXTRAS)]), **storage}
    with pytest.MonkeyPatch.context() as patch, RayNodes(0, num_cpus=2, environment=workers) as nodes:
        for name, value in storage.items():
            patch.setenv(name, value)
        settings = {PREFECT_API_URL: server.start(), PREFECT_HOME: home / "client"}
        with temporary_settings(settings), ray_cluster(nodes.address):
            yield
    assert server.stop()


@pytest.fixture(scope="package")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformersSpec:
    model = resolve("tiny:encoder", tmp_path_factory.mktemp("cache"))
    return SentenceTransformersSpec(model=str(model.path), digest=model.digest)
