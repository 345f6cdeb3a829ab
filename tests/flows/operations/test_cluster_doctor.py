"""`reneg doctor --cluster` against a real Prefect server and real Ray nodes, with each piece missing or wrong."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from typer.testing import CliRunner

from flows.cli.__main__ import app
from flows.config.curation import CurationConfig
from flows.config.load import load_config, parse_config
from flows.operations import cluster_doctor
from flows.operations.cluster_doctor import examine_cluster
from flows.operations.deploy import HEARTBEAT_AUTOMATION, deploy
from flows.operations.doctor import Finding
from infra.cluster import nodes, ray_cluster
from infra.models.resolve import resolve
from infra.prefect_api.events import POOL
from infra.settings import Settings
from infra.storage.store import Store
from tests.conftest import ROOT, free_port
from tests.infra.prefect_calls import embedded
from tests.infra.ray_nodes import RayNodes

pytestmark = pytest.mark.slow
SMALL = ROOT / "tests" / "flows" / "small.yaml"


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A set-up without a server or a cluster."""
    home = tmp_path_factory.mktemp("home")
    cache = Path(os.environ["RENEG_TEST_CACHE"])
    return Settings(home, str(home / "store"), cache, prefect_api_url=None, ray_address=None)


@pytest.fixture(scope="module")
def server(nothing: Settings) -> Iterator[Settings]:
    """A Prefect server on which nothing was deployed yet."""
    with embedded(nothing.home) as url:
        yield replace(nothing, prefect_api_url=url)


@pytest.fixture(scope="module")
def cluster(nothing: Settings) -> Iterator[Settings]:
    with RayNodes(1) as started:
        yield replace(nothing, ray_address=started.address)


