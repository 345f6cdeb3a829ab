"""The training set that is written: instances with their texts, checked at once and read in chunks of bounded size."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.data.writing.config import ExportConfig
from tasks.data.writing.scores import Evidence, mark
from tasks.texts import combine_hashes

CHUNK_ROWS, CHUNK_BYTES = 2_000, 64 * 2**20  # of texts, per chunk; a row alone may have more
_QUERY = ["dataset", "query_id"]
_PASSAGE = ["dataset", "doc_id"]
_SIDES = ("positives", "negatives")
_HASH_ROWS = 20_000
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """The positives, or the negatives, of consecutive rows.

    passages: doc_id, title, text, and the columns of `tasks.data.writing.scores.mark`; in the order of the rows.
    counts: how many of the passages belong to each row.
    """

    passages: pl.DataFrame
    counts: Numbers

    @property
    def shown(self) -> pl.Series:
        """The title and text of each passage, joined as encoder, judge and trainer read them."""
        title = pl.col("title")
        shown = pl.when(title == "").then("text").otherwise(pl.concat_str(title, "text", separator=" "))
        return self.passages.select(shown=shown).to_series()

    @property
    def starts(self) -> Numbers:
        """The number of each row's first passage."""
        return np.cumsum(self.counts) - self.counts


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows with their texts.

    rows: dataset, query_id, query, and one column for each name in `TrainingSet.extras`.
    """

    rows: pl.DataFrame
    positives: Side
    negatives: Side

    def only(self, wanted: npt.NDArray[np.bool_]) -> "Chunk":
        """Return the rows for which `wanted` is true."""
        if wanted.all():
            return self
        sides = (
            Side(side.passages.filter(pl.Series(np.repeat(wanted, side.counts))), side.counts[wanted])
            for side in (self.positives, self.negatives)
        )
        return Chunk(self.rows.filter(pl.Series(wanted)), *sides)


@dataclass(frozen=True)
class _Members:
    """The passages of one side of all rows: their places in the table of passages, and what is known of them."""

    frame: pl.DataFrame  # `at`, and the columns of `mark`
    starts: Numbers  # of each row, and the end of the last

    def counts(self, start: int, stop: int) -> Numbers:
        """Return how many passages each of the rows has."""
        return np.diff(self.starts[start : stop + 1])

    def sums(self, values: Numbers) -> Numbers:
        """Add up, for each row, the values that its passages have in a column of the table of passages."""
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values[self.frame["at"].to_numpy()], dtype=np.int64)])
        return np.diff(total[self.starts])

    def lists(self, values: pl.Series, start: int, stop: int) -> list[list[str]]:
        """List, for each of the rows, the values that its passages have in a column of the table of passages."""
        bounds = self.starts[start : stop + 1] - self.starts[start]
        found = values[self.frame["at"][int(self.starts[start]) : int(self.starts[stop])]].to_list()
        return [found[a:b] for a, b in pairwise(bounds.tolist())]


@dataclass(frozen=True)
class TrainingSet:
    """Instances sorted by dataset and query_id. Texts stay in the table of passages until a chunk is read.

    members: the positives and the negatives. sizes: bytes of the texts of each row. start, stop: the rows that this set
        covers, of those of `rows`. extras: names of further fields of the rows. evidence: what else is known.
    treatment: how the false negatives of the instances were treated.
    """

    rows: pl.DataFrame
    members: tuple[_Members, _Members]
    passages: pl.DataFrame
    sizes: Numbers
    start: int
    stop: int
    extras: tuple[str, ...]
    evidence: Evidence
    treatment: str

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows in chunks of at most CHUNK_ROWS rows and, if they are more than one row, CHUNK_BYTES bytes."""
        for start, stop in self.bounds():
            yield self.chunk(start, stop)

    def bounds(self) -> list[tuple[int, int]]:
        """Return the first row, and the row after the last, of each chunk."""
        total = np.cumsum(self.sizes)
        bounds = [self.start]
        while bounds[-1] < self.stop:
            start = bounds[-1]
            before = int(total[start - 1]) if start else 0
            fits = int(np.searchsorted(total, before + CHUNK_BYTES, side="right"))
            bounds.append(min(max(fits, start + 1), start + CHUNK_ROWS, self.stop))
        return list(pairwise(bounds))

    def chunk(self, start: int, stop: int) -> Chunk:
        """Read rows with their texts."""
        sides = []
        for members in self.members:
            part = members.frame[int(members.starts[start]) : int(members.starts[stop])]
            texts = self.passages.select("doc_id", "title", "text")[part["at"]]
            sides.append(Side(texts.hstack(part.drop("at")), members.counts(start, stop)))
        return Chunk(self.rows[start:stop], *sides)

    @property
    def height(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    @property
    def without_negatives(self) -> int:
        """How many rows have no negative."""
        return int((self.members[1].counts(self.start, self.stop) == 0).sum())

    def by_dataset(self) -> Iterator[tuple[str, "TrainingSet"]]:
        """Yield the rows of each dataset."""
        names = self.rows["dataset"][self.start : self.stop]
        stop = self.start
        for name, count in names.value_counts(sort=False).sort("dataset").iter_rows():
            start, stop = stop, stop + count
            yield name, replace(self, start=start, stop=stop)

    def documents(self) -> Iterator[pl.DataFrame]:
        """Yield the passages of the rows, each doc_id once, sorted by doc_id; for a set of one dataset."""
        places = [m.frame["at"][int(m.starts[self.start]) : int(m.starts[self.stop])] for m in self.members]
        at = pl.concat(places).unique()
        texts = self.passages.select("doc_id", "title", "text")
        order = pl.DataFrame({"at": at, "doc_id": texts["doc_id"][at]}).sort("doc_id")["at"]
        for start in range(0, order.len(), CHUNK_ROWS):
            yield texts[order[start : start + CHUNK_ROWS]]

    def count_passages(self, side: int) -> int:
        """Count the positives (side 0) or the negatives (side 1) of the rows."""
        return int(self.members[side].counts(self.start, self.stop).sum())

    def has(self, column: str) -> bool:
        """Tell whether the passages have a column of `mark`."""
        return column in self.members[0].frame.columns

    def count(self, column: str) -> int:
        """Count the passages with a value in a column of `mark`."""
        return sum(m.frame[column].count() for m in self.members) if self.has(column) else 0

    def count_extra(self, name: str) -> int:
        """Count the rows with a value in a further field."""
        return int((self.rows[name] != "").sum())


def join_texts(
    config: ExportConfig,
    instances: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    evidence: Evidence | None = None,
) -> TrainingSet:
    """Join instances with their texts by id, and check that these are the texts they were made of.

    Raises:
        ValueError: a text is missing or not the one the instance was made of, or an instance has no positive.
    """
    evidence = evidence or Evidence()
    instances = instances.sort(_QUERY)
    for dataset, query_id in instances.filter(pl.col("positives").list.len() == 0).select(_QUERY).head(1).iter_rows():
        raise ValueError(
            f"export: instance {dataset}/{query_id} has no positive, expected at least one; treat must reject such rows"
        )
    rows = instances.select(_QUERY).join(
        queries.select(*_QUERY, query="text", query_hash="text_hash"), on=_QUERY, how="left", maintain_order="left"
    )
    ids = passages.select(_PASSAGE).with_row_index("at")
    positives, negatives = (_members(config, evidence, instances, ids, side) for side in _SIDES)
    for dataset, query_id in rows.filter(pl.col("query").is_null()).select(_QUERY).head(1).iter_rows():
        raise _no_text(dataset, query_id, "its query")
    _check_hashes(instances, rows["query_hash"], passages["text_hash"], (positives, negatives))
    extras, rows = _with_extras(rows.drop("query_hash"), evidence.extras)
    lengths = passages.select(pl.col("text").str.len_bytes() + pl.col("title").str.len_bytes()).to_series().to_numpy()
    sizes = positives.sums(lengths) + negatives.sums(lengths)
    treatment = ", ".join(instances["treatment"].unique().sort())
    return TrainingSet(rows, (positives, negatives), passages, sizes, 0, rows.height, extras, evidence, treatment)


def _members(
    config: ExportConfig, evidence: Evidence, instances: pl.DataFrame, ids: pl.DataFrame, side: str
) -> _Members:
    """Look up the passages of one side."""
    counts = instances[side].list.len().cast(pl.Int64).to_numpy()
    pairs = instances.select(*_QUERY, doc_id=side).explode("doc_id").filter(pl.col("doc_id").is_not_null())
    found = pairs.join(ids, on=_PASSAGE, how="left", maintain_order="left")
    for dataset, query_id, doc_id in found.filter(pl.col("at").is_null()).select(pairs.columns).head(1).iter_rows():
        raise _no_text(dataset, query_id, f"passage {doc_id}")
    marked = mark(config, evidence, found, positive=side == "positives").drop(pairs.columns)
    return _Members(marked, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))


