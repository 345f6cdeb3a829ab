"""The stage table: one entry per stage of the method, with what the flows need to know about it.

To add a stage, start here; docs/extending.md lists the other places.

Raise a stage's version whenever its output for the same input changes; a golden test reminds you.
"""

from dataclasses import dataclass

from infra.names import StageName
from infra.stages.stage import Resources, Stage
from tasks import schemas as s

LABEL = "gold"  # the label of the stages that judge the gold set


@dataclass(frozen=True)
class MethodStage(Stage):
    """A stage of the method, with what other modules of the flows need to know about it.

    section: the section of the settings that configures it; empty: the section has the stage's name.
    decides_labels: its settings decide which pairs are judged, and how. Nights are compared only if they are equal.
    afterwards: it works on a finished curation (`retrain`, `prune`, `validate`); no record keeps its parameters.
    """

    section: str = ""
    decides_labels: bool = False
    afterwards: bool = False

    @property
    def settings(self) -> str:
        """The section of the settings that configures it."""
        return self.section or self.name


_WHOLE_MACHINE = Resources(num_cpus=2.0, deadline=7200.0)
_ENGINE = Resources(num_cpus=2.0, deadline=7200.0)

HARVEST = MethodStage(
    "harvest",
    "tasks.data.demo_corpus:harvest",
    1,
    "single",
    directories=("source",),
    section="source",
)
INGEST = MethodStage(
    "ingest",
    "tasks.data.ingest:ingest",
    1,
    "single",
    every=("source",),
    outputs={
        "queries": s.QUERIES,
        "positives": s.POSITIVES,
        "given": s.GIVEN,
        "passages": s.PASSAGES,
        "qrels": s.QRELS,
        "known": s.KNOWN,
        "rejects": s.REJECTS,
    },
    splits=("queries", "positives", "given", "passages"),
    decides_labels=True,
)
ENCODE_PASSAGES = MethodStage(
    "encode_passages",
    "tasks.mining.encode:encode_passages",
    1,
    "map",
    each=("passages",),
    outputs={"embeddings": s.EMBEDDINGS},
    engine="encoder",
    resources=_ENGINE,
    section="encode",
)
ENCODE_QUERIES = MethodStage(
    "encode_queries",
    "tasks.mining.encode:encode_queries",
    1,
    "map",
    each=("queries",),
    outputs={"embeddings": s.EMBEDDINGS},
    engine="encoder",
    resources=_ENGINE,
    section="encode",
)
SEARCH = MethodStage(
    "search",
    "tasks.mining.search:search",
    1,
    "grid",
    each=("queries", "query_embeddings"),
    across=("passages", "passage_embeddings"),
    outputs={"hits": s.HITS},
    decides_labels=True,
)
MINE = MethodStage(
    "mine",
    "tasks.mining.mine:mine",
    1,
    "map",
    each=("hits", "queries", "positives", "given", "query_embeddings"),
    late=("passage_embeddings",),
    outputs={"candidates": s.CANDIDATES, "negatives": s.NEGATIVES, "rejects": s.REJECTS},
    decides_labels=True,
)
ADOPT = MethodStage(
    "adopt",
    "tasks.mining.mine:adopt",
    1,
    "map",
    each=("given", "queries", "positives"),
    outputs={"candidates": s.CANDIDATES, "negatives": s.NEGATIVES, "rejects": s.REJECTS},
    decides_labels=True,
)
ADMIT = MethodStage(
    "admit",
    "tasks.judging.cascade:admit",
    1,
    "map",
    each=("candidates",),
    outputs={"admitted": s.CANDIDATES},
    section="policies",
    decides_labels=True,
)
JUDGE_SIMILARITY = MethodStage(
    "judge_similarity",
    "tasks.judging.similarity:judge_similarity",
    1,
    "map",
    each=("candidates",),
    late=("query_embeddings", "passage_embeddings", "positives"),
    outputs={"verdicts": s.VERDICTS},
    section="similarity",
    decides_labels=True,
)
ESCALATE = MethodStage(
    "escalate",
    "tasks.judging.cascade:escalate",
    2,
    "gather",
    every=("candidates", "verdicts"),
    outputs={"escalated": s.CANDIDATES},
    splits=("escalated",),
)
JUDGE = MethodStage(
    "judge",
    "tasks.judging.judge:judge",
    1,
    "map",
    each=("escalated",),
    late=("queries", "passages", "positives"),
    outputs={"verdicts": s.VERDICTS, "calls": s.CALLS},
    engine="judge",
    ledger=True,
    resources=_ENGINE,
)
DECIDE = MethodStage(
    "decide",
    "tasks.judging.cascade:decide",
    2,
    "map",
    each=("candidates", "verdicts"),
    every=("llm_verdicts",),
    outputs={"decisions": s.VERDICTS},
    decides_labels=True,
)
AGREE = MethodStage(
    "agree",
    "tasks.quality.known_false_negatives:agree",
    2,
    "gather",
    every=("candidates", "similarity", "llm_verdicts", "decisions", "known"),
    outputs={"agreement": s.AGREEMENT},
)
COMPLETE = MethodStage(
    "complete",
    "tasks.judging.cascade:complete",
    1,
    "gather",
    every=("decisions",),
    outputs={"completeness": s.COMPLETENESS},
)
TREAT = MethodStage(
    "treat",
    "tasks.data.treatments:treat",
    2,
    "map",
    each=("queries", "positives", "candidates", "negatives", "decisions"),
    outputs={"instances": s.INSTANCES, "edits": s.EDITS, "rejects": s.REJECTS},
)
SAMPLE = MethodStage(
    "sample",
    "tasks.quality.sample:sample",
    1,
    "gather",
    every=("candidates", "decisions"),
    late=("queries", "passages", "positives"),
    outputs={"samples": s.SAMPLES},
    directories=("sheet",),
)
APPLY_LABELS = MethodStage(
    "apply_labels",
    "tasks.quality.labels:apply_labels",
    1,
    "map",
    each=("decisions", "labelled"),
    outputs={"decisions": s.VERDICTS},
)
AGREE_PEOPLE = MethodStage(
    "agree_people",
    "tasks.quality.labels:agree_with_people",
    2,
    "gather",
    every=("samples", "labelled", "similarity", "llm_verdicts", "decisions"),
    outputs={"people": s.PEOPLE},
)
READ_GOLD = MethodStage(
    "read_gold",
    "tasks.quality.gold_set:read_gold",
    2,
    "single",
    every=("source",),
    outputs={
        "queries": s.QUERIES,
        "passages": s.PASSAGES,
        "positives": s.POSITIVES,
        "candidates": s.CANDIDATES,
        "gold": s.GOLD,
        "rejects": s.REJECTS,
    },
)
AGREE_GOLD = MethodStage(
    "agree_gold",
    "tasks.quality.gold_set:agree_gold",
    1,
    "gather",
    every=("gold", "similarity", "llm_verdicts", "decisions"),
    outputs={"agreement": s.GOLD_AGREEMENT, "verdicts": s.GOLD_VERDICTS},
)
TRAIN = MethodStage(
    "train",
    "tasks.training.train:train",
    1,
    "single",
    every=("instances",),
    late=("queries", "passages", "base"),
    directories=("model",),
    resources=_WHOLE_MACHINE,
    afterwards=True,
)
EVALUATE = MethodStage(
    "evaluate",
    "tasks.training.evaluate:evaluate",
    1,
    "single",
    every=("queries", "passages", "qrels", "model"),
    outputs={"scores": s.SCORES},
    resources=_WHOLE_MACHINE,
    afterwards=True,
)
EXPORT = MethodStage(
    "export",
    "tasks.data.export:export",
    1,
    "gather",
    every=("instances",),
    late=("queries", "passages"),
    directories=("export",),
)
REPORT = MethodStage(
    "report",
    "tasks.report.report:report",
    2,
    "gather",
    every=(
        "queries",
        "passages",
        "positives",
        "candidates",
        "similarity",
        "llm_verdicts",
        "calls",
        "decisions",
        "agreement",
        "known",
        "edits",
        "scores",
        "rejects",
        "costs",
        "people",
    ),
    directories=("page",),
)

