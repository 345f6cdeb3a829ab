"""Say how many verdicts rest on text which the trainer does not read."""

from typing import Any

import polars as pl

from tasks.report.parts.add_up import Sums
from tasks.report.parts.tallies import WINDOWS

_COUNTED = ("verdicts", "long", "further", "relevant", "beyond", "partly")


def sum_up_windows(sums: Sums, reads: int | None) -> list[dict[str, Any]]:
    """Say, by tier, on which part of its passage a verdict rests.

    Args:
        sums: of all parts, with the tallies of `tasks.report.parts.tallies.count_windows`.
        reads: tokens that the trainer reads of a passage, as they were counted; None if that is not known.

    Returns:
        One row per tier. verdicts: those that were read. long: of passages with several windows. further: that rest on
        a window which does not begin the passage. relevant: verdicts that are relevant. beyond: relevant ones whose
        window begins after the tokens that are read, so that the trainer sees nothing of it. partly: relevant ones
        whose window ends after them. share: of `beyond` in `relevant`; None without relevant verdicts. The last three
        are None where `reads` is. Tokens are estimated by `tasks.prompts.windows.estimate_tokens`.
    """
    tiers = sorted(set(sums.tallies.filter(pl.col("subject") == WINDOWS)["of"]))
    rows: list[dict[str, Any]] = []
    for tier in tiers:
        row: dict[str, Any] = {"tier": tier} | {name: sums.count(WINDOWS, tier, name) for name in _COUNTED}
        if reads is None:
            row |= {"beyond": None, "partly": None}
        row["share"] = row["beyond"] / row["relevant"] if row["relevant"] and reads is not None else None
        rows.append(row)
    return rows
