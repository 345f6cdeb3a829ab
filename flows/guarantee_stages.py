"""The stages of a tier with a guarantee (`escalate.target`), for the stage table."""

from flows.method_stage import MethodStage
from tasks import schemas as s

AUDITED = "-audit"  # ends the label of the stages that judge an audit sample


AUDIT = MethodStage(
    "audit",
    "tasks.verdicts.guarantee.audit:audit",
    1,
    "gather",
    every=("candidates", "verdicts"),
    outputs={"audit": s.AUDIT, "escalated": s.CANDIDATES},
    splits=("escalated",),
    section="tiers",
)
SETTLE = MethodStage(
    "settle",
    "tasks.verdicts.guarantee.settle:settle",
    1,
    "gather",
    every=("candidates", "verdicts", "audit", "audited"),
    outputs={"thresholds": s.THRESHOLDS, "settled": s.VERDICTS, "escalated": s.CANDIDATES},
    splits=("escalated",),
    section="tiers",
)
GUARANTEE = MethodStage(
    "guarantee",
    "tasks.verdicts.guarantee.reach:guarantee",
    1,
    "gather",
    every=("candidates", "thresholds", "llm_verdicts"),
    outputs={"guarantee": s.GUARANTEE},
    section="tiers",
)


def audited(stage: str) -> str:
    """Name the stage in which a tier judges its audit sample, after the one in which it judges the other pairs.

    >>> audited("judge-llm")
    'judge-llm-audit'
    """
    return stage + AUDITED
