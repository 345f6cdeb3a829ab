"""The stage table: every stage of the method as one entry. A new stage is one entry here and one call in method.py.

Raise a stage's version whenever its output for the same input changes; a golden test reminds you.
"""

from infra.stages.stage import Resources, Stage
from tasks import schemas as s

_WHOLE_MACHINE = Resources(num_cpus=2.0, deadline=7200.0)
_ENGINE = Resources(num_cpus=2.0, deadline=7200.0)

HARVEST = Stage("harvest", "tasks.data.demo_corpus:harvest", 1, "single", directories=("source",))
INGEST = Stage(
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
)
ENCODE_PASSAGES = Stage(
    "encode_passages",
    "tasks.mining.encode:encode_passages",
    1,
    "map",
    each=("passages",),
    outputs={"embeddings": s.EMBEDDINGS},
    engine="encoder",
    resources=_ENGINE,
)
ENCODE_QUERIES = Stage(
    "encode_queries",
    "tasks.mining.encode:encode_queries",
    1,
    "map",
    each=("queries",),
    outputs={"embeddings": s.EMBEDDINGS},
    engine="encoder",
    resources=_ENGINE,
)
SEARCH = Stage(
    "search",
    "tasks.mining.search:search",
    1,
    "grid",
    each=("queries", "query_embeddings"),
    across=("passages", "passage_embeddings"),
    outputs={"hits": s.HITS},
)
MINE = Stage(
    "mine",
    "tasks.mining.mine:mine",
    1,
    "map",
    each=("hits", "queries", "positives", "given", "query_embeddings"),
    late=("passage_embeddings",),
    outputs={"candidates": s.CANDIDATES, "negatives": s.NEGATIVES, "rejects": s.REJECTS},
)
ADOPT = Stage(
    "adopt",
    "tasks.mining.mine:adopt",
    1,
    "map",
    each=("given", "queries", "positives"),
    outputs={"candidates": s.CANDIDATES, "negatives": s.NEGATIVES, "rejects": s.REJECTS},
)
ADMIT = Stage(
    "admit",
    "tasks.judging.cascade:admit",
    1,
    "map",
    each=("candidates",),
    outputs={"admitted": s.CANDIDATES},
)
JUDGE_SIMILARITY = Stage(
    "judge_similarity",
    "tasks.judging.similarity:judge_similarity",
    1,
    "map",
    each=("candidates",),
    late=("query_embeddings", "passage_embeddings", "positives"),
    outputs={"verdicts": s.VERDICTS},
)
ESCALATE = Stage(
    "escalate",
    "tasks.judging.cascade:escalate",
    2,
    "gather",
    every=("candidates", "verdicts"),
    outputs={"escalated": s.CANDIDATES},
    splits=("escalated",),
)
JUDGE = Stage(
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
DECIDE = Stage(
    "decide",
    "tasks.judging.cascade:decide",
    2,
    "map",
    each=("candidates", "verdicts"),
    every=("llm_verdicts",),
    outputs={"decisions": s.VERDICTS},
)
AGREE = Stage(
    "agree",
    "tasks.quality.known_false_negatives:agree",
    2,
    "gather",
    every=("candidates", "similarity", "llm_verdicts", "decisions", "known"),
    outputs={"agreement": s.AGREEMENT},
)
COMPLETE = Stage(
    "complete",
    "tasks.judging.cascade:complete",
    1,
    "gather",
    every=("decisions",),
    outputs={"completeness": s.COMPLETENESS},
)
TREAT = Stage(
    "treat",
    "tasks.data.treatments:treat",
    2,
    "map",
    each=("queries", "positives", "candidates", "negatives", "decisions"),
    outputs={"instances": s.INSTANCES, "edits": s.EDITS, "rejects": s.REJECTS},
)
SAMPLE = Stage(
    "sample",
    "tasks.quality.sample:sample",
    1,
    "gather",
    every=("candidates", "decisions"),
    late=("queries", "passages", "positives"),
    outputs={"samples": s.SAMPLES},
    directories=("sheet",),
)
APPLY_LABELS = Stage(
    "apply_labels",
    "tasks.quality.labels:apply_labels",
    1,
    "map",
    each=("decisions", "labelled"),
    outputs={"decisions": s.VERDICTS},
)
AGREE_PEOPLE = Stage(
    "agree_people",
    "tasks.quality.labels:agree_with_people",
    2,
    "gather",
    every=("samples", "labelled", "similarity", "llm_verdicts", "decisions"),
    outputs={"people": s.PEOPLE},
)
READ_GOLD = Stage(
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
AGREE_GOLD = Stage(
    "agree_gold",
    "tasks.quality.gold_set:agree_gold",
    1,
    "gather",
    every=("gold", "similarity", "llm_verdicts", "decisions"),
    outputs={"agreement": s.GOLD_AGREEMENT, "verdicts": s.GOLD_VERDICTS},
)
TRAIN = Stage(
    "train",
    "tasks.training.train:train",
    1,
    "single",
    every=("instances",),
    late=("queries", "passages", "base"),
    directories=("model",),
    resources=_WHOLE_MACHINE,
)
EVALUATE = Stage(
    "evaluate",
    "tasks.training.evaluate:evaluate",
    1,
    "single",
    every=("queries", "passages", "qrels", "model"),
    outputs={"scores": s.SCORES},
    resources=_WHOLE_MACHINE,
)
EXPORT = Stage(
    "export",
    "tasks.data.export:export",
    1,
    "gather",
    every=("instances",),
    late=("queries", "passages"),
    directories=("export",),
)
REPORT = Stage(
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

COMPARE = Stage(
    "compare",
    "tasks.training.compare:compare_models",
    3,
    "gather",
    every=("scores",),
    directories=("page",),
)
LEAVE_OUT = Stage(
    "leave_out",
    "tasks.training.prune:leave_out",
    1,
    "map",
    each=("instances",),
    outputs={"mix": s.INSTANCES},
)
PRUNE = Stage(
    "prune",
    "tasks.training.prune:prune",
    3,
    "gather",
    every=("instances", "scores"),
    outputs={"pruning": s.PRUNING},
    directories=("page",),
)
VALIDATE = Stage(
    "validate",
    "tasks.quality.validate:validate",
    1,
    "gather",
    every=("candidates", "similarity", "llm_verdicts", "decisions", "samples", "human"),
    outputs={"validation": s.VALIDATION},
    directories=("page",),
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
