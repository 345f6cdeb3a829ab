"""The stage table: one entry per stage of the method, with what the flows need to know about it.

A new stage begins with an entry here; docs/extending.md lists the other places.

Raise a stage's version whenever its output for the same input changes; a golden test reminds you.
"""

from flows import calibration_stages as fitted
from flows import escalation_stages as escalation
from flows import fetching_stages as fetching
from flows import guarantee_stages as guaranteed
from flows import guard_stages as guarding
from flows import report_stages as reporting
from flows import retriever_stages as further
from flows import sampling_stages as sampling
from flows import training_stages as training
from flows.method_stage import MethodStage
from infra.stages.stage import Resources
from tasks import schemas as s
from tasks import summaries as made
from tasks.data.pieces.stored import RANGES, READ
from tasks.summaries import RUN

GOLD = "gold"  # begins the label of the stages that judge the gold set: judge-gold-llm
CHECKING = "check"  # begins the label of the stage that judges positives: judge-check-llm
HELD_OUT = "heldout"  # begins those of the stages that judge what models rank for held-out queries: judge-heldout-llm

_POOL = {"candidates": s.CANDIDATES, "negatives": s.NEGATIVES, "reserve": s.NEGATIVES, "rejects": s.REJECTS}
SEARCHED_QUERIES, SEARCHED_PASSAGES = 20_480, 1_048_576  # most rows that one part of the search reads, about
_MODEL = Resources(num_cpus=2.0, deadline=7200.0)  # of stages that load a model, and of the search

