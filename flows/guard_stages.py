"""The stages of the guards (`guards:`), for the stage table."""

from flows.method_stage import MethodStage
from tasks import schemas as s
from tasks.fetching.want import WANTED
from tasks.guards import tables as t

_POOL = {"candidates": s.CANDIDATES, "negatives": s.NEGATIVES, "reserve": s.NEGATIVES}
_OF_ROWS = {"queries": s.QUERIES, "positives": s.POSITIVES, "given": s.GIVEN, "irrelevant": s.IRRELEVANT}

READ_EVALUATION = MethodStage(
    "read_evaluation",
    "tasks.guards.evaluation:read_evaluation",
    1,
    "single",
    every=("source",),
    outputs={"evaluation": t.EVALUATION, "figures": t.GUARD_FIGURES},
    section="guards",
)
FIND_CONTAMINATION = MethodStage(
    "find_contamination",
    "tasks.guards.contamination:find_contamination",
    1,
    "map",
    each=(*_OF_ROWS, "texts"),
    every=("evaluation",),
    outputs={"contamination": t.CONTAMINATION, **_OF_ROWS, "rejects": s.REJECTS, "figures": t.GUARD_FIGURES},
    section="guards",
    decides_labels=True,
)
GUARD_POSITIVES = MethodStage(
    "guard_positives",
    "tasks.guards.repeats:guard_positives",
    1,
    "map",
    each=(*_POOL, "positives", "texts"),
    outputs={"repeats": t.REPEATS, **_POOL, "rejects": s.REJECTS, "figures": t.GUARD_FIGURES},
    section="guards",
    decides_labels=True,
)
SKETCH_PASSAGES = MethodStage(
    "sketch_passages",
    "tasks.guards.duplicates:sketch_passages",
    1,
    "map",
    each=("passages",),
    outputs={"bands": t.BANDS},
    scatters=("bands",),
    section="guards",
)
PAIR_TEXTS = MethodStage(
    "pair_texts",
    "tasks.guards.duplicates:pair_texts",
    1,
    "map",
    each=("bands",),
    outputs={"pairs": t.NEAR_CANDIDATES, "wanted": WANTED},
    scatters=("pairs", "wanted"),
    section="guards",
)
COMPARE_TEXTS = MethodStage(
    "compare_texts",
    "tasks.guards.compare:compare_texts",
    1,
    "map",
    each=("pairs", "texts"),
    outputs={"near": t.NEAR, "links": t.LINKS},
    section="guards",
)
GROUP_DUPLICATES = MethodStage(
    "group_duplicates",
    "tasks.guards.groups:group_duplicates",
    1,
    "gather",
    every=("links",),
    outputs={"groups": t.GROUPS, "figures": t.GUARD_FIGURES},
    scatters=("groups",),
    section="guards",
)
NAME_TEXTS = MethodStage(
    "name_texts",
    "tasks.guards.rows:name_texts",
    1,
    "map",
    each=("instances", "positives", "candidates"),
    outputs={"uses": t.USES},
    scatters=("uses",),
    section="guards",
)
GROUP_USES = MethodStage(
    "group_uses",
    "tasks.guards.rows:group_uses",
    1,
    "map",
    each=("uses", "groups"),
    outputs={"uses": t.USES},
    scatters=("uses",),
    section="guards",
)
PAIR_ROWS = MethodStage(
    "pair_rows",
    "tasks.guards.rows:pair_rows",
    1,
    "map",
    each=("uses",),
    outputs={"do_not_batch": t.DO_NOT_BATCH, "figures": t.GUARD_FIGURES},
    section="guards",
)
