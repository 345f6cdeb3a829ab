"""Where Prefect meets Ray: one Prefect task run per part on a thread, the work in Ray, the finished parts in the store.

Prefect schedules, retries and shows; it caches and persists nothing. Ray computes and never retries. A part that has a
manifest is shown as `Cached`; where a stage has many of them, one task run stands for all, and the stage's table lists
them. Ray's failures become failed attempts with their reason.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from pydantic import BaseModel

from infra.cluster.ray_cluster import ClusterError, describe, granted, head_watched, slots_for, slots_now
from infra.execution.metrics import count_part
from infra.execution.part_logs import PartLog, PartLogs, Show
from infra.execution.prefect_ui import StageProgress, show_stage
from infra.execution.ray_tasks import LOST, STOPPED, await_ray, begin_anew, give_up, given_up, refuse_if_given_up
from infra.execution.sent_parts import unpack_result
from infra.execution.slots import Slots
from infra.execution.usage_meter import Budget, BudgetReached, MeterLike, RemoteMeter
from infra.key_rules import KeyRules
from infra.ledger.names import ANSWERS, VECTORS
from infra.redact import no_secrets_in_errors
from infra.settings import autoscales, max_parts, waiting_parts
from infra.stages.compute_part import EngineNeeded
from infra.stages.runner import Failure, PartSpec
from infra.stages.stage import Resources, Stage
from infra.storage.artifacts import Manifest, Table
from infra.storage.store import Store

_RETRY_SECONDS = 1.0
_THREADS = 32  # parts in flight at least, each on a thread that mostly waits and takes 80 kB
_READY = 4  # parts that stand ready for the next free place
_PROBES = 4  # parts at a time that look up whether they need an engine
_SHOWN = 8  # reused parts of a stage that have a task run each; of more, one stands for all
OnPart = Callable[[str, int, int], None]


class PrefectRayExecutor:
    """Computes parts inside a Prefect flow run, on the Ray that this process is connected to."""

    def __init__(  # noqa: PLR0913 - each keyword is one matter
        self,
        store: Store,
        scratch: Path,
        *,
        meter: MeterLike | None = None,
        key_rules: KeyRules | None = None,
        until: float | None = None,
        on_part: OnPart = lambda stage, done, total: None,
        on_failure: Callable[[PartSpec, str], None] = lambda spec, reason: None,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            store: where parts are read and written.
            scratch: a folder of every machine for directory inputs.
            meter: counts what engines use up, for all of them; None counts without a limit.
            key_rules: which keys an endpoint may use, for a configuration from the store; None for the user's own file.
            until: seconds since the epoch, after which no further part is begun.
            on_part: called as (stage, parts done, parts to do), from any thread.
            on_failure: called when a part failed for good.
        """
        self._store = store
        self._scratch = scratch
        self._meter = meter
        self._key_rules = key_rules
        self._end = Budget(until=until)
        self._on_part = on_part
        self._on_failure = on_failure
        self._pool: Any = None
        self._logs: PartLogs | None = None
        self._watch = ExitStack()
        self.task_runs = 0  # submitted so far
        self._lock = threading.Lock()  # stages side by side come from several threads
        self._remembers = False  # whether anything at all is remembered of what the stage computes
        self._probes = threading.BoundedSemaphore(_PROBES)

    def __enter__(self) -> "PrefectRayExecutor":
        """Start nothing yet, but watch whether another cluster takes the place of ours."""
        begin_anew()
        self._watch.enter_context(head_watched(lambda: give_up(LOST)))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Release the engines and the actor that holds log lines; on SIGTERM or Ctrl-C give the parts up first."""
        if kind is not None and not issubclass(kind, Exception):
            give_up(STOPPED)
        self._watch.close()
        self._release()
        if self._logs is not None:
            self._logs.close()
            self._logs = None

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        """Compute the parts of one stage; each is a Prefect task run named after stage and part.

        Many reused parts are one task run, such as `judge-llm (2990 reused)`. Several threads may call this at a time,
        for stages of which none but one needs an engine.
        """
        unfinished = [spec for spec in specs if spec.number not in finished]
        results: dict[int, Manifest | Failure] = {}
        shown = specs
        if len(finished) > _SHOWN:
            shown, results = unfinished, {s.number: finished[s.number] for s in specs if s.number in finished}
            _show_reused(name, len(results))
        slots: AbstractContextManager[Any] = nullcontext()
        threads = Slots(lambda: _THREADS)
        if unfinished and not given_up():  # else each part says why
            with self._lock:
                self._prepare(unfinished[0].stage, unfinished[0].engine)
            slots = places = _slots(unfinished[0].stage.resources, unfinished[0].workers)
            threads = Slots(lambda: self._threads(unfinished[0].stage, places))
        progress = StageProgress(name, len(unfinished))
        done = _Counter(name, len(unfinished), self._on_part, progress)
        futures = {}
        for spec in shown:
            attempts = _Attempts(spec, slots, self._compute)
            run = _part.with_options(task_run_name=spec.name, retries=spec.stage.retries)
            threads.take()
            futures[spec.number] = run.submit(_PartWork(attempts, finished.get(spec.number), done))
            futures[spec.number].add_done_callback(lambda future: threads.give_back())
        with self._lock:
            self.task_runs += len(futures) + (len(finished) > _SHOWN)
        for spec in shown:
            futures[spec.number].wait()
            state = futures[spec.number].state
            if state.is_completed():
                manifest: Manifest = state.result()
                results[spec.number] = manifest
                continue
            reason = (state.message or "failed without a reason").removeprefix("Task run encountered an exception ")
            results[spec.number] = Failure(reason)
            self._on_failure(spec, reason)
        progress.close(done.done)
        show_stage(name, specs, finished, results)
        return results

    def _threads(self, stage: Stage, slots: Slots) -> int:
        """Count the threads that a stage needs now: one for each part at work, and a few that stand ready."""
        needed = slots.bound if stage.engine is None else self._pool.lanes + _PROBES
        return min(max_parts(), max(_THREADS, needed + _READY))

    def _compute(self, spec: PartSpec, show: Show) -> Manifest:
        refuse_if_given_up()
        if over := self._end.is_over():
            raise BudgetReached(over)
        if spec.stage.engine is None:
            # Workers have CPUs of their own, and the part only waits for them.
            return self._compute_plainly(spec, spec.stage.resources.num_cpus if spec.workers == 1 else 0.0, show)
        empty = not any(table.rows for i in spec.stage.each if isinstance(table := spec.inputs[i], Table))
        if (spec.stage.ledger and (self._remembers or empty)) or (spec.stage.vectors and self._remembers and not empty):
            # On no CPU of its own: the engine may hold them all, and this is little more than reading.
            with suppress(EngineNeeded), self._probes:
                return self._compute_plainly(spec, 0.0, show)
        manifest: Manifest = self._pool.compute(spec, self._store.url, self._scratch, self._open_log(show))
        return manifest

    def _compute_plainly(self, spec: PartSpec, num_cpus: float, show: Show) -> Manifest:
        from infra.execution.ray_tasks import submit_part

        log = self._open_log(show)
        reference = submit_part(self._store.url, spec, self._scratch, num_cpus, log.sender())
        deadline = spec.stage.resources.deadline
        manifest: Manifest = await_ray(reference, deadline, log, queue=deadline * waiting_parts())
        return unpack_result(spec, manifest)

    def _open_log(self, show: Show) -> PartLog:
        return PartLog(None, show) if self._logs is None else self._logs.open(show)

    def _prepare(self, stage: Stage, engine: BaseModel | None) -> None:
        if self._pool is not None and (self._pool.spec != engine or self._pool.resources != stage.resources):
            self._release()
        if self._logs is None:
            self._logs = PartLogs()
        if stage.ledger or stage.vectors:
            self._remembers = self._store.holds(VECTORS if stage.vectors else ANSWERS)
        if stage.engine is not None and self._pool is None:
            from infra.execution.engine_pool import EnginePool

            if engine is None:
                raise ValueError(f"stage {stage.name} needs an engine of kind {stage.engine!r}, none was given")
            if self._meter is None:
                self._meter = RemoteMeter.start(Budget(), {})
            self._pool = EnginePool(engine, stage.resources, self._meter, self._key_rules)

    def _release(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _slots(resources: Resources, workers: int = 1) -> Slots:
    """Bound the parts in Ray at a time, so that the clock of a part starts when it can work.

    The bound follows the nodes. Where the cluster grows, some parts more wait in Ray, so that its autoscaler sees them.
    workers: how many times the resources one part takes.

    Raises:
        ClusterError: they do not fit into the cluster, which does not grow.
    """
    able = granted(resources)
    if workers > 1 and not autoscales() and slots_for(able) < workers:
        raise ClusterError(
            f"{workers} workers with {describe(able)} each are asked for, and the cluster holds {slots_for(able)} at a "
            "time; lower `resources` or `train.workers` in the configuration, or add nodes"
        )

    def count() -> int | None:
        now = slots_now(resources)
        return None if now is None else now // workers + waiting_parts()

    return Slots(count)


class _Counter:
    """Counts finished parts over threads and tells the progress bar."""

    def __init__(self, stage: str, total: int, on_part: OnPart, progress: StageProgress) -> None:
        self._stage, self._total, self._on_part, self._progress = stage, total, on_part, progress
        self.done = 0
        self._lock = threading.Lock()
        if total:
            on_part(stage, 0, total)

    def add(self) -> None:
        with self._lock:
            self.done += 1
            self._on_part(self._stage, self.done, self._total)
        self._progress.update(self.done)


class _Attempts:
    """The attempts of one part: what the last failure means for the next one."""

    def __init__(
        self, spec: PartSpec, slots: AbstractContextManager[Any], compute: Callable[[PartSpec, Show], Manifest]
    ) -> None:
        self.spec = spec
        self._slots = slots
        self._compute = compute

    def run(self, show: Show) -> Manifest:
        stage = self.spec.stage_name
        try:
            if self.spec.stage.engine is not None:
                manifest = self._compute(self.spec, show)  # waits for a free engine slot instead
            else:
                with self._slots:
                    manifest = self._compute(self.spec, show)
        except Exception as error:
            if not isinstance(error, BudgetReached):
                count_part(stage, "killed" if getattr(error, "killed", False) else "failed")
            if getattr(error, "out_of_memory", False):
                self.spec = _smaller_batches(self.spec)
            raise
        count_part(stage, "computed", manifest.stats)
        return manifest


class _PartWork:
    """The argument of a part's task: one object that Prefect does not look into, so that it copies nothing."""

    __slots__ = ("attempts", "done", "finished")

    def __init__(self, attempts: _Attempts, finished: Manifest | None, done: _Counter) -> None:
        self.attempts, self.finished, self.done = attempts, finished, done


