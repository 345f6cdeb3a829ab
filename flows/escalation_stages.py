"""The stages that choose what a tier is asked about, and those that check that enough was answered."""

from flows.method_stage import MethodStage
from tasks import schemas as s
from tasks import summaries as made

COUNT_OPEN = MethodStage(
    "count_open",
    "tasks.verdicts.allot:count_open",
    1,
    "map",
    each=("candidates", "verdicts"),
    outputs={"counted": made.COUNTED},
    section="escalate",
)
ALLOT = MethodStage(
    "allot",
    "tasks.verdicts.allot:allot",
    1,
    "gather",
    every=("counted",),
    numbered=("counted",),
    outputs={"allotment": made.ALLOTTED},
    scatters=("allotment",),
    section="escalate",
)
ESCALATE = MethodStage(
    "escalate",
    "tasks.verdicts.escalate:escalate",
    4,
    "map",
    each=("candidates", "verdicts", "allotment"),  # the last only with a budget
    outputs={"escalated": s.CANDIDATES},
)
TALLY = MethodStage(
    "tally",
    "tasks.verdicts.complete:tally",
    1,
    "map",
    each=("decisions",),
    outputs={"tally": made.TALLY},
    section="complete",
)
COMPLETE = MethodStage(
    "complete",
    "tasks.verdicts.complete:complete",
    1,
    "gather",
    every=("tally",),
    outputs={"completeness": s.COMPLETENESS},
)
