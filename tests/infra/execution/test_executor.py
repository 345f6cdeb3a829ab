"""What the executor decides, without Prefect and Ray; with them, in test_flow_runs.py."""

import logging
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.cluster.ray_cluster import ClusterError
from infra.engines.specs import SentenceTransformersSpec
from infra.execution import engine_pool, ray_tasks
from infra.execution import executor as module
from infra.execution.executor import PrefectRayExecutor
from infra.execution.part_logs import PartLog, Show
from infra.execution.ray_tasks import STOPPED, PartError, begin_anew, give_up, given_up
from infra.execution.usage_meter import Budget, BudgetReached, Meter
from infra.key_rules import KeyRules
from infra.stages.compute_part import EngineNeeded
from infra.stages.runner import PartSpec
from infra.stages.stage import Resources, Stage
from infra.storage.artifacts import Manifest, Piece, Table
from infra.storage.store import Store
from tests.infra.toy import DOUBLE, WITH_ENGINE

MANIFEST = Manifest("double", 1, 3, "key", 0, ingredients={}, tables={}, directories={}, stats={"seconds": 1.0})


def spec_of(stage: Stage = DOUBLE, number: int = 3, **changes: Any) -> PartSpec:
    fields = {"config": {"factor": 1}, "inputs": {}, "ingredients": {}, **changes}
    return PartSpec(stage, f"{stage.name}-{number:05d}", number, number, "key", 0, **fields)


def numbers(rows: int) -> Table:
    return Table("numbers", (Piece(3, "objects/00/0", rows),))


@dataclass
class Work:
    """What computes parts, in the place of Ray: the calls as (how, CPUs), with troubles raised in turn."""

    calls: list[tuple[str, float]] = field(default_factory=list)
    troubles: list[Exception] = field(default_factory=list)

    def submit(self, url: str, spec: PartSpec, scratch: Path, num_cpus: float, sender: object) -> str:
        self.calls.append(("plainly", num_cpus))
        return spec.name

    def wait(self, reference: str, deadline: float, log: PartLog, *, queue: float) -> str:
        assert queue == 0  # no autoscaler, so nothing waits in Ray
        if self.troubles:
            raise self.troubles.pop(0)
        return f"{reference} within {deadline:g}"

    def compute(self, spec: PartSpec, url: str, scratch: Path, log: PartLog) -> str:
        self.calls.append(("engine", 0.0))
        return f"{spec.name} by an engine"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work()
    monkeypatch.setattr(ray_tasks, "submit_part", work.submit)
    monkeypatch.setattr(module, "await_ray", work.wait)
    begin_anew()
    return work


def executor_of(tmp_path: Path, work: Work, **options: Any) -> PrefectRayExecutor:
    executor = PrefectRayExecutor(Store.open(str(tmp_path / "store")), tmp_path / "scratch", **options)
    executor._pool = work
    return executor


def silent(at: float, level: int, text: str) -> None: ...


def test_a_part_without_an_engine_is_computed_in_a_task_of_its_stages_size(tmp_path: Path, work: Work) -> None:
    executor = executor_of(tmp_path, work)
    assert executor._compute(spec_of(), silent) == "double-00003 within 20"
    assert work.calls == [("plainly", 0.5)]


def test_a_part_with_several_workers_waits_for_them_on_no_cpu(tmp_path: Path, work: Work) -> None:
    executor = executor_of(tmp_path, work)
    stage = replace(DOUBLE, trains=True)
    executor._compute(spec_of(stage, config={"workers": 2}), silent)
    executor._compute(spec_of(stage, config={"workers": 1}), silent)
    assert work.calls == [("plainly", 0.0), ("plainly", 0.5)]


@pytest.mark.parametrize(
    ("takes", "remembers", "rows", "calls"),
    [
        ("ledger", True, 5, [("plainly", 0.0)]),
        ("ledger", False, 0, [("plainly", 0.0)]),
        ("ledger", False, 5, [("engine", 0.0)]),
        ("vectors", True, 5, [("plainly", 0.0)]),
        ("vectors", True, 0, [("engine", 0.0)]),  # it asks the engine for its dimension
        ("vectors", False, 5, [("engine", 0.0)]),
        ("", True, 5, [("engine", 0.0)]),
    ],
)
def test_a_part_whose_rows_may_be_remembered_is_tried_without_an_engine_first(
    tmp_path: Path, work: Work, takes: str, remembers: bool, rows: int, calls: list[tuple[str, float]]
) -> None:
    executor = executor_of(tmp_path, work)
    executor._remembers = remembers
    stage = replace(WITH_ENGINE, **({takes: True} if takes else {}))
    executor._compute(spec_of(stage, inputs={"numbers": numbers(rows)}), silent)
    assert work.calls == calls


