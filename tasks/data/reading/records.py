"""What readers yield: rows with their passages, passages and queries of a corpus, judgements; and batches of rows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from tasks.lines import Problem

BATCH_ROWS = 1_000
# The frames of a batch. `row` numbers the rows of the batch from 0; passages stand in reading order.
ROWS = {
    "row": pl.UInt32,
    "where": pl.String,
    "dataset": pl.String,
    "query_id": pl.String,
    "query": pl.String,
}
PASSAGES = {
    "row": pl.UInt32,
    "positive": pl.Boolean,
    "doc_id": pl.String,
    "title": pl.String,
    "text": pl.String,
    "score": pl.Float64,
}
EXTRAS = {"row": pl.UInt32, "name": pl.String, "value": pl.String}


class IngestError(ValueError):
    """The input as a whole cannot be used."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage. Its texts are cleaned but not yet cut to the longest length.

    score: the teacher's score of the row's query and this passage, if the row has one.
    """

    where: str
    doc_id: str
    title: str
    text: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a corpus (a BEIR folder)."""

    where: str
    query_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """One line of a qrels file."""

    where: str
    query_id: str
    doc_id: str
    relevance: int


@dataclass(frozen=True, slots=True)
class Given:
    """A candidate that the source itself gives for a query of a corpus. The rank begins with 1."""

    where: str
    query_id: str
    doc_id: str
    rank: int
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A training row: a query with its positives and negatives.

    extras: further fields of the row that are kept (`prompt`, `type`). problems: one for each passage or field of the
    row that is left out. unnamed: the query has no id, so that it may have further rows. repeats: the places of those
    rows, which were joined to this one.
    """

    where: str
    dataset: str | None
    query_id: str
    query: str
    positives: list[Passage]
    negatives: list[Passage]
    problems: list[Problem]
    extras: Mapping[str, str] = field(default_factory=dict)
    unnamed: bool = False
    repeats: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file, as frames: `ROWS`, their `PASSAGES` and `EXTRAS`; and what was left out on the way.

    repeats: by the number of a row, the places of the rows that were joined to it.
    """

    rows: pl.DataFrame
    passages: pl.DataFrame
    extras: pl.DataFrame
    problems: list[Problem]
    repeats: Mapping[int, list[str]] = field(default_factory=dict)


def batches_of(rows: Iterable[Row | Problem], size: int = BATCH_ROWS) -> Iterator[Batch]:
    """Collect rows into batches of `size` rows, in reading order."""
    kept: list[Row] = []
    problems: list[Problem] = []
    for item in rows:
        if isinstance(item, Problem):
            problems.append(item)
            continue
        kept.append(item)
        problems.extend(item.problems)
        if len(kept) >= size:
            yield batch_of(kept, problems)
            kept, problems = [], []
    if kept or problems:
        yield batch_of(kept, problems)


def batch_of(rows: list[Row], problems: list[Problem]) -> Batch:
    """Return rows as one batch, with problems that include those of the rows."""
    numbered = list(enumerate(rows))
    passages = (
        (number, positive, passage.doc_id, passage.title, passage.text, passage.score)
        for number, row in numbered
        for positive, passages in ((True, row.positives), (False, row.negatives))
        for passage in passages
    )
    return Batch(
        pl.DataFrame([(n, r.where, r.dataset, r.query_id, r.query) for n, r in numbered], schema=ROWS, orient="row"),
        pl.DataFrame(list(passages), schema=PASSAGES, orient="row"),
        pl.DataFrame([(n, k, v) for n, r in numbered for k, v in r.extras.items()], schema=EXTRAS, orient="row"),
        problems,
        {number: row.repeats for number, row in numbered if row.repeats},
    )
