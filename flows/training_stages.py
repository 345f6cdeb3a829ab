"""The stages of training, and of evaluation on collections beside the held-out queries, for the stage table."""

from dataclasses import replace

from flows.method_stage import MethodStage
from infra.stages.stage import Resources
from tasks import schemas as s
from tasks import summaries as t
from tasks.summaries import KNOWN_PAIRS
from tasks.training.train_config import TrainConfig

LIBRARIES = ("sentence-transformers", "torch", "transformers", "tokenizers")

LIST_KNOWN_PAIRS = MethodStage(
    "list_known_pairs",
    "tasks.data.known_pairs:list_known_pairs",
    1,
    "map",
    each=("queries", "positives", "candidates", "decisions", "teacher"),
    outputs={"known": KNOWN_PAIRS},
    section="train",
)
TRAIN = MethodStage(
    "train",
    "tasks.training.train:train",
    3,
    "single",
    every=("instances", "known"),
    late=("queries", "passages", "base"),
    directories=("model",),
    trains=True,
    libraries=LIBRARIES,
    resources=Resources(num_cpus=2.0, deadline=7200.0),
    afterwards=True,
)
# With early stop the queries and passages of the development set decide too, so their contents are in the key.
_TRAIN_TO_BEST = replace(TRAIN, every=(*TRAIN.every, "queries", "passages", "qrels"), late=("base",))
TRAIN_RERANKER = replace(
    TRAIN,
    name="train_reranker",
    function="tasks.training.rerankers.train:train_reranker",
    version=1,
    afterwards=False,  # `retrain` and `prune` do not train rerankers
)
PICK_HELD_OUT = MethodStage(
    "pick_held_out",
    "tasks.training.rerankers.score:pick_held_out",
    1,
    "map",
    each=("queries",),
    outputs={"asked": s.QUERIES},
    section="evaluate",
)
RERANK_HELD_OUT = MethodStage(
    "rerank_held_out",
    "tasks.training.rerankers.score:rerank_held_out",
    1,
    "map",
    each=("passages",),
    every=("run", "asked"),
    columns={"run": ("dataset", "query_id", "doc_id"), "asked": ("dataset", "query_id", "text")},
    outputs={"found": t.FOUND},
    engine="judge",
    resources=Resources(num_cpus=2.0, deadline=7200.0),
    section="evaluate",
)
SCORE_RERANKED = MethodStage(
    "score_reranked",
    "tasks.training.rerankers.score:score_reranked",
    1,
    "gather",
    every=("found", "queries", "qrels"),
    columns={"queries": ("dataset", "query_id", "split")},
    outputs={"scores": s.SCORES, "dev_scores": s.SCORES},
    section="evaluate",
)
READ_COLLECTION = MethodStage(
    "read_collection",
    "tasks.evaluation.collections:read_collection",
    3,
    "single",
    every=("source",),
    outputs={"queries": s.QUERIES, "qrels": s.QRELS, "passages": s.PASSAGES, "left_out": t.IGNORED},
    splits=("queries", "qrels", "passages", "left_out"),
    section="evaluate",
    afterwards=True,
)
SEARCH_COLLECTION = MethodStage(
    "search_collection",
    "tasks.evaluation.search:search_collection",
    1,
    "grid",
    each=("queries", "query_embeddings"),  # each a group of parts
    across=("passages", "passage_embeddings"),
    outputs={"found": t.FOUND},
    scatters=("found",),
    numbered=("queries",),
    streams=("passages", "passage_embeddings"),
    columns={"passages": ("doc_id", "text_hash")},
    libraries=("faiss", "numpy"),
    resources=Resources(num_cpus=2.0, deadline=7200.0),
    section="evaluate",
    afterwards=True,
)
SCORE_COLLECTION = MethodStage(
    "score_collection",
    "tasks.evaluation.search:score_collection",
    1,
    "map",
    each=("found", "queries", "qrels"),
    every=("left_out",),
    outputs={"scores": s.SCORES, "run": t.RUN},
    section="evaluate",
    afterwards=True,
)
RERANK = MethodStage(
    "rerank",
    "tasks.evaluation.rerank:rerank",
    1,
    "grid",
    each=("run", "queries"),
    across=("passages",),
    outputs={"found": t.FOUND},
    engine="judge",
    resources=Resources(num_cpus=2.0, deadline=7200.0),
    section="evaluate",
    afterwards=True,
)
WRITE_RESULTS = MethodStage(
    "write_results",
    "tasks.evaluation.results:write_results",
    1,
    "gather",
    every=("scores", "run"),
    streams=("run",),
    directories=("results",),
    section="evaluate",
    afterwards=True,
)

# Labels of the held-out queries that judges complete (`evaluate.pool`).
POOL_UNLABELLED = MethodStage(
    "pool_unlabelled",
    "tasks.evaluation.pool:pool_unlabelled",
    1,
    "gather",
    every=("run", "queries", "qrels", "passages"),
    outputs={"candidates": s.CANDIDATES, "positives": s.POSITIVES},
    splits=("candidates", "positives"),  # the parts of the queries
    numbered=("queries",),
    streams=("run", "passages"),
    columns={"queries": ("dataset", "query_id", "text_hash", "split")},
    section="evaluate",
)
SCORE_COMPLETED = MethodStage(
    "score_completed",
    "tasks.evaluation.pool:score_completed",
    1,
    "gather",
    every=("run", "queries", "qrels", "decisions"),
    outputs={"labelled": s.SCORES, "completed": s.SCORES},
    streams=("run",),
    columns={"queries": ("dataset", "query_id", "split"), "decisions": ("dataset", "query_id", "doc_id", "state")},
    section="evaluate",
)


def training_stage(config: TrainConfig) -> MethodStage:
    """Return the stage that trains with these settings; with `early_stop` it reads the development queries too."""
    return TRAIN if config.early_stop is None else _TRAIN_TO_BEST
