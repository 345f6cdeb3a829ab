"""Queries, positives, hits and vectors of two dimensions, whose scores can be read off."""

import numpy as np
import polars as pl

from tasks import schemas

EMBEDDINGS: dict[str, schemas.Dtype] = {"text_hash": pl.String, "vector": pl.Array(pl.Float32, 2)}


COSINES = {"x1": 0.9, "x2": 0.8, "x3": 0.7, "x4": 0.6, "pa": 0.95, "pb": 0.75, "pc": 0.5, "neg": -0.5, "neg2": -0.6}


def embeddings_of(cosines: dict[str, float] = COSINES) -> pl.DataFrame:
    """Unit vectors with these cosines to the queries' vector (1, 0)."""
    vectors = [[cosine, float(np.sqrt(1 - cosine**2))] for cosine in cosines.values()]
    return pl.DataFrame({"text_hash": list(cosines), "vector": vectors}, schema=EMBEDDINGS)


QUERY_EMBEDDINGS = embeddings_of({"h1": 1.0, "h2": 1.0, "h3": 1.0})


def queries_of(*query_ids: str, split: str = "train") -> pl.DataFrame:
    """Queries q1, q2, … of the hashes h1, h2, …."""
    rows = [("d", query_id, "text", f"h{query_id[1:]}", split) for query_id in query_ids]
    return pl.DataFrame(rows, schema=schemas.QUERIES.columns, orient="row")


def positives_of(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Positives from (query_id, doc_id, text_hash)."""
    return pl.DataFrame(
        [("d", q, doc, text, text, text, "input") for q, doc, text in rows],
        schema=schemas.POSITIVES.columns,
        orient="row",
    )


def given_of(*rows: tuple[str, str, int, float | None]) -> pl.DataFrame:
    """Given negatives from (query_id, doc_id, rank, score); the text is the doc_id's."""
    full = [("d", query_id, doc_id, *[f"t-{doc_id}"] * 3, rank, score) for query_id, doc_id, rank, score in rows]
    return pl.DataFrame(full, schema=schemas.GIVEN.columns, orient="row")


def irrelevant_of(*rows: tuple[str, str]) -> pl.DataFrame:
    """What people called irrelevant, from (query_id, doc_id); the text is named as the passage."""
    full = [("d", query_id, doc_id, *[doc_id] * 3, 0) for query_id, doc_id in rows]
    return pl.DataFrame(full, schema=schemas.IRRELEVANT.columns, orient="row")


def hits_of(*rows: tuple[str, str, str, float]) -> pl.DataFrame:
    """Hits from (query_id, doc_id, text_hash, score), each as the first of its own corpus part."""
    full = [("d", query_id, doc_id, *[text] * 3, None, "dense", 1, score) for query_id, doc_id, text, score in rows]
    return pl.DataFrame(full, schema=schemas.HITS.columns, orient="row")


def hits_named(query_id: str, *names: str) -> list[tuple[str, str, str, float]]:
    """Hits whose doc_id and text are named alike, with the score that the vectors give."""
    return [(query_id, name, name, float(np.float32(COSINES[name]))) for name in names]
