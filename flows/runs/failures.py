"""How a run with failed parts ends: the error, and its message with the command that repairs each part."""

from flows.method.setup import CurationFailed
from infra.execution.usage_meter import BudgetReached

_SHOWN = 3  # parts with the same reason whose repairing command is spelt out
_BUDGET = BudgetReached.__name__


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