@pytest.fixture(autouse=True)
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A token that nobody else can read, as far as the doctor looks."""
    path = tmp_path / "token"
    path.write_text("secret")
    path.chmod(0o600)
    monkeypatch.setattr(ray_cluster, "token_file", lambda: path)
    return path


def missing(settings: Settings, config: CurationConfig | None = None) -> dict[str, Finding]:
    """Return what is missing, by its name; each has a remedy."""
    found = {f.what: f for f in examine_cluster(settings, config) if f.state == "missing"}
    assert all(finding.remedy for finding in found.values())
    return found


def states(settings: Settings, config: CurationConfig | None = None) -> dict[str, str]:
    return {finding.what: finding.state for finding in examine_cluster(settings, config)}


def small(**changes: Any) -> CurationConfig:
    return parse_config({**load_config(SMALL).model_dump(mode="json"), **changes}, "test")


def judged_by(**engine: Any) -> CurationConfig:
    return small(tiers=[{"name": "llm", "engine": engine}])


def test_without_addresses_and_with_a_readable_token_each_is_named(nothing: Settings, token: Path) -> None:
    token.chmod(0o644)
    found = missing(nothing)
    assert set(found) == {"PREFECT_API_URL", "RAY_ADDRESS", "Ray's token"}
    assert "chmod 600" in found["Ray's token"].remedy
    token.unlink()
    assert "is not there" in missing(nothing)["Ray's token"].found


def test_servers_that_do_not_answer_are_named_within_seconds(nothing: Settings) -> None:
    port = free_port()
    dead = replace(nothing, prefect_api_url=f"http://127.0.0.1:{port}/api", ray_address=f"127.0.0.1:{port}")
    assert set(missing(dead)) == {"Prefect server", "Ray"}


def test_on_a_bare_server_pool_worker_deployments_and_automation_are_missing(server: Settings) -> None:
    found = missing(server, small())
    automation = f"automation {HEARTBEAT_AUTOMATION!r}"
    assert {f"work pool {POOL}", "deployment nightly/small", "deployment curate/small", automation} <= set(found)
    assert "reneg deploy" in found[f"work pool {POOL}"].remedy


def test_what_was_deployed_is_found_and_what_was_paused_or_switched_off_is_missing(server: Settings) -> None:
    config = small(nightly={"cron": "30 2 * * *"})
    deploy(server, [config])
    assert set(missing(server, config)) == {"RAY_ADDRESS", "worker"}
    automation = f"automation {HEARTBEAT_AUTOMATION!r}"
    with get_client(sync_client=True) as client:
        client.send_worker_heartbeat(POOL, "a worker", heartbeat_interval_seconds=30)
        assert set(missing(server, config)) == {"RAY_ADDRESS"}
        there = states(server, config)
        assert there["worker"] == there[f"work pool {POOL}"] == there["deployment nightly/small"] == "ok"
        client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
        deployment = client.read_deployment_by_name("nightly/small")
        client.pause_deployment(deployment.id)
        client.pause_automation(client.read_automations_by_name(HEARTBEAT_AUTOMATION)[0].id)
    found = missing(server, config)
    assert set(found) == {"RAY_ADDRESS", f"work pool {POOL}", "deployment nightly/small", automation}
    assert "prefect work-pool resume reneg" in found[f"work pool {POOL}"].remedy


def test_a_server_of_another_version_is_missing(server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_doctor.prefect, "__version__", "3.0.0")
    assert "this is 3.0.0" in missing(server)["Prefect server"].found


def test_a_cluster_that_holds_what_the_configuration_needs_is_ok_from_every_node(cluster: Settings) -> None:
    for reference in ("tiny:encoder", "tiny:llm"):
        resolve(reference, cluster.cache)
    found = examine_cluster(cluster, small())
    assert [f.what for f in found if f.state != "ok"] == ["PREFECT_API_URL"]
    of_nodes = [f for f in found if f.what.startswith("node 127.0.0.1")]
    assert len(of_nodes) == 2
    assert "1 CPUs, 0 GPUs" in of_nodes[0].found
    assert {"memory for tiny:encoder", "memory for tiny:llm"} <= {f.what for f in found}
    assert Store(cluster.store).list("probe") == []


def test_what_no_node_can_hold_is_named_before_ray_waits_for_it(cluster: Settings) -> None:
    huge = judged_by(kind="vllm", model="tiny:llm", cpu_kvcache_gib=100_000)
    assert "no node has it" in missing(cluster, huge)["memory for tiny:llm"].found
    on_gpu = small(
        encoder={"model": "tiny:encoder", "device": "cuda"},
        tiers=[{"name": "llm", "engine": {"kind": "vllm", "model": "tiny:llm", "device": "cuda"}}],
    )
    found = missing(cluster, on_gpu)
    assert {"resources of encode_passages", "resources of encode_queries", "resources of judge-llm"} <= set(found)
    assert "no node has 2 CPUs, 1 GPUs" in found["resources of judge-llm"].found.replace("1 CPUs", "2 CPUs")


def test_a_key_that_the_nodes_lack_is_named_and_never_shown(cluster: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_VENDORS_KEY", "sk-planted")
    config = judged_by(kind="openai", model="gpt-5-2026-01-01", api_key_env="MY_VENDORS_KEY")
    found = missing(cluster, config)
    assert [what for what in found if what.startswith("MY_VENDORS_KEY on node")]
    assert "sk-planted" not in repr(found)


def test_a_store_that_only_this_machine_sees_is_named_for_every_node(
    cluster: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a relative path: another folder for every process
    found = missing(replace(cluster, store="store"))
    assert len([what for what in found if what.startswith("store from node")]) == 2
    nowhere = missing(replace(cluster, store="/dev/null/store"))
    assert "store" in nowhere


def test_a_cache_that_a_node_cannot_write_is_named(cluster: Settings) -> None:
    found = missing(replace(cluster, cache=Path("/dev/null/cache")))
    assert [what for what in found if what.startswith("/dev/null/cache/files on node")]


def test_a_head_that_computes_nothing_is_not_asked_for_the_store_and_keys_that_others_need() -> None:
    lacks = nodes.Probe(0.0, "NoCredentialsError", False, "", 2**40, 2**30, (), ("OPENAI_API_KEY",))
    wanted = nodes.Wanted("s3://reneg/store", Path("/cache"), beacon="probe/1", variables=("OPENAI_API_KEY",))
    head = nodes.Node("ab" * 14, "10.0.0.7", {"memory": 4.0, "CPU": 0.0}, found=lacks)
    assert [finding.state for finding in cluster_doctor._node(head, wanted, [])] == ["ok"]
    worker = replace(head, resources={"CPU": 1.0})
    assert [finding.what for finding in cluster_doctor._node(worker, wanted, [])] == [
        "store from node 10.0.0.7 (abababab)", "OPENAI_API_KEY on node 10.0.0.7 (abababab)",
    ]  # fmt: skip


def test_nodes_with_other_code_or_another_clock_are_named(cluster: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "code_digest", lambda: "0" * 64)
    monkeypatch.setattr(cluster_doctor, "_CLOCK_SECONDS", -1.0)
    found = examine_cluster(cluster, None)
    assert [f.found for f in found if f.what.startswith("node") and "code: 000000000000 expected" in f.found]
    assert [f.remedy for f in found if f.what.startswith("clock of node")] == ["let NTP set it"] * 2


def test_the_command_ends_with_one_and_prints_each_missing_piece(
    nothing: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RENEG_HOME", str(nothing.home))
    monkeypatch.setenv("RENEG_STORE", nothing.store)
    done = CliRunner().invoke(app, ["doctor", "--cluster", str(SMALL), "--json"])
    assert done.exit_code == 1
    found = {finding["what"]: finding for finding in json.loads(done.stdout.splitlines()[-1])}
    assert found["PREFECT_API_URL"]["state"] == found["RAY_ADDRESS"]["state"] == "missing"
    assert found["store"]["state"] == "ok"
    assert "RAY_ADDRESS" not in CliRunner().invoke(app, ["doctor", "--json"]).stdout
