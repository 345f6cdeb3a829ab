"""Tallies: named counts of one query part, which add up over all parts (`tasks.summaries.TALLIES`)."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import polars as pl

from tasks.quality.imported import IMPORTED
from tasks.schemas import SOURCE_JUDGE
from tasks.summaries import TALLIES
from tasks.verdicts.pairs import PAIR

# What is counted: its subject, and what `of` and `kind` say of it.
QUERIES = "queries"  # of: split
CANDIDATES = "candidates"
IMPORTED_PAIRS, ASKED = "imported", "asked"  # verdicts from a table; pairs that any tier but similarity judged
LABELLED = "labelled"  # pairs that the source itself calls irrelevant
DECIDED = "decided"  # of: dataset. kind: state
PASSED = "passed"  # pairs that two tiers judged, one after the other. of: the first, kind: the second
JUDGES = "judges"  # verdicts. of: tier. kind: judge
WINDOWS = "windows"  # verdicts that name a window of their passage. of: tier. kind: see `count_windows`
EDITED = "edited"  # of: dataset. kind: what became of the pair
DROPPED = "dropped"  # queries
_KEY = [*PAIR, "tier"]
_NONE = pl.lit("")


def tally(subject: str, count: int, of: str = "", kind: str = "") -> pl.DataFrame:
    """Return one tally."""
    return pl.DataFrame([(subject, of, kind, count)], schema=TALLIES.columns, orient="row")


def tallies(subject: str, frame: pl.DataFrame, of: str, kind: str | pl.Expr = _NONE) -> pl.DataFrame:
    """Count the rows of a frame by one column, or by two, of which the second may be computed."""
    by = frame.select(of=of, kind=kind)
    counted = by.group_by("of", "kind").agg(count=pl.len().cast(pl.Int64))
    return counted.select(subject=pl.lit(subject), of="of", kind="kind", count="count")


def together(found: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return several tallies as one table."""
    return pl.concat([TALLIES.empty(), *found]).sort("subject", "of", "kind")


def count_verdicts(
    candidates: pl.DataFrame, judges: Sequence[tuple[str, pl.DataFrame]], llm_verdicts: pl.DataFrame
) -> list[pl.DataFrame]:
    """Count what each tier judged.

    Args:
        candidates: a table of CANDIDATES.
        judges: the tiers in the order asked, similarity first, each with its VERDICTS.
        llm_verdicts: VERDICTS of all tiers after similarity.
    """
    imported = pl.col("tier") == IMPORTED
    passed = [
        tally(PASSED, judged.join(asked, on=PAIR, how="semi").height, before, tier)
        for (before, judged), (tier, asked) in pairwise(judges)
    ]
    return [
        tally(CANDIDATES, candidates.height),
        tally(IMPORTED_PAIRS, llm_verdicts.filter(imported).height),
        tally(ASKED, llm_verdicts.filter(~imported).select(PAIR).n_unique()),
        tallies(JUDGES, llm_verdicts, "tier", "judge"),
        *passed,
    ]


def count_decisions(decisions: pl.DataFrame) -> list[pl.DataFrame]:
    """Count the decisions by dataset and state, and those that the source itself made."""
    by_source = decisions.filter(pl.col("judge") == SOURCE_JUDGE).height
    return [tallies(DECIDED, decisions, "dataset", "state"), tally(LABELLED, by_source)]


def count_windows(windows: pl.DataFrame, verdicts: pl.DataFrame, reads: int | None) -> list[pl.DataFrame]:
    """Count, by tier, on which part of its passage a verdict rests; see `tasks.report.beyond`.

    Args:
        windows: a table of `schemas.WINDOWS`: the window that decided each verdict.
        verdicts: the verdicts of the tiers, with their states.
        reads: tokens that the trainer reads of a passage; None if that is not known.
    """
    placed = windows.join(verdicts.select(*_KEY, "state"), on=_KEY, how="inner")
    relevant, unread = pl.col("state") == "relevant", pl.lit(reads, dtype=pl.Int64)
    begins, ends = pl.col("start_tokens") >= unread, pl.col("end_tokens") > unread
    kinds = {
        "verdicts": pl.lit(True),
        "long": pl.col("windows") > 1,
        "further": pl.col("start") > 0,
        "relevant": relevant,
        "beyond": relevant & begins,
        "partly": relevant & ends & ~begins,
    }
    return [tallies(WINDOWS, placed.filter(of_kind), "tier", pl.lit(kind)) for kind, of_kind in kinds.items()]


def count_edits(edits: pl.DataFrame) -> list[pl.DataFrame]:
    """Count the edits by dataset and by what became of the pair, and the queries that were dropped."""
    dropped = edits.filter(pl.col("to") == "dropped").select(PAIR[:2]).n_unique()
    return [tallies(EDITED, edits, "dataset", "to"), tally(DROPPED, dropped)]
