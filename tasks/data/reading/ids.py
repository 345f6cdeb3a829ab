"""Tell ids that name the same thing everywhere from ids that only number the rows of a file or the passages of a row.

- Passages numbered within each row ("0", "1", … in every row, with other texts) are named by the hash of their texts.
- So are the passages of a file whose ids mostly had other texts in earlier files.
- A query whose id had another text in an earlier file is named `<file>/<id>`.

Each is told once for each file. What else has an id that had another text before is left to ingest, which rejects it.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.data.reading.records import Batch, batches_of
from tasks.lines import Problem
from tasks.texts import hash_passage

_Hashes = npt.NDArray[np.uint64]
_NUMBER = r"^\d{1,5}$"


class Identities:
    """Follows the ids of a source through its files. It keeps 16 bytes for each query and passage of several files."""

    def __init__(self, *, several: bool) -> None:
        """Begin; with a single file nothing is compared across files."""
        self.several = several
        self._queries, self._passages = _Seen(), _Seen()

    def of_file(self, name: str, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches of the file `name` with ids that hold in the whole source.

        The passages of the first batch decide how those of the file are named.
        """
        by_text: str | None = None
        passages = renamed = 0
        for number, batch in enumerate(batches):
            if number == 0:
                by_text = self._named_by_text(batch)
            if by_text:
                batch = replace(batch, passages=_by_text(batch.passages))  # noqa: PLW2901 - the same batch, named anew
                passages += batch.passages.height
            elif self.several:
                self._passages.note(*_hashes(batch, "doc_id", "title", "text"))
            if self.several:
                batch, count = self._renamed(batch, name)  # noqa: PLW2901
                renamed += count
            yield batch
        self._queries.end_file()
        self._passages.end_file()
        notes = []
        if by_text:
            notes.append(Problem(name, "local_ids", f"{by_text}: the hashes of their texts name {passages} passages"))
        if renamed:
            said = f"{renamed} queries have ids that had other texts in earlier files; they are named {name}/<id>"
            notes.append(Problem(name, "ids_reused", said))
        if notes:
            yield from batches_of(notes)

    def _named_by_text(self, batch: Batch) -> str | None:
        """Say why the passages of a file are named by their texts; None where their ids name them."""
        if _are_row_numbers(batch.passages):
            return "docids number the passages within each row"
        if self.several:
            same, other = self._passages.compare(*_hashes(batch, "doc_id", "title", "text"))
            if int(other.sum()) > int(same.sum()):
                return "docids had other texts in earlier files"
        return None

    def _renamed(self, batch: Batch, name: str) -> tuple[Batch, int]:
        """Name the queries anew whose ids had other texts in earlier files; return how many these are."""
        hashes = _hashes(batch, "query_id", "query")
        _, other = self._queries.compare(*hashes)
        self._queries.note(*hashes)
        if not other.any():
            return batch, 0
        named = pl.when(pl.Series(other)).then(pl.format("{}/{}", pl.lit(name), "query_id")).otherwise("query_id")
        return replace(batch, rows=batch.rows.with_columns(query_id=named)), int(other.sum())


class _Seen:
    """The hashes of ids and texts of earlier files; and those of the present file, which wait.

    They are in runs that are sorted by id, and an id is in one run. A run is at least twice as long as the next one, so
    that many files do not sort all ids again and again.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[_Hashes, _Hashes]] = []
        self._waiting: list[tuple[_Hashes, _Hashes]] = []

    def note(self, ids: _Hashes, texts: _Hashes) -> None:
        """Keep the ids of the present file until its end."""
        self._waiting.append((ids, texts))

    def end_file(self) -> None:
        """Add the ids of the present file. The first text of an id stays."""
        if not self._waiting:
            return
        ids, texts = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        self._waiting = []
        ids, first = np.unique(ids, return_index=True)
        new = ~self._find(ids, texts[first])[0]
        if new.any():
            self._runs.append((ids[new], texts[first[new]]))
        while len(self._runs) > 1 and self._runs[-2][0].size < 2 * self._runs[-1][0].size:
            last, before = self._runs.pop(), self._runs.pop()
            ids, texts = (np.concatenate(column) for column in zip(before, last, strict=True))
            order = np.argsort(ids, kind="stable")  # which merges what is sorted
            self._runs.append((ids[order], texts[order]))

    def compare(self, ids: _Hashes, texts: _Hashes) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return which ids came before with the same text, and which with another one."""
        known, same = self._find(ids, texts)
        return same, known & ~same

    def _find(self, ids: _Hashes, texts: _Hashes) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return which ids are in a run, and which are there with this text."""
        known, same = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
        for run_ids, run_texts in self._runs:
            place = np.minimum(np.searchsorted(run_ids, ids), run_ids.size - 1)
            found = run_ids[place] == ids
            known |= found
            same |= found & (run_texts[place] == texts)
        return known, same


def _hashes(batch: Batch, identifier: str, *texts: str) -> tuple[_Hashes, _Hashes]:
    """Return the hashes of (dataset, id) and of the texts, for queries or for passages."""
    frame = batch.rows if identifier == "query_id" else batch.passages.join(batch.rows.select("row", "dataset"), "row")
    hashed = frame.select(ids=pl.struct("dataset", identifier).hash(), texts=pl.struct(*texts).hash())
    return hashed["ids"].to_numpy(), hashed["texts"].to_numpy()


def _are_row_numbers(passages: pl.DataFrame) -> bool:
    """Whether all ids are numbers up to the count of their row's passages, and most repeated ones have other texts."""
    if passages.is_empty() or not passages["doc_id"].str.contains(_NUMBER).all():
        return False
    within = pl.col("doc_id").cast(pl.Int64) <= pl.len().over("row")
    if not passages.select(within.all()).item():
        return False
    texts = passages.group_by("doc_id").agg(pl.len(), texts=pl.struct("title", "text").n_unique())
    repeated = texts.filter(pl.col("len") > 1)
    return repeated.filter(pl.col("texts") > 1).height * 2 > repeated.height


def _by_text(passages: pl.DataFrame) -> pl.DataFrame:
    hashes = [hash_passage(title, text) for title, text in passages.select("title", "text").iter_rows()]
    return passages.with_columns(doc_id=pl.Series(hashes, dtype=pl.String))
