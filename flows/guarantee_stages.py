"""The stages of a tier with a guarantee (`escalate.target`), for the stage table.

Each part of the queries is audited and settled by itself. What holds for all parts, the draw and the thresholds, is
made between two such stages from a few numbers for each question.
"""

from flows.method_stage import MethodStage
from tasks import schemas as s
from tasks import summaries as made

AUDITED = "-audit"  # ends the label of the stages that judge an audit sample


SCORE_POOL = MethodStage(
    "score_pool",
    "tasks.verdicts.guarantee.audit:score_pool",
    1,
    "map",
    each=("candidates", "verdicts"),
    outputs={"scores": made.SCORED},
    section="tiers",
)
DRAW_AUDIT = MethodStage(
    "draw_audit",
    "tasks.verdicts.guarantee.audit:draw_audit",
    1,
    "gather",
    every=("scores",),
    outputs={"draw": made.DRAW},
    section="tiers",
)
AUDIT = MethodStage(
    "audit",
    "tasks.verdicts.guarantee.audit:audit",
    2,
    "map",
    each=("candidates", "verdicts"),
    every=("draw",),
    outputs={"audit": s.AUDIT, "escalated": s.CANDIDATES},
    section="tiers",
)
READ_AUDIT = MethodStage(
    "read_audit",
    "tasks.verdicts.guarantee.settle:read_audit",
    1,
    "map",
    each=("candidates", "verdicts", "audit", "audited"),
    outputs={"answered": made.ANSWERED},
    section="tiers",
)
SET_THRESHOLDS = MethodStage(
    "set_thresholds",
    "tasks.verdicts.guarantee.settle:set_thresholds",
    1,
    "gather",
    every=("answered",),
    outputs={"thresholds": s.THRESHOLDS},
    section="tiers",
)
SETTLE = MethodStage(
    "settle",
    "tasks.verdicts.guarantee.settle:settle",
    2,
    "map",
    each=("candidates", "verdicts", "audit"),
    every=("thresholds",),
    outputs={"settled": s.VERDICTS, "escalated": s.CANDIDATES},
    section="tiers",
)
COUNT_FOUND = MethodStage(
    "count_found",
    "tasks.verdicts.guarantee.reach:count_found",
    1,
    "map",
    each=("candidates", "llm_verdicts"),
    outputs={"found": made.REACHED},
    section="tiers",
)
GUARANTEE = MethodStage(
    "guarantee",
    "tasks.verdicts.guarantee.reach:guarantee",
    2,
    "gather",
    every=("thresholds", "found"),
    outputs={"guarantee": s.GUARANTEE},
    section="tiers",
)


def audited(stage: str) -> str:
    """Name the stage in which a tier judges its audit sample, after the one in which it judges the other pairs.

    >>> audited("judge-llm")
    'judge-llm-audit'
    """
    return stage + AUDITED
