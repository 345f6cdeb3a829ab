"""The training set that is written: rows with their texts, sorted on disk and read in chunks of bounded size."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.data.on_disk.scratch import Scratch
from tasks.data.on_disk.sorted_rows import SortedRows
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.scores import Evidence, mark
from tasks.schemas import Schema
from tasks.texts import combine_hashes

CHUNK_ROWS, CHUNK_BYTES = 2_000, 64 * 2**20  # of texts, per chunk; a row alone may have more
SIDES = ("positives", "negatives")
_QUERY = ["dataset", "query_id"]
_PASSAGE = ["dataset", "doc_id"]
Numbers = npt.NDArray[np.int64]
# `Counts` of a part. what: rows, without_negatives, dataset, treatment, field, passages or value. name: which of them.
TALLIES = Schema({"what": pl.String, "name": pl.String, "count": pl.Int64}, key=("what", "name"))


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

    rows: dataset, query_id, query, `size` (bytes of its passages), and one column for each name in
        `TrainingSet.extras`.
    """

    rows: pl.DataFrame
    positives: Side
    negatives: Side

    @property
    def size(self) -> int:
        """The bytes of the passages."""
        return int(self.rows["size"].sum())

    def only(self, wanted: npt.NDArray[np.bool_]) -> "Chunk":
        """Return the rows for which `wanted` is true."""
        if wanted.all():
            return self
        sides = (
            Side(side.passages.filter(pl.Series(np.repeat(wanted, side.counts))), side.counts[wanted])
            for side in (self.positives, self.negatives)
        )
        return Chunk(self.rows.filter(pl.Series(wanted)), *sides)


class Counts:
    """How much a training set holds. The counts of its parts add up to those of the whole."""

    def __init__(self) -> None:
        self._counts = Counter[tuple[str, str]]()  # by what is counted, and the name that it has

    def count_rows(self, rows: pl.DataFrame, extras: Sequence[str]) -> None:
        """Count rows as `join_texts` makes them; `extras` are the names of their further fields."""
        found = Counter({("rows", ""): rows.height})
        found["without_negatives", ""] = int((rows["negatives"].list.len() == 0).sum())
        for column in ("dataset", "treatment"):
            found.update({(column, name): count for name, count in rows[column].value_counts().iter_rows()})
        found.update({("field", name): int((rows[name] != "").sum()) for name in extras})
        for side in SIDES:
            passages = passages_of(rows[side])
            found["passages", side] += passages.height
            found.update({("value", name): passages[name].count() for name in passages.columns})
        self._counts.update(found)

    def tally(self) -> pl.DataFrame:
        """Return the counts as TALLIES, in the order of their names."""
        rows = [(what, name, count) for (what, name), count in sorted(self._counts.items()) if count]
        return pl.DataFrame(rows, schema=TALLIES.columns, orient="row")

    def add_tallies(self, tallies: pl.DataFrame) -> None:
        """Add the counts of parts."""
        for what, name, count in tallies.iter_rows():
            self._counts[what, name] += count

    @property
    def height(self) -> int:
        """The number of rows."""
        return self._counts["rows", ""]

    @property
    def without_negatives(self) -> int:
        """The number of rows without negatives."""
        return self._counts["without_negatives", ""]

    @property
    def datasets(self) -> dict[str, int]:
        """The number of rows of each dataset."""
        return self._named("dataset")

    @property
    def treatments(self) -> dict[str, int]:
        """The number of rows of each treatment."""
        return self._named("treatment")

    @property
    def fields(self) -> dict[str, int]:
        """The number of rows with a value in each further field."""
        return self._named("field")

    def count_passages(self, side: int) -> int:
        """Count the positives (side 0) or the negatives (side 1) of the rows."""
        return self._counts["passages", SIDES[side]]

    def count(self, column: str) -> int:
        """Count the passages with a value in a column of `mark`."""
        return self._counts["value", column]

    def _named(self, what: str) -> dict[str, int]:
        return {name: count for (found, name), count in self._counts.items() if found == what and count}