def test_a_part_that_the_ledger_does_not_answer_goes_to_its_engine(tmp_path: Path, work: Work) -> None:
    executor = executor_of(tmp_path, work)
    executor._remembers = True
    spec = spec_of(replace(WITH_ENGINE, ledger=True), inputs={"numbers": numbers(5)})
    work.troubles = [EngineNeeded("2 rows")]
    assert executor._compute(spec, silent) == "with_engine-00003 by an engine"
    assert work.calls == [("plainly", 0.0), ("engine", 0.0)]
    work.troubles = [PartError("the disk", retry=True)]
    with pytest.raises(PartError, match="the disk"):
        executor._compute(spec, silent)


def test_nothing_is_computed_after_the_end_or_once_the_run_is_given_up(tmp_path: Path, work: Work) -> None:
    with pytest.raises(BudgetReached, match="end-by time"):
        executor_of(tmp_path, work, until=time.time() - 1)._compute(spec_of(), silent)
    give_up(STOPPED)
    with pytest.raises(PartError, match="stopped"):
        executor_of(tmp_path, work)._compute(spec_of(), silent)
    begin_anew()
    assert work.calls == []


def test_a_run_that_is_told_to_end_gives_its_parts_up_and_one_that_fails_does_not(
    tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "head_watched", lambda lost: nullcontext())
    give_up(STOPPED)
    with suppress(ValueError), PrefectRayExecutor(Store.open(str(tmp_path / "store")), tmp_path):
        assert not given_up()
        raise ValueError
    assert not given_up()
    with suppress(KeyboardInterrupt), PrefectRayExecutor(Store.open(str(tmp_path / "store")), tmp_path):
        raise KeyboardInterrupt
    assert given_up()
    begin_anew()


@dataclass
class Pool:
    """A pool of engines that remembers whether it was released."""

    spec: Any
    resources: Resources
    meter: Any = None
    key_rules: Any = None
    closed: int = 0

    def close(self) -> None:
        self.closed += 1


def test_engines_are_kept_for_the_next_stage_only_where_spec_and_resources_are_the_same(
    tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Pool] = []
    monkeypatch.setattr(engine_pool, "EnginePool", lambda *given: made.append(Pool(*given)) or made[-1])
    monkeypatch.setattr(module, "PartLogs", lambda: "logs")
    rules = KeyRules.parse("none")
    executor = executor_of(tmp_path, work, meter=(meter := Meter(Budget(), {})), key_rules=rules)
    executor._pool = None
    first, second = (SentenceTransformersSpec(model="m", digest=digest) for digest in ("1", "2"))
    executor._prepare(WITH_ENGINE, first)
    executor._prepare(WITH_ENGINE, first)
    wanted = (first, WITH_ENGINE.resources, meter, rules)
    assert [(pool.spec, pool.resources, pool.meter, pool.key_rules) for pool in made] == [wanted]
    executor._prepare(WITH_ENGINE, second)
    executor._prepare(replace(WITH_ENGINE, resources=Resources(num_cpus=2.0)), second)
    assert [pool.closed for pool in made] == [1, 1, 0]
    executor._prepare(DOUBLE, None)
    assert [pool.closed for pool in made] == [1, 1, 1]
    assert executor._pool is None
    with pytest.raises(ValueError, match="stage with_engine needs an engine of kind 'encoder', none was given"):
        executor._prepare(WITH_ENGINE, None)


