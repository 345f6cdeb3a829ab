"""Adopt the negatives that rows of the source bring with them, instead of mining some."""

from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks import schemas
from tasks.mining.masks import find_repeats, mask, split_masked
from tasks.mining.mine import without_given
from tasks.mining.picks import (
    NO_POSITIVES,
    UNKNOWN_QUERY,
    count_short,
    join_rejects,
    reject,
    split_at,
    with_positives,
)
from tasks.schemas import BY_PEOPLE

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_HASHES = ["text_hash", "shown_hash", "guard_hash"]


class AdoptConfig(BaseModel):
    """How many of the given negatives of a row are used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_negatives: int | None = Field(None, ge=1, description="the first so many; without it all of them")


def adopt(
    config: AdoptConfig,
    *,
    given: pl.DataFrame,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    irrelevant: pl.DataFrame,
) -> dict[str, Any]:
    """Use the given negatives of training rows: all become candidates, in their order and without filters.

    What people called irrelevant comes after them. Masked are a query's own text, copies of its positives, and copies
    of its candidates. A query for which no given negative is left is not in the tables: it is mined.

    Returns:
        candidates: all given negatives, with retriever "given", and their score if the input has one.
        negatives: all of them, or the first `num_negatives` of each query.
        reserve: the others, ranked from 1.
        rejects: what is masked; queries without positive, given negatives of an unknown query, queries with too few
            negatives.
        facts: `to_mine`, the number of training queries that have to be mined.
    """
    train = queries.filter(pl.col("split") == "train").join(given, on=_QUERY, how="semi")
    usable, masked = _usable_given(train, given, positives, irrelevant)
    labelled, unlabelled = with_positives(train, positives)
    candidates = (
        usable.join(labelled, on=_QUERY)
        .sort(*_QUERY, "rank", "doc_id")
        .with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY))
        .select(*schemas.CANDIDATES.columns)
    )
    ordered = candidates.sort(*_QUERY, "rank")
    negatives, reserve = split_at(config.num_negatives or max(ordered.height, 1), ordered)
    adopted = labelled.join(candidates, on=_QUERY, how="semi")
    return {
        "candidates": candidates.sort(schemas.CANDIDATES.key),
        "negatives": negatives.sort(schemas.NEGATIVES.key),
        "reserve": reserve.sort(schemas.NEGATIVES.key),
        "rejects": join_rejects(
            masked,
            reject("adopt", unlabelled, NO_POSITIVES, pl.lit("its negatives are left out")),
            reject(
                "adopt", given.join(queries, on=_QUERY, how="anti"), UNKNOWN_QUERY, pl.lit("not in queries"), key=_PAIR
            ),
            count_short("adopt", config.num_negatives or 1, adopted, candidates, negatives),
        ),
        "facts": {"to_mine": without_given(queries=queries, given=given, positives=positives).height},
    }


def _usable_given(
    train: pl.DataFrame, given: pl.DataFrame, positives: pl.DataFrame, irrelevant: pl.DataFrame | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the given negatives that can be negatives, and what people called irrelevant; and rejects for the rest.

    A query whose given negatives are all masked is left out.
    """
    columns = [*_PAIR, *_HASHES, "retriever", "rank", "score"]
    rows = given.join(train, on=_QUERY, how="semi").with_columns(retriever=pl.lit("given")).select(columns)
    if irrelevant is not None:
        said = irrelevant.join(rows, on=_QUERY, how="semi")
        copies = said.select(*_QUERY, "guard_hash", _said=pl.lit(True)).unique()
        rows = rows.join(copies, on=[*_QUERY, "guard_hash"], how="left", maintain_order="left")
        rows = rows.with_columns(retriever=pl.when("_said").then(pl.lit(BY_PEOPLE)).otherwise("retriever"))
        last = rows.group_by(_QUERY).agg(last=pl.col("rank").max())
        place = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY)
        added = said.join(rows, on=_PAIR, how="anti").sort(_PAIR).join(last, on=_QUERY, maintain_order="left")
        added = added.with_columns(retriever=pl.lit(BY_PEOPLE), rank=place + pl.col("last"), score=pl.lit(None))
        rows = pl.concat([rows.select(columns), added.select(columns)], how="vertical_relaxed")
    ordered = find_repeats(rows.sort(*_QUERY, "rank", "doc_id"), train)
    kept, masked = split_masked("adopt", mask(ordered, positives=positives))
    still = kept.join(given, on=_PAIR, how="semi")
    return kept.join(still, on=_QUERY, how="semi", maintain_order="left"), masked
