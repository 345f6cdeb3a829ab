"""Turn input files into checked tables. Each input row is kept, or is a row of `rejects` with its reason.

Reading (`_Records`) gives numbers to queries and passages and stores references as pairs of numbers. Resolving
(`_Resolver`) works on these numbers: it merges identical texts, removes contradictions, and cuts the rest into parts
Ids are unique within a dataset only, so nothing is merged across datasets.
"""

import math
from array import array
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks import schemas
from tasks.data import readers
from tasks.data.readers import IngestError, Judgement, Passage, Problem, Query, Row
from tasks.texts import hash_passage, hash_text, part_of

__all__ = ["IngestConfig", "IngestError", "ingest"]
_QUERIES_PER_PART = 1_000
_PASSAGES_PER_PART = 50_000
_PREFIX = 13  # leading hexadecimal digits of a hash that a float represents exactly
_SPLIT_NAME = r"^[\w.\-]+$"


class IngestConfig(BaseModel):
    """The format of the files, how they are cut into parts, and which queries are held out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field(min_length=1, description="name of the dataset; a Tevatron row's `subset` goes before it")
    format: Literal["auto", "tevatron", "flagembedding", "beir"] = Field("auto", description="auto: by what is there")
    query_parts: int | None = Field(None, ge=1, description="parts of queries; null: one per 1,000")
    passage_parts: int | None = Field(None, ge=1, description="parts of the corpus; null: one per 50,000")
    train_split: str = Field("train", pattern=_SPLIT_NAME, description="BEIR: qrels of the training queries")
    test_split: str | None = Field("test", pattern=_SPLIT_NAME, description="BEIR: qrels of the held-out queries")
    known_split: str | None = Field(None, pattern=_SPLIT_NAME, description="BEIR: qrels of known false negatives")
    holdout: float = Field(0.0, ge=0, le=1, description="share of queries held out (BEIR: where test_split is null)")
    min_relevance: int = Field(1, description="BEIR: lowest score of a positive")
    max_chars: int = Field(20_000, ge=1, description="longer texts are cut to so many characters")

    @model_validator(mode="after")
    def _splits_differ(self) -> "IngestConfig":
        names = [name for name in (self.train_split, self.test_split, self.known_split) if name is not None]
        if len(set(names)) < len(names):
            raise ValueError(f"train_split, test_split and known_split must be different files, got {', '.join(names)}")
        return self


def ingest(config: IngestConfig, *, source: Path) -> dict[str, pl.DataFrame | list[pl.DataFrame]]:
    """Read a folder of training rows, or a BEIR folder, into aligned parts of queries, positives and given negatives.

    Identical queries of a dataset become one query with the lowest of their ids; identical passages likewise. Their
    labels move to it. The part of a query is the hash of its text modulo the number of parts, so rows that are added
    to other parts do not change it.

    Returns:
        `queries`, `positives`, `given` (one frame per query part), `passages` (one per corpus part), `qrels` (all
        judgements of the held-out queries), `known`, `rejects`.

    Raises:
        IngestError: no usable query was found; the message counts the reasons.
    """
    if not source.is_dir():
        raise IngestError(f"ingest: {source} is not a folder")
    form = readers.detect(source) if config.format == "auto" else config.format
    records = _Records(config)
    if form == "beir":
        _read_beir(records, source)
    else:
        for item in (item for path in readers.row_files(source) for item in readers.read_rows(path, form)):
            records.problems.append(item) if isinstance(item, Problem) else records.add_row(item)
    return _Resolver(records).resolve()


class _Texts:
    """Texts by (dataset, id), numbered in the order in which they first appear."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, str], int] = {}
        names = ("dataset", "id", "title", "text", "text_hash", "where")
        self.columns: dict[str, list[str]] = {name: [] for name in names}

    def put(self, *row: str) -> tuple[int, Literal["new", "same", "other"]]:
        """Return the number of a row of `columns`, and whether its id is new, has the same text, or had another one."""
        dataset, identifier, _, _, text_hash, _ = row
        number = self.numbers.setdefault((dataset, identifier), len(self.numbers))
        if number < len(self.columns["id"]):
            return number, "same" if self.columns["text_hash"][number] == text_hash else "other"
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        return number, "new"

    def frame(self) -> pl.DataFrame:
        """Return all rows in the order of their `number`."""
        return pl.DataFrame(self.columns, schema=dict.fromkeys(self.columns, pl.String)).with_row_index("number")


