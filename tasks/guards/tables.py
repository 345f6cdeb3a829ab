"""The tables of the guards.

A text goes by the number `text`: the first 60 bits of its `text_hash`. Two of ten million texts have one number with a
probability below one in ten thousand.
"""

import polars as pl

from tasks.schemas import Dtype, Schema

_DIGITS = 15  # hexadecimal digits of a hash that an Int64 holds

_TEXT: dict[str, Dtype] = {"dataset": pl.String, "doc_id": pl.String, "text_hash": pl.String}
_PAIR: dict[str, Dtype] = {
    "left_dataset": pl.String,
    "left_doc_id": pl.String,
    "left_hash": pl.String,
    "right_dataset": pl.String,
    "right_doc_id": pl.String,
    "right_hash": pl.String,
}
# A passage in one bucket: texts with equal keys may be near duplicates.
BANDS = Schema({"key": pl.UInt64, **_TEXT}, key=())
# Two passages that shared a bucket; `left` has the smaller hash. A pair of several buckets stands several times.
NEAR_CANDIDATES = Schema(_PAIR, key=())
# Two passages that are near duplicates.
NEAR = Schema({**_PAIR, "similarity": pl.Float64}, key=("left_hash", "right_hash"))
LINKS = Schema({"left": pl.Int64, "right": pl.Int64}, key=("left", "right"))  # the same pairs, by numbers of texts
# The group of each text that has a near duplicate: the smallest number in it.
GROUPS = Schema({"text": pl.Int64, "group": pl.Int64}, key=("text",))
# A candidate that nearly repeats a positive of its query.
REPEATS = Schema(
    {"dataset": pl.String, "query_id": pl.String, "doc_id": pl.String, "positive": pl.String, "similarity": pl.Float64},
    key=("dataset", "query_id", "doc_id"),
)
# A text of a training row: as one of its positives or negatives.
USES = Schema({"text": pl.Int64, "role": pl.String, "dataset": pl.String, "query_id": pl.String}, key=())
# Two rows that must not share a batch; `group` is the number of the text that they have in common.
DO_NOT_BATCH = Schema(
    {
        "dataset": pl.String,
        "query_id": pl.String,
        "other_dataset": pl.String,
        "other_query_id": pl.String,
        "reason": pl.String,  # same_positive | negative_is_positive: a negative of the first, a positive of the other
        "group": pl.Int64,
    },
    key=("dataset", "query_id", "other_dataset", "other_query_id", "reason", "group"),
)
# The texts of evaluation sets, as they are compared.
EVALUATION = Schema(
    {
        "set": pl.String,
        "kind": pl.String,  # query | passage
        "id": pl.String,
        "text": pl.String,
        "same": pl.String,  # equal for texts that differ in case, punctuation, Unicode form and spaces only
        "bands": pl.List(pl.UInt64),
    },
    key=("set", "kind", "id"),
)
# A text of the training data that repeats a text of an evaluation set.
CONTAMINATION = Schema(
    {
        "dataset": pl.String,
        "query_id": pl.String,
        "doc_id": pl.String,  # of the positive; null: it is the query itself
        "set": pl.String,
        "kind": pl.String,  # of the text in the evaluation set
        "id": pl.String,
        "match": pl.String,  # same | near
        "similarity": pl.Float64,
    },
    key=("dataset", "query_id", "doc_id", "set", "kind", "id"),
    nullable=frozenset({"doc_id"}),
)
# What the guards counted. `example` names ids; its `value` sorts examples, the largest first.
GUARD_FIGURES = Schema(
    {"guard": pl.String, "measure": pl.String, "example": pl.String, "value": pl.Float64},
    key=(),
    nullable=frozenset({"example"}),
)


def number_texts(text_hash: str) -> pl.Expr:
    """Return the numbers of the texts whose hashes are in a column."""
    return pl.col(text_hash).str.head(_DIGITS).str.to_integer(base=16)


def count_figures(guard: str, counts: dict[str, int], examples: list[tuple[str, float]] | None = None) -> pl.DataFrame:
    """Return counts and examples of one guard as a table of GUARD_FIGURES.

    >>> count_figures("corpus", {"texts": 2}, [("d1, d2", 1.0)]).rows()
    [('corpus', 'texts', None, 2.0), ('corpus', 'example', 'd1, d2', 1.0)]
    """
    rows: list[tuple[str, str, str | None, float]] = [(guard, name, None, float(n)) for name, n in counts.items()]
    rows += [(guard, "example", example, value) for example, value in examples or []]
    return pl.DataFrame(rows, schema=GUARD_FIGURES.columns, orient="row")
