"""Say what a guarantee reached, once everything that was passed on is asked."""

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.schemas import GUARANTEE
from tasks.summaries import REACHED
from tasks.verdicts.escalate import TargetConfig, leave_out_known
from tasks.verdicts.guarantee.audit import aim
from tasks.verdicts.guarantee.thresholds import Counts, reached
from tasks.verdicts.pairs import PAIR, QUESTION


class GuaranteeConfig(BaseModel):
    """Which tier is the oracle, and what it must guarantee; both set by the flow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tier: str
    target: TargetConfig


def count_found(
    config: GuaranteeConfig, *, candidates: pl.DataFrame, llm_verdicts: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Count the questions of one part that the oracle was asked about, and those that it calls relevant.

    Returns:
        `found`: REACHED, one row.
    """
    oracle = llm_verdicts.filter(pl.col("tier") == config.tier).select(*PAIR, "state")
    asked = leave_out_known(candidates).join(oracle, on=PAIR).group_by(QUESTION).agg(pl.col("state").first())
    found = asked.filter(pl.col("state") == "relevant").height
    return {"found": pl.DataFrame([(asked.height, found)], schema=REACHED.columns, orient="row")}


def guarantee(config: GuaranteeConfig, *, thresholds: pl.DataFrame, found: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Say how many questions the guarantee asked, and which recall and precision are reached with its confidence.

    Args:
        config: see GuaranteeConfig.
        thresholds: from the stage `set_thresholds`.
        found: REACHED of all parts.

    Returns:
        `guarantee`: one row.
    """
    (row,) = thresholds.iter_rows(named=True)
    asked, relevant = (int(found[name].sum()) for name in ("asked", "found"))
    counts = Counts(relevant, *(row[name] for name in ("accepted", "rejected", "found_rejected", "found_wrong")))
    recall, precision = reached(aim(config.target), counts)
    facts = {
        "tier": config.tier,
        "asked": asked,
        "found": relevant,
        "recall": config.target.recall,
        "precision": config.target.precision,
        "confidence": config.target.confidence,
        "recall_bound": recall,
        "precision_bound": precision,
    }
    return {"guarantee": pl.DataFrame([{**row, **facts}], schema=GUARANTEE.columns)}