class _Pairs:
    """References from queries to passages, as numbers of query, passage and line, with a value (score or relevance)."""

    def __init__(self) -> None:
        self.query, self.passage, self.line, self.value = array("I"), array("I"), array("I"), array("d")

    def add(self, query: int, passage: int, line: int, value: float) -> None:
        self.query.append(query)
        self.passage.append(passage)
        self.line.append(line)
        self.value.append(value)

    def frame(self) -> pl.DataFrame:
        columns = {"query": self.query, "passage": self.passage, "line": self.line, "value": self.value}
        return pl.DataFrame({name: np.asarray(column) for name, column in columns.items()})


class _Records:
    """All records read so far: each text once, and all references as numbers."""

    def __init__(self, config: IngestConfig) -> None:
        self.config = config
        self.problems: list[Problem] = []
        self.lines: list[str] = []
        self.queries, self.passages = _Texts(), _Texts()
        self.judged: dict[int, bool] = {}  # query number → whether the test split names the query
        self.labels = {"train": _Pairs(), "test": _Pairs()}
        self.negatives, self.known = _Pairs(), _Pairs()
        self.holdout = config.holdout
        self.min_relevance = 1

    def reject(self, key: str, reason: str, detail: str) -> None:
        self.problems.append(Problem(key, reason, detail))

    def add_row(self, row: Row) -> None:
        """Add a training row; reject it if the id of its query, or of all its positives, had another text before."""
        self.problems.extend(row.problems)
        dataset = row.dataset or self.config.dataset
        earlier = self.queries.numbers.get((dataset, row.query_id))
        if earlier is not None and self.queries.columns["text"][earlier] != self._cut(row.query):
            self._conflict(self.queries, dataset, row.query_id, row.where)
            return
        positives = [number for item in row.positives if (number := self._passage(dataset, item)) is not None]
        if not positives:
            self.reject(row.where, "no_positive", "every positive has an id that came before with another text")
            return
        query = self.add_query(Query(row.where, row.query_id, row.query), dataset)
        self.lines.append(row.where)
        line = len(self.lines) - 1
        self.judged[query] = False
        for passage in positives:
            self.labels["train"].add(query, passage, line, 1)
        for item, score in zip(row.negatives, row.scores, strict=True):
            negative = self._passage(dataset, item)
            if negative is not None:
                self.negatives.add(query, negative, line, math.nan if score is None else score)

    def add_query(self, query: Query, dataset: str) -> int:
        """Return the number of a query. A repeated id is reported; it is merged if its text is the same."""
        text = self._cut(query.text)
        text_hash = hash_text(text)
        number, state = self.queries.put(dataset, query.query_id, "", text, text_hash, query.where)
        if state == "other":
            self._conflict(self.queries, dataset, query.query_id, query.where)
        elif state == "same":
            first = self.queries.columns["where"][number]
            self.reject(query.where, "duplicate_query", f"query {query.query_id} again; merged into {first}")
        elif len(query.text) > len(text):
            self._report_cut("query_cut", f"{dataset}/{query.query_id}", len(query.text))
        return number

    def add_document(self, passage: Passage) -> None:
        """Add a passage of a corpus file, where each id must come once."""
        count = len(self.passages.numbers)
        number = self._passage(self.config.dataset, passage)
        if number is not None and number < count:
            first = self.passages.columns["where"][number]
            self.reject(passage.where, "duplicate_passage", f"passage {passage.doc_id} is already at {first}")

    def add_judgement(self, judgement: Judgement, pairs: _Pairs) -> None:
        """Add a line of a qrels file; reject it if its query or its passage is missing."""
        query = self.queries.numbers.get((self.config.dataset, judgement.query_id))
        passage = self.passages.numbers.get((self.config.dataset, judgement.doc_id))
        if query is None:
            self.reject(judgement.where, "unknown_query", f"query {judgement.query_id} is not there, or was rejected")
            return
        if pairs is not self.known:
            self.judged[query] = self.judged.get(query, False) or pairs is self.labels["test"]
        if passage is None:
            detail = f"passage {judgement.doc_id} is not there, or was rejected"
            self.reject(judgement.where, "unknown_document", detail)
            return
        self.lines.append(judgement.where)
        pairs.add(query, passage, len(self.lines) - 1, judgement.relevance)

    def _passage(self, dataset: str, passage: Passage) -> int | None:
        """Return the number of a passage; None (and a reject) if its id came before with another text."""
        title, text = self._cut(passage.title), self._cut(passage.text)
        text_hash = hash_passage(title, text)
        number, state = self.passages.put(dataset, passage.doc_id, title, text, text_hash, passage.where)
        if state == "other":
            self._conflict(self.passages, dataset, passage.doc_id, passage.where)
            return None
        if state == "new" and (len(title) < len(passage.title) or len(text) < len(passage.text)):
            self._report_cut("passage_cut", f"{dataset}/{passage.doc_id}", max(len(passage.title), len(passage.text)))
        return number

    def _cut(self, text: str) -> str:
        return text if len(text) <= self.config.max_chars else text[: self.config.max_chars].rstrip()

    def _report_cut(self, reason: str, key: str, length: int) -> None:
        self.reject(key, reason, f"{length} characters long, cut to {self.config.max_chars}")

    def _conflict(self, texts: _Texts, dataset: str, identifier: str, where: str) -> None:
        first = texts.columns["where"][texts.numbers[dataset, identifier]]
        self.reject(where, "id_conflict", f"id {identifier} has another text at {first}, which is kept")


