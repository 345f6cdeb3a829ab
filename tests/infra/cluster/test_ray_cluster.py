"""Ray, local or by address: what it grants, and what is refused."""

import time

import pytest

from infra.cluster import ray_cluster
from infra.cluster.ray_cluster import ClusterError
from tests.conftest import free_port


def test_an_address_where_nothing_listens_is_an_error_within_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(ClusterError, match="does not listen"), ray_cluster.ray_cluster(f"127.0.0.1:{free_port()}"):
        pass
    assert time.monotonic() - started < 6