class TrainingSet(Counts):
    """Instances with their texts, sorted by dataset and query_id. They are added part by part, and then read.

    Texts are in a scratch folder; in memory are a chunk of them and the counts of all.

    Args:
        extras: names of further fields of the rows.
        corpus: whether the passages are read by themselves too (`documents`).
        agreement: AGREEMENT, how well the judges agree with false negatives known in advance, if that is known.
        people: PEOPLE, how well they agree with people, if that is known.
    """

    def __init__(
        self,
        extras: tuple[str, ...] = (),
        *,
        corpus: bool = False,
        agreement: pl.DataFrame | None = None,
        people: pl.DataFrame | None = None,
    ) -> None:
        super().__init__()
        scratch = Scratch()
        self.extras, self.agreement, self.people = extras, agreement, people
        self._rows = SortedRows(scratch, "rows", tuple(_QUERY))
        self._documents = SortedRows(scratch, "documents", tuple(_PASSAGE), distinct=True) if corpus else None

    def add(self, rows: pl.DataFrame) -> None:
        """Add rows: dataset, query_id, query, treatment, size, the further fields, and the lists of passages."""
        self.count_rows(rows, self.extras)
        self._rows.add(rows.drop("treatment"))
        if self._documents is not None:
            self._documents.add(_documents_of(rows))

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows in chunks of at most CHUNK_ROWS rows and, if they are more than one row, CHUNK_BYTES bytes."""
        rest = self._rows.empty
        for frame in self._rows.frames():
            rest = pl.concat([rest, frame])
            *bounds, (start, stop) = bounds_of(rest["size"].to_numpy())
            yield from (chunk_of(rest[a:b]) for a, b in bounds)
            rest = rest[start:stop]  # what comes next may belong to it
        if rest.height:
            yield chunk_of(rest)

    def no_rows(self) -> Chunk:
        """Return a chunk without rows, for its columns."""
        return chunk_of(self._rows.empty)

    def by_dataset(self) -> Iterator[tuple[str, Iterator[Chunk]]]:
        """Yield each dataset with its chunks, which must be read before the next dataset is asked for."""
        return groupby(self._cut_by_dataset(), lambda chunk: str(chunk.rows["dataset"][0]))

    def _cut_by_dataset(self) -> Iterator[Chunk]:
        for chunk in self.chunks():
            names = chunk.rows["dataset"]
            for name in names.unique(maintain_order=True):
                yield chunk.only((names == name).to_numpy())

    def documents(self) -> Iterator[tuple[str, Iterator[pl.DataFrame]]]:
        """Yield each dataset with its passages, each doc_id once and in order, to be read as those of `by_dataset`.

        The frames have dataset, doc_id, title and text.
        """
        assert self._documents is not None
        frames = (piece for frame in self._documents.frames() for piece in frame.iter_slices(CHUNK_ROWS))
        pieces = (piece for frame in frames for piece in frame.partition_by("dataset", maintain_order=True))
        return groupby(pieces, lambda piece: str(piece["dataset"][0]))

    def has(self, column: str) -> bool:
        """Tell whether the passages have a column of `mark`."""
        return column in self.no_rows().positives.passages.columns


def chunk_of(rows: pl.DataFrame) -> Chunk:
    """Return rows, as `join_texts` makes them, without the lists of their passages, and these beside them."""
    counts = [rows[side].list.len().cast(pl.Int64).to_numpy() for side in SIDES]
    sides = (Side(passages_of(rows[side]), count) for side, count in zip(SIDES, counts, strict=True))
    return Chunk(rows.drop(SIDES), *sides)


def passages_of(lists: pl.Series) -> pl.DataFrame:
    """Return the passages of all rows, one after another."""
    found: pl.DataFrame = lists.filter(lists.list.len() > 0).explode().struct.unnest()
    return found


def list_passages(passages: pl.DataFrame, counts: Numbers) -> pl.Series:
    """Return consecutive passages as lists of the given lengths: the reverse of `passages_of`."""
    row = pl.Series("row", np.repeat(np.arange(len(counts)), counts))
    listed = pl.DataFrame([row, passages.to_struct("passages")]).group_by("row").agg("passages")
    every = pl.DataFrame({"row": np.arange(len(counts))}).join(listed, on="row", how="left", maintain_order="left")
    return every.select(pl.col("passages").fill_null(pl.lit([], dtype=listed["passages"].dtype))).to_series()


def _documents_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the passages of rows with their dataset, each once."""
    sides = (rows.filter(pl.col(s).list.len() > 0).select("dataset", p=s).explode("p").unnest("p") for s in SIDES)
    found = pl.concat([side.select("dataset", "doc_id", "title", "text") for side in sides])
    return found.unique(_PASSAGE, keep="first", maintain_order=True)


def bounds_of(sizes: Numbers) -> list[tuple[int, int]]:
    """Return the first row, and the row after the last, of each chunk of rows whose passages have so many bytes."""
    total = np.cumsum(sizes)
    bounds = [0]
    while bounds[-1] < len(sizes):
        start = bounds[-1]
        before = int(total[start - 1]) if start else 0
        fits = int(np.searchsorted(total, before + CHUNK_BYTES, side="right"))
        bounds.append(min(max(fits, start + 1), start + CHUNK_ROWS, len(sizes)))
    return list(pairwise(bounds))


