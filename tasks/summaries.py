"""Define the tables of summaries: what one part of a stage says to the stage that brings all parts together.

They are short whatever the size of the part, or have a few bytes for each question, so that they can be gathered. At
the end stand the tables that go the other way: the rows of a file, cut into those of each part.
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
REACHED = Schema({"asked": pl.Int64, "found": pl.Int64}, key=())
# Decisions by the judge that made them, by whether a tier after similarity was asked, and by whether it could be read.
TALLY = Schema(
    {"judge": pl.String, "asked": pl.Boolean, "unparsed": pl.Boolean, "pairs": pl.Int64},
    key=("judge", "asked", "unparsed"),
)
# Pairs that can be drawn for people (tasks.quality.sample): they have the smallest hashes of their stratum in the part.
_PAIR = dict.fromkeys(("dataset", "query_id", "doc_id"), pl.String)
_HASHES = dict.fromkeys(("query_hash", "positives_hash", "text_hash"), pl.String)
SHORTLIST = Schema({**_PAIR, **_HASHES, "stratum": pl.String, "hash": pl.String}, key=("hash",))
STRATA = Schema({"stratum": pl.String, "pairs": pl.Int64}, key=("stratum",))
# The drawn ones, by the hash of the draw; the chance that a pair of each stratum had; and the drawn ones with the texts
# that people read. `place` orders the sheet.
DRAWN = Schema({"hash": pl.String}, key=("hash",))
CHANCES = Schema({"stratum": pl.String, "inclusion_probability": pl.Float64}, key=("stratum",))
_SHOWN = dict.fromkeys(("place", "query", "positives", "passage"), pl.String)
SHOWN = Schema({**_PAIR, "stratum": pl.String, **_SHOWN}, key=tuple(_PAIR))
# How each tier judged the candidates of a query, against the false negatives that are known
# (tasks.quality.known_false_negatives). A tier is a number: 0 for the decisions, then the tiers in the order asked,
# similarity last.
KNOWN_BY_QUERY = Schema(
    {
        "tier": pl.Int8,
        "dataset": pl.String,
        "query_id": pl.String,
        **dict.fromkeys(("candidates", "known", "found", "known_found"), pl.Int32),
    },
    key=("tier", "dataset", "query_id"),
)
# The same for each candidate; queries are numbered within their part.
KNOWN_BY_PAIR = Schema(
    {"tier": pl.Int8, "query": pl.Int32, "known": pl.Boolean, "score": pl.Float64},
    key=(),
    nullable=frozenset({"score"}),
)
# Rows of a file of scores (tasks.quality.scores), under the ids that ingest kept and under those of the file.
SCORE_ROWS = Schema(
    {
        **dict.fromkeys(("dataset", "query_id", "doc_id", "named_query", "named_doc"), pl.String),
        "value": pl.Float64,  # in the file's scale
    },
    key=("dataset", "query_id", "doc_id", "named_query", "named_doc"),
)
# Rows of a table of verdicts (tasks.quality.imported), by the hashes of query and passage.
IMPORTED_ROWS = Schema(
    {"query_hash": pl.String, "text_hash": pl.String, "state": pl.String, "score": pl.Float64},
    key=("query_hash", "text_hash"),
)
# The queries that the report shows as examples, and how long the candidates' passages are (tasks.report.examples).
CHOSEN = Schema(dict.fromkeys(("dataset", "query_id"), pl.String), key=("dataset", "query_id"))
LENGTHS = Schema({**_PAIR, "chars": pl.UInt32}, key=tuple(_PAIR))
# What the report counts in a query part (tasks.report.parts). The numbers of equal rows of several parts add up.
TALLIES = Schema({"subject": pl.String, "of": pl.String, "kind": pl.String, "count": pl.Int64}, key=())
# Verdicts by tier, state, and which of equal bins of 0..1 has the score.
SCORES = Schema(
    {"tier": pl.String, "state": pl.String, "bin": pl.Int8, "pairs": pl.Int64}, key=(), nullable=frozenset({"bin"})
)
# Queries by dataset, number of candidates, of relevant ones, and of different texts among these.
RELEVANT_BY_QUERY = Schema(
    {"dataset": pl.String, **dict.fromkeys(("pairs", "relevant", "texts"), pl.Int32), "queries": pl.Int64}, key=()
)
# Queries by how many of their pairs two judges called wrongly: of relevant pairs, then of the others, how many there
# are, and on how many the first is wrong, the second, and both. `by` says by whose labels.
ERRORS = tuple(f"{side}{wrong}" for side in ("relevant", "other") for wrong in ("", "_first", "_second", "_both"))
_JUDGES = dict.fromkeys(("by", "first", "second", "kind", "value"), pl.String)
ERRORS_BY_QUERY = Schema({**_JUDGES, **dict.fromkeys(ERRORS, pl.Int32), "queries": pl.Int64}, key=())
# Pairs that the plot of two judges can draw: those with the smallest hashes.
DOTS = Schema({"hash": pl.UInt64, "x": pl.Float64, "y": pl.Float64, "state": pl.String}, key=())
# The calls of each judge, and which judges answered for a tier.
CALL_SUMS = Schema({"judge": pl.String, **dict.fromkeys(("calls", "prompt_tokens", "output_tokens"), pl.Int64)}, key=())
# What was decided of pairs, and soft labels, for training; under names of 64 bits (tasks.training.losses.pairs).
KNOWN_PAIRS = Schema(
    {
        "query": pl.UInt64,
        "text": pl.UInt64,
        "state": pl.String,  # relevant | unsure; null: neither
        "score": pl.Float64,
    },
    key=("query", "text"),
    nullable=frozenset({"state", "score"}),
)
# The passages that a model ranks for held-out queries: rank from 1, the highest score first.
RUN = Schema({**_PAIR, "rank": pl.Int32, "score": pl.Float64}, key=tuple(_PAIR))
# The passages nearest to a query in some parts of the corpus.
FOUND = Schema({**_PAIR, "score": pl.Float64}, key=tuple(_PAIR))
# The passages that are left out of a query's ranking, with the reason.
IGNORED = Schema({**_PAIR, "reason": pl.String, "detail": pl.String}, key=tuple(_PAIR))
