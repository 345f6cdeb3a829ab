"""Measure how well each tier finds the false negatives that are known in advance, over the same candidates.

Not all false negatives are known. A candidate that is relevant but not known lowers the precision.
"""

import math

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.schemas import AGREEMENT

_PAIR = ["dataset", "query_id", "doc_id"]
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
    the cascade found no known one.

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
        "known",
        relevant=(pl.col("state") == "relevant").fill_null(False),
        score=pl.col("score").fill_nan(None).fill_null(_UNJUDGED),
    )


def _measure(tier: str, judged: pl.DataFrame, target: int) -> dict[str, str | int | float | None]:
    known = judged.filter("known").height
    found = judged.filter("relevant").height
    known_found = judged.filter("known", "relevant").height
    return {
        "tier": tier,
        "candidates": judged.height,
        "known": known,
        "found": found,
        "known_found": known_found,
        "recall": known_found / known if known else None,
        "precision": known_found / found if known and found else None,
        "precision_at_cascade_recall": _precision_at(judged, target) if target else None,
        "auc": _auc(judged) if 0 < known < judged.height else None,
    }


def _precision_at(judged: pl.DataFrame, target: int) -> float:
    """Return the precision at the rank of the `target`-th known candidate; unknown ones with its score rank first."""
    ranked = judged.sort("score", "known", descending=[True, False])
    rank = ranked["known"].arg_true()[target - 1] + 1
    return float(target / rank)


def _auc(judged: pl.DataFrame) -> float:
    order = judged["score"].rank("dense")  # scikit-learn refuses an infinite score
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(judged["known"].to_numpy(), order.to_numpy()))
