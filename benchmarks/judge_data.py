"""TREC DL 2019 as the method's tables, with people's grades beside them, and the pairs that judges are compared on.

Judged BM25 candidates only, relevant from grade 2. A query's labelled positive is one grade-3 passage (see
`similarity_trec_dl19`); queries without one are left out. `hard` are the pairs an LLM can be asked about in minutes: of
the 20 candidates that BM25 ranks highest, 14 drawn per query, so that every query counts the same.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.similarity_trec_dl19 import SETS, Model, read_tables
from tasks.judging.similarity import SimilarityConfig, judge_similarity, similarity_features
from tasks.mining.encode import EncodeConfig, encode_passages, encode_queries
from tasks.mining.mine import AdoptConfig, adopt, score_positives

SEED = 0
HARDEST = 20
PER_QUERY = 14
_PAIR = ["dataset", "query_id", "doc_id"]


@dataclass(frozen=True)
class Collection:
    """The method's tables, and `grades`: query_id, doc_id, relevant."""

    queries: pl.DataFrame
    passages: pl.DataFrame
    positives: pl.DataFrame
    candidates: pl.DataFrame
    grades: pl.DataFrame


def read_collection(data: Path) -> Collection:
    """Read the collection's folder; its BM25 candidates become candidates with hashes, ranked among the judged ones."""
    tables = read_tables(data, SETS["bm25"])
    adopted = adopt(AdoptConfig(), given=tables["given"], queries=tables["queries"], positives=tables["positives"])
    return Collection(
        queries=tables["queries"],
        passages=tables["passages"],
        positives=tables["positives"],
        candidates=adopted["candidates"],
        grades=tables["grades"],
    )


def hard_pairs(candidates: pl.DataFrame) -> pl.DataFrame:
    """Draw 14 of each query's 20 highest candidates, seeded."""
    rng, drawn = np.random.default_rng(SEED), []
    for _, rows in candidates.sort("query_id", "rank").group_by("query_id", maintain_order=True):
        highest = rows.head(HARDEST)
        drawn.append(highest[np.sort(rng.choice(highest.height, PER_QUERY, replace=False)).tolist()])
    pairs: pl.DataFrame = pl.concat(drawn).sort(_PAIR)
    return pairs


def queries_tuned_on(candidates: pl.DataFrame) -> list[str]:
    """Name the half of the queries on which prompts were chosen; the others never saw a choice."""
    queries = np.random.default_rng(SEED).permutation(candidates["query_id"].unique().sort().to_numpy())
    return sorted(queries[: len(queries) // 2].tolist())


def similarities(collection: Collection, model: Path) -> pl.DataFrame:
    """Judge all candidates by similarity: `to_query`, `to_positive`, `positive_to_query`, `score`, `relevant`."""
    encoder = Model(model)
    embeddings = {
        "query_embeddings": encode_queries(EncodeConfig(), queries=collection.queries, engine=encoder)["embeddings"],
        "passage_embeddings": encode_passages(EncodeConfig(), passages=collection.passages, engine=encoder)[
            "embeddings"
        ],
    }
    inputs = {"candidates": collection.candidates, "positives": collection.positives, **embeddings}
    scores = judge_similarity(SimilarityConfig(), **inputs)["verdicts"].select(*_PAIR, "score")
    anchors = score_positives(
        queries=collection.candidates.select("dataset", "query_id", "query_hash").unique(),
        positives=collection.positives,
        **embeddings,
    ).select("query_id", positive_to_query="score")
    return (
        similarity_features(**inputs)
        .select(*_PAIR, "rank", "to_query", "to_positive")
        .join(scores, on=_PAIR)
        .join(anchors, on="query_id")
        .join(collection.grades, on=["query_id", "doc_id"])
        .sort(_PAIR)
    )