def _read_beir(records: _Records, source: Path) -> None:
    """Read corpus, queries and the qrels of the configured splits; `holdout` applies only without a test split."""
    config = records.config
    corpus, queries = (readers.find_file(source, name) for name in ("corpus.jsonl", "queries.jsonl"))
    if corpus is None or queries is None:
        raise IngestError("ingest: a BEIR folder needs corpus.jsonl and queries.jsonl (or .gz) at its top")
    wanted = ((config.train_split, records.labels["train"]), (config.test_split, records.labels["test"]))
    splits = [(readers.qrels_file(source, name), pairs) for name, pairs in wanted if name is not None]
    if config.known_split is not None:
        splits.append((readers.qrels_file(source, config.known_split), records.known))
    records.min_relevance = config.min_relevance
    records.holdout = config.holdout if config.test_split is None else 0.0

    for item in readers.read_corpus(corpus):
        records.problems.append(item) if isinstance(item, Problem) else records.add_document(item)
    for entry in readers.read_queries(queries):
        records.problems.append(entry) if isinstance(entry, Problem) else records.add_query(entry, config.dataset)
    for path, pairs in splits:
        for line in readers.read_qrels(path):
            records.problems.append(line) if isinstance(line, Problem) else records.add_judgement(line, pairs)


class _Resolver:
    """Merges identical texts, resolves contradictions between labels, and cuts the rest into parts."""

    def __init__(self, records: _Records) -> None:
        self.records = records
        self.lines = pl.Series(records.lines, dtype=pl.String)
        self.queries = _split_queries(records)
        self.passages = _canonical(records.passages.frame(), "dataset", "text_hash")
        self.rejects: list[pl.DataFrame] = []

    def resolve(self) -> dict[str, pl.DataFrame | list[pl.DataFrame]]:
        """Return all outputs of `ingest`."""
        self._reject_texts()
        config, labels = self.records.config, self._labels()
        positives = labels.filter(pl.col("value") >= self.records.min_relevance)
        negatives, known = self._negatives(positives), self._known(positives)
        original = pl.col("number") == pl.col("canonical")
        asked = self.queries.filter("judged", original).rename({"number": "query", "id": "query_id"})
        kept, unanswered = _split_by(asked, positives, "query")
        self._reject(unanswered, "no_positive", pl.format("query {} has no usable positive", "query_id"))
        rejects = pl.concat(self.rejects)
        if kept.is_empty():
            raise IngestError(_nothing_left(rejects))

        queries, count = _with_part(kept, config.query_parts, _QUERIES_PER_PART)
        corpus, corpus_count = _with_part(self.passages.filter(original), config.passage_parts, _PASSAGES_PER_PART)
        labelled, given, known_pairs = (self._join(pairs, queries) for pairs in (labels, negatives, known))
        positives = labelled.filter(pl.col("value") >= self.records.min_relevance).with_columns(source=pl.lit("label"))
        qrels = labelled.filter(pl.col("split") == "test").rename({"value": "relevance"})
        return {
            "queries": _parts(queries, count, schemas.QUERIES),
            "positives": _parts(positives, count, schemas.POSITIVES),
            "given": _parts(given, count, schemas.GIVEN),
            "passages": _parts(corpus.rename({"id": "doc_id"}), corpus_count, schemas.PASSAGES),
            "qrels": _table(qrels, schemas.QRELS),
            "known": _table(known_pairs, schemas.KNOWN),
            "rejects": rejects,
        }

    def _labels(self) -> pl.DataFrame:
        """Keep the highest judgement of each query and passage; low ones are kept for held-out queries only."""
        splits = self.queries.select("tested", "split", query="number")
        pairs = (self._canonical_pairs(self.records.labels[name]) for name in ("train", "test"))
        train, test = (frame.join(splits, on="query", maintain_order="left") for frame in pairs)
        self._reject_pairs(train.filter("tested"), "query_in_test", "is a training label of a held-out query")
        every = pl.concat([train.filter(~pl.col("tested")), test])
        labels = self._distinct(every.sort("value", descending=True, maintain_order=True), "duplicate_pair")
        low = pl.col("value") < self.records.min_relevance
        useless = low & ((pl.col("split") == "train") | low.all().over("query"))
        says = f"scores below {self.records.min_relevance}"
        self._reject_pairs(labels.filter(useless), "below_min_relevance", says)
        return labels.filter(~useless)

    def _negatives(self, positives: pl.DataFrame) -> pl.DataFrame:
        """Keep each given negative once, without those that are positives, ranked from 1 in reading order."""
        negatives = self._distinct(self._canonical_pairs(self.records.negatives), "duplicate_negative")
        contradicted, rest = _split_by(negatives, positives, "query", "passage")
        self._reject_pairs(contradicted, "negative_is_positive", "is also a positive of the query")
        return rest.with_columns(rank=pl.col("line").cum_count().over("query"), score=pl.col("value").fill_nan(None))

    def _known(self, positives: pl.DataFrame) -> pl.DataFrame:
        """Keep each known false negative once, if its query is kept and it is not a positive of the query."""
        every = self._canonical_pairs(self.records.known)
        self._reject_pairs(every.filter(pl.col("value") <= 0), "below_min_relevance", "scores 0 or less as known")
        asked, unasked = _split_by(every.filter(pl.col("value") > 0), positives, "query")
        self._reject_pairs(unasked, "unknown_query", "is known for a query that is not kept")
        contradicted, rest = _split_by(self._distinct(asked, "duplicate_pair"), positives, "query", "passage")
        self._reject_pairs(contradicted, "known_is_positive", "is also a positive of the query")
        return rest

    def _canonical_pairs(self, pairs: _Pairs) -> pl.DataFrame:
        """Return references in reading order, to canonical query and passage; `named` is the passage in the file."""
        frame = pairs.frame()
        return frame.with_columns(
            query=self.queries["canonical"].gather(frame["query"]),
            passage=self.passages["canonical"].gather(frame["passage"]),
            named=frame["passage"],
        )

    def _distinct(self, pairs: pl.DataFrame, reason: str) -> pl.DataFrame:
        """Keep the first reference of each query to each passage."""
        first = pl.struct("query", "passage").is_first_distinct()
        self._reject_pairs(pairs.filter(~first), reason, "is there more than once for the query")
        return pairs.filter(first)

    def _join(self, pairs: pl.DataFrame, queries: pl.DataFrame) -> pl.DataFrame:
        """Join the references of the kept queries with ids, text hashes and the part of the query."""
        passages = self.passages.select("text_hash", passage="number", doc_id="id")
        return pairs.join(queries.select("query", "part", "dataset", "query_id"), on="query").join(
            passages, on="passage"
        )

    def _reject_texts(self) -> None:
        problems = [(item.key, item.reason, item.detail) for item in self.records.problems]
        columns = pl.DataFrame(problems, schema=dict.fromkeys(("where", "reason", "detail"), pl.String), orient="row")
        self._reject(columns, pl.col("reason"), pl.col("detail"))
        repeated = pl.col("number") != pl.col("canonical")
        says = pl.format("same text as {}, which stands for it", "canonical_id")
        unused = pl.format("query {} is in no qrels of the configured splits", "id")
        self._reject(self.queries.filter(~pl.col("judged")), "not_in_splits", unused)
        self._reject(self.queries.filter(pl.col("judged"), repeated), "duplicate_query", says)
        by_id = self.passages.filter(repeated).with_columns(where=pl.format("{}/{}", "dataset", "id"))
        self._reject(by_id, "duplicate_text", says)

    def _reject_pairs(self, pairs: pl.DataFrame, reason: str, says: str) -> None:
        """Reject references, each at its line, with what is wrong with the passage."""
        named = self.passages[pairs["named"]].select("id", "canonical_id").with_columns(where=self.lines[pairs["line"]])
        alias = pl.format("{} (same text as {})", "id", "canonical_id")
        name = pl.when(pl.col("id") == pl.col("canonical_id")).then("id").otherwise(alias)
        self._reject(named, reason, pl.format("passage {} " + says, name))

    def _reject(self, frame: pl.DataFrame, reason: str | pl.Expr, detail: pl.Expr) -> None:
        why = pl.lit(reason) if isinstance(reason, str) else reason
        self.rejects.append(frame.select(stage=pl.lit("ingest"), key="where", reason=why, detail=detail))


