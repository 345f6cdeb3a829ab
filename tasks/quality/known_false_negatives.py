"""Measure how well each tier finds the false negatives that are known in advance, over the same candidates.

Not all false negatives are known. A candidate that is relevant but not known lowers the precision.
"""

import math

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.agreement import auc_interval
from tasks.clustered import share_of_groups
from tasks.schemas import AGREEMENT
from tasks.statistics import NOT_DEFINED

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_CASCADE = "cascade"
_UNJUDGED = -math.inf  # below every score


class AgreeConfig(BaseModel):
    """Which tiers are measured.

    tiers: the tiers apart from similarity, in the order asked; set by the flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: tuple[str, ...] = ("llm",)


def agree(
    config: AgreeConfig,
    *,
    candidates: pl.DataFrame,
    similarity: pl.DataFrame,
    llm_verdicts: pl.DataFrame,
    decisions: pl.DataFrame,
    known: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Compare the verdicts of the tiers with the known false negatives among the candidates.

    A candidate that a tier did not judge or could not parse counts as not found, and ranks last.
    `precision_at_cascade_recall` is the precision at the smallest cut-off of the ranking by score at which the recall
    of the tier reaches that of the cascade; among equal scores unknown candidates rank first. Without known candidates
    all rates are null. Precision is null where a tier found nothing, and the precision at the cascade's recall where
    the cascade found no known one. The bounds of recall, precision and AUC are those of 95% intervals in which the
    pairs of a query count together.

    Returns:
        `agreement`: one row per tier, including `cascade` and `similarity`.
    """
    labelled = candidates.select(_PAIR).join(
        known.select(_PAIR).unique().with_columns(known=pl.lit(True)), on=_PAIR, how="left"
    )
    labelled = labelled.with_columns(pl.col("known").fill_null(False))
    asked = {tier: llm_verdicts.filter(pl.col("tier") == tier) for tier in config.tiers}
    tiers = {_CASCADE: decisions, **asked, "similarity": similarity}
    judged = {tier: _judged(labelled, verdicts) for tier, verdicts in tiers.items()}
    target = judged[_CASCADE].filter("known", "relevant").height
    rows = [_measure(tier, frame, target) for tier, frame in judged.items()]
    return {"agreement": pl.DataFrame(rows, schema=AGREEMENT.columns).sort(AGREEMENT.key)}


def _judged(labelled: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    return labelled.join(verdicts.select(*_PAIR, "state", "score"), on=_PAIR, how="left").select(
        *_QUERY,
        "known",
        relevant=(pl.col("state") == "relevant").fill_null(False),
        score=pl.col("score").fill_nan(None).fill_null(_UNJUDGED),
    )


def _measure(tier: str, judged: pl.DataFrame, target: int) -> dict[str, str | int | float | None]:
    auc = auc_interval(
        judged["score"].rank("dense").cast(pl.Float64).to_numpy(),
        judged["known"].to_numpy(),
        judged.select(_QUERY).rows(),
    )
    hit = pl.col("known") & pl.col("relevant")
    queries = (
        judged.group_by(_QUERY)
        .agg(pl.col("known").sum(), found=pl.col("relevant").sum(), known_found=hit.sum())
        .sort(_QUERY)
    )
    known, found, known_found = (int(queries[name].sum()) for name in ("known", "found", "known_found"))
    hits = queries["known_found"].to_list()
    recall = share_of_groups(hits, queries["known"].to_list())
    precision = share_of_groups(hits, queries["found"].to_list()) if known else NOT_DEFINED
    return {
        "tier": tier,
        "candidates": judged.height,
        "known": known,
        "found": found,
        "known_found": known_found,
        "recall": recall.value,
        "recall_low": recall.low,
        "recall_high": recall.high,
        "precision": precision.value,
        "precision_low": precision.low,
        "precision_high": precision.high,
        "precision_at_cascade_recall": _precision_at(judged, target) if target else None,
        "auc": auc.value,
        "auc_low": auc.low,
        "auc_high": auc.high,
    }


def _precision_at(judged: pl.DataFrame, target: int) -> float:
    """Return the precision at the rank of the `target`-th known candidate; unknown ones with its score rank first."""
    ranked = judged.sort("score", "known", descending=[True, False])
    rank = ranked["known"].arg_true()[target - 1] + 1
    return float(target / rank)
