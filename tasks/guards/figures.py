"""Sum up what the guards found, for the report, summary.json and the terminal."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tasks.formatting import percent
from tasks.guards.evaluation import CONTAMINATION
from tasks.guards.groups import CORPUS
from tasks.guards.repeats import POSITIVES
from tasks.guards.rows import NEGATIVE_IS_POSITIVE, ROWS, SAME_POSITIVE

_NAMES = {CONTAMINATION: "text of an evaluation set", POSITIVES: "candidate that repeats a positive"}
_EXAMPLE = "example"
_SHOWN = 5
_LARGEST = "largest"  # a measure of which the largest counts, not the sum


@dataclass(frozen=True)
class Guarded:
    """What the guards found.

    counts: by guard (positives, corpus, contamination, rows-<treatment>), the figures by name. passages: of the corpus.
    examples: by guard, ids with a sentence.
    """

    counts: dict[str, dict[str, int]]
    passages: int
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        """Say what was found, one sentence for each guard that was on."""
        says = {CONTAMINATION: _say_contamination, POSITIVES: _say_positives, CORPUS: self._say_corpus}
        said = [says[guard](counts) for guard, counts in self.counts.items() if guard in says]
        named = {guard.removeprefix(f"{ROWS}-"): counts for guard, counts in self.counts.items() if guard not in says}
        return [*said, *(_say_rows(treatment, counts) for treatment, counts in named.items())]

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The examples, each with the name of its guard, for the page."""
        named = {guard: _NAMES.get(guard, guard.replace("-", " of ", 1)) for guard in self.examples}
        return [(named[guard], example) for guard, examples in self.examples.items() for example in examples]

    def _say_corpus(self, counts: dict[str, int]) -> str:
        if not counts["texts"]:
            return "No passage has a near duplicate."
        share = percent(counts["texts"] / self.passages) if self.passages else "an unknown share"
        return (
            f"{counts['texts']:,} passages ({share}) have a near duplicate; they form {counts['groups']:,} groups, the "
            f"largest of {counts[_LARGEST]:,}. With one of each group, {counts['removable']:,} passages fewer would do."
        )

    def as_json(self) -> dict[str, Any]:
        """Return counts, examples and sentences, for summary.json."""
        return {**self.counts, "examples": self.examples, "sentences": self.sentences}


def sum_up_guards(figures: pl.DataFrame | None, passages: int = 0) -> Guarded | None:
    """Sum the figures of all parts; None where no guard was on.

    Args:
        figures: a table of GUARD_FIGURES, of all parts.
        passages: of the corpus.
    """
    if figures is None or figures.is_empty():
        return None
    counted = figures.filter(pl.col("measure") != _EXAMPLE)
    value = pl.when(pl.col("measure") == _LARGEST).then(pl.col("value").max()).otherwise(pl.col("value").sum())
    summed = counted.group_by("guard", "measure").agg(value.first()).sort("guard", "measure")
    counts: dict[str, dict[str, int]] = {}
    for guard, measure, number in summed.iter_rows():
        counts.setdefault(guard, {})[measure] = int(number)
    listed = figures.filter(pl.col("measure") == _EXAMPLE, pl.col("guard") != CORPUS)
    listed = listed.sort("guard", "value", "example", descending=[False, True, False])
    examples: dict[str, list[str]] = {}
    for guard, example in listed.group_by("guard", maintain_order=True).head(_SHOWN).select("guard", "example").rows():
        examples.setdefault(guard, []).append(example)
    return Guarded(counts, passages, examples)


def _say_contamination(counts: dict[str, int]) -> str:
    against = (
        f"{counts.get('evaluation_queries', 0):,} queries and {counts.get('evaluation_passages', 0):,} passages of "
        "evaluation sets"
    )
    asked, found = counts.get("queries", 0), counts.get("found", 0)
    if not found:
        return f"None of {asked:,} training queries repeats, itself or in a positive, a text of {against}."
    dropped = counts.get("dropped", 0)
    return (
        f"{found:,} of {asked:,} training queries ({percent(found / asked)}) repeat a text of {against}: "
        f"{counts['by_query']:,} by the query, {counts['by_positive']:,} by a positive. "
        + (f"{dropped:,} were dropped." if dropped else "They stay in the training data.")
    )


def _say_positives(counts: dict[str, int]) -> str:
    if not counts["found"]:
        return f"None of {counts['candidates']:,} candidates nearly repeats a positive of its query."
    done = f"{counts['dropped']:,} were dropped before judging" if counts["dropped"] else "they were judged as others"
    return (
        f"{counts['found']:,} of {counts['candidates']:,} candidates "
        f"({percent(counts['found'] / counts['candidates'])}) nearly repeat a positive of their query, of "
        f"{counts['queries']:,} queries; {done}."
    )


def _say_rows(treatment: str, counts: dict[str, int]) -> str:
    pairs = counts[SAME_POSITIVE] + counts[NEGATIVE_IS_POSITIVE]
    if not pairs:
        return f"No two rows of {treatment} have a text in common that forbids a common batch."
    left = f" {counts['left_out']:,} further pairs are not listed (guards.most_rows)." if counts["left_out"] else ""
    return (
        f"{pairs:,} pairs of rows of {treatment} must not share a batch: {counts[SAME_POSITIVE]:,} have a positive in "
        f"common, in {counts[NEGATIVE_IS_POSITIVE]:,} a negative of one is a positive of the other.{left}"
    )