def join_texts(
    config: ExportConfig,
    instances: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    evidence: Evidence | None = None,
    extras: tuple[str, ...] = (),
) -> pl.DataFrame:
    """Join instances with their texts by id, and check that these are the texts they were made of.

    Args:
        config: says what is written beside each passage.
        instances: those of one part.
        queries: the texts of their queries.
        passages: the texts of their passages; there may be more.
        evidence: what else is known of their pairs.
        extras: names of the columns for further fields; an empty text where a row has none.

    Returns:
        Rows for `TrainingSet.add`, by dataset and query_id.

    Raises:
        ValueError: a text is missing or not the one the instance was made of, or an instance has no positive.
    """
    evidence = evidence or Evidence()
    instances = instances.sort(_QUERY)
    for dataset, query_id in instances.filter(pl.col("positives").list.len() == 0).select(_QUERY).head(1).iter_rows():
        raise ValueError(
            f"export: instance {dataset}/{query_id} has no positive, expected at least one; treat must reject such rows"
        )
    rows = instances.select(*_QUERY, "treatment").join(
        queries.select(*_QUERY, query="text", query_hash="text_hash"), on=_QUERY, how="left", maintain_order="left"
    )
    sides = [_join_side(config, evidence, instances, passages, side) for side in SIDES]
    for dataset, query_id in rows.filter(pl.col("query").is_null()).select(_QUERY).head(1).iter_rows():
        raise _no_text(dataset, query_id, "its query")
    _check_hashes(instances, rows["query_hash"], sides)
    positives, negatives = (_sums(side.passages["size"].to_numpy(), side.counts) for side in sides)
    lists = (list_passages(side.passages.drop("text_hash", "size"), side.counts) for side in sides)
    rows = rows.drop("query_hash").with_columns(pl.Series("size", positives + negatives, pl.Int64))
    return _with_extras(rows, evidence.extras, extras).with_columns(map(pl.Series.alias, lists, SIDES))


def _join_side(
    config: ExportConfig, evidence: Evidence, instances: pl.DataFrame, passages: pl.DataFrame, side: str
) -> Side:
    """Look up the passages of one side; with text_hash, and the bytes of title and text as `size`."""
    counts = instances[side].list.len().cast(pl.Int64).to_numpy()
    pairs = instances.select(*_QUERY, doc_id=side).explode("doc_id").filter(pl.col("doc_id").is_not_null())
    found = pairs.join(passages, on=_PASSAGE, how="left", maintain_order="left")
    for dataset, query_id, doc_id in found.filter(pl.col("text").is_null()).select(pairs.columns).head(1).iter_rows():
        raise _no_text(dataset, query_id, f"passage {doc_id}")
    texts = found.select(
        "doc_id", "title", "text", "text_hash", size=pl.col("text").str.len_bytes() + pl.col("title").str.len_bytes()
    )
    return Side(texts.hstack(mark(config, evidence, pairs, positive=side == SIDES[0]).drop(pairs.columns)), counts)


def _no_text(dataset: str, query_id: str, what: str) -> ValueError:
    return ValueError(
        f"export: instance {dataset}/{query_id}: no text for {what}; give the tables of the same curation"
    )


def _sums(values: Numbers, counts: Numbers) -> Numbers:
    """Add up the values of each row.

    >>> _sums(np.array([1, 2, 3]), np.array([2, 0, 1])).tolist()
    [3, 0, 3]
    """
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return np.diff(total[ends])


def _check_hashes(instances: pl.DataFrame, queries: pl.Series, sides: list[Side]) -> None:
    """Check that the texts are those that the instances were made of."""
    hashes = [side.passages["text_hash"].to_list() for side in sides]
    bounds = [pairwise([0, *np.cumsum(side.counts).tolist()]) for side in sides]
    keys = instances.select(*_QUERY, "texts_hash").iter_rows()
    for (dataset, query_id, wanted), query, *ends in zip(keys, queries, *bounds, strict=True):
        found = combine_hashes(chain([query], *(of[a:b] for of, (a, b) in zip(hashes, ends, strict=True))))
        if found != wanted:
            raise ValueError(
                f"export: instance {dataset}/{query_id}: texts_hash is {wanted}, its texts now give {found}; "
                "they changed since the instance was made: curate again, or give the tables of the same curation"
            )


def _with_extras(rows: pl.DataFrame, extras: pl.DataFrame | None, names: tuple[str, ...]) -> pl.DataFrame:
    """Add one column for each further field of the source's rows."""
    if extras is None:
        return rows
    for name in names:
        values = extras.filter(name=name).select(*_QUERY, pl.col("value").alias(name))
        rows = rows.join(values, on=_QUERY, how="left", maintain_order="left").with_columns(pl.col(name).fill_null(""))
    return rows
