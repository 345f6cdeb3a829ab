"""Add up what the query parts counted. One part's tables are in memory at a time, besides the sums."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from tasks.report.parts.scores import fewest_dots
from tasks.report.parts.tallies import JUDGES
from tasks.schemas import VERDICT_STATES, Schema
from tasks.summaries import CALL_SUMS, DOTS, ERRORS_BY_QUERY, RELEVANT_BY_QUERY, SCORES, TALLIES

Frames = pl.DataFrame | Iterable[pl.DataFrame]
_WAITING = 100_000  # rows that are kept before they are added up


def add_up(frames: Frames, schema: Schema, counts: tuple[str, ...]) -> pl.DataFrame:
    """Add up the counts of equal rows.

    Args:
        frames: of the schema.
        schema: of the table.
        counts: the columns that are added up.

    Returns:
        One row for each different row, sorted.
    """
    by = [name for name in schema.columns if name not in counts]
    total, waiting, rows = schema.empty(), list[pl.DataFrame](), 0
    for frame in _each(frames):
        waiting.append(frame)
        rows += frame.height
        if rows > max(_WAITING, total.height):
            total, waiting, rows = _added([total, *waiting], by, counts), [], 0
    return _added([total, *waiting], by, counts).select(*schema.columns).sort(by)


def _added(frames: list[pl.DataFrame], by: list[str], counts: tuple[str, ...]) -> pl.DataFrame:
    return pl.concat(frames).group_by(by).agg(pl.sum(*counts)).select(frames[0].columns)


def _each(frames: Frames) -> Iterator[pl.DataFrame]:
    yield from [frames] if isinstance(frames, pl.DataFrame) else frames


@dataclass(frozen=True)
class Sums:
    """The counts of all query parts.

    dots: of the plot of two judges. The others are tables of `tasks.summaries`, in which equal rows are added up.
    """

    tallies: pl.DataFrame
    scores: pl.DataFrame
    relevant: pl.DataFrame
    errors: pl.DataFrame
    dots: pl.DataFrame
    calls: pl.DataFrame

    @classmethod
    def of(cls, tables: Mapping[str, Frames]) -> "Sums":
        """Add up the tables of `sum_up_verdicts` and `sum_up_edits` (`edit_tallies`), by name."""
        dots = DOTS.empty()
        for frame in _each(tables["dots"]):
            dots = fewest_dots(pl.concat([dots, frame]))
        both = (frame for name in ("tallies", "edit_tallies") for frame in _each(tables[name]))
        return cls(
            tallies=add_up(both, TALLIES, ("count",)),
            scores=add_up(tables["scores"], SCORES, ("pairs",)),
            relevant=add_up(tables["relevant"], RELEVANT_BY_QUERY, ("queries",)),
            errors=add_up(tables["errors"], ERRORS_BY_QUERY, ("queries",)),
            dots=dots.sort("state", "hash"),
            calls=add_up(tables["call_sums"], CALL_SUMS, ("calls", "prompt_tokens", "output_tokens")),
        )

    def count(self, subject: str, of: str | None = None, kind: str | None = None) -> int:
        """Add up tallies of a subject; of all, or of one, of its groups."""
        named = {"subject": subject, "of": of, "kind": kind}
        wanted = [pl.col(name) == value for name, value in named.items() if value is not None]
        return int(self.tallies.filter(wanted)["count"].sum())

    def states(self, tier: str) -> dict[str, int]:
        """Count the verdicts of a tier by state, for all four states."""
        found = self.scores.filter(pl.col("tier") == tier).group_by("state").agg(pl.sum("pairs"))
        return dict.fromkeys(VERDICT_STATES, 0) | dict(found.iter_rows())

    def judged(self, tier: str) -> int:
        """Count the verdicts of a tier."""
        return int(self.scores.filter(pl.col("tier") == tier)["pairs"].sum())

    def decides(self, tier: str) -> bool:
        """Whether a tier decides anything: uncalibrated similarity leaves all pairs open, and has no errors."""
        states = self.states(tier)
        return bool(states["relevant"] or states["not_relevant"])

    def bins(self, tier: str, state: str) -> dict[int, int]:
        """Count the scores of a tier's verdicts in a state, by bin; what has no score is left out."""
        found = self.scores.filter(pl.col("tier") == tier, pl.col("state") == state).drop_nulls("bin")
        return dict(found.select("bin", "pairs").iter_rows())

    @property
    def judges(self) -> pl.DataFrame:
        """The judges that answered for each tier after similarity: tier, judge."""
        return self.tallies.filter(pl.col("subject") == JUDGES).select(tier="of", judge="kind")

    def calls_of(self, tier: str) -> pl.DataFrame:
        """Return the sums of the calls of a tier's judges."""
        return self.calls.join(self.judges.filter(pl.col("tier") == tier), on="judge", how="semi")
