"""The report's part on the labels that came with the data: positives and queries that are in doubt."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

_SHOWN = 20  # positives and queries listed on the page; the export of the verdicts has all


@dataclass(frozen=True)
class LabelChecks:
    """What the checks of the given labels found.

    positives: how many were put to a judge. doubted, unparsed: those that it called not relevant, or did not judge.
    unclear: queries without a clear answer, by reason. examples, queries: the first of them, as rows.
    """

    positives: int
    doubted: int
    unparsed: int
    unclear: dict[str, int]
    examples: tuple[dict[str, Any], ...]
    queries: tuple[dict[str, Any], ...]

    @property
    def sentences(self) -> list[str]:
        """Say what was found, one sentence each; nothing where nothing was checked."""
        said = []
        if self.positives:
            said.append(
                f"Of {self.positives:,} positives that were put to a judge, {self.doubted:,} are in doubt (`unsure`) "
                f"and {self.unparsed:,} have no readable answer. They stay positives until people say otherwise."
            )
        said += [f"{count:,} queries have no clear answer: {reason}." for reason, count in self.unclear.items()]
        return said

    def as_json(self) -> dict[str, Any]:
        """Return the counts and the sentences, for summary.json and `reneg stats`."""
        counts = {"positives": self.positives, "doubted": self.doubted, "unparsed": self.unparsed}
        return {**counts, "unclear_queries": self.unclear, "sentences": self.sentences}


def sum_up_checks(
    decisions: pl.DataFrame | Iterable[pl.DataFrame], queries: pl.DataFrame | Iterable[pl.DataFrame]
) -> LabelChecks:
    """Count what is in doubt. Tables may come in frames, of which one is in memory at a time.

    Args:
        decisions: VERDICTS on the positives; `unsure` where the judge doubts one.
        queries: a table of QUERY_CHECKS.
    """
    states, first = Counter[str](), list[pl.DataFrame]()
    for frame in _frames(decisions):
        states.update(frame["state"].to_list())
        doubted = frame.filter(pl.col("state") == "unsure").select("dataset", "query_id", "doc_id", "score")
        order = ("score", "dataset", "query_id", "doc_id")
        first = [pl.concat([*first, doubted]).sort(order, nulls_last=True).head(_SHOWN)]
    reasons, unclear = Counter[str](), list[pl.DataFrame]()
    for frame in _frames(queries):
        reasons.update(frame["reason"].to_list())
        unclear = [pl.concat([*unclear, frame]).sort("dataset", "query_id").head(_SHOWN)]
    return LabelChecks(
        positives=states.total(),
        doubted=states["unsure"],
        unparsed=states["unparsed"],
        unclear=dict(sorted(reasons.items())),
        examples=tuple(row for frame in first for row in frame.to_dicts()),
        queries=tuple(row for frame in unclear for row in frame.to_dicts()),
    )


def _frames(table: pl.DataFrame | Iterable[pl.DataFrame]) -> Iterable[pl.DataFrame]:
    return [table] if isinstance(table, pl.DataFrame) else table
