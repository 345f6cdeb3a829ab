"""List the pairs that training treats apart: no negatives of their query, because of their verdict; and soft labels.

Part by part, so that training reads about 20 bytes a pair and no text, whatever the size of the pool.
"""

from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.data.treatments import decided_state
from tasks.summaries import KNOWN_PAIRS
from tasks.training.losses.pairs import with_names

_PAIR = ["dataset", "query_id", "doc_id"]


class KnownPairsConfig(BaseModel):
    """What is listed; set by the flow.

    soft_labels: also list all pairs with a score: P(relevant) of the judges, or the score of the source's teacher.
    relevant_from, skip: as in `TreatConfig`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    soft_labels: Literal["judges", "teacher"] | None = None
    relevant_from: float | None = Field(None, ge=0, le=1)
    skip: tuple[str, ...] = ()


def list_known_pairs(
    config: KnownPairsConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    candidates: pl.DataFrame,
    decisions: pl.DataFrame,
    teacher: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """List the candidates of training queries that were decided to be relevant or unsure, and soft labels.

    Returns:
        `known`: one row per query and text. Where a text has several ids, the state nearest to relevant counts, and the
        highest score.
    """
    train = queries.filter(pl.col("split") == "train").select("dataset", "query_id", query_hash="text_hash")
    hashes = pl.concat(frame.select(*_PAIR, "text_hash") for frame in (candidates, positives)).unique(_PAIR)
    decided = decisions.filter(~pl.col("dataset").is_in(config.skip)).select(
        *_PAIR, state=decided_state(config.relevant_from), score="score"
    )
    known = decided.filter(pl.col("state").is_in(["relevant", "unsure"]))
    frames = [known.with_columns(score=pl.lit(None, dtype=pl.Float64))]
    if config.soft_labels == "judges":
        frames = [decided.filter(pl.col("score").is_not_null() | pl.col("state").is_in(["relevant", "unsure"]))]
    elif config.soft_labels == "teacher":
        frames.append(teacher.select(*_PAIR, state=pl.lit(None, dtype=pl.String), score="score"))
    listed = pl.concat(frames).join(hashes, on=_PAIR).join(train, on=["dataset", "query_id"])
    rank = pl.col("state").replace_strict({"relevant": 2, "unsure": 1}, default=0, return_dtype=pl.Int8)
    merged = (
        with_names(listed)
        .with_columns(rank=rank)
        .group_by("query", "text")
        .agg(pl.col("rank").max(), pl.col("score").max())
        .sort("query", "text")
    )
    state = pl.col("rank").replace_strict({2: "relevant", 1: "unsure"}, default=None, return_dtype=pl.String)
    return {"known": merged.with_columns(state=state).select(*KNOWN_PAIRS.columns)}