def test_the_ledger_is_asked_first_only_where_it_holds_anything(
    tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PartLogs", lambda: "logs")
    executor = executor_of(tmp_path, work)
    executor._pool = None
    stage = replace(DOUBLE, ledger=True)
    executor._prepare(stage, None)
    assert executor._remembers is False
    executor._store.create("ledger/toy/00", b"x")
    executor._prepare(DOUBLE, None)
    assert executor._remembers is False
    executor._prepare(stage, None)
    assert executor._remembers is True
    vectors = replace(DOUBLE, vectors=True)
    executor._prepare(vectors, None)
    assert executor._remembers is False
    executor._store.create("vectors/e-query-1/new/00", b"x")
    executor._prepare(vectors, None)
    assert executor._remembers is True


# ---- attempts ----


@dataclass
class Counted:
    """What is counted for Prometheus."""

    ended: list[tuple[str, str]] = field(default_factory=list)

    def count(self, stage: str, ended: str, stats: object = None) -> None:
        self.ended.append((stage, ended))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(module, "count_part", counted.count)
    return counted


def killed() -> PartError:
    error = PartError("its worker died", retry=True)
    error.killed = True
    return error


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (killed(), [("double", "killed")]),
        (PartError("KeyError", retry=False), [("double", "failed")]),
        (OSError("of Prefect's or ours"), [("double", "failed")]),
        (BudgetReached("tokens"), []),
    ],
)
def test_an_attempt_that_fails_is_counted_by_how_it_ended(
    counted: Counted, error: Exception, ended: list[tuple[str, str]]
) -> None:
    def compute(spec: PartSpec, show: Show) -> Manifest:
        raise error

    attempts = module._Attempts(spec_of(config={"batch_size": 8}), nullcontext(), compute)
    with pytest.raises(type(error)):
        attempts.run(silent)
    assert counted.ended == ended
    assert attempts.spec.config["batch_size"] == 8


def test_after_memory_ran_out_the_next_attempt_takes_half_the_batch(counted: Counted) -> None:
    sizes: list[int] = []

    def compute(spec: PartSpec, show: Show) -> Manifest:
        sizes.append(spec.config["batch_size"])
        if len(sizes) < 5:
            raise PartError("out of memory", retry=True, out_of_memory=True)
        return MANIFEST

    attempts = module._Attempts(spec_of(config={"batch_size": 8, "factor": 3}), nullcontext(), compute)
    for _ in range(4):
        with pytest.raises(PartError):
            attempts.run(silent)
    assert attempts.run(silent) is MANIFEST
    assert sizes == [8, 4, 2, 1, 1]
    assert attempts.spec.config["factor"] == 3
    assert counted.ended == [("double", "failed")] * 4 + [("double", "computed")]


def test_the_batch_of_a_training_decides_its_weights_and_is_not_halved() -> None:
    spec = spec_of(replace(DOUBLE, trains=True), config={"batch_size": 8})
    assert module._smaller_batches(spec) is spec


@pytest.mark.parametrize("config", [{}, {"batch_size": 1}, {"batch_size": "large"}])
def test_a_part_without_a_batch_size_to_halve_stays_as_it_is(config: dict[str, Any]) -> None:
    spec = spec_of(config=config)
    assert module._smaller_batches(spec) is spec


@pytest.mark.parametrize(("stage", "inside"), [(DOUBLE, 1), (WITH_ENGINE, 0)])
def test_parts_wait_for_a_slot_unless_their_engine_makes_them_wait(counted: Counted, stage: Stage, inside: int) -> None:
    slots = threading.BoundedSemaphore(1)
    taken: list[int] = []

    def compute(spec: PartSpec, show: Show) -> Manifest:
        free = slots.acquire(blocking=False)
        taken.append(int(not free))
        if free:
            slots.release()
        return MANIFEST

    module._Attempts(spec_of(stage), slots, compute).run(silent)
    assert taken == [inside]


@pytest.mark.parametrize(
    ("grows", "slots", "bound"), [(False, 3, 3), (True, 3, 67), (False, None, 1)], ids=["fixed", "grows", "unknown"]
)
def test_where_the_cluster_grows_some_parts_more_wait_in_ray(
    monkeypatch: pytest.MonkeyPatch, grows: bool, slots: int | None, bound: int
) -> None:
    monkeypatch.setenv("RENEG_AUTOSCALE", "1" if grows else "")
    monkeypatch.delenv("RENEG_WAITING_PARTS", raising=False)
    asked: list[Resources] = []
    monkeypatch.setattr(module, "granted", asked.append)
    monkeypatch.setattr(module, "slots_now", lambda resources: slots)
    assert module._slots(Resources(num_cpus=2.0)).bound == bound
    assert asked == [Resources(num_cpus=2.0)]