def _show_in(log: Any) -> Show:  # noqa: ANN401 - a logger or Prefect's adapter of one
    """Show lines in a run's log under the time at which they were logged; from any thread, and after the run too."""
    target, extra = (log.logger, log.extra) if isinstance(log, logging.LoggerAdapter) else (log, None)

    def show(at: float, level: int, text: str) -> None:
        if target.isEnabledFor(level):
            record = target.makeRecord(target.name, level, __file__, 0, text, (), None, extra=extra)
            record.created, record.msecs = at, at % 1 * 1000
            target.handle(record)

    return show


# A plain function, as Prefect demands: it does not call any other callable, it only negates it.
def _may_retry(_task: Any, _run: Any, state: State[Any]) -> bool:  # noqa: ANN401 - Prefect's own generics
    return bool(getattr(state.data, "retry", False))


@task(
    name="part",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_delay_seconds=_RETRY_SECONDS,
    retry_condition_fn=_may_retry,
)
@no_secrets_in_errors()
def _part(work: _PartWork) -> Any:  # noqa: ANN401 - a manifest, or a state that holds one
    spec = work.attempts.spec
    if work.finished is not None:
        return Completed(name="Cached", message=f"reused {work.finished.path}", data=work.finished)
    log = get_run_logger()
    manifest = work.attempts.run(_show_in(log))
    stats = manifest.stats
    log.info("%s: %s rows in, %s out, %.1f s of work", spec.name, stats["rows_in"], stats["rows_out"], stats["seconds"])
    work.done.add()
    return manifest


@task(name="reused parts", cache_policy=NO_CACHE, persist_result=False)
def _reused(parts: int) -> Any:  # noqa: ANN401 - a state
    return Completed(name="Cached", message=f"reused {parts} parts; the table of the stage lists them")


def _show_reused(stage: str, parts: int) -> None:
    """Show many reused parts as one task run. It is waited for, so that it stands before those that are computed."""
    _reused.with_options(task_run_name=f"{stage} ({parts} reused)").submit(parts).wait()


def _smaller_batches(spec: PartSpec) -> PartSpec:
    """Halve the batch size where it is operational; a training's decides the weights, and the key covers it."""
    size = spec.config.get("batch_size")
    if spec.stage.trains or not isinstance(size, int) or size < 2:  # noqa: PLR2004 - one is the smallest batch
        return spec
    return replace(spec, config={**spec.config, "batch_size": size // 2})
