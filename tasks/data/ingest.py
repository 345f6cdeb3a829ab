"""Turn input files into checked tables. Each input row is kept, or is a row of `rejects` with its reason.

Reading (`tasks.data.ingesting`) gives numbers to queries and passages, stores references as pairs of numbers, and
leaves the texts of passages on disk. Resolving (`_Resolver`) works on these numbers: it merges identical texts, removes
contradictions, and cuts the rest into parts. Ids are unique within a dataset only, so nothing is merged across them.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks import schemas
from tasks.data.ingest_config import IngestConfig
from tasks.data.ingesting import records as r
from tasks.data.ingesting.claims import first_of
from tasks.data.ingesting.corpus_records import read_corpus
from tasks.data.ingesting.pair_tables import PairTables, held_out_absent
from tasks.data.ingesting.passage_texts import cut_into_parts, hash_shown_texts
from tasks.data.ingesting.row_records import read_rows
from tasks.data.ingesting.text_store import from_hex, hash_all, to_hex
from tasks.data.on_disk.scratch import Scratch
from tasks.data.partition import Before, Cut, count_passage_parts, count_query_parts, cut, generations_of
from tasks.data.pieces.stored import ReadApart
from tasks.data.reading.records import IngestError
from tasks.data.reading.source import CorpusSource, open_source
from tasks.data.splits import DEV, TEST, TRAIN, assign_splits
from tasks.data.subset import draw_subset
from tasks.rejects import sum_up
from tasks.texts import normalise

__all__ = ["IngestConfig", "IngestError", "ingest"]
_SPLITS = (TRAIN, DEV, TEST)  # a query that several name belongs to the last
# The reference of a query to a passage as one number, which is faster to compare than two.
_PAIR = pl.col("query").cast(pl.UInt64) * 2**32 + pl.col("passage")
_COPIES = {  # by the hash that is equal: how a negative repeats a positive
    "shown": "reads as the positive {} of the query, with title and text cut elsewhere (same shown text)",
    "guard": "is the positive {} of the query but for case, spaces or Unicode form (same normalised text)",
}


def ingest(  # noqa: PLR0913 - the source, what was read of it, and where its texts were
    config: IngestConfig,
    *,
    source: Path,
    ranges: pl.DataFrame | None = None,
    read: Iterable[pl.DataFrame] | None = None,
    query_places: pl.DataFrame | None = None,
    passage_places: pl.DataFrame | None = None,
    generations: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """Read a folder of training rows, or a BEIR folder, into aligned parts of queries, positives and given negatives.

    Identical queries of a dataset become one query with the lowest of their ids; identical passages likewise. Their
    labels move to it. The part of a text follows from its hash. `query_places`, `passage_places` and `generations` are
    those of an earlier ingest: its texts stay in their parts, and texts that it did not have get parts of their own
    behind those (`tasks.data.partition`). So what was made of the old parts stays valid.

    `ranges` and `read` hold what `tasks.data.pieces.read` read before. The outputs are the same without them. The texts
    of passages are never in memory all at once, and the tables in parts are generators, to be read in the order in
    which they are listed here.

    Returns:
        By query part: `queries`, `positives`, `given`, `irrelevant` (what people called irrelevant to a training
        query), `teacher` (scores of the source's pairs), `extras` (further fields of the source's rows). By corpus
        part: `passages`. Whole: `qrels` (all judgements of the held-out queries), `known`, `copies` (ids of merged
        queries and passages), `rejects`; and for the next ingest `query_places` and `passage_places`, by generation,
        and `generations`.
        And `facts`: counts (`queries_new`, `passages_new`: what the earlier ingest did not have), the number of parts
        of each generation (`query_generations`, `passage_generations`), the layout (`format`), which field was read as
        what (`fields`); with `read`, how many files came from there (`files_read_apart`).

    Raises:
        IngestError: no usable query was found; the message counts the reasons.
    """
    if not source.is_dir():
        raise IngestError(f"ingest: {source} is not a folder")
    form = None if config.format == "auto" else config.format
    found = open_source(source, form, config.row_options, split=config.train_split, run=config.run)
    limits: dict[str, Any] = {"longest": config.max_chars, "most_rejects": config.limits.rejects}
    said: dict[str, Any] = {"format": found.form, "fields": dict(found.recognised)}
    before = (
        Before.of(schemas.QUERY, query_places, generations),
        Before.of(schemas.PASSAGE, passage_places, generations),
    )
    if not isinstance(found, CorpusSource):
        apart = None if read is None or ranges is None else ReadApart(ranges, read, config.reading.options)
        records = read_rows(found.batches(None if apart is None else apart.batches), config.dataset, **limits)
        said |= {} if apart is None else {"files_read_apart": apart.files}
        return _Resolver(config, records, before, place=True).resolve(said)
    names = zip(_SPLITS, (config.train_split, config.dev_split, config.test_split), strict=True)
    splits = {name: split for name, split in names if split is not None and (found.has_split(split) or name == TRAIN)}
    records = read_corpus(found, config.dataset, splits=splits, known=config.known_split, **limits)
    return _Resolver(config, records, before, place=TEST not in splits).resolve(said)


class _Resolver:
    """Merges identical texts, resolves contradictions between labels, and cuts the rest into parts.

    before: where an earlier ingest put its queries and its passages.
    place: whether queries may be held out that the source itself does not hold out.
    """

    def __init__(
        self, config: IngestConfig, records: r.Records, before: tuple[Before | None, Before | None], *, place: bool
    ) -> None:
        self.config, self.records, self.before, self.rejects = config, records, before, records.rejects
        self.rules = config.split_rules(place=place)
        self.least = config.min_relevance if records.corpus else 1  # the lowest value of a positive
        self.passages = _canonical(records.passages, "dataset", "high", "low")
        queries = records.queries.with_columns(pl.col("named").cast(pl.Enum(_SPLITS)))
        queries = queries.with_columns(judged=pl.col("named").is_not_null())
        self.queries = self._split_queries(_canonical(queries, "dataset", "text_hash", "judged"))
        self.absent = held_out_absent(records.absent, self.queries)
        self.hashes = self._hash_named()

    def resolve(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Return all outputs of `ingest`; `said` is added to the facts."""
        self._reject_texts()
        labels, low = self._labels()
        positives = labels.filter(pl.col("value") >= self.least)
        near, original = pl.col("near").is_not_null(), pl.col("number") == pl.col("canonical")
        asked = self.queries.filter("judged", original).rename({"number": "query", "id": "query_id"})
        says = pl.format("query {} says the same, or nearly, as the held-out query {}", "query_id", "near")
        self._reject(asked.filter(near), "near_test_query", says)
        positives = _split_by(positives, asked.filter(near), "query")[1]
        negatives, known = self._negatives(positives), self._known(positives)
        pairs = {"labels": labels, "negatives": negatives, "known": known}
        pairs["irrelevant"] = self._irrelevant(low, positives)
        answers = [frame.filter(pl.col("value") >= self.least).select("query") for frame in (labels, self.absent)]
        kept, unanswered = _split_by(asked.filter(~near), pl.concat(answers), "query")
        self._reject(unanswered, "no_positive", pl.format("query {} has no usable positive", "query_id"))
        self.rejects.add(self.notes.with_columns(key=pl.lit("splits")))
        if kept.is_empty():
            why = sum_up(self.rejects.frame()) or "The files hold no rows"
            raise IngestError(f"ingest: no usable query is left. {why}")
        kept, corpus, facts = self._draw(kept, pairs)
        lost = _split_by(self.queries, unanswered.select(canonical="query"), "canonical")[0]["rows"].sum()
        rows_kept = {"rows_kept": self.records.facts["rows_kept"] - lost}
        return self._tables(kept, corpus, pairs, {**said, **facts, **rows_kept})

    def _draw(
        self, kept: pl.DataFrame, pairs: Mapping[str, pl.DataFrame]
    ) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
        """Return the queries and passages of the subset (else all), and what was there."""
        corpus = self.passages.filter(pl.col("number") == pl.col("canonical"))
        if self.config.subset is None:
            return kept, corpus, {}
        named = corpus.with_columns(
            pl.col("dataset").cast(pl.String), text_hash=to_hex(corpus["high"].to_numpy(), corpus["low"].to_numpy())
        )
        kept, drawn, left, facts = draw_subset(self.config.subset, kept, named, pairs, corpus=self.records.corpus)
        self.rejects.add(left)
        return kept, drawn.drop("text_hash").with_columns(pl.col("dataset").cast(pl.Categorical)), facts

    def _tables(
        self, kept: pl.DataFrame, corpus: pl.DataFrame, pairs: Mapping[str, pl.DataFrame], facts: dict[str, Any]
    ) -> dict[str, Any]:
        """Cut what is kept into parts."""
        labels, given = pairs["labels"], pairs["negatives"]
        of_queries, of_passages = self._cut(kept, corpus)
        queries = kept.with_columns(part=pl.Series(of_queries.part))
        tables = PairTables(queries, self.passages, self.hashes, of_queries.parts)
        positives = labels.filter(pl.col("value") >= self.least).select("query", "passage", source=pl.lit("label"))
        scores = self._scores(positives, given)
        queried = {name: frame.join(kept, on="query", how="semi") for name, frame in pairs.items()}
        held_out = labels.filter(pl.col("split") != TRAIN).rename({"value": "relevance"})
        corpus = corpus.with_columns(part=pl.Series(of_passages.part))
        counts = {
            "queries_kept": kept.height,
            "passages_kept": corpus.height,
            "positives": queried["labels"].filter(pl.col("value") >= self.least).height,
            "negatives": queried["negatives"].height,
            "query_generations": list(of_queries.counts),
            "passage_generations": list(of_passages.counts),
            "queries_new": of_queries.new,
            "passages_new": of_passages.new,
        }
        return {
            "queries": tables.parts(queries.select("query", "text", "text_hash", "split"), schemas.QUERIES),
            "positives": tables.parts(positives, schemas.POSITIVES),
            "given": tables.parts(given.select("query", "passage", "rank", score="value"), schemas.GIVEN),
            "irrelevant": tables.parts(pairs["irrelevant"].rename({"value": "relevance"}), schemas.IRRELEVANT),
            "teacher": tables.parts(scores.select("query", "passage", score="value"), schemas.TEACHER),
            "extras": tables.parts(self._extras(), schemas.EXTRAS),
            "passages": cut_into_parts(self.records.texts, corpus, of_passages.parts, Scratch()),
            "qrels": tables.judged(held_out.select("query", "passage", "relevance"), self.absent),
            "known": tables.table(pairs["known"].select("query", "passage"), schemas.KNOWN),
            "copies": self._copies(),
            "rejects": self.rejects.frame(),
            "query_places": of_queries.places_by_generation(),
            "passage_places": of_passages.places_by_generation(),
            "generations": generations_of(query=of_queries.counts, passage=of_passages.counts),
            "facts": {**self.records.facts, **counts, "rejects": dict(self.rejects.counts), **facts},
        }

    def _cut(self, kept: pl.DataFrame, corpus: pl.DataFrame) -> tuple[Cut, Cut]:
        """Cut the queries and the passages that are kept into parts; anew if nothing was there before."""
        config = self.config
        high, low = from_hex(kept["text_hash"])
        asked = pl.DataFrame({"dataset": kept["dataset"], "high": high, "low": low})
        count_queries = partial(count_query_parts, wanted=config.query_parts)
        count_passages = partial(count_passage_parts, wanted=config.passage_parts)
        of_queries = cut(asked, self.before[0], count_queries)
        of_passages = cut(corpus, self.before[1], count_passages)
        if of_queries.new == kept.height and of_passages.new == corpus.height:
            return cut(asked, None, count_queries), cut(corpus, None, count_passages)
        return of_queries, of_passages

    def _split_queries(self, queries: pl.DataFrame) -> pl.DataFrame:
        """Add the split of each query, and the held-out query that it is too near, if any."""
        last = pl.col("named").max().over("canonical")
        queries = queries.with_columns(given=pl.when(last != TRAIN).then(last.cast(pl.String)))
        alone = queries.filter("judged", pl.col("number") == pl.col("canonical")).rename({"number": "query"})
        self.queries = queries
        pairs = pl.concat(self._canonical_pairs(pairs) for pairs in self.records.labels.values())
        positives = pairs.filter(pl.col("value") >= self.least)
        found = assign_splits(self.rules, queries=alone, positives=positives)
        self.notes = found.notes
        decided = found.queries.rename({"query": "canonical"})
        return queries.join(decided, on="canonical", how="left", maintain_order="left")

    def _hash_named(self) -> pl.DataFrame:
        """Hash what is shown of each passage that a query names."""
        every = (*self.records.labels.values(), self.records.negatives)
        named = pl.concat([self._canonical_pairs(pairs)["passage"] for pairs in every]).unique()
        return hash_shown_texts(self.records.texts, self.passages[named.sort()].select("number", "place"))

    def _labels(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Keep the highest judgement of each query and passage; those too low for a training query come apart."""
        labels = self.records.labels.items()
        every = pl.concat(self._canonical_pairs(pairs).with_columns(named_in=pl.lit(name)) for name, pairs in labels)
        every = every.join(self.queries.select("given", "split", query="number"), on="query", maintain_order="left")
        elsewhere = pl.col("named_in") != pl.col("given").fill_null(TRAIN)
        self._reject_pairs(every.filter(elsewhere), "query_in_test", "is a training label of a held-out query")
        ordered = every.filter(~elsewhere).sort("value", descending=True, maintain_order=True)
        distinct = self._distinct(ordered, "duplicate_pair")
        low = pl.col("value") < self.least
        useless = low & low.all().over("query")
        self._reject_pairs(distinct.filter(useless), "below_min_relevance", f"scores below {self.least}")
        of_training = low & (pl.col("split") == TRAIN)
        return distinct.filter(~(useless | of_training)), distinct.filter(~useless & of_training)

    def _negatives(self, positives: pl.DataFrame) -> pl.DataFrame:
        """Keep each given negative once, without copies of positives and of the query, ranked in reading order."""
        negatives = self._distinct(self._canonical_pairs(self.records.negatives), "duplicate_negative")
        contradicted, rest = _split_by(negatives, positives, "query", "passage")
        self._reject_pairs(contradicted, "negative_is_positive", "is also a positive of the query")
        rest = self._without_copies(rest, positives, "negative_is_positive")
        own = self._own_text(rest)
        self._reject_pairs(rest.filter(own), "same_text_as_query", "is the query's own text")
        rest = rest.filter(~own)
        return rest.with_columns(rank=pl.Series(_count_within(rest["query"].to_numpy())))

    def _irrelevant(self, low: pl.DataFrame, positives: pl.DataFrame) -> pl.DataFrame:
        """Keep what people called irrelevant, without copies of positives."""
        return self._without_copies(_split_by(low, positives, "query")[0], positives, "irrelevant_is_positive")

    def _without_copies(self, pairs: pl.DataFrame, positives: pl.DataFrame, reason: str) -> pl.DataFrame:
        """Reject passages that read like a positive of their query, and say by which hash."""
        if pairs.is_empty():
            return pairs
        for name, says in _COPIES.items():
            group = first_of(self.hashes, f"{name}_high", f"{name}_low")
            theirs = positives.select("passage", key=self._keys(positives, group))
            keys = self._keys(pairs, group)
            copied = keys.is_in(theirs["key"].implode())
            twins = theirs.group_by("key").agg(twin=pl.col("passage").min())
            found = pairs.filter(copied).with_columns(key=keys.filter(copied))
            found = found.join(twins, on="key", how="left", maintain_order="left").drop("key")
            self._reject_pairs(found, reason, says)
            pairs = pairs.filter(~copied)
        return pairs

    def _keys(self, pairs: pl.DataFrame, group: npt.NDArray[np.uint32]) -> pl.Series:
        """Return one number for the query and the group of the passage of each reference."""
        at = np.searchsorted(self.hashes["passage"].to_numpy(), pairs["passage"].to_numpy())
        return pl.Series("key", (pairs["query"].to_numpy().astype(np.uint64) << np.uint64(32)) + group[at])

    def _own_text(self, pairs: pl.DataFrame) -> pl.Series:
        """Tell for each reference whether the passage is the query's own text, but for case and spaces."""
        high, low = hash_all(pl.Series([normalise(text) for text in self.queries["text"]], dtype=pl.String))
        query = pairs["query"].to_numpy()
        at = np.searchsorted(self.hashes["passage"].to_numpy(), pairs["passage"].to_numpy())
        same = self.hashes["guard_high"].to_numpy()[at] == high[query]
        return pl.Series("own", same & (self.hashes["guard_low"].to_numpy()[at] == low[query]))

    def _known(self, positives: pl.DataFrame) -> pl.DataFrame:
        """Keep each known false negative once, if its query is kept and it is not a positive of the query."""
        every = self._canonical_pairs(self.records.known)
        self._reject_pairs(every.filter(pl.col("value") <= 0), "below_min_relevance", "scores 0 or less as known")
        asked, unasked = _split_by(every.filter(pl.col("value") > 0), positives, "query")
        self._reject_pairs(unasked, "unknown_query", "is known for a query that is not kept")
        contradicted, rest = _split_by(self._distinct(asked, "duplicate_pair"), positives, "query", "passage")
        self._reject_pairs(contradicted, "known_is_positive", "is also a positive of the query")
        return rest

    def _extras(self) -> pl.DataFrame:
        """Return the further fields of each query; of several values the first."""
        extras = self.records.extras
        canonical = self.queries["canonical"].gather(extras["query"])
        return extras.with_columns(query=canonical).unique(["query", "name"], keep="first", maintain_order=True)

    def _canonical_pairs(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Return references in reading order, to canonical query and passage; `named` is the passage in the file."""
        return pairs.with_columns(
            query=self.queries["canonical"].gather(pairs["query"]),
            passage=self.passages["canonical"].gather(pairs["passage"]),
            named=pairs["passage"],
        )

    def _scores(self, positives: pl.DataFrame, given: pl.DataFrame) -> pl.DataFrame:
        """Return the first score of each pair that is kept."""
        scores = self._canonical_pairs(self.records.scores)
        scores = scores.filter(_PAIR.is_first_distinct())
        if scores.is_empty():
            return scores
        ours = pl.concat([positives.select("query", "passage"), given.select("query", "passage")])
        return _split_by(scores, ours, "query", "passage")[0]

    def _distinct(self, pairs: pl.DataFrame, reason: str) -> pl.DataFrame:
        """Keep the first reference of each query to each passage."""
        first = pairs.select(_PAIR.is_first_distinct()).to_series()
        self._reject_pairs(pairs.filter(~first), reason, "is there more than once for the query")
        return pairs.filter(first)

    def _reject_texts(self) -> None:
        repeated = pl.col("number") != pl.col("canonical")
        unused = pl.format("query {} is in no qrels of the configured splits", "id")
        self._reject(self.queries.filter(~pl.col("judged")), "not_in_splits", unused)
        for texts, kept, reason in (
            (self.queries, pl.col("judged"), "duplicate_query"),
            (self.passages, pl.lit(True), "duplicate_text"),
        ):
            found = texts.filter(kept, repeated)
            found = found.with_columns(canonical_id=texts["id"].gather(found["canonical"]))
            if reason == "duplicate_text":
                found = found.with_columns(key=pl.format("{}/{}", pl.col("dataset").cast(pl.String), "id"))
            self._reject(found, reason, pl.format("same text as {}, which stands for it", "canonical_id"))

    def _copies(self) -> pl.DataFrame:
        """List the ids of queries and passages whose text stands under another id."""
        found = []
        for kind, texts in ((schemas.QUERY, self.queries), (schemas.PASSAGE, self.passages)):
            merged = texts.filter(pl.col("number") != pl.col("canonical"))
            kept = texts["id"].gather(merged["canonical"]).alias("kept")
            named = merged.select(pl.col("dataset").cast(pl.String), "id").with_columns(kept, kind=pl.lit(kind))
            found.append(named.select(*schemas.COPIES.columns))
        return pl.concat(found).sort(schemas.COPIES.key)

    def _reject_pairs(self, pairs: pl.DataFrame, reason: str, says: str) -> None:
        """Reject references, each at its line, with what is wrong with the passage; `{}` is the one it repeats."""
        listed = pairs.head(self.rejects.room)
        named = self.passages[listed["named"]].select("id", "canonical")
        named = named.with_columns(line=listed["line"], canonical_id=self.passages["id"].gather(named["canonical"]))
        alias = pl.format("{} (same text as {})", "id", "canonical_id")
        name = pl.when(pl.col("id") == pl.col("canonical_id")).then("id").otherwise(alias)
        twin = [pl.lit(self.passages["id"].gather(listed["twin"]))] if "twin" in listed.columns else []
        self._reject(named, reason, pl.format("passage {} " + says, name, *twin))
        self.rejects.count_only(reason, pairs.height - listed.height)

    def _reject(self, frame: pl.DataFrame, reason: str, detail: pl.Expr) -> None:
        """Reject rows by `key`, else by the place of their `line`."""
        listed = frame.head(self.rejects.room)
        if "key" not in listed.columns:
            listed = listed.with_columns(key=self.records.lines.names(listed["line"]))
        self.rejects.add(listed.select("key", reason=pl.lit(reason), detail=detail))
        self.rejects.count_only(reason, frame.height - listed.height)


def _count_within(groups: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Number the rows of each group from 1 on, in their order."""
    order = np.argsort(groups, kind="stable")
    begins = np.flatnonzero(np.diff(groups[order], prepend=groups[order[:1]] + np.uint32(1)))
    sizes = np.diff(begins, append=order.size)
    count = np.empty(order.size, dtype=np.uint32)
    count[order] = np.arange(order.size) - np.repeat(begins, sizes) + 1
    return count


def _canonical(texts: pl.DataFrame, *by: str) -> pl.DataFrame:
    """Add the number of the row with the lowest id among the rows with equal values in `by`."""
    first = first_of(texts, *by)
    repeated = np.bincount(first, minlength=texts.height)[first] > 1
    several = (
        texts.filter(pl.Series(repeated)).sort("id").select(*by, "number", lowest=pl.col("number").first().over(by))
    )
    lowest = texts["number"].to_numpy().copy()
    lowest[several["number"].to_numpy()] = several["lowest"].to_numpy()
    return texts.with_columns(canonical=pl.Series(lowest))


def _split_by(pairs: pl.DataFrame, others: pl.DataFrame, *on: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows into those whose `on` is in `others`, and the rest. The order is kept."""
    there = pairs.join(others, on=on, how="semi", maintain_order="left")
    return there, pairs.join(others, on=on, how="anti", maintain_order="left")