def test_parts_with_several_workers_take_as_many_places_and_are_refused_where_these_are_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RENEG_AUTOSCALE", raising=False)
    monkeypatch.setattr(module, "granted", lambda resources: resources)
    for name in ("slots_for", "slots_now"):
        monkeypatch.setattr(module, name, lambda resources: 5)
    assert module._slots(Resources(num_cpus=2.0), 2).bound == 2
    with pytest.raises(ClusterError, match="6 workers with 2 CPUs, 0 GPUs each are asked for, and the cluster holds 5"):
        module._slots(Resources(num_cpus=2.0), 6)


@pytest.mark.parametrize(
    ("stage", "slots", "lanes", "threads"),
    [
        (DOUBLE, 2, 0, 32),
        (DOUBLE, 100, 0, 104),
        (DOUBLE, 5000, 0, 512),
        (WITH_ENGINE, 1, 200, 208),
        (WITH_ENGINE, 1, 2, 32),
    ],
)
def test_a_run_has_a_thread_for_each_place_of_the_cluster_up_to_a_limit(
    tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch, stage: Stage, slots: int, lanes: int, threads: int
) -> None:
    monkeypatch.delenv("RENEG_MAX_PARTS", raising=False)
    executor = executor_of(tmp_path, work)
    executor._pool = SimpleNamespace(lanes=lanes)
    assert executor._threads(stage, module.Slots(lambda: slots)) == threads


def test_finished_parts_are_told_one_by_one_and_an_empty_stage_tells_nothing() -> None:
    told: list[tuple[str, int, int]] = []

    def on_part(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))

    done = module._Counter("double", 2, on_part, module.StageProgress("double", 2))
    done.add()
    done.add()
    module._Counter("empty", 0, on_part, module.StageProgress("empty", 0))
    assert told == [("double", 0, 2), ("double", 1, 2), ("double", 2, 2)]
    assert done.done == 2


def test_lines_are_shown_under_the_time_at_which_they_were_logged_and_with_the_runs_fields() -> None:
    records: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger = logging.Logger("a run", logging.INFO)
    logger.addHandler(Keeping())
    show = module._show_in(logging.LoggerAdapter(logger, {"task_run_id": "7"}))
    show(1234.25, logging.INFO, "100% of it")
    show(1234.25, logging.DEBUG, "too fine")
    module._show_in(logger)(2.0, logging.ERROR, "plain")
    assert [(r.created, r.msecs, r.levelno, r.getMessage()) for r in records] == [
        (1234.25, 250.0, logging.INFO, "100% of it"), (2.0, 0.0, logging.ERROR, "plain"),
    ]  # fmt: skip
    assert records[0].task_run_id == "7"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("data", "retry"),
    [(PartError("x", retry=True), True), (PartError("x", retry=False), False), (BudgetReached("x"), False)],
)
def test_an_attempt_is_repeated_only_if_its_error_says_so(data: Exception, retry: bool) -> None:
    assert module._may_retry(None, None, SimpleNamespace(data=data)) is retry  # type: ignore[arg-type]


def test_many_reused_parts_are_shown_as_one_and_the_results_are_theirs(
    tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[str, int]] = []
    tables: list[int] = []
    monkeypatch.setattr(module, "_show_reused", lambda stage, parts: shown.append((stage, parts)))
    monkeypatch.setattr(module, "show_stage", lambda name, specs, finished, results: tables.append(len(results)))
    specs = [spec_of(number=number) for number in range(101)]
    finished = {spec.number: replace(MANIFEST, part=spec.number) for spec in specs}
    executor = executor_of(tmp_path, work)
    assert executor.run_stage("double", specs, finished) == finished
    assert (shown, tables, executor.task_runs) == ([("double", 101)], [101], 1)


def test_a_part_that_is_finished_is_shown_as_cached_and_computes_nothing() -> None:
    def refuse(spec: PartSpec, show: Show) -> Manifest:
        raise AssertionError("a finished part is not computed")

    attempts = module._Attempts(spec_of(), nullcontext(), refuse)
    done = module._Counter("double", 1, lambda *_: None, module.StageProgress("double", 1))
    state = module._part.fn(module._PartWork(attempts, MANIFEST, done))
    assert (state.name, state.data, done.done) == ("Cached", MANIFEST, 0)
    assert state.message == f"reused {MANIFEST.path}"
