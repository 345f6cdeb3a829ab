"""The stages that choose what a tier is asked about, within its budgets, for the stage table."""

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
