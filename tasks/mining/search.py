"""Find the nearest passages of each query by exact inner product, for one part of queries and one of the corpus."""

from typing import Any

import faiss
import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks import schemas
from tasks.mining.encode import Positions, Vectors, dot_pairs, vectors_of

_SLACK = 16  # texts searched beyond the depth, to see whether texts tie with the last one
_TIE = 1e-5  # the float32 sums of faiss for unit vectors differ by less than this between batches


class SearchConfig(BaseModel):
    """How deep to search, and on how many threads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(100, ge=1, description="hits kept per query and corpus part; at least mining's own `depth`")
    threads: int = Field(1, ge=1, description="faiss' OpenMP threads", json_schema_extra={"operational": True})


def search(
    config: SearchConfig,
    *,
    queries: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passages: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Find the top `depth` passages of its own dataset for each query of split "train".

    Ranks count from 1 within the query and this part of the corpus. Equal scores are ranked by doc_id. A dataset
    without queries or without passages gives no hits.

    Raises:
        ValueError: a query or passage without embedding, or embeddings of different dimensions.
    """
    faiss.omp_set_num_threads(config.threads)
    queries = queries.filter(pl.col("split") == "train")
    datasets = sorted(set(queries["dataset"]) & set(passages["dataset"]))
    found = [
        _search_dataset(
            config.depth,
            queries=queries.filter(pl.col("dataset") == dataset),
            query_embeddings=query_embeddings,
            passages=passages.filter(pl.col("dataset") == dataset),
            passage_embeddings=passage_embeddings,
        )
        for dataset in datasets
    ]
    return {"hits": pl.concat([schemas.HITS.empty(), *found]).sort(schemas.HITS.key)}


def _search_dataset(
    depth: int,
    *,
    queries: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passages: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> pl.DataFrame:
    """Search distinct texts, then copy each hit to all queries and passages with these texts."""
    query_hashes, passage_hashes = queries["text_hash"].unique().sort(), passages["text_hash"].unique().sort()
    left, _ = vectors_of(query_embeddings, query_hashes, of="queries")
    right, _ = vectors_of(passage_embeddings, passage_hashes, of="passages")
    if left.shape[1] != right.shape[1]:
        raise ValueError(
            f"query vectors have {left.shape[1]} dimensions, passage vectors {right.shape[1]}; "
            "encode both with the same model"
        )
    left_rows, right_rows = nearest(left, right, depth)
    pairs = pl.DataFrame(
        {
            "query_hash": query_hashes.gather(left_rows),
            "text_hash": passage_hashes.gather(right_rows),
            "score": dot_pairs(left, right, left_rows, right_rows),
        }
    )
    return (
        queries.select("dataset", "query_id", query_hash="text_hash")
        .join(pairs, on="query_hash")
        .join(passages.select("doc_id", "text_hash"), on="text_hash")
        .with_columns(retriever=pl.lit("dense"))
        .pipe(rank_by_score)
        .filter(pl.col("rank") <= depth)
        .select(*schemas.HITS.columns)
    )


def rank_by_score(pairs: pl.DataFrame) -> pl.DataFrame:
    """Sort by query, score (highest first) and doc_id, and add `rank`, from 1 within each query."""
    ordered = pairs.sort("dataset", "query_id", "score", "doc_id", descending=[False, False, True, False])
    return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("dataset", "query_id"))


def nearest(left: Vectors, right: Vectors, depth: int) -> tuple[Positions, Positions]:
    """Return row pairs (left, right): for each left row its `depth` nearest right rows, and all that tie with the last.

    faiss keeps any of the tied rows. So a query is searched again, twice as deep, until the last score found is clearly
    below the score at `depth`.
    """
    index: Any = faiss.IndexFlatIP(right.shape[1])
    index.add(right)
    pending = np.arange(len(left), dtype=np.int64)
    left_rows, right_rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    reach = depth + _SLACK
    while len(pending):
        reach = min(reach, len(right))
        scores, rows = index.search(left[pending], reach)
        settled = np.full(len(pending), reach == len(right))
        if reach < len(right):
            settled |= scores[:, -1] < scores[:, depth - 1] - _TIE
        left_rows.append(np.repeat(pending[settled], reach))
        right_rows.append(rows[settled].ravel())
        pending, reach = pending[~settled], reach * 2
    return np.concatenate(left_rows), np.concatenate(right_rows)
