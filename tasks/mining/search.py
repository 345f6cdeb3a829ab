"""Settings of the search for the passages nearest to a query, and the order of the hits that it finds."""

from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.mining.masks import mask

_QUERY = ["dataset", "query_id"]


class SearchConfig(BaseModel):
    """How deep to search, by which index, and on how many threads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(
        100,
        ge=1,
        description="hits kept per query and group of corpus parts, at least mining's own `depth`; a query's own text, "
        "its positives and copies do not count",
    )
    threads: int | None = Field(
        None, ge=1, description="default: the CPUs that its parts get", json_schema_extra={"operational": True}
    )
    index: Literal["flat", "ivf"] = Field(
        "flat",
        description="`flat` compares a query with all passages: exact. `ivf` compares it with those in the `nprobe` "
        "lists nearest to it: faster in large corpora, and some of the nearest are missed. The share that is found is "
        "measured on 200 queries of each dataset and part, and reported",
        json_schema_extra={"keyed_when_set": True},
    )
    nlist: int | None = Field(
        None,
        ge=1,
        description="lists of an index, for `ivf`; default: twice the square root of its texts. A dataset with fewer "
        "than 39 texts per list is searched exactly",
        json_schema_extra={"keyed_when_set": True},
    )
    nprobe: int = Field(
        16, ge=1, description="lists searched per query, for `ivf`", json_schema_extra={"keyed_when_set": True}
    )
    seed: int = Field(0, ge=0, description="for the lists of `ivf`", json_schema_extra={"keyed_when_set": True})


def rank_by_score(pairs: pl.DataFrame) -> pl.DataFrame:
    """Sort by query, score (highest first) and doc_id, and add `rank`, from 1 within each query."""
    ordered = pairs.sort("dataset", "query_id", "score", "doc_id", descending=[False, False, True, False])
    return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("dataset", "query_id"))


def merge_hits(*, hits: pl.DataFrame, positives: pl.DataFrame, depth: int) -> pl.DataFrame:
    """Merge the hits of each query in all parts of the corpus, and rank them again.

    Kept are those up to the last of the first `depth` that can be negatives, as if the search had read the whole corpus
    at once: each of its parts searched as deep.

    Raises:
        ValueError: there are hits of several retrievers, whose scores cannot be compared.
    """
    retrievers = hits["retriever"].unique().sort().to_list()
    if len(retrievers) > 1:
        raise ValueError(f"mine reads the hits of one retriever, got {retrievers}; mine them one by one")
    ranked = hits.pipe(rank_by_score)
    several = hits.group_by(_QUERY).agg(several=pl.len() > pl.col("rank").max())["several"].any()
    if not several:
        return ranked
    marked = mask(ranked, positives=positives, same_id=True)  # as the search counts
    usable = pl.col("reason").is_null().cast(pl.Int64)
    return marked.filter(usable.cum_sum().over(_QUERY) - usable < depth).select(ranked.columns)
