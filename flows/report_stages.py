"""The stages that find what the report needs of the passages, for the stage table."""

from flows.method_stage import MethodStage
from tasks import schemas as s
from tasks import summaries as made

_PAIR = ("dataset", "query_id", "doc_id")
_VERDICT = (*_PAIR, "tier", "state", "score")
# What the report reads of tables that grow with the data; the others are short, or it shows all of them.
REPORT_COLUMNS = {
    "queries": ("dataset", "query_id", "text", "split"),
    "positives": _PAIR,
    "candidates": (*_PAIR, "text_hash", "retriever", "rank"),
    "similarity": _VERDICT,
    "llm_verdicts": (*_VERDICT, "judge"),
    "decisions": (*_VERDICT, "judge", "call_id"),
    "calls": ("judge", "prompt_tokens", "output_tokens"),
    "windows": (*_PAIR, "tier", "windows", "start", "start_tokens", "end_tokens"),
}
# What the comparison with people reads of the verdicts.
PEOPLE_COLUMNS = {
    "similarity": (*_PAIR, "state"),
    "llm_verdicts": (*_PAIR, "tier", "state"),
    "decisions": (*_PAIR, "judge", "state", "call_id"),
}
CHOOSE_EXAMPLES = MethodStage(
    "choose_examples",
    "tasks.report.examples:choose_examples",
    1,
    "gather",
    every=("edits",),
    numbered=("edits",),
    columns={"edits": ("dataset", "query_id", "to")},
    outputs={"chosen": made.CHOSEN},
    scatters=("chosen",),
    section="report",
)
EXCERPT = MethodStage(
    "excerpt",
    "tasks.report.examples:excerpt",
    1,
    "map",
    each=("chosen", "candidates", "positives"),
    late_each=("passages",),
    outputs={"texts": s.PASSAGES},
    section="report",
)
MEASURE = MethodStage(
    "measure",
    "tasks.report.examples:measure",
    1,
    "map",
    each=("candidates",),
    late_each=("passages",),
    outputs={"lengths": made.LENGTHS},
    section="report",
)
