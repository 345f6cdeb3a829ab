"""Read a corpus with queries and judgements."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from tasks.data.ingesting import records as r
from tasks.data.ingesting.claims import first_of, is_other
from tasks.data.ingesting.lines import Lines
from tasks.data.ingesting.rejects import Rejects
from tasks.data.ingesting.text_store import PassageStore, QueryStore, to_hex
from tasks.data.on_disk.scratch import Scratch
from tasks.data.reading.records import Given, Judgement, Passage, Query
from tasks.data.reading.source import CorpusSource
from tasks.lines import Problem
from tasks.rejects import reason_of

_AT_ONCE = 10_000  # records
_JUDGEMENTS = {"line": pl.UInt32, "query_id": pl.String, "doc_id": pl.String, "value": pl.Float64}
_Pair: TypeAlias = Judgement | Given
_HELD_OUT = ("dev", "test")
_STAYS = "; it counts as one that a model does not find"


def read_corpus(
    source: CorpusSource,
    dataset: str,
    *,
    splits: Mapping[str, str],
    known: str | None,
    longest: int,
    most_rejects: int,
) -> r.Records:
    """Read the corpus, all queries, the judgements of some splits, and the candidates that the source gives.

    Args:
        source: the readers.
        dataset: name of the dataset.
        splits: by what the judgements are for (`train`, `dev`, `test`, in this order), the split that holds them.
        known: the split that holds known false negatives.
        longest: characters of a text; the rest is cut off.
        most_rejects: that are listed one by one.

    Raises:
        IngestError: there is no such split.
    """
    judged = [(name, source.judgements(split)) for name, split in splits.items()]
    judged += [] if known is None else [("known", source.judgements(known))]
    asked: list[tuple[str, Iterator[_Pair | Problem]]] = [*judged, ("given", source.negatives())]
    scratch = Scratch()
    lines, rejects = Lines(scratch), Rejects(most_rejects)
    reading = _Reading(r.Found(lines, rejects), lines, dataset, longest)
    reading.found.problems(list(source.passed_over))
    store = PassageStore(scratch, longest)
    passages = reading.documents(source.documents(), store)
    queries = reading.questions(source.queries(), QueryStore(longest))
    pairs, absent, named = {}, {}, r.empty({"query": pl.UInt32, "split": pl.String})
    for name, items in asked:
        says = _STAYS if name in _HELD_OUT else ""
        pairs[name], absent[name], query = reading.pairs(items, queries, passages, says)
        if name in splits:
            named = pl.concat([named, pl.DataFrame({"query": query}).with_columns(split=pl.lit(name))])
    last = named.unique(keep="last", subset="query", maintain_order=True).select(number="query", named="split")
    reading.found.finish()
    return r.Records(
        lines=lines,
        texts=store.texts,
        rejects=rejects,
        queries=queries.join(last, on="number", how="left", maintain_order="left")
        .with_columns(rows=pl.lit(1))
        .select(*r.QUERIES)
        .cast(pl.Schema(r.QUERIES)),
        passages=passages,
        labels={name: pairs[name] for name in splits},
        negatives=pairs["given"],
        known=pairs.get("known", r.empty(r.PAIRS)),
        scores=pairs["given"].filter(pl.col("value").is_not_null()),
        extras=r.empty(r.EXTRAS),
        corpus=True,
        absent={name: absent[name] for name in splits},
        facts={"rows_read": lines.count + reading.lost, "rows_kept": reading.kept},
    )


class _Reading:
    """Reads one kind of record after another. lost: records that the readers left out. kept: records that are used."""

    def __init__(self, found: r.Found, lines: Lines, dataset: str, longest: int) -> None:
        self.found, self.lines, self.dataset, self.longest = found, lines, dataset, longest
        self.lost = self.kept = 0

    def documents(self, items: Iterable[Passage | Problem], store: PassageStore) -> pl.DataFrame:
        """Return the passages, numbered; each id must come once."""
        places, first = [np.empty(0, dtype=np.uint32)], self.lines.count
        for chunk in self._chunks(items):
            self.lines.add(pl.Series([item.where for item in chunk], dtype=pl.String))
            columns = {
                "id": [item.doc_id for item in chunk],
                "title": [item.title for item in chunk],
                "text": [item.text for item in chunk],
            }
            frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
            places.append(store.add(frame.with_columns(dataset=pl.lit(self.dataset))))
        place = np.concatenate(places)
        texts = store.frame()
        kept = self._settle(texts[place], first, "duplicate_passage", "passage {} is already at {}")
        passages = kept.with_columns(place=pl.Series(place).gather(kept["row"]))
        self.found.cuts(passages, r.QUERY, "passage_cut", self.longest)
        return passages.select(*r.PASSAGES)

    def questions(self, items: Iterable[Query | Problem], store: QueryStore) -> pl.DataFrame:
        """Return the queries, numbered, with their texts."""
        first = self.lines.count
        for chunk in self._chunks(items):
            self.lines.add(pl.Series([item.where for item in chunk], dtype=pl.String))
            columns = {"id": [item.query_id for item in chunk], "text": [item.text for item in chunk]}
            frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
            store.add(frame.with_columns(dataset=pl.lit(self.dataset)))
        queries = self._settle(store.frame(), first, "duplicate_query", "query {} again; merged into {}")
        self.found.cuts(queries, r.QUERY, "query_cut", self.longest)
        return queries.with_columns(text_hash=to_hex(queries["high"].to_numpy(), queries["low"].to_numpy()))

    def pairs(
        self, items: Iterable[_Pair | Problem], queries: pl.DataFrame, passages: pl.DataFrame, of_absent: str = ""
    ) -> tuple[pl.DataFrame, pl.DataFrame, pl.Series]:
        """Return judgements or given candidates as references, those of missing passages, and all queries they name.

        `of_absent` is what the reject of one with a missing passage says besides.
        """
        frames = [r.empty(_JUDGEMENTS)]
        for chunk in self._chunks(items):
            line = self.lines.add(pl.Series([item.where for item in chunk], dtype=pl.String))
            rows = [(item.query_id, item.doc_id, _value(item)) for item in chunk]
            schema = {name: dtype for name, dtype in _JUDGEMENTS.items() if name != "line"}
            frames.append(pl.DataFrame(rows, schema=schema, orient="row").select(line, pl.all()))
        every = pl.concat(frames)
        every = every.join(
            queries.select(query_id="id", query="number"), on="query_id", how="left", maintain_order="left"
        ).join(passages.select(doc_id="id", passage="number"), on="doc_id", how="left", maintain_order="left")
        unasked = every.filter(pl.col("query").is_null())
        says = "{} {} is not there, or was rejected"
        self.found.add(unasked, r.QUERY, "unknown_query", pl.format(says, pl.lit("query"), "query_id"))
        every = every.filter(pl.col("query").is_not_null())
        absent = every.filter(pl.col("passage").is_null())
        told = pl.format(says + of_absent, pl.lit("passage"), "doc_id")
        self.found.add(absent, r.QUERY, "unknown_document", told)
        pairs = every.filter(pl.col("passage").is_not_null()).select(*r.PAIRS)
        self.kept += pairs.height
        return pairs, absent.select(*r.ABSENT), every["query"].unique(maintain_order=True)

    def _settle(self, texts: pl.DataFrame, line: int, repeated: str, says: str) -> pl.DataFrame:
        """Keep the first record of each id; report the others. `line`: that of the first record."""
        first = first_of(texts, "dataset", "id")
        conflict, again = is_other(texts, first), first != np.arange(first.size)
        every = texts.with_row_index("row").with_columns(
            line=pl.col("row") + line, first=pl.Series(first) + line, at=pl.lit(0, dtype=pl.UInt32)
        )
        self.found.conflicts(every.filter(pl.Series(conflict)), r.QUERY_ID)
        copies = every.filter(pl.Series(again & ~conflict))
        if not copies.is_empty():
            copies = copies.with_columns(first=self.lines.names(copies["first"]))
            self.found.add(copies, r.QUERY, repeated, pl.format(says, "id", "first"))
        kept = every.filter(~pl.Series(again)).with_row_index("number")
        self.kept += kept.height
        return kept

    def _chunks(self, items: Iterable[Any]) -> Iterator[list[Any]]:
        """Collect records of one kind; hand problems over before the records that follow them."""
        chunk: list[Any] = []
        problems: list[Problem] = []
        for item in items:
            if isinstance(item, Problem):
                problems.append(item)
            else:
                chunk.append(item)
            if len(chunk) + len(problems) >= _AT_ONCE:
                yield self._flush(chunk, problems)
                chunk, problems = [], []
        if chunk or problems:
            yield self._flush(chunk, problems)

    def _flush(self, chunk: list[Any], problems: list[Problem]) -> list[Any]:
        self.found.problems(problems)
        self.lost += sum(reason_of(problem.reason).extent == "row" for problem in problems)
        return chunk


def _value(item: Judgement | Given) -> float | None:
    return item.relevance if isinstance(item, Judgement) else item.score
