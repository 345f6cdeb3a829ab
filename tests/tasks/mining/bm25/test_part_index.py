"""The index of some queries' words in one part: bm25s' scores, found with less walking."""

import numpy as np
import polars as pl
import pytest

from tasks.mining.bm25.part_index import Corpus, PartIndex


def _random_index(seed: int, passages: int, terms: int) -> tuple[PartIndex, np.ndarray]:
    """An index over random counts, and its weights as a matrix (terms in the index's order, passages)."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(0, 1, terms) ** 3  # some words are in most passages, most in few
    counts = rng.poisson(1, (terms, passages)) * (rng.uniform(size=(terms, passages)) < shares[:, None])
    term, doc = np.nonzero(counts)
    lengths = counts.sum(axis=0) + 5
    postings = pl.DataFrame({"term": term, "doc": doc, "count": counts[term, doc]}).cast(
        {"term": pl.UInt64, "doc": pl.Int32, "count": pl.Int32}
    )
    asked = pl.DataFrame({"term": np.arange(terms), "passages": (counts > 0).sum(axis=1)}).cast({"term": pl.UInt64})
    corpus = Corpus(passages, float(lengths.mean()), 1.5, 0.75)
    index = PartIndex(asked, postings, pl.Series(lengths), corpus)
    order = index.terms["term"].to_numpy()
    rarity = np.log(1 + (passages - (counts > 0).sum(axis=1) + 0.5) / ((counts > 0).sum(axis=1) + 0.5))
    saturation = counts / (counts + 1.5 * (0.25 + 0.75 * lengths / lengths.mean()))
    return index, (rarity[:, None] * saturation)[order]


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_are_those_of_a_full_sort_with_all_ties(seed: int) -> None:
    index, weights = _random_index(seed, 300, 40)
    rng = np.random.default_rng(seed)
    for _ in range(40):
        words = np.sort(rng.integers(0, 40, rng.integers(1, 7)))
        scores = weights[words].sum(axis=0)
        passages, found = index.nearest(words, 10)
        best = np.sort(scores[scores > 0])[::-1][:10]
        assert np.allclose(np.sort(found)[::-1][: len(best)], best, rtol=1e-5)
        if len(best):
            assert set(np.flatnonzero(scores > best[-1] * (1 + 1e-5))) <= set(passages.tolist())
        assert np.allclose(scores[passages], found, rtol=1e-5)


def test_scores_do_not_depend_on_which_passages_stand_beside() -> None:
    """Sums of float32 depend on their order, and the order comes from the whole corpus."""
    index, _ = _random_index(1, 200, 30)
    words = np.array([0, 3, 3, 11, 28, 29])
    alone = dict(zip(*(values.tolist() for values in index.nearest(words, 200)), strict=True))
    few = dict(zip(*(values.tolist() for values in index.nearest(words, 5)), strict=True))
    assert len(few) >= 5
    assert all(alone[passage] == score for passage, score in few.items())


def test_a_passage_without_any_of_the_words_is_not_found() -> None:
    postings = pl.DataFrame({"term": [7], "doc": [1], "count": [1]}).cast({"term": pl.UInt64, "doc": pl.Int32})
    asked = pl.DataFrame({"term": [7, 8], "passages": [1, 0]}).cast({"term": pl.UInt64})
    index = PartIndex(asked, postings, pl.Series([3, 3]), Corpus(2, 3.0, 1.5, 0.75))
    known = dict(index.terms.iter_rows())
    passages, scores = index.nearest(np.array([known[7]]), 2)
    assert passages.tolist() == [1]
    assert scores[0] == pytest.approx(np.log(1 + 1.5 / 1.5) / 2.5)
    assert index.nearest(np.array([known[8]]), 2)[0].tolist() == []


def test_queries_are_walked_with_their_repeated_words() -> None:
    index, weights = _random_index(2, 50, 10)
    order = index.terms.sort("word")["term"]
    asked = pl.DataFrame({"row": [4, 4, 9], "term": [order[0], order[2], 99], "count": [2, 1, 1]}).cast(
        {"row": pl.Int32, "term": pl.UInt64, "count": pl.Int32}
    )
    walked = list(index.walk(asked, 50))
    assert [row for row, *_ in walked] == [4]  # 9 has no word that the index knows
    expected = 2 * weights[0] + weights[2]
    assert np.allclose(walked[0][2], expected[walked[0][1]], rtol=1e-5)
