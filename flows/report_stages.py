"""The stages of exports and report, for the stage table: query parts write lines and count, two stages gather these."""

from flows.method_stage import MethodStage
from tasks import schemas as s
from tasks import summaries as made
from tasks.data.rendering.render import INDEX, TEXTS
from tasks.data.writing.training_set import TALLIES

_PAIR = ("dataset", "query_id", "doc_id")
_VERDICT = (*_PAIR, "tier", "state", "score")
# What the comparison with people reads of the verdicts.
PEOPLE_COLUMNS = {
    "similarity": (*_PAIR, "state"),
    "llm_verdicts": (*_PAIR, "tier", "state"),
    "decisions": (*_PAIR, "judge", "state", "call_id"),
}
# What the validation reads of candidates and verdicts.
VALIDATION_COLUMNS = {
    "candidates": (*_PAIR, "query_hash", "text_hash", "retriever", "rank"),
    "similarity": (*_PAIR, "state", "score"),
    "llm_verdicts": _VERDICT,
    "decisions": (*_VERDICT, "judge", "call_id"),
}
# What exports may read besides the instances; each only where the settings ask for it.
_OF_PARTS = ("positives", "negatives", "candidates", "decisions", "teacher", "extras")
_LINES = ("index", "texts", "tallies")
# The lines of the formats whose lines follow from their rows (tasks.data.rendering). A part reads a group of query
# parts, as one costs about a tenth of a second besides its work.
RENDERED_ROWS = 1_000  # of queries that one part reads, about: it holds their texts, rows and lines
RENDER = MethodStage(
    "render",
    "tasks.data.rendering.render:render",
    1,
    "map",
    each=("instances", *(name for name in _OF_PARTS if name != "candidates")),
    late_each=("queries", "passages"),
    outputs={"index": INDEX, "texts": TEXTS, "tallies": TALLIES},
    section="export",
)
EXPORT = MethodStage(
    "export",
    "tasks.data.export:export",
    2,
    "gather",
    every=(*_LINES, "instances", *_OF_PARTS, "agreement", "people", "do_not_batch"),
    late=("queries", "passages"),
    directories=("export",),
    streams=("index", "texts", "instances", "queries", "passages", *_OF_PARTS, "do_not_batch"),
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
SUM_UP_VERDICTS = MethodStage(
    "sum_up_verdicts",
    "tasks.report.parts.sum_up:sum_up_verdicts",
    1,
    "map",
    each=(
        *("queries", "candidates", "similarity", "llm_verdicts", "decisions"),
        *("calls", "windows", "lengths"),
    ),
    every=("known",),  # only where something is known
    columns={
        "queries": ("dataset", "query_id", "split"),
        "candidates": (*_PAIR, "text_hash", "retriever", "rank"),
        "similarity": _VERDICT,
        "llm_verdicts": (*_VERDICT, "judge"),
        "decisions": (*_VERDICT, "judge", "call_id"),
        "calls": ("judge", "prompt_tokens", "output_tokens"),
        "windows": (*_PAIR, "tier", "windows", "start", "start_tokens", "end_tokens"),
    },
    outputs={
        "tallies": made.TALLIES,
        "scores": made.SCORES,
        "relevant": made.RELEVANT_BY_QUERY,
        "errors": made.ERRORS_BY_QUERY,
        "dots": made.DOTS,
        "call_sums": made.CALL_SUMS,
    },
    section="report",
)
SUM_UP_EDITS = MethodStage(
    "sum_up_edits",
    "tasks.report.parts.sum_up:sum_up_edits",
    1,
    "map",
    each=("edits",),
    columns={"edits": (*_PAIR, "to")},
    outputs={"tallies": made.TALLIES, "shortlist": made.CHOSEN},
    section="report",
)
CHOOSE_EXAMPLES = MethodStage(
    "choose_examples",
    "tasks.report.examples:choose_examples",
    2,
    "gather",
    every=("shortlist",),
    numbered=("shortlist",),
    outputs={"chosen": made.CHOSEN},
    scatters=("chosen",),
    section="report",
)
EXCERPT = MethodStage(
    "excerpt",
    "tasks.report.examples:excerpt",
    2,
    "map",
    each=(
        *("chosen", "queries", "candidates", "positives"),
        *("similarity", "llm_verdicts", "decisions", "edits"),
    ),
    every=("known",),  # only where something is known
    late_each=("passages",),
    outputs={
        "queries": s.QUERIES,
        "texts": s.PASSAGES,
        "positives": s.POSITIVES,
        "verdicts": s.VERDICTS,
        "edits": s.EDITS,
        "known": s.KNOWN,
    },
    section="report",
)
_SUMS = ("tallies", "verdict_scores", "relevant", "errors", "dots", "call_sums", "edit_tallies", "counts")
_SHOWN = ("queries", "passages", "positives", "verdicts", "edits", "known")  # of the examples
_SHORT = ("agreement", "scores", "rejects", "costs")
_OPTIONAL = ("people", "guarantee", "positive_checks", "query_checks", "calibration", "guards")
_RANKED = ("ranked_labelled", "ranked_completed", "ranked_decisions")  # where judges completed labels
REPORT = MethodStage(
    "report",
    "tasks.report.report:report",
    6,
    "gather",
    every=(*_SUMS, *_SHOWN, *_SHORT, *_OPTIONAL, *_RANKED),
    streams=(*_SUMS, "rejects", "positive_checks", "query_checks"),
    columns={"positive_checks": (*_PAIR, "state", "score"), "ranked_decisions": (*_PAIR, "state")},
    directories=("page",),
)
