"""Read TREC DL 2019 into the method's tables, with the grades of people, and choose the pairs to compare judges on.

Only judged BM25 candidates are used; relevant means grade 2 and above. The labelled positive of a query is one grade-3
passage (see `similarity_trec_dl19`). Queries without one are left out. The `hard` pairs are few enough to ask an LLM
about in minutes: 14 drawn from the 20 highest BM25 candidates of each query, so that every query counts the same.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.similarity_trec_dl19 import SETS, Model, read_tables
from tasks.judging.similarity import SimilarityConfig, judge_similarity, similarity_features
from tasks.mining.adopt import AdoptConfig, adopt
from tasks.mining.encode import EncodeConfig, encode_passages, encode_queries
from tasks.mining.mine import score_pairs
from tasks.schemas import IRRELEVANT

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
    """Read the folder of the collection; candidates are the judged BM25 candidates, with hashes and new ranks."""
    tables = read_tables(data, SETS["bm25"])
    named = {name: tables[name] for name in ("given", "queries", "positives")}
    adopted = adopt(AdoptConfig(), **named, irrelevant=IRRELEVANT.empty())
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
    """Return the half of the queries on which prompts were chosen."""
    queries = np.random.default_rng(SEED).permutation(candidates["query_id"].unique().sort().to_numpy())
    return sorted(queries[: len(queries) // 2].tolist())


def similarities(collection: Collection, model: Path) -> pl.DataFrame:
    """Judge all candidates with similarity: `to_query`, `to_positive`, `positive_to_query`, `score`, `relevant`."""
    encoder = Model(model)
    embeddings = {
        "query_embeddings": encode_queries(EncodeConfig(), queries=collection.queries, engine=encoder)["embeddings"],
        "passage_embeddings": encode_passages(EncodeConfig(), passages=collection.passages, engine=encoder)[
            "embeddings"
        ],
    }
    inputs = {"candidates": collection.candidates, "positives": collection.positives, **embeddings}
    scores = judge_similarity(SimilarityConfig(), **inputs)["verdicts"].select(*_PAIR, "score")
    anchors = score_pairs(
        queries=collection.candidates.select("dataset", "query_id", "query_hash").unique(),
        pairs=collection.positives,
        of="positives",
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
