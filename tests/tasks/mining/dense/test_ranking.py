"""Ranks of hits, and their rows."""

import numpy as np
import polars as pl

from tasks import schemas
from tasks.mining.dense.ranking import Hits, Ranked, Ranking


def _passages(*rows: tuple[str, int, str]) -> pl.DataFrame:
    """Passages from (doc_id, number of the text, guard hash)."""
    return pl.DataFrame(
        [(doc, f"t{text}", f"s{text}", guard, text) for doc, text, guard in rows],
        schema={**dict.fromkeys(["doc_id", "text_hash", "shown_hash", "guard_hash"], pl.String), "place": pl.Int64},
        orient="row",
    )


def _pairs(*rows: tuple[int, str]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema={"row": pl.UInt32, "doc_id": pl.String}, orient="row")


PARTS = [_passages(("b", 0, "x"), ("d", 1, "y")), _passages(("a", 2, "x"), ("c", 0, "x"), ("e", 3, "z"))]
OWN = _pairs((0, "e")).with_columns(repeats=pl.lit("shown text"))
RANKING = Ranking.of(PARTS, [OWN], [_pairs((0, "e"), (1, "d"))], depth=2)


def _rank(rows: list[int], texts: list[int], scores: list[float]) -> Hits:
    return RANKING.rank(np.array(rows), np.array(texts), np.array(scores, np.float32))


def test_passages_with_one_text_are_hits_each_and_copies_and_masked_ones_do_not_count() -> None:
    hits = _rank([0, 0, 0, 0], [3, 0, 2, 1], [0.9, 0.8, 0.8, 0.7])
    ordered = sorted(
        zip(hits.ranks.tolist(), (RANKING.passages["doc_id"][n] for n in hits.passages.tolist()), strict=True)
    )
    assert ordered == [(1, "e"), (2, "a"), (3, "b"), (4, "c"), (5, "d")]


def test_hits_end_with_the_last_that_counts() -> None:
    hits = _rank([0, 0, 1, 1, 1], [2, 1, 1, 3, 2], [0.9, 0.8, 0.9, 0.8, 0.7])
    assert hits.rows.tolist() == [0, 0, 1, 1, 1]
    few = Ranking.of(PARTS, [OWN], [], depth=1).rank(
        np.array([0, 0]), np.array([2, 1]), np.array([0.9, 0.8], np.float32)
    )
    assert few.rows.tolist() == [0]


def test_hits_of_a_part_are_written_as_the_schema_has_them() -> None:
    queries = pl.DataFrame({"row": [0, 1], "dataset": "d", "query_id": ["q1", "q2"], "part": [3, 5]})
    ranked = Ranked(queries, RANKING, _rank([0, 0, 1], [3, 1, 2], [0.9, 0.8, 0.5]))
    hits = ranked.hits_of(3)
    assert hits.schema == schemas.HITS.empty().schema
    assert hits.rows() == [
        ("d", "q1", "d", "t1", "s1", "y", None, "dense", 2, float(np.float32(0.8))),
        ("d", "q1", "e", "t3", "s3", "z", "shown text", "dense", 1, float(np.float32(0.9))),
    ]
    assert ranked.hits_of(5)["doc_id"].to_list() == ["a"]
    assert ranked.hits_of(4).equals(schemas.HITS.empty())


def test_no_passages_give_no_hits() -> None:
    empty = Ranking.of([], [], [], depth=2)
    none = empty.rank(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    assert none.rows.size == 0
