"""The stages that draw the pairs that people check, for the stage table.

Each query part shortlists what can be drawn. One stage draws among the shortlists by hashes alone, and only the parts
that have a drawn pair read texts.
"""

from flows.method_stage import MethodStage
from tasks import schemas as s
from tasks import summaries as made

SHORTLIST = MethodStage(
    "shortlist",
    "tasks.quality.sample:shortlist",
    1,
    "map",
    each=("candidates", "decisions"),
    outputs={"shortlist": made.SHORTLIST, "strata": made.STRATA},
    section="sample",
)
DRAW = MethodStage(
    "draw",
    "tasks.quality.sample:draw",
    2,
    "gather",
    every=("shortlist", "strata"),
    numbered=("shortlist",),
    columns={"shortlist": ("stratum", "hash")},
    outputs={"drawn": made.DRAWN, "chances": made.CHANCES},
    scatters=("drawn",),
    section="sample",
)
SHOW_PAIRS = MethodStage(
    "show_pairs",
    "tasks.quality.sample:show_pairs",
    2,
    "map",
    each=("drawn", "shortlist"),
    late_each=("queries", "passages", "positives"),
    outputs={"shown": made.SHOWN},
    section="sample",
)
SAMPLE = MethodStage(
    "sample",
    "tasks.quality.sample:sample",
    2,
    "gather",
    every=("shown", "chances"),
    outputs={"samples": s.SAMPLES},
    directories=("sheet",),
)
