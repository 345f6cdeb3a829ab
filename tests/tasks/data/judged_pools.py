"""Queries with judged pools, written as "aR bN": doc a is relevant, doc b is not."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from tasks.schemas import CANDIDATES, NEGATIVES, POSITIVES, QUERIES, VERDICTS

Frames = dict[str, pl.DataFrame]


STATES = {"R": ("relevant", 0.9), "N": ("not_relevant", 0.1), "S": ("unsure", 0.5), "U": ("unparsed", None)}


def text_of(doc_id: str) -> str:
    """The hash of a doc's text: its id up to a dash, so that "a" and "a-copy" are one text."""
    return f"hash-{doc_id.partition('-')[0]}"


def build(
    pools: Mapping[str, Sequence[str]],
    picks: int = 2,
    positives: Mapping[str, Sequence[str]] | None = None,
    split: str = "train",
) -> Frames:
    """Tables of queries with their pools, nearest first: "aR" is doc a, judged relevant (see STATES).

    The first `picks` of a pool are the negatives. Scores of equal states fall with the rank. Every query has the
    positive "pos" unless said otherwise.
    """
    labelled = positives or dict.fromkeys(pools, ("pos",))
    pairs = [(q, doc[:-1], doc[-1], n) for q, docs in pools.items() for n, doc in enumerate(docs)]
    score = {(q, doc): STATES[s][1] and STATES[s][1] - n / 1000 for q, doc, s, n in pairs}
    rows: dict[str, tuple[list[tuple[Any, ...]], Mapping[str, Any]]] = {
        "queries": ([("d", q, q, f"hash-of-{q}", split) for q in pools], QUERIES.columns),
        "positives": (
            [("d", q, doc, *[text_of(doc)] * 3, "label") for q, docs in labelled.items() for doc in docs],
            POSITIVES.columns,
        ),
        "candidates": (
            [("d", q, doc, text_of(doc), f"hash-of-{q}", "p", "dense", n + 1, 0.5) for q, doc, _, n in pairs],
            CANDIDATES.columns,
        ),
        "negatives": (
            [("d", q, doc, text_of(doc), n + 1) for q, doc, _, n in pairs if n < picks],
            NEGATIVES.columns,
        ),
        "reserve": (
            [("d", q, doc, text_of(doc), n + 1 - picks) for q, doc, _, n in pairs if n >= picks],
            NEGATIVES.columns,
        ),
        "decisions": (
            [
                ("d", q, doc, "cascade", "judge", STATES[s][0], score[q, doc], None, None, None, 1)
                for q, doc, s, _ in pairs
            ],
            VERDICTS.columns,
        ),
    }
    return {name: pl.DataFrame(data, schema=dict(schema), orient="row") for name, (data, schema) in rows.items()}
