"""Define the tables of summaries: what one part of a stage says to the stage that brings all parts together.

They are short whatever the size of the part, or have a few bytes for each question, so that they can be gathered.
"""

import polars as pl

from tasks.schemas import Schema

# What a part may ask the next tier about (tasks.verdicts.allot), in the order in which a budget takes it. A unit is a
# question, or a row with `escalate.unit: row`. A row of the table stands for units next to each other.
COUNTED = Schema(
    {
        "open": pl.Boolean,  # false in one row, the last: the questions about which nobody is to be asked
        "unparsed": pl.Boolean,
        "score": pl.Float64,  # the highest of these units
        "units": pl.Int64,
        "questions": pl.Int64,
    },
    key=(),
    nullable=frozenset({"score"}),
)
# What a part may ask about within the budget: `units` of them in its own order, from the `first` (counted from 0).
ALLOTTED = Schema({"first": pl.Int64, "units": pl.Int64}, key=("first",))
# A question of the pool of a guarantee: its score, and a number in 0..1 by the hash of its texts.
SCORED = Schema({"score": pl.Float64, "uniform": pl.Float64}, key=())
# How an audit is drawn: the stratum `high` begins at a score; of each stratum the questions with numbers up to
# `drawn_…` are drawn, each with the same chance. Null: there is none.
_DRAWS = ("high_from", "drawn_low", "drawn_high", "chance_low", "chance_high")
DRAW = Schema(dict.fromkeys(_DRAWS, pl.Float64), key=(), nullable=frozenset(_DRAWS))
# A question that the tier before judged, and what the audit says of it. Without a score it is in no audit.
ANSWERED = Schema(
    {
        "score": pl.Float64,
        "high": pl.Boolean,
        "drawn": pl.Boolean,
        "relevant": pl.Boolean,
        "unread": pl.Boolean,
    },
    key=(),
    nullable=frozenset({"score"}),
)
# Questions that the oracle of a guarantee was asked about, and those that it calls relevant.
FOUND = Schema({"asked": pl.Int64, "found": pl.Int64}, key=())
# Decisions by the judge that made them, by whether a tier after similarity was asked, and by whether it could be read.
TALLY = Schema(
    {"judge": pl.String, "asked": pl.Boolean, "unparsed": pl.Boolean, "pairs": pl.Int64},
    key=("judge", "asked", "unparsed"),
)
