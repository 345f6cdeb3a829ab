"""The stages that make and use calibrations, for the stage table."""

from flows.method_stage import MethodStage
from tasks import schemas as s

COMBINE = MethodStage(
    "combine",
    "tasks.calibrating.combine:combine",
    1,
    "map",
    each=("features", "llm_verdicts"),
    every=("calibration",),
    outputs={"combined": s.VERDICTS},
    section="decide",
)
CALIBRATE = MethodStage(
    "calibrate",
    "tasks.calibrating.fit:fit",
    3,
    "gather",
    every=("features", "llm_verdicts", "samples", "human", "known"),
    directories=("page",),
    afterwards=True,
)
CALIBRATE_DATA = MethodStage(
    "calibrate_data",
    "tasks.calibrating.fit_data:fit_data",
    3,
    "gather",
    every=("queries", "positives"),
    late=("query_embeddings", "passage_embeddings"),
    streams=("query_embeddings", "passage_embeddings"),
    columns={
        "queries": ("dataset", "query_id", "text_hash", "split"),
        "positives": ("dataset", "query_id", "doc_id", "text_hash"),
    },
    directories=("page",),
    afterwards=True,
)
