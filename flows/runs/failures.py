"""The error that a run with failed parts ends with; its message has a command per part that computes it again."""

from flows.method.setup import CurationFailed
from infra.execution.usage_meter import BudgetReached

_SHOWN = 3  # parts with the same reason for which the command is listed
_BUDGET = BudgetReached.__name__
_OF_A_SETTING = "in the tier's `"  # what the remedy of a fault of every request names, where it is a setting


class CurationStopped(CurationFailed):
    """A budget or the end of the night stopped a curation; its finished parts are kept."""


def failure_of(curation: str, failed: list[tuple[str, int, str]], again: str = "") -> CurationFailed:
    """Return the error that a flow run with failed parts ends with; for `again` see `explain_failures`."""
    stopped = all(_BUDGET in reason for _, _, reason in failed)
    return (CurationStopped if stopped else CurationFailed)(explain_failures(curation, failed, again))


def after_a_change(reason: str) -> str:
    """Return how a part that failed for a setting is computed with another one; empty for all other reasons.

    >>> after_a_change("status 422: seed: no; set `seed: null` in the tier's `engine`")
    'change that in the file and run `reneg curate FILE`: `reneg rerun` keeps the settings as they were'
    >>> after_a_change("engine died")
    ''
    """
    if _OF_A_SETTING not in reason:
        return ""
    return "change that in the file and run `reneg curate FILE`: `reneg rerun` keeps the settings as they were"


def explain_failures(curation: str, failed: list[tuple[str, int, str]], again: str = "") -> str:
    """List failed parts, each with its reason and the command that computes it again.

    again: the command for work whose parts are not computed one by one; empty for `reneg rerun`.

    Parts that a used-up budget stopped are summed up in one line.
    """
    stopped = [reason for _, _, reason in failed if _BUDGET in reason]
    if len(stopped) == len(failed):
        reason = stopped[0].partition(_BUDGET)[2].lstrip(": ")
        return (
            f"stopped: {reason}. {len(stopped)} part(s) are left; every answer so far is kept and not paid for again.\n"
            "Run the same command again to use that budget once more, or raise it."
        )
    lines = [f"{len(failed)} part(s) failed; everything else is kept."]
    by_reason: dict[tuple[str, str], list[int]] = {}
    for stage, number, reason in failed:
        by_reason.setdefault((stage, reason), []).append(number)
    for (stage, reason), numbers in by_reason.items():
        lines.append(f"  {stage} part {', '.join(map(str, numbers))}: {reason}")
        if change := after_a_change(reason):
            lines.append(f"    {change}")
        if again:
            continue
        rerun = f"    reneg rerun {curation} --stage {stage}"
        lines += [f"{rerun} --part {number} --downstream" for number in numbers[:_SHOWN]]
        if len(numbers) > _SHOWN:
            lines.append(f"    … or run the same command again: it computes these {len(numbers)} parts and no others")
    if again:
        lines.append(f"    {again}   # computes these and the parts that wait for them")
    return "\n".join(lines)
