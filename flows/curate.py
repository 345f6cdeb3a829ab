"""The Prefect flow: one flow run per curation, one task run per part."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.method import CurationFailed, Outcome, Setup, curate_method
from infra.execution import PrefectRayExecutor
from infra.meter import BudgetReached
from infra.runner import Runner

_MAX_PARTS_IN_FLIGHT = 32
_SHOWN = 3  # parts with the same reason whose repairing command is spelt out
_BUDGET = BudgetReached.__name__


@dataclass(frozen=True)
class Work:
    """What a flow run works on; it stays in this process, Prefect sees the curation's name only."""

    setup: Setup
    executor: Callable[[], PrefectRayExecutor]
    runner: Callable[[PrefectRayExecutor], Runner]
    done: Callable[[Outcome], None]


WORK: ContextVar[Work] = ContextVar("work")


@flow(
    name="curate",
    flow_run_name="{curation}",
    task_runner=ThreadPoolTaskRunner(max_workers=_MAX_PARTS_IN_FLIGHT),  # type: ignore[arg-type]
    persist_result=False,
)
def curate(curation: str) -> None:
    """Curate once: compute every part that has no manifest, reuse the others.

    Raises:
        CurationFailed: parts failed. Their siblings were computed; what waits for them was not.
    """
    work = WORK.get()
    with work.executor() as executor:
        run = work.runner(executor)
        outcome = curate_method(run, work.setup)
    failed = [(r.name, number, reason) for r in run.runs for number, reason in sorted(r.failed.items())]
    if failed:
        raise CurationFailed(explain_failures(curation, failed))
    work.done(outcome)


def explain_failures(curation: str, failed: list[tuple[str, int, str]]) -> str:
    """List failed parts, each with its reason and the command that computes it again.

    Parts that a used-up budget stopped are not failures to repair one by one: they are told in one line.
    """
    stopped = [reason for _, _, reason in failed if _BUDGET in reason]
    if len(stopped) == len(failed):
        reason = stopped[0].partition(_BUDGET)[2].lstrip(": ")
        return (
            f"stopped: {reason}. {len(stopped)} part(s) are left; every answer so far is kept and not paid for again.\n"
            "Type the same command again for another run of that budget, or raise it."
        )
    lines = [f"{len(failed)} part(s) failed; everything else is kept."]
    by_reason: dict[tuple[str, str], list[int]] = {}
    for stage, number, reason in failed:
        by_reason.setdefault((stage, reason), []).append(number)
    for (stage, reason), numbers in by_reason.items():
        lines.append(f"  {stage} part {', '.join(map(str, numbers))}: {reason}")
        lines += [f"    reneg rerun {curation} --stage {stage} --part {number}" for number in numbers[:_SHOWN]]
        if len(numbers) > _SHOWN:
            lines.append(f"    … or type the same command again: it computes these {len(numbers)} parts and no other")
    return "\n".join(lines)
