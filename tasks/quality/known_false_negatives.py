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
from tasks.summaries import KNOWN_BY_PAIR, KNOWN_BY_QUERY

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_CASCADE, _SIMILARITY = "cascade", "similarity"
_UNJUDGED = -math.inf  # below every score


class AgreeConfig(BaseModel):
    """Which tiers are measured.

    tiers: the tiers apart from similarity, in the order asked; set by the flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: tuple[str, ...] = ("llm",)


def compare_known(
    config: AgreeConfig,
    *,
    candidates: pl.DataFrame,
    similarity: pl.DataFrame,
    llm_verdicts: pl.DataFrame,
    decisions: pl.DataFrame,
    known: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Compare the verdicts of the tiers with the known false negatives among the candidates of one part.

    A candidate that a tier did not judge or could not parse counts as not found, and has no score.

    Args:
        config: the tiers.
        candidates: of the part.
        similarity: the verdicts of similarity.
        llm_verdicts: those of the other tiers.
        decisions: the decisions.
        known: all that is known, of all parts.

    Returns:
        `queries`: KNOWN_BY_QUERY. `pairs`: KNOWN_BY_PAIR, without a row where nothing is known in any part.
    """
    planted = known.select(_PAIR).unique().with_columns(known=pl.lit(True))
    labelled = candidates.select(_PAIR).join(planted, on=_PAIR, how="left", maintain_order="left")
    labelled = labelled.with_columns(pl.col("known").fill_null(False), query=pl.struct(_QUERY).rank("dense") - 1)
    said = _tables(config, similarity, llm_verdicts, decisions)
    judged = pl.concat(
        labelled.join(verdicts.select(*_PAIR, "state", "score"), on=_PAIR, how="left", maintain_order="left").select(
            *_QUERY,
            pl.lit(place, pl.Int8).alias("tier"),
            pl.col("query").cast(pl.Int32),
            "known",
            relevant=(pl.col("state") == "relevant").fill_null(False),
            score=pl.col("score").fill_nan(None),
        )
        for place, verdicts in enumerate(said.values())
    )
    hit, count = pl.col("known") & pl.col("relevant"), (pl.len(), pl.col("known").sum(), pl.col("relevant").sum())
    queries = judged.group_by("tier", *_QUERY).agg(
        **dict(zip(("candidates", "known", "found"), count, strict=True)), known_found=hit.sum()
    )
    columns = [pl.col(name).cast(dtype) for name, dtype in KNOWN_BY_QUERY.columns.items()]
    pairs = judged if planted.height else judged.clear()
    return {
        "queries": queries.select(columns).sort(KNOWN_BY_QUERY.key),
        "pairs": pairs.select(*KNOWN_BY_PAIR.columns),
    }


def agree(config: AgreeConfig, *, queries: pl.DataFrame, pairs: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Measure how well each tier finds the known false negatives, over all parts.

    A candidate without a score ranks last. `precision_at_cascade_recall` is the precision at the smallest cut-off of
    the ranking by score at which the recall of the tier reaches that of the cascade; among equal scores unknown
    candidates rank first. Without known candidates all rates are null. Precision is null where a tier found nothing,
    and the precision at the cascade's recall where the cascade found no known one. The bounds of recall, precision and
    AUC are those of 95% intervals in which the pairs of a query count together.

    Args:
        config: the tiers.
        queries: KNOWN_BY_QUERY of all parts.
        pairs: KNOWN_BY_PAIR of all parts, with the column `part`.

    Returns:
        `agreement`: one row per tier, including `cascade` and `similarity`.
    """
    names = (_CASCADE, *config.tiers, _SIMILARITY)
    target = int(queries.filter(pl.col("tier") == 0)["known_found"].sum())
    rows = [
        _measure(name, queries.filter(pl.col("tier") == place), pairs.filter(pl.col("tier") == place), target)
        for place, name in enumerate(names)
    ]
    return {"agreement": pl.DataFrame(rows, schema=AGREEMENT.columns).sort(AGREEMENT.key)}


def _tables(
    config: AgreeConfig, similarity: pl.DataFrame, llm_verdicts: pl.DataFrame, decisions: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Return the verdicts by tier. A tier's place in this order stands for it in the tables of the parts."""
    asked = {tier: llm_verdicts.filter(pl.col("tier") == tier) for tier in config.tiers}
    return {_CASCADE: decisions, **asked, _SIMILARITY: similarity}


def _measure(tier: str, queries: pl.DataFrame, pairs: pl.DataFrame, target: int) -> dict[str, str | int | float | None]:
    queries = queries.sort(_QUERY)
    candidates, known, found, known_found = (
        int(queries[name].sum()) for name in ("candidates", "known", "found", "known_found")
    )
    hits = queries["known_found"].to_list()
    recall = share_of_groups(hits, queries["known"].to_list())
    precision = share_of_groups(hits, queries["found"].to_list()) if known else NOT_DEFINED
    ranked = pairs.select("known", pl.col("score").fill_null(_UNJUDGED), query=pl.struct("part", "query").rank("dense"))
    auc = NOT_DEFINED
    if known:
        auc = auc_interval(
            ranked["score"].rank("dense").cast(pl.Float64).to_numpy(),
            ranked["known"].to_numpy(),
            ranked["query"].to_list(),
        )
    return {
        "tier": tier,
        "candidates": candidates,
        "known": known,
        "found": found,
        "known_found": known_found,
        "recall": recall.value,
        "recall_low": recall.low,
        "recall_high": recall.high,
        "precision": precision.value,
        "precision_low": precision.low,
        "precision_high": precision.high,
        "precision_at_cascade_recall": _precision_at(ranked, target) if target else None,
        "auc": auc.value,
        "auc_low": auc.low,
        "auc_high": auc.high,
    }


def _precision_at(judged: pl.DataFrame, target: int) -> float:
    """Return the precision at the rank of the `target`-th known candidate; unknown ones with its score rank first."""
    ranked = judged.sort("score", "known", descending=[True, False])
    rank = ranked["known"].arg_true()[target - 1] + 1
    return float(target / rank)
