"""The stages that bring texts and vectors of passages to the query parts, for the stage table."""

from flows.method_stage import MethodStage
from tasks import schemas as s
from tasks.fetching.want import WANTED

WANT = MethodStage(
    "want",
    "tasks.fetching.want:want",
    1,
    "map",
    each=("candidates", "positives"),
    numbered=("candidates",),
    outputs={"wanted": WANTED},
    scatters=("wanted",),
    section="ingest",
)
WANT_TRAINING = MethodStage(
    "want_training",
    "tasks.fetching.want:want_training",
    1,
    "map",
    each=("queries", "candidates", "positives"),
    numbered=("queries",),
    outputs={"wanted": WANTED},
    scatters=("wanted",),
    section="ingest",
)
WANT_LABELLED = MethodStage(
    "want_labelled",
    "tasks.fetching.want:want_labelled",
    1,
    "map",
    each=("queries", "positives", "irrelevant"),
    numbered=("queries",),
    outputs={"wanted": WANTED},
    scatters=("wanted",),
    section="ingest",
)
FETCH_TEXTS = MethodStage(
    "fetch_texts",
    "tasks.fetching.fetch:fetch_texts",
    1,
    "map",
    each=("wanted", "passages"),
    outputs={"texts": s.PASSAGES},
    scatters=("texts",),
    section="ingest",
)
FETCH_VECTORS = MethodStage(
    "fetch_vectors",
    "tasks.fetching.fetch:fetch_vectors",
    1,
    "map",
    each=("wanted", "embeddings"),
    outputs={"vectors": s.EMBEDDINGS},
    scatters=("vectors",),
    section="encode",
)
