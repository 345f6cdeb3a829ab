"""Ray Train with real workers on a real Ray: the stage `train` with two CPU workers, and what becomes of lost ones."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ray.train import TrainingFailedError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from flows.training_stages import TRAIN
from infra.cluster.ray_cluster import ray_cluster
from infra.execution.part_logs import Batch, PartLog, PartLogs
from infra.execution.ray_tasks import PartError, await_ray, begin_anew, submit_part
from infra.execution.sent_parts import unpack_result
from infra.execution.train_workers import WorkerLostError, _cause, _listen, _Unended
from infra.names import StageName
from infra.stages.cutting import Call, cut
from infra.stages.part_spec import PartSpec
from infra.stages.stage import Resources
from infra.storage.artifacts import Manifest, Table, write_directory, write_table
from infra.storage.store import Store, StoreError
from tasks import schemas
from tasks.summaries import KNOWN_PAIRS
from tasks.training.train_config import TrainConfig
from tests.tasks.training.tables import build_tiny_model, eight_instances, passages_table, queries_table
from tests.tasks.training.test_together import one_worker, share_of, without_dropout


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    begin_anew()
    with ray_cluster(None):
        yield


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_dropout(build_tiny_model(tmp_path_factory.mktemp("base")))


def part_of(store: Store, base: Path, config: TrainConfig) -> PartSpec:
    frames = {
        "instances": (eight_instances(), schemas.INSTANCES),
        "queries": (queries_table(), schemas.QUERIES),
        "passages": (passages_table(), schemas.PASSAGES),
        "known": (pl.DataFrame(schema=KNOWN_PAIRS.columns), KNOWN_PAIRS),
    }
    tables = {name: Table(name, (write_table(store, name, frame, of, 0),)) for name, (frame, of) in frames.items()}
    inputs: dict[str, Any] = {**tables, "base": write_directory(store, "model", base)}
    stage = replace(TRAIN, resources=Resources(num_cpus=1.0, deadline=500.0))
    (spec,), _ = cut(Call(stage, StageName("train", "relabel"), config, inputs))
    return spec


def compute(store: Store, spec: PartSpec, scratch: Path, told: list[str]) -> Manifest:
    """Compute a part in Ray as the executor does; `told` gets the lines of its log."""
    logs = PartLogs()
    log: PartLog = logs.open(lambda at, level, text: told.append(text))
    try:
        reference = submit_part(store.url, spec, scratch, 0.0, log.sender())
        return unpack_result(spec, await_ray(reference, spec.stage.resources.deadline, log, queue=60.0))
    finally:
        logs.close()


def summary_of(store: Store, manifest: Manifest) -> dict[str, Any]:
    return dict(json.loads(store.get_object(manifest.directories["model"]["training.json"])))


@pytest.mark.slow
def test_two_ray_train_workers_have_the_losses_of_one_with_the_whole_batch(
    cluster: None, base_model: Path, tmp_path: Path
) -> None:
    store, told = Store.open(str(tmp_path / "store")), list[str]()
    share = share_of(base_model, store.url, checkpoint_steps=4)
    manifest = compute(store, part_of(store, base_model, share.config), tmp_path / "scratch", told)
    summary = summary_of(store, manifest)
    assert summary["loss"] == pytest.approx(one_worker(share, tmp_path / "one"), abs=1e-4)
    assert (summary["workers"], summary["steps"]) == (2, 6)
    assert store.list("checkpoints") == []
    assert any("worker 1 of 2: begun" in line for line in told)
    assert any(line.startswith("step 6 of 6 (100%), loss ") for line in told)


@pytest.mark.slow
def test_a_lost_worker_ends_the_attempt_and_the_next_one_ends_as_an_undisturbed_training(
    cluster: None, base_model: Path, tmp_path: Path
) -> None:
    store, told = Store.open(str(tmp_path / "store")), list[str]()
    config = share_of(base_model, store.url, steps=60, checkpoint_steps=10).config
    spec = part_of(store, base_model, config)
    manifest = compute_after_a_kill("RayTrainWorker", "a worker of the training was lost", (store, spec), told)
    other = Store.open(str(tmp_path / "other"))
    undisturbed = compute(other, part_of(other, base_model, config), tmp_path / "scratch", told)
    assert summary_of(store, manifest)["loss"] == summary_of(other, undisturbed)["loss"]
    assert manifest.directories == undisturbed.directories


@pytest.mark.slow
def test_the_workers_die_with_their_part_and_leave_their_places_to_the_next_attempt(
    cluster: None, base_model: Path, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path / "store"))
    spec = part_of(store, base_model, share_of(base_model, store.url, steps=30, checkpoint_steps=10).config)
    compute_after_a_kill(f"ray::{spec.name}", "WorkerCrashedError", (store, spec), [])


def compute_after_a_kill(name: str, reason: str, part: tuple[Store, PartSpec], told: list[str]) -> Manifest:
    """Compute a part whose process of this name is killed at step 20, and again; the second attempt goes on."""
    store, spec = part
    scratch = Path(store.url).parent / "scratch"
    killer = threading.Thread(target=kill_at, args=(name, store, 20))
    killer.start()
    with pytest.raises(PartError, match=reason) as raised:
        compute(store, spec, scratch, told)
    killer.join()
    assert raised.value.retry
    until = time.monotonic() + 60
    while processes("RayTrainWorker") and time.monotonic() < until:
        time.sleep(0.1)
    assert not processes("RayTrainWorker")
    manifest = compute(store, spec, scratch, told)
    assert [line for line in told if line.startswith("training resumes at step ")]
    return manifest


def processes(name: str) -> list[int]:
    """Return the ids of the processes below this one whose command holds a name."""
    parents, commands = dict[int, int](), dict[int, str]()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[pid] = (folder / "cmdline").read_text()

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    return sorted(pid for pid, command in commands.items() if name in command and is_ours(pid))


def kill_at(name: str, store: Store, step: int) -> None:
    """Kill the last process of a name when a checkpoint of this step, or of a later one, begins to be written."""
    until = time.monotonic() + 400
    while time.monotonic() < until:
        if any(int(key.split("/")[3]) >= step for key in store.list("checkpoints")):
            os.kill(processes(name)[-1], signal.SIGKILL)
            return
        time.sleep(0.02)


def test_where_the_workers_meet_listens_on_the_address_of_the_node_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.execution import train_workers

    monkeypatch.setattr(train_workers, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(train_workers, "get_current_placement_group", lambda: None)
    address, port, group = _listen()
    assert group is None
    listening = train_workers._listening.pop()
    assert (address, port) == listening.getsockname()
    listening.close()


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ({0: RuntimeError("Connection closed by peer"), 1: ValueError("frozen_layers=9")}, ValueError),
        ({0: StoreError("store s3://x: gone")}, StoreError),
        ({1: WorkerHealthCheckFailedError("worker died", RuntimeError("killed"))}, WorkerLostError),
        ({0: RuntimeError("[gloo] Connection closed by peer")}, WorkerLostError),
        ({}, WorkerLostError),
    ],
    ids=["own", "store", "died", "peer", "unknown"],
)
def test_what_a_worker_raised_is_told_and_a_lost_one_may_be_tried_again(
    failures: dict[int, Exception], expected: type[Exception]
) -> None:
    def wrapped(failure: Exception) -> Exception:
        return failure if "ray" in type(failure).__module__ else UserExceptionWithTraceback(failure, "Traceback")

    error: TrainingFailedError = WorkerGroupError("failed", {rank: wrapped(f) for rank, f in failures.items()})
    assert isinstance(_cause(error), expected)


def test_the_end_of_a_workers_lines_is_not_the_end_of_the_parts() -> None:
    class Holder:
        def __init__(self) -> None:
            self.batches: list[tuple[str, Batch]] = []
            self.put = self

        def remote(self, box: str, batch: Batch) -> None:
            self.batches.append((box, batch))

    holder = Holder()
    _Unended(holder, "box").send(Batch([(1.0, 20, "line")], ended=True))
    assert holder.batches == [("box", Batch([(1.0, 20, "line")], ended=False))]
