"""Count the verdicts that rest on text which the trainer does not read."""

from typing import Any

import polars as pl

_KEY = ["dataset", "query_id", "doc_id", "tier"]


def sum_up_windows(windows: pl.DataFrame, verdicts: pl.DataFrame, reads: int | None) -> list[dict[str, Any]]:
    """Count, by tier, on which part of its passage a verdict rests.

    Args:
        windows: a table of `schemas.WINDOWS`: the window that decided each verdict.
        verdicts: the verdicts of the tiers, with their states.
        reads: tokens that the trainer reads of a passage; None if that is not known.

    Returns:
        One row per tier. verdicts: those that were read. long: of passages with several windows. further: that rest on
        a window which does not begin the passage. relevant: verdicts that are relevant. beyond: relevant ones whose
        window begins after the tokens that are read, so that the trainer sees nothing of it. partly: relevant ones
        whose window ends after them. share: of `beyond` in `relevant`; None without relevant verdicts. The last three
        are None where `reads` is. Tokens are estimated by `tasks.prompts.windows.estimate_tokens`.
    """
    placed = windows.join(verdicts.select(*_KEY, "state"), on=_KEY, how="inner")
    relevant, unread = pl.col("state") == "relevant", pl.lit(reads, dtype=pl.Int64)
    begins, ends = pl.col("start_tokens") >= unread, pl.col("end_tokens") > unread
    rows = (
        placed.group_by("tier")
        .agg(
            verdicts=pl.len(),
            long=(pl.col("windows") > 1).sum(),
            further=(pl.col("start") > 0).sum(),
            relevant=relevant.sum(),
            beyond=(relevant & begins).sum(),
            partly=(relevant & ends & ~begins).sum(),
        )
        .sort("tier")
        .to_dicts()
    )
    for row in rows:
        if reads is None:
            row |= {"beyond": None, "partly": None}
        row["share"] = row["beyond"] / row["relevant"] if row["relevant"] and reads is not None else None
    return rows
