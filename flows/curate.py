"""The Prefect flow of the command line: one flow run per curation, one task run per part."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from prefect import State, flow
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.method import CurationFailed, WaitingForLabels
from infra.execution.usage_meter import BudgetReached

MAX_PARTS_IN_FLIGHT = 32
_SHOWN = 3  # parts with the same reason whose repairing command is spelt out
_BUDGET = BudgetReached.__name__


@dataclass(frozen=True)
class Work:
    """What a flow run works on; it stays in this process, Prefect sees the curation's name only."""

    do: Callable[[], None]
    ended: Callable[[Exception], None]  # told why it was not finished


WORK: ContextVar[Work] = ContextVar("work")


@flow(
    name="curate",
    flow_run_name="{curation}",
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_PARTS_IN_FLIGHT),  # type: ignore[arg-type]
    persist_result=False,
)
def curate(curation: str) -> State[Any]:
    """Curate once: compute every part that has no manifest, reuse the others.

    Raises:
        CurationFailed: parts failed. Their siblings were computed; what waits for them was not.
    """
    work = WORK.get()
    try:
        work.do()
    except WaitingForLabels as waiting:
        work.ended(waiting)
        return Completed(name="Waiting", message=str(waiting))
    except Exception as error:
        work.ended(error)
        raise
    return Completed(message=f"{curation}: finished")


class CurationStopped(CurationFailed):
    """A budget or the end of the night stopped a curation; what it finished is kept."""


def failure_of(curation: str, failed: list[tuple[str, int, str]], again: str = "") -> CurationFailed:
    """Make the error that a flow run with failed parts ends with; for `again` see `explain_failures`."""
    stopped = all(_BUDGET in reason for _, _, reason in failed)
    return (CurationStopped if stopped else CurationFailed)(explain_failures(curation, failed, again))


def explain_failures(curation: str, failed: list[tuple[str, int, str]], again: str = "") -> str:
    """List failed parts, each with its reason and the command that computes it again.

    again: what does it, for work whose parts are not computed one by one; empty for `reneg rerun`.

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
        if again:
            continue
        rerun = f"    reneg rerun {curation} --stage {stage}"
        lines += [f"{rerun} --part {number} --downstream" for number in numbers[:_SHOWN]]
        if len(numbers) > _SHOWN:
            lines.append(f"    … or type the same command again: it computes these {len(numbers)} parts and no other")
    if again:
        lines.append(f"    {again}   # computes these and what waits for them, and no other")
    return "\n".join(lines)
