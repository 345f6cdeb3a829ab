"""Rankings are exact, and the same however the corpus is cut."""

import numpy as np
import polars as pl
import pytest

from tasks.evaluation import ranking as module
from tasks.evaluation.ranking import TopPassages

QUERIES = pl.Series([f"q{n:02}" for n in range(9)])
IDS = pl.Series([f"d{n:03}" for n in range(200)])
RNG = np.random.default_rng(1)
ASKED, HELD = ((RNG.normal(size=(n, 8)) * RNG.uniform(0.5, 4, (n, 1))).astype(np.float32) for n in (9, 200))


def _top(depth: int, *cuts: int, left_out: pl.DataFrame | None = None) -> dict[str, list[str]]:
    top = TopPassages(QUERIES, ASKED, depth)
    for start, end in zip((0, *cuts), (*cuts, 200), strict=True):
        top.add(IDS[start:end], HELD[start:end], left_out)
    ranked = pl.concat(frame for _, frame in top.ranked())
    found = ranked.group_by("query_id", maintain_order=True).agg("doc_id")
    return dict(found.iter_rows())


def _exact(depth: int, left_out: dict[str, str] | None = None) -> dict[str, list[str]]:
    scores = ASKED.astype(float) @ HELD.astype(float).T
    ranked = {}
    for row, query_id in enumerate(QUERIES):
        order = [IDS[int(n)] for n in np.argsort(-scores[row])]
        ranked[query_id] = [id_ for id_ in order if id_ != (left_out or {}).get(query_id)][:depth]
    return ranked


@pytest.mark.parametrize("cuts", [(), (50,), (1, 2, 120)])
def test_they_are_the_highest_inner_products_of_all(cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _top(10, *cuts) == _exact(10)
    monkeypatch.setattr(module, "QUERIES", 4)  # several blocks of queries
    assert _top(10, *cuts) == _exact(10)


def test_a_pair_that_is_left_out_takes_no_place() -> None:
    first = {query_id: ranked[0] for query_id, ranked in _exact(1).items()}
    pairs = pl.DataFrame({"query_id": list(first), "doc_id": list(first.values())})
    assert _top(5, 70, left_out=pairs) == _exact(5, first)


def test_of_equal_scores_the_larger_id_is_first_as_in_trec_eval() -> None:
    top = TopPassages(pl.Series(["q"]), np.ones((1, 4), np.float32), 2)
    top.add(pl.Series(["a", "c", "b"]), np.ones((3, 4), np.float32))
    assert [frame["doc_id"].to_list() for _, frame in top.ranked()] == [["c", "b"]]


def test_without_passages_nothing_is_ranked_and_few_are_all_ranked() -> None:
    top = TopPassages(QUERIES, ASKED, 10)
    assert [frame.height for _, frame in top.ranked()] == [0]
    top.add(IDS[:3], HELD[:3])
    assert [frame.height for _, frame in top.ranked()] == [27]
