"""Every way a Ray task can end becomes a value, or an error with its reason in a line."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError, WorkerCrashedError

from infra.engines.answers import EndpointError
from infra.execution import ray_tasks
from infra.execution.part_logs import Batch, PartLog
from infra.execution.ray_tasks import LOST, STOPPED, PartError, await_ray, begin_anew, give_up, given_up, submit_part
from infra.execution.sent_parts import SentPart
from infra.execution.shared_engine import EngineBroken
from infra.execution.usage_meter import BudgetReached
from infra.stages.compute_part import EngineNeeded
from infra.stages.runner import PartSpec
from infra.stages.stage import Resources
from infra.storage.store import StoreError
from tests.infra.ray_in_process import RayInProcess, Reference, node
from tests.infra.toy import DOUBLE, WITH_ENGINE


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayInProcess]:
    monkeypatch.delenv("RENEG_AUTOSCALE", raising=False)
    begin_anew()
    yield RayInProcess([node(CPU=4.0, GPU=1.0, memory=1000.0)]).install(monkeypatch)
    begin_anew()


class Shown(PartLog):
    """A part's log that keeps what is shown, and whether the worker was killed."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.killed: list[bool] = []
        super().__init__(None, lambda at, level, text: self.lines.append((level, text)))

    def finish(self, *, killed: bool) -> None:
        self.killed.append(killed)


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("compute", f"Traceback\n{type(cause).__name__}: {cause}", cause)


def facts(error: Exception) -> tuple[Any, ...]:
    return tuple(getattr(error, name, None) for name in ("retry", "engine_lost", "out_of_memory", "killed"))


def test_a_result_is_returned_and_the_log_is_told_that_the_worker_ended() -> None:
    log = Shown()
    assert await_ray(Reference("manifest"), 1.0, log) == "manifest"
    assert (log.lines, log.killed) == ([], [False])