COMPARE = MethodStage(
    "compare",
    "tasks.training.compare:compare_models",
    3,
    "gather",
    every=("scores",),
    directories=("page",),
    afterwards=True,
)
LEAVE_OUT = MethodStage(
    "leave_out",
    "tasks.training.prune:leave_out",
    1,
    "map",
    each=("instances",),
    outputs={"mix": s.INSTANCES},
    afterwards=True,
)
PRUNE = MethodStage(
    "prune",
    "tasks.training.prune:prune",
    3,
    "gather",
    every=("instances", "scores"),
    outputs={"pruning": s.PRUNING},
    directories=("page",),
    afterwards=True,
)
VALIDATE = MethodStage(
    "validate",
    "tasks.quality.validate:validate",
    1,
    "gather",
    every=("candidates", "similarity", "llm_verdicts", "decisions", "samples", "human"),
    outputs={"validation": s.VALIDATION},
    directories=("page",),
    afterwards=True,
)

STAGES = (
    HARVEST,
    INGEST,
    ENCODE_PASSAGES,
    ENCODE_QUERIES,
    SEARCH,
    MINE,
    ADOPT,
    ADMIT,
    JUDGE_SIMILARITY,
    ESCALATE,
    JUDGE,
    DECIDE,
    AGREE,
    COMPLETE,
    TREAT,
    SAMPLE,
    APPLY_LABELS,
    AGREE_PEOPLE,
    READ_GOLD,
    AGREE_GOLD,
    TRAIN,
    EVALUATE,
    EXPORT,
    REPORT,
    COMPARE,
    LEAVE_OUT,
    PRUNE,
    VALIDATE,
)


def section_of(name: str) -> str:
    """Return the section of the settings that configures a stage; for a stage that no longer exists, its own name."""
    return next((stage.settings for stage in STAGES if stage.name == name), name)


def judge_stage(tier: str, *, gold: bool = False) -> str:
    """Name the stage in which a tier judges, with its label.

    >>> judge_stage("llm"), judge_stage("llm", gold=True)
    ('judge-llm', 'judge-gold-llm')
    """
    return str(StageName(JUDGE.name, f"{LABEL}-{tier}" if gold else tier))


def tier_of(name: str) -> str:
    """Name the tier that judges in a stage (see `judge_stage`), about the data or about the gold set."""
    return StageName.parse(name).label.removeprefix(f"{LABEL}-")


def is_of_gold(name: str) -> bool:
    """Return whether a stage (named with its label) works on the gold set; its cost is not that of the data."""
    found = StageName.parse(name)
    return found.label.partition("-")[0] == LABEL or found.stage in (READ_GOLD.name, AGREE_GOLD.name)
