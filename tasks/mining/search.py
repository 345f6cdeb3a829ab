"""Find the nearest passages of each query by exact inner product, for one part of queries and one of the corpus."""

from typing import Any

import faiss
import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks import schemas
from tasks.mining.encode import Positions, Vectors, dot_pairs, vectors_of
from tasks.mining.masks import hash_hits, mask

_QUERY = ["dataset", "query_id"]
_MASKED = 8  # masked passages that a query is expected to have among its nearest; one that has more is searched again
_SLACK = 16  # texts searched beyond the depth, to see whether texts tie with the last one
_TIE = 1e-5  # the float32 sums of faiss for unit vectors differ by less than this between batches


class SearchConfig(BaseModel):
    """How deep to search, and on how many threads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(
        100,
        ge=1,
        description="hits kept per query and corpus part, at least mining's own `depth`; a query's own text, its "
        "positives and copies do not count",
    )
    threads: int = Field(1, ge=1, description="faiss' OpenMP threads", json_schema_extra={"operational": True})


def search(
    config: SearchConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passages: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Find the top `depth` passages of its own dataset for each query of split "train" that can be its negatives.

    The passages between them that cannot (see `tasks.mining.masks`) are hits too, so that mining can report them. Ranks
    count all of them, from 1 within the query and this part of the corpus. Equal scores are ranked by doc_id. A dataset
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
            positives=positives.filter(pl.col("dataset") == dataset),
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
    positives: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passages: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> pl.DataFrame:
    """Search distinct texts, then copy each hit to all queries and passages with these texts.

    A query for which too few of its hits can be negatives is searched again, twice as deep.
    """
    query_hashes, passage_hashes = queries["text_hash"].unique().sort(), passages["text_hash"].unique().sort()
    left, _ = vectors_of(query_embeddings, query_hashes, of="queries")
    right, _ = vectors_of(passage_embeddings, passage_hashes, of="passages")
    if left.shape[1] != right.shape[1]:
        raise ValueError(
            f"query vectors have {left.shape[1]} dimensions, passage vectors {right.shape[1]}; "
            "encode both with the same model"
        )
    reach, found = depth + _MASKED, [schemas.HITS.empty()]
    while not queries.is_empty():
        places = np.flatnonzero(query_hashes.is_in(queries["text_hash"].implode()).to_numpy())
        left_rows, right_rows = nearest(left[places], right, reach)
        left_rows = places[left_rows]
        pairs = pl.DataFrame(
            {
                "query_hash": query_hashes.gather(left_rows),
                "text_hash": passage_hashes.gather(right_rows),
                "score": dot_pairs(left, right, left_rows, right_rows),
            }
        )
        hits = _usable_hits(depth, reach, pairs, queries=queries, positives=positives, passages=passages)
        enough = hits.group_by(_QUERY).agg(pl.col("usable").sum()).filter(pl.col("usable") >= depth)
        settled = queries if reach >= len(right) else queries.join(enough, on=_QUERY, how="semi")
        found.append(hits.join(settled, on=_QUERY, how="semi").select(*schemas.HITS.columns))
        queries, reach = queries.join(settled, on=_QUERY, how="anti"), reach * 2
    return pl.concat(found)


def _usable_hits(
    depth: int,
    reach: int,
    pairs: pl.DataFrame,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    passages: pl.DataFrame,
) -> pl.DataFrame:
    """Return the hits up to the last of the first `depth` that can be negatives; `usable` says which can.

    `pairs` holds the nearest `reach` texts of each query, and more, which are not all of their rank.
    """
    ranked = (
        queries.select(*_QUERY, query_hash="text_hash")
        .join(pairs, on="query_hash")
        .join(passages.select("doc_id", "text_hash"), on="text_hash")
        .with_columns(retriever=pl.lit("dense"))
        .pipe(rank_by_score)
        .filter(pl.col("rank") <= reach)
    )
    # `True` masks more than any other value does, so mining has enough hits whatever it is set to.
    marked = mask(hash_hits(ranked, queries, passages), positives=positives, same_id=True)
    usable = marked.with_columns(usable=pl.col("reason").is_null())
    before = pl.col("usable").cum_sum().over(_QUERY) - pl.col("usable").cast(pl.Int64)
    return usable.filter(before < depth)


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
