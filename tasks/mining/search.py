"""Settings of the search for the passages nearest to a query, and the order of hits by score."""

from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field


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
