"""The stages that choose what a tier is asked about, read verdicts from files, and check what was answered."""

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
SPLIT_IMPORTED = MethodStage(
    "split_imported",
    "tasks.quality.imported:split_imported",
    1,
    "gather",
    every=("source", "queries"),
    numbered=("queries",),
    columns={"queries": ("text_hash",)},
    outputs={"rows": made.IMPORTED_ROWS},
    scatters=("rows",),
    section="imported",
)
IMPORTED = MethodStage(
    "imported",
    "tasks.quality.imported:import_verdicts",
    1,
    "map",
    each=("candidates", "rows"),
    outputs={"verdicts": s.VERDICTS, "left": s.CANDIDATES},
)
SPLIT_SCORES = MethodStage(
    "split_scores",
    "tasks.quality.scores:split_scores",
    1,
    "gather",
    every=("source", "copies", "queries", "earlier"),  # the last only where a source grew
    numbered=("queries", "earlier"),
    columns={"queries": ("dataset", "query_id"), "earlier": ("dataset", "query_id")},
    outputs={"rows": made.SCORE_ROWS},
    scatters=("rows",),
    section="tiers",
)
READ_SCORES = MethodStage(
    "read_scores",
    "tasks.quality.scores:read_scores",
    2,
    "map",
    each=("escalated", "rows"),
    outputs={"verdicts": s.VERDICTS},
    section="tiers",
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
