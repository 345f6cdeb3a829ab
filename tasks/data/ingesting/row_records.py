"""Read training rows that carry their passages."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from tasks.data.ingesting import records as r
from tasks.data.ingesting.ahead import read_ahead
from tasks.data.ingesting.claims import Settled, first_of, settle
from tasks.data.ingesting.lines import Lines
from tasks.data.ingesting.rejects import Rejects
from tasks.data.ingesting.text_store import PassageStore, QueryStore, to_hex
from tasks.data.on_disk.scratch import Scratch
from tasks.data.reading.records import Batch
from tasks.rejects import reason_of

_PAIRS = {"row": pl.UInt32, "place": pl.UInt32, "positive": pl.Boolean, "score": pl.Float64}
_EXTRAS = {"row": pl.UInt32, "name": pl.String, "value": pl.String}


def read_rows(batches: Iterable[Batch], dataset: str, *, longest: int, most_rejects: int) -> r.Records:
    """Read all rows. A row is left out if its query's id, or the ids of all its positives, had another text before.

    Args:
        batches: from the reader.
        dataset: of rows that name none.
        longest: characters of a text; the rest is cut off.
        most_rejects: that are listed one by one.
    """
    scratch = Scratch()
    lines, rejects = Lines(scratch), Rejects(most_rejects)
    reading = _Reading(r.Found(lines, rejects), lines, PassageStore(scratch, longest), QueryStore(longest))
    for batch in read_ahead(batches):
        reading.add(batch, dataset)
    return reading.finish(rejects, longest)


class _Reading:
    """All rows read so far. The number of a row is that of its line."""

    def __init__(self, found: r.Found, lines: Lines, passages: PassageStore, queries: QueryStore) -> None:
        self.found, self.lines, self.passages, self.queries = found, lines, passages, queries
        self.pairs, self.extras = [r.empty(_PAIRS)], [r.empty(_EXTRAS)]
        self.sizes = [np.zeros(0, dtype=np.uint32)]  # of each row: itself and the rows that were joined to it
        self.lost = 0

    def add(self, batch: Batch, dataset: str) -> None:
        """Add the rows of a batch."""
        self.found.problems(batch.problems)
        unread = {problem.key for problem in batch.problems if reason_of(problem.reason).extent == "row"}
        joined = {where for places in batch.repeats.values() for where in places}
        self.lost += len(unread - set(batch.rows["where"]) - joined)
        sizes = np.ones(batch.rows.height, dtype=np.uint32)
        for row, places in batch.repeats.items():
            sizes[row] += len(places)
        self.sizes.append(sizes)
        rows = batch.rows.with_columns(pl.col("dataset").fill_null(dataset))
        first = self.lines.count
        self.lines.add(rows["where"])
        self.queries.add(rows.select("dataset", id="query_id", text="query"))
        self.extras.append(batch.extras.with_columns(pl.col("row") + first))
        passages = batch.passages.sort("row", pl.col("positive").not_(), maintain_order=True)
        named = rows["dataset"].gather(passages["row"])
        place = self.passages.add(passages.select("title", "text", dataset=named, id="doc_id"))
        self.pairs.append(
            passages.select(pl.col("row") + first, "positive", "score", place=pl.Series(place)).select(*_PAIRS)
        )

    def finish(self, rejects: Rejects, longest: int) -> r.Records:
        """Settle the ids, and number what is kept."""
        texts, asked = self.passages.frame(), self.queries.frame()
        pairs, self.pairs = pl.concat(self.pairs, rechunk=True), []
        settled = settle(asked, pairs, texts)
        self._reject(settled, asked, pairs, texts)
        out = np.zeros(asked.height, dtype=np.bool_)
        out[list(settled.rows)] = True
        pairs = pairs.with_row_index("at").filter(~pl.Series(out).gather(pairs["row"]))
        if settled.pairs:
            pairs = pairs.filter(~pl.col("at").is_in(list(settled.pairs)))
        queries, query_of = _number_queries(asked, out)
        sizes = np.concatenate(self.sizes)
        rows = np.bincount(query_of[~out], weights=sizes[~out], minlength=queries.height)
        self._report_queries(asked, out, queries, longest)
        passages, pairs = _number_passages(pairs, texts)
        self._report_cuts(passages, longest)
        pairs = pairs.with_columns(query=pl.Series(query_of).gather(pairs["row"]), line="row", value="score")
        labels = pairs.filter("positive").with_columns(value=pl.lit(1.0)).select(*r.PAIRS)
        extras = pl.concat(self.extras).filter(~pl.Series(out).gather(pl.concat(self.extras)["row"]))
        extras = extras.with_columns(query=pl.Series(query_of).gather(extras["row"]))
        self.found.finish()
        return r.Records(
            lines=self.lines,
            texts=self.passages.texts,
            rejects=rejects,
            queries=queries.with_columns(named=pl.lit("train"), rows=pl.Series(rows))
            .select(*r.QUERIES)
            .cast(pl.Schema(r.QUERIES)),
            passages=passages.select(*r.PASSAGES),
            labels={"train": labels},
            negatives=pairs.filter(~pl.col("positive")).select(*r.PAIRS),
            known=r.empty(r.PAIRS),
            scores=pairs.filter(pl.col("value").is_not_null()).select(*r.PAIRS),
            extras=extras.select(*r.EXTRAS),
            corpus=False,
            facts={"rows_read": int(sizes.sum()) + self.lost, "rows_kept": int(sizes[~out].sum())},
        )

    def _reject(self, settled: Settled, asked: pl.DataFrame, pairs: pl.DataFrame, texts: pl.DataFrame) -> None:
        """Report rows and references whose id has another text."""
        if not settled.rows and not settled.pairs:
            return
        named = pl.DataFrame(settled.queries, schema={"line": pl.UInt32, "first": pl.UInt32}, orient="row")
        self.found.conflicts(named.with_columns(id=asked["id"].gather(named["line"])), r.QUERY_ID)
        at = pl.DataFrame(settled.passages, schema={"at": pl.UInt32, "first": pl.UInt32}, orient="row")
        of = pairs[at["at"]].select("row", "place", "positive")
        said = at.with_columns(
            line=of["row"],
            first=pairs["row"].gather(at["first"]),
            id=texts["id"].gather(of["place"]),
            positive=of["positive"],
        )
        self.found.conflicts(said, pl.when("positive").then(r.POSITIVE).otherwise(r.NEGATIVE))
        unanswered = pl.DataFrame({"line": settled.unanswered}, schema={"line": pl.UInt32})
        says = pl.lit("every positive has an id that came before with another text")
        self.found.add(unanswered, r.NO_POSITIVE, "no_positive", says)

    def _report_queries(self, asked: pl.DataFrame, out: np.ndarray, queries: pl.DataFrame, longest: int) -> None:
        """Report the rows whose query came before, and queries that were cut."""
        every = asked.select("dataset", "id", "length").with_row_index("line").filter(~pl.Series(out))
        first = queries.select("dataset", "id", first="line")
        every = every.join(first, on=["dataset", "id"], how="left", maintain_order="left")
        self.found.cuts(every.filter(pl.col("line") == pl.col("first")), r.QUERY, "query_cut", longest)
        again = every.filter(pl.col("line") != pl.col("first"))
        if not again.is_empty():
            again = again.with_columns(first=self.lines.names(again["first"]))
            says = pl.format("query {} again; merged into {}", "id", "first")
            self.found.add(again, r.QUERY, "duplicate_query", says)

    def _report_cuts(self, passages: pl.DataFrame, longest: int) -> None:
        step = pl.when("positive").then(r.POSITIVE).otherwise(r.NEGATIVE)
        self.found.cuts(passages, step, "passage_cut", longest)


def _number_queries(asked: pl.DataFrame, out: np.ndarray) -> tuple[pl.DataFrame, np.ndarray]:
    """Number the queries of the kept rows by their first row; returns them, and the number for each row."""
    kept = asked.with_row_index("line").filter(~pl.Series(out))
    first = kept.select(pl.col("line").min().over("dataset", "id")).to_series().to_numpy()
    lines = kept["line"].to_numpy()
    queries = kept.filter(pl.Series(first == lines)).with_row_index("number")
    number = np.zeros(asked.height, dtype=np.uint32)
    number[queries["line"].to_numpy()] = queries["number"].to_numpy()
    number[lines] = number[first]
    return queries.with_columns(text_hash=to_hex(queries["high"].to_numpy(), queries["low"].to_numpy())), number


def _number_passages(pairs: pl.DataFrame, texts: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Number the passages of the kept references by their first one; returns them, and the references with numbers."""
    entity = first_of(texts, "dataset", "id")[pairs["place"].to_numpy()]
    first = np.full(texts.height, pairs.height, dtype=np.uint32)
    first[entity[::-1]] = np.arange(pairs.height, dtype=np.uint32)[::-1]  # of several, the last one written stays
    at = np.sort(first[first < pairs.height])
    named = pairs[at]
    number = np.zeros(texts.height, dtype=np.uint32)
    number[entity[at]] = np.arange(at.size, dtype=np.uint32)
    passages = texts[named["place"]].with_columns(
        number=pl.int_range(pl.len(), dtype=pl.UInt32),
        place=named["place"],
        line=named["row"],
        at=named["at"],
        positive=named["positive"],
    )
    return passages, pairs.with_columns(passage=pl.Series(number[entity]))