def _no_text(dataset: str, query_id: str, what: str) -> ValueError:
    return ValueError(
        f"export: instance {dataset}/{query_id}: no text for {what}; give the tables of the same curation"
    )


def _check_hashes(
    instances: pl.DataFrame, queries: pl.Series, passages: pl.Series, members: tuple[_Members, _Members]
) -> None:
    """Check that the texts are those that the instances were made of."""
    for start in range(0, instances.height, _HASH_ROWS):
        stop = min(start + _HASH_ROWS, instances.height)
        columns = [[[query] for query in queries[start:stop]], *(side.lists(passages, start, stop) for side in members)]
        found = [combine_hashes(chain(*parts)) for parts in zip(*columns, strict=True)]
        wanted = instances["texts_hash"][start:stop].to_list()
        if found != wanted:
            row = next(row for row, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
            dataset, query_id = instances.select(_QUERY).row(start + row)
            raise ValueError(
                f"export: instance {dataset}/{query_id}: texts_hash is {wanted[row]}, its texts now give {found[row]}; "
                "they changed since the instance was made: curate again, or give the tables of the same curation"
            )


def _with_extras(rows: pl.DataFrame, extras: pl.DataFrame | None) -> tuple[tuple[str, ...], pl.DataFrame]:
    """Add one column for each further field of the source's rows; an empty text where a row has none."""
    if extras is None:
        return (), rows
    names = tuple(extras["name"].unique().sort())
    for name in names:
        values = extras.filter(name=name).select(*_QUERY, pl.col("value").alias(name))
        rows = rows.join(values, on=_QUERY, how="left", maintain_order="left").with_columns(pl.col(name).fill_null(""))
    return names, rows