HARVEST = MethodStage(
    "harvest", "tasks.data.demo_corpus:harvest", 1, "single", directories=("source",), section="source"
)
# Of a large source of rows: its large files, or ranges of them, each read by a part (flows.method.tables.read_source).
READ_SOURCE = MethodStage(
    "read_source",
    "tasks.data.pieces.read:read_source",
    2,
    "map",
    each=("file", "piece"),
    outputs={"ranges": RANGES, "read": READ},
    scatters=("read",),
    section="ingest",
)
INGEST = MethodStage(
    "ingest",
    "tasks.data.ingest:ingest",
    7,
    "single",
    # And where an earlier ingest put its texts, if there was one; and what `read_source` read, if it ran. The latter
    # follows from the source, so the key does not cover it: a source has one key, however it is read.
    every=("source",),
    outputs={
        "queries": s.QUERIES,
        "positives": s.POSITIVES,
        "given": s.GIVEN,
        "irrelevant": s.IRRELEVANT,
        "teacher": s.TEACHER,
        "extras": s.EXTRAS,
        "passages": s.PASSAGES,
        "qrels": s.QRELS,
        "known": s.KNOWN,
        "copies": s.COPIES,
        "rejects": s.REJECTS,
        "query_places": s.PLACES,
        "passage_places": s.PLACES,
        "generations": s.GENERATIONS,
    },
    splits=(
        *("queries", "positives", "given", "irrelevant", "teacher", "extras", "passages"),
        *("query_places", "passage_places"),  # by generation
    ),
    decides_labels=True,
)
READ_EVALUATION, FIND_CONTAMINATION = guarding.READ_EVALUATION, guarding.FIND_CONTAMINATION
SKETCH_PASSAGES, PAIR_TEXTS = guarding.SKETCH_PASSAGES, guarding.PAIR_TEXTS
COMPARE_TEXTS, GROUP_DUPLICATES = guarding.COMPARE_TEXTS, guarding.GROUP_DUPLICATES
ENCODE_PASSAGES = MethodStage(
    "encode_passages",
    "tasks.mining.encode:encode_passages",
    1,
    "map",
    each=("passages",),
    outputs={"embeddings": s.EMBEDDINGS},
    streams=("passages",),  # so that nobody holds the texts twice
    engine="encoder",
    vectors=True,
    resources=_MODEL,
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
    vectors=True,
    resources=_MODEL,
    section="encode",
)
SEARCH = MethodStage(
    "search",
    "tasks.mining.dense.search:search",
    4,
    "grid",
    each=("queries", "positives", "query_embeddings"),  # each a group of parts
    across=("passages", "hashes", "passage_embeddings"),
    outputs={"hits": s.HITS},
    scatters=("hits",),
    numbered=("queries",),
    streams=("passages", "hashes", "passage_embeddings"),
    libraries=("faiss", "numpy"),
    resources=_MODEL,
    decides_labels=True,
)
HASH_PASSAGES, SEARCH_WITH = further.HASH_PASSAGES, further.SEARCH_WITH
INDEX_TERMS, COUNT_TERMS = further.INDEX_TERMS, further.COUNT_TERMS
SEARCH_BM25, FUSE = further.SEARCH_BM25, further.FUSE
CHOOSE_POOL, RESCORE = further.CHOOSE_POOL, further.RESCORE
MINE = MethodStage(
    "mine",
    "tasks.mining.mine:mine",
    3,
    "map",
    each=(
        "hits",
        "queries",
        "positives",
        "given",
        "irrelevant",
        "query_embeddings",
        "rescored",
    ),  # if a reranker scores
    late_each=("passage_embeddings",),
    outputs=_POOL,
    decides_labels=True,
)
ADOPT = MethodStage(
    "adopt",
    "tasks.mining.adopt:adopt",
    2,
    "map",
    each=("given", "queries", "positives", "irrelevant"),
    outputs=_POOL,
    decides_labels=True,
)
GUARD_POSITIVES = guarding.GUARD_POSITIVES
DESCRIBE_QUERIES = MethodStage(
    "describe_queries",
    "tasks.report.describe:describe_queries",
    1,
    "map",
    each=("queries", "positives", "candidates", "negatives"),
    outputs={"counts": s.COUNTS},
    section="report",
)
DESCRIBE_PASSAGES = MethodStage(
    "describe_passages",
    "tasks.report.describe:describe_passages",
    1,
    "map",
    each=("passages",),
    outputs={"counts": s.COUNTS},
    section="report",
)
ADMIT = MethodStage(
    "admit",
    "tasks.verdicts.escalate:admit",
    1,
    "map",
    each=("candidates",),
    outputs={"admitted": s.CANDIDATES},
    section="policies",
    decides_labels=True,
)
SPLIT_IMPORTED, IMPORTED = escalation.SPLIT_IMPORTED, escalation.IMPORTED
JUDGE_SIMILARITY = MethodStage(
    "judge_similarity",
    "tasks.judging.similarity:judge_similarity",
    3,
    "map",
    each=("candidates",),
    late_each=("query_embeddings", "passage_embeddings", "positives", "queries", "passages"),
    outputs={"verdicts": s.VERDICTS, "features": s.FEATURES},
    section="similarity",
    decides_labels=True,
)
COUNT_OPEN, ALLOT, ESCALATE = escalation.COUNT_OPEN, escalation.ALLOT, escalation.ESCALATE
JUDGE = MethodStage(
    "judge",
    "tasks.judging.judge:judge",
    2,
    "map",
    each=("escalated",),
    late_each=("queries", "passages", "positives"),
    outputs={"verdicts": s.VERDICTS, "calls": s.CALLS, "windows": s.WINDOWS},
    engine="judge",
    ledger=True,
    resources=_MODEL,
)
SPLIT_SCORES, READ_SCORES = escalation.SPLIT_SCORES, escalation.READ_SCORES
COMBINE = fitted.COMBINE
WANT, WANT_TRAINING, WANT_LABELLED = fetching.WANT, fetching.WANT_TRAINING, fetching.WANT_LABELLED
FETCH_TEXTS, FETCH_VECTORS = fetching.FETCH_TEXTS, fetching.FETCH_VECTORS
DECIDE = MethodStage(
    "decide",
    "tasks.verdicts.decide:decide",
    3,
    "map",
    each=("candidates", "verdicts", "llm_verdicts", "combined", "settled"),  # only with a calibration, a guarantee
    outputs={"decisions": s.VERDICTS},
    decides_labels=True,
)
SCORE_POOL, DRAW_AUDIT, AUDIT = guaranteed.SCORE_POOL, guaranteed.DRAW_AUDIT, guaranteed.AUDIT
READ_AUDIT, SET_THRESHOLDS, SETTLE = guaranteed.READ_AUDIT, guaranteed.SET_THRESHOLDS, guaranteed.SETTLE
COUNT_FOUND, GUARANTEE = guaranteed.COUNT_FOUND, guaranteed.GUARANTEE
COMPARE_KNOWN = MethodStage(
    "compare_known",
    "tasks.quality.known_false_negatives:compare_known",
    1,
    "map",
    each=("candidates", "similarity", "llm_verdicts", "decisions"),
    every=("known",),
    outputs={"queries": made.KNOWN_BY_QUERY, "pairs": made.KNOWN_BY_PAIR},
    section="agree",
)
AGREE = MethodStage(
    "agree",
    "tasks.quality.known_false_negatives:agree",
    3,
    "gather",
    every=("queries", "pairs"),
    numbered=("pairs",),
    outputs={"agreement": s.AGREEMENT},
)
TALLY, COMPLETE = escalation.TALLY, escalation.COMPLETE
PUT_POSITIVES = MethodStage(
    "put_positives",
    "tasks.verdicts.checks:put_positives",
    2,
    "map",
    each=("queries", "positives"),
    outputs={"asked": s.CANDIDATES, "queries": s.QUERIES, "positives": s.POSITIVES, "checked": s.CHECKED},
    section="check",
)
CHECK = MethodStage(
    "check",
    "tasks.verdicts.checks:read_checks",
    2,
    "map",
    each=("checked", "verdicts", "asked", "decisions"),
    outputs={"candidates": s.CANDIDATES, "verdicts": s.VERDICTS, "decisions": s.VERDICTS, "queries": s.QUERY_CHECKS},
)
TREAT = MethodStage(
    "treat",
    "tasks.data.treatments:treat",
    3,
    "map",
    each=("queries", "positives", "candidates", "negatives", "reserve", "decisions"),
    outputs={"instances": s.INSTANCES, "edits": s.EDITS, "rejects": s.REJECTS},
)
NAME_TEXTS, GROUP_USES, PAIR_ROWS = guarding.NAME_TEXTS, guarding.GROUP_USES, guarding.PAIR_ROWS
SHORTLIST, DRAW, SHOW_PAIRS, SAMPLE = sampling.SHORTLIST, sampling.DRAW, sampling.SHOW_PAIRS, sampling.SAMPLE
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
    3,
    "gather",
    every=("samples", "labelled", "similarity", "llm_verdicts", "decisions"),
    streams=("similarity", "llm_verdicts", "decisions"),
    columns=reporting.PEOPLE_COLUMNS,
    outputs={"people": s.PEOPLE},
)
READ_GOLD = MethodStage(
    "read_gold",
    "tasks.quality.gold_set:read_gold",
    3,
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
    2,
    "gather",
    every=("gold", "similarity", "llm_verdicts", "decisions"),
    outputs={"agreement": s.GOLD_AGREEMENT, "verdicts": s.GOLD_VERDICTS},
)
LIST_KNOWN_PAIRS, TRAIN = training.LIST_KNOWN_PAIRS, training.TRAIN
EVALUATE = MethodStage(
    "evaluate",
    "tasks.training.evaluate:evaluate",
    3,
    "single",
    every=("queries", "passages", "qrels", "model"),
    outputs={"scores": s.SCORES, "dev_scores": s.SCORES, "run": RUN, "rejects": s.REJECTS},
    splits=("run",),
    streams=("passages",),
    libraries=(*training.LIBRARIES, "faiss"),
    resources=_MODEL,
    afterwards=True,
)
READ_COLLECTION, SEARCH_COLLECTION = training.READ_COLLECTION, training.SEARCH_COLLECTION
SCORE_COLLECTION, WRITE_RESULTS = training.SCORE_COLLECTION, training.WRITE_RESULTS
RERANK, TRAIN_RERANKER = training.RERANK, training.TRAIN_RERANKER
PICK_HELD_OUT, RERANK_HELD_OUT = training.PICK_HELD_OUT, training.RERANK_HELD_OUT
SCORE_RERANKED = training.SCORE_RERANKED
POOL_UNLABELLED, SCORE_COMPLETED = training.POOL_UNLABELLED, training.SCORE_COMPLETED
RENDER, EXPORT = reporting.RENDER, reporting.EXPORT
MEASURE, SUM_UP_VERDICTS, SUM_UP_EDITS = reporting.MEASURE, reporting.SUM_UP_VERDICTS, reporting.SUM_UP_EDITS
CHOOSE_EXAMPLES, EXCERPT, REPORT = reporting.CHOOSE_EXAMPLES, reporting.EXCERPT, reporting.REPORT
COMPARE = MethodStage(
    "compare",
    "tasks.training.compare:compare_models",
    4,
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
    ("instances",),
    outputs={"mix": s.INSTANCES},
    afterwards=True,
)
PRUNE = MethodStage(
    "prune",
    "tasks.training.prune:prune",
    6,
    "gather",
    every=("instances", "scores", "reported"),
    outputs={"pruning": s.PRUNING},
    directories=("page",),
    afterwards=True,
)
VALIDATE = MethodStage(
    "validate",
    "tasks.quality.validate:validate",
    2,
    "gather",
    every=("candidates", "similarity", "llm_verdicts", "decisions", "samples", "human"),
    streams=("candidates", "similarity", "llm_verdicts", "decisions"),
    columns=reporting.VALIDATION_COLUMNS,
    outputs={"validation": s.VALIDATION},
    directories=("page",),
    afterwards=True,
)
CALIBRATE, CALIBRATE_DATA = fitted.CALIBRATE, fitted.CALIBRATE_DATA

STAGES = tuple(stage for stage in list(globals().values()) if isinstance(stage, MethodStage))  # in the order above
