"""Find the passages that BM25 scores highest for each query, for one part of queries and one of the corpus."""

import numpy as np
import polars as pl
from pydantic import Field

from tasks import schemas
from tasks.mining.bm25.part_index import Corpus, PartIndex
from tasks.mining.bm25.words import WordsConfig, count_words
from tasks.mining.masks import mark_repeats, mask
from tasks.mining.search import rank_by_score

NAME = "bm25"  # of this retriever
_QUERY = ["dataset", "query_id"]
_MASKED = 8  # masked passages that a query is expected to have among its nearest; one that has more is searched again


class Bm25Config(WordsConfig):
    """How passages are scored by the words that they share with a query (the retriever `bm25` of `mine.retrievers`)."""

    k1: float = Field(1.5, gt=0, description="from which number on more occurrences of a word count little")
    b: float = Field(0.75, ge=0, le=1, description="how far a long passage is marked down: 0 not at all, 1 fully")
    depth: int = Field(
        100,
        ge=1,
        description="hits kept per query and corpus part, at least mining's own `depth`; a query's own text, its "
        "positives and copies do not count",
    )

    @property
    def as_words(self) -> WordsConfig:
        """The settings that decide what is indexed."""
        return WordsConfig(language=self.language)


def search_bm25(  # noqa: PLR0913 - one keyword per table
    config: Bm25Config,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    passages: pl.DataFrame,
    documents: pl.DataFrame,
    postings: pl.DataFrame,
    frequencies: pl.DataFrame,
    corpus: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Find the top `depth` passages of its own dataset for each query of split "train" that can be its negatives.

    As in the dense search the passages between them that cannot are hits too, ranks count all of them, and equal scores
    are ranked by doc_id. A passage without any word of the query is no hit.

    Args:
        config: the settings.
        queries: of one part.
        positives: of these queries.
        passages: of one part; only those with the id of a query are read.
        documents: the passages of the same part, as `index_terms` orders them.
        postings: their index.
        frequencies: of the queries' words in the whole corpus; a word that is not named there stands nowhere.
        corpus: how many passages and words each dataset has as a whole.
    """
    queries = queries.filter(pl.col("split") == "train")
    found = [schemas.HITS.empty()]
    for dataset in sorted(set(queries["dataset"]) & set(documents["dataset"])):
        own = pl.col("dataset") == dataset
        asked = queries.filter(own)
        whole = corpus.row(by_predicate=own, named=True)
        words = max(whole["words"], 1) / whole["passages"]
        index = _Index(
            config, Corpus(whole["passages"], words, config.k1, config.b), documents.with_row_index("doc").filter(own)
        )
        found.append(
            index.search(asked, positives.filter(own), passages.filter(own), postings, frequencies.filter(own))
        )
    return {"hits": pl.concat(found).sort(schemas.HITS.key)}


class _Index:
    """The documents of one dataset in one part, whose rows follow each other."""

    def __init__(self, config: Bm25Config, corpus: Corpus, documents: pl.DataFrame) -> None:
        self._config, self._corpus = config, corpus
        self._first = int(documents["doc"][0])
        self._documents = documents.drop("doc")

    def search(
        self,
        queries: pl.DataFrame,
        positives: pl.DataFrame,
        passages: pl.DataFrame,
        postings: pl.DataFrame,
        frequencies: pl.DataFrame,
    ) -> pl.DataFrame:
        """Search, and search deeper for the queries of which too few hits can be negatives."""
        counts = count_words(queries["text"], self._config)
        part = self._part(counts, postings, frequencies)
        twins = passages.join(queries.select(doc_id="query_id"), on="doc_id", how="semi")
        depth, found = self._config.depth, [schemas.HITS.empty()]
        pending, reach = np.arange(queries.height), depth + _MASKED
        while len(pending):
            open_ = pl.DataFrame({"row": pending.astype(np.int32)})
            pairs = self._pairs(part, counts.join(open_, on="row", how="semi"), queries, reach)
            marked = mask(mark_repeats(pairs, queries, twins), positives=positives, same_id=True)
            usable = marked.with_columns(usable=pl.col("reason").is_null().cast(pl.Int64))
            before = pl.col("usable").cum_sum().over(_QUERY) - pl.col("usable")
            hits = usable.filter(before < depth)
            size = hits.group_by("row").agg(pl.col("usable").sum(), pairs=pl.len())
            all_ = pairs.group_by("row").agg(found=pl.len())
            short = size.join(all_, on="row").filter(pl.col("usable") < depth, pl.col("found") >= reach)["row"]
            settled = ~np.isin(pending, short.to_numpy())
            kept = hits.join(pl.DataFrame({"row": pending[settled].astype(np.int32)}), on="row", how="semi")
            found.append(kept.select(*schemas.HITS.columns))
            pending, reach = pending[~settled], reach * 2
        return pl.concat(found)

    def _part(self, counts: pl.DataFrame, postings: pl.DataFrame, frequencies: pl.DataFrame) -> PartIndex:
        asked = counts.select("term").unique().join(frequencies.select("term", "passages"), on="term", how="left")
        asked = asked.with_columns(pl.col("passages").fill_null(0))
        doc = pl.col("doc")
        own = postings.filter(doc >= self._first, doc < self._first + self._documents.height)
        own = own.join(asked, on="term", how="semi").with_columns(doc - self._first)
        return PartIndex(asked, own, self._documents["words"], self._corpus)

    def _pairs(self, part: PartIndex, counts: pl.DataFrame, queries: pl.DataFrame, reach: int) -> pl.DataFrame:
        """Pair queries with their nearest `reach` passages, ranked; ties with the last go to the lowest doc_id."""
        walked = list(part.walk(counts, reach))
        sizes = [len(passages) for _, passages, _ in walked]
        rows = np.repeat(np.array([row for row, *_ in walked], dtype=np.int32), sizes)
        docs = np.concatenate([np.empty(0, np.int64), *(passages for _, passages, _ in walked)])
        scores = np.concatenate([np.empty(0, np.float32), *(scores for *_, scores in walked)])
        found = self._documents.select("doc_id", "text_hash", "shown_hash", "guard_hash", "body_hash")[docs]
        ranked: pl.DataFrame = (
            pl.concat([queries.select(_QUERY)[rows], found], how="horizontal")
            .with_columns(
                row=pl.Series(rows),
                retriever=pl.lit(NAME),
                score=pl.Series(scores, dtype=pl.Float32).cast(pl.Float64),
            )
            .pipe(rank_by_score)
            .filter(pl.col("rank") <= reach)
        )
        return ranked