@pytest.mark.parametrize(
    ("error", "told", "expected"),
    [
        (OutOfMemoryError("x"), "out of memory: Ray killed the worker; the next attempt takes smaller batches",
         (True, True, True, True)),
        (WorkerCrashedError(), "WorkerCrashedError: ", (True, False, False, True)),
        (RayActorError(error_msg="it\n\n fell over \nthen\nmore"), "engine died: it / fell over / then",
         (True, True, False, True)),
        (task_error(OSError("the disk")), "OSError: the disk", (True, False, False, False)),
        (task_error(StoreError("no answer")), "StoreError: no answer", (True, False, False, False)),
        (task_error(MemoryError("all used")), "MemoryError: all used", (True, False, False, False)),
        (task_error(KeyError("a")), "KeyError: 'a'", (False, False, False, False)),
        (task_error(EngineBroken("CUDA error")), "engine broken: CUDA error", (True, True, False, False)),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_an_error_of_rays_is_told_in_a_line_with_what_it_means_for_the_next_attempt(
    error: RayError, told: str, expected: tuple[bool, ...]
) -> None:
    log = Shown()
    with pytest.raises(PartError) as caught:
        await_ray(Reference(error=error), 1.0, log)
    assert str(caught.value).startswith(told)
    assert facts(caught.value) == expected
    assert caught.value.__cause__ is None
    assert log.killed == [expected[3]]
    assert [level for level, _ in log.lines] == [logging.ERROR]


def test_a_refusal_of_every_request_is_told_from_a_fault_of_one_part() -> None:
    for cause, everywhere in ((EndpointError("it refuses"), True), (ValueError("a bad row"), False)):
        with pytest.raises(PartError, match=f"{type(cause).__name__}: {cause}") as caught:
            await_ray(Reference(error=task_error(cause)), 1.0)
        assert (caught.value.of_every_part, caught.value.retry) == (everywhere, False)


@pytest.mark.parametrize("cause", [EngineNeeded("2 rows"), BudgetReached("tokens")])
def test_what_is_no_failure_comes_out_as_it_was_raised(cause: Exception) -> None:
    log = Shown()
    with pytest.raises(type(cause), match=str(cause)):
        await_ray(Reference(error=task_error(cause)), 1.0, log)
    assert log.lines == []


def died_while_built(last_line: str) -> ActorDiedError:
    return ActorDiedError(task_error(ValueError("x\n\x1b[36mRay says more\x1b[0m\n" + last_line)))


@pytest.mark.parametrize(
    ("last_line", "retry"),
    [
        ("ValueError: no such folder", False),
        ("ImportError: no such library", False),
        ("ModuleNotFoundError: no vllm", False),
        ("RuntimeError: CUDA out of memory", True),
    ],
)
def test_an_engine_that_could_not_be_built_tells_its_own_last_line(last_line: str, retry: bool) -> None:
    error = died_while_built(last_line)
    assert "creation task" in str(error)
    with pytest.raises(PartError) as caught:
        await_ray(Reference(error=error), 1.0)
    assert str(caught.value) == last_line
    assert facts(caught.value) == (retry, True, False, True)


def test_a_part_that_is_not_finished_in_time_is_cancelled_and_may_be_tried_again(cluster: RayInProcess) -> None:
    late, log = Reference(late=True), Shown()
    with pytest.raises(PartError, match="deadline: not finished within 0 s") as caught:
        await_ray(late, 0.0, log)
    assert facts(caught.value) == (True, True, False, True)
    assert (cluster.cancelled, log.killed) == ([late], [True])


def test_the_clock_of_a_part_that_waits_in_ray_begins_with_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_tasks, "_POLL_SECONDS", 0.01)
    log, reference = Shown(), Reference(late=True)
    started = time.monotonic()
    threading.Timer(0.3, lambda: log.receive(Batch([]))).start()
    with pytest.raises(PartError, match="deadline: not finished within 0 s"):
        await_ray(reference, 0.1, log, queue=60.0)
    assert 0.4 <= time.monotonic() - started < 30
    started = time.monotonic()
    with pytest.raises(PartError, match="deadline"):
        await_ray(reference, 0.1, Shown(), queue=0.2)  # nothing is heard of it
    assert 0.3 <= time.monotonic() - started < 30


def test_a_run_that_is_told_to_end_cancels_its_parts_and_begins_no_more(cluster: RayInProcess) -> None:
    late = Reference(late=True)
    ray_tasks.refuse_if_given_up()
    give_up(STOPPED)
    with pytest.raises(PartError, match="stopped: the run was told to end") as caught:
        await_ray(late, 60.0)
    assert not caught.value.retry
    assert cluster.cancelled == [late]
    with pytest.raises(PartError, match="stopped"):
        ray_tasks.refuse_if_given_up()
    begin_anew()
    assert not given_up()
    ray_tasks.refuse_if_given_up()


def test_of_a_cluster_that_is_lost_nothing_is_asked(cluster: RayInProcess) -> None:
    give_up(LOST)
    with pytest.raises(PartError, match="lost: another cluster"):
        await_ray(Reference(late=True), 60.0)
    assert cluster.cancelled == []


def test_an_actors_call_that_cannot_be_cancelled_is_left_to_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(reference: Reference, force: bool) -> None:
        raise ValueError("force=True is not supported for actor tasks")

    monkeypatch.setattr(ray_tasks.ray, "cancel", refuse)
    with pytest.raises(PartError, match="deadline"):
        await_ray(Reference(late=True), 0.0)


def test_secrets_and_colours_are_taken_out_of_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_API_KEY", "sk-123456")
    log = Shown()
    with pytest.raises(PartError) as caught:
        await_ray(Reference(error=task_error(OSError("\x1b[31msk-123456\x1b[0m is refused"))), 1.0, log)
    assert str(caught.value) == "OSError: *** is refused"
    assert "sk-123456" not in log.lines[0][1]
    assert "\x1b" not in log.lines[0][1]


def test_a_long_reason_is_cut() -> None:
    with pytest.raises(PartError) as caught:
        await_ray(Reference(error=task_error(KeyError("x" * 900))), 1.0)
    assert len(str(caught.value)) == len("KeyError: ") + 500


class Options:
    """Takes the place of the remote function."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def options(self, **options: Any) -> "Options":
        self.given = options
        return self

    def remote(self, *args: Any) -> tuple[Any, ...]:
        return args


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (replace(DOUBLE, resources=Resources(num_cpus=1.0, memory=500)),
         {"num_cpus": 0.5, "num_gpus": 0.0, "memory": 500}),
        (replace(WITH_ENGINE, resources=Resources(num_cpus=1.0, num_gpus=1.0, memory=500)),
         {"num_cpus": 0.5, "num_gpus": 0.0, "memory": None}),
        (replace(DOUBLE, resources=Resources(num_cpus=1.0, num_gpus=1.0)),
         {"num_cpus": 0.5, "num_gpus": 1.0, "memory": None}),
        (replace(DOUBLE, trains=True, resources=Resources(num_cpus=1.0, num_gpus=1.0, memory=500)),
         {"num_cpus": 0.5, "num_gpus": 0.0, "memory": None}),
    ],
    ids=["plain", "memory and GPU are the engine's", "on a GPU", "memory and GPU are the workers'"],
)  # fmt: skip
def test_a_part_is_submitted_by_name_with_what_it_is_granted(
    monkeypatch: pytest.MonkeyPatch, stage: Any, expected: dict[str, Any]
) -> None:
    monkeypatch.setattr(ray_tasks, "_compute", remote := Options())
    spec = PartSpec(stage, "double-00003", 3, 3, "key", 0, {}, {"workers": 2}, {})
    assert submit_part("store", spec, Path("/cache"), 0.5) == ("store", SentPart(spec), Path("/cache"), None)
    assert remote.given == {"name": "double-00003", **expected}
