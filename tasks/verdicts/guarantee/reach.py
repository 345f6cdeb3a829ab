"""Say what a guarantee reached, once everything that was passed on is asked."""

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.schemas import GUARANTEE
from tasks.verdicts.escalate import TargetConfig, leave_out_known
from tasks.verdicts.guarantee.audit import aim
from tasks.verdicts.guarantee.thresholds import Counts, reached
from tasks.verdicts.pairs import PAIR, QUESTION


class GuaranteeConfig(BaseModel):
    """Which tier is the oracle, and what it must guarantee; both set by the flow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tier: str
    target: TargetConfig


def guarantee(
    config: GuaranteeConfig, *, candidates: pl.DataFrame, thresholds: pl.DataFrame, llm_verdicts: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Say how many questions the guarantee asked, and which recall and precision are reached with its confidence.

    Returns:
        `guarantee`: one row.
    """
    oracle = llm_verdicts.filter(pl.col("tier") == config.tier).select(*PAIR, "state")
    asked = leave_out_known(candidates).join(oracle, on=PAIR).group_by(QUESTION).agg(pl.col("state").first())
    (row,) = thresholds.iter_rows(named=True)
    found = asked.filter(pl.col("state") == "relevant").height
    counts = Counts(found, *(row[name] for name in ("accepted", "rejected", "found_rejected", "found_wrong")))
    recall, precision = reached(aim(config.target), counts)
    facts = {
        "tier": config.tier,
        "asked": asked.height,
        "found": found,
        "recall": config.target.recall,
        "precision": config.target.precision,
        "confidence": config.target.confidence,
        "recall_bound": recall,
        "precision_bound": precision,
    }
    return {"guarantee": pl.DataFrame([{**row, **facts}], schema=GUARANTEE.columns)}