def _split_queries(records: _Records) -> pl.DataFrame:
    """Add the canonical query and the split of each query. All queries of one text are in the same split."""
    frame = records.queries.frame()
    tested = pl.Series("tested", [records.judged.get(number) for number in range(frame.height)], dtype=pl.Boolean)
    queries = _canonical(frame.with_columns(tested, judged=tested.is_not_null()), "dataset", "text_hash", "judged")
    in_test = pl.col("tested").fill_null(False).any().over("canonical")
    place = pl.col("text_hash").str.head(_PREFIX).str.to_integer(base=16)
    held_out = in_test | (place < records.holdout * 16**_PREFIX)
    return queries.with_columns(tested=in_test, split=pl.when(held_out).then(pl.lit("test")).otherwise(pl.lit("train")))


def _canonical(texts: pl.DataFrame, *by: str) -> pl.DataFrame:
    """Add the row with the lowest id among the rows with equal values in `by`: its number and its id."""
    lowest = pl.col("number").sort_by("id").first()
    return texts.with_columns(canonical=lowest.over(by), canonical_id=pl.col("id").min().over(by))


def _split_by(pairs: pl.DataFrame, others: pl.DataFrame, *on: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows into those whose `on` is in `others`, and the rest. The order is kept."""
    there = pairs.join(others, on=on, how="semi", maintain_order="left")
    return there, pairs.join(others, on=on, how="anti", maintain_order="left")


def _with_part(texts: pl.DataFrame, asked: int | None, size: int) -> tuple[pl.DataFrame, int]:
    count = asked or math.ceil(texts.height / size)
    part = [part_of(digits, count) for digits in texts["text_hash"]]
    return texts.with_columns(part=pl.Series(part, dtype=pl.UInt32)), count


def _parts(frame: pl.DataFrame, count: int, schema: schemas.Schema) -> list[pl.DataFrame]:
    parts = frame.partition_by("part", as_dict=True)
    return [_table(parts[(part,)], schema) if (part,) in parts else schema.empty() for part in range(count)]


def _table(frame: pl.DataFrame, schema: schemas.Schema) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(dtype) for name, dtype in schema.columns.items()).sort(schema.key)


def _nothing_left(rejects: pl.DataFrame) -> str:
    counts = rejects.group_by("reason", maintain_order=True).agg(pl.len(), pl.col("key", "detail").first())
    rows = counts.sort("len", "reason", descending=[True, False]).iter_rows(named=True)
    reasons = "; ".join(f"{row['len']} {row['reason']} (first {row['key']}: {row['detail']})" for row in rows)
    return f"ingest: no usable query is left. {reasons or 'The files hold no rows'}"
