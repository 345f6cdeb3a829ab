"""The nearest texts of a block of queries: the same whatever the blocks of texts are, and never too few."""

import numpy as np
import pytest

from tasks.mining.dense import nearest as module
from tasks.mining.dense.nearest import Nearest, are_first, is_in, longest


def _unit(seed: int, count: int, dimension: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _groups(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint64)


def _exact(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left.astype(float)[:, None] * right.astype(float)).sum(axis=2).astype(np.float32)


def _found(nearest: Nearest, queries: int) -> list[list[tuple[int, float]]]:
    rows, texts, scores = nearest.result()
    return [list(zip(texts[rows == n].tolist(), scores[rows == n].tolist(), strict=True)) for n in range(queries)]


def test_they_are_the_first_of_all_in_order_with_their_exact_scores() -> None:
    left, right = _unit(1, 40), _unit(2, 700)
    nearest = Nearest(left, 10)
    nearest.add(right, _groups(700), 0)
    exact = _exact(left, right)
    for row, found in enumerate(_found(nearest, 40)):
        best = np.argsort(-exact[row])[:10]
        assert found[:10] == [(int(text), float(exact[row, text])) for text in best]
        assert len(found) < 13  # a few more at most


@pytest.mark.parametrize("cut", [1, 7, 250, 699])
def test_blocks_of_texts_and_their_width_make_no_difference(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = _unit(1, 12), _unit(2, 700)
    whole = Nearest(left, 10)
    whole.add(right, _groups(700), 0)
    monkeypatch.setattr(module, "_SLACK", 0)
    monkeypatch.setattr(module, "_AT_ONCE", 20)
    parts = Nearest(left, 10)
    parts.add(right[:cut], _groups(700)[:cut], 0)
    parts.add(right[cut:], _groups(700)[cut:], cut)
    assert [found[:10] for found in _found(parts, 12)] == [found[:10] for found in _found(whole, 12)]


def test_copies_and_blocked_groups_do_not_count_and_are_kept_between_the_others() -> None:
    cosines = np.linspace(0.9, 0.1, 200)
    right = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)
    groups = _groups(200)
    groups[1:60] = 0  # copies of the first
    nearest = Nearest(np.array([[1.0, 0.0]], np.float32), 3)
    nearest.block(np.array([0]), groups[60:100])
    nearest.add(right, groups, 0)
    assert [text for text, _ in _found(nearest, 1)[0]] == list(range(102))


def test_all_texts_are_kept_where_there_are_not_enough() -> None:
    nearest = Nearest(_unit(1, 3), 50)
    for first in (0, 20):
        nearest.add(_unit(first, 20), _groups(20), first)
    assert [len(found) for found in _found(nearest, 3)] == [40] * 3


def test_all_texts_that_tie_with_the_last_are_kept() -> None:
    right = np.concatenate([_unit(3, 5), np.repeat(_unit(4, 1), 30, axis=0)])
    nearest = Nearest(_unit(4, 1), 2)
    nearest.add(right, _groups(35), 0)
    assert sorted(text for text, _ in _found(nearest, 1)[0]) == list(range(5, 35))


def test_long_vectors_of_close_scores_are_told_apart() -> None:
    rng = np.random.default_rng(5)
    left = rng.normal(size=(3, 64)).astype(np.float32) * 1_000
    right = (rng.normal(size=64) * 1_000 + rng.normal(size=(6_000, 64)) * 0.001).astype(np.float32)
    nearest = Nearest(left, 20)
    nearest.add(right, _groups(6_000), 0)
    exact = _exact(left, right)
    for row, found in enumerate(_found(nearest, 3)):
        bound = np.sort(exact[row])[-20]
        assert {text for text, score in found if score >= bound} == set(np.flatnonzero(exact[row] >= bound).tolist())


def test_a_length_that_the_caller_computed_gives_the_same() -> None:
    left, right = _unit(1, 20), _unit(2, 300) * 1_000
    plain, told = Nearest(left, 10), Nearest(left, 10)
    plain.add(right, _groups(300), 0)
    told.add(right, _groups(300), 0, longest(right))
    assert _found(plain, 20) == _found(told, 20)


def test_the_longest_vector_is_never_taken_for_shorter() -> None:
    vectors = np.random.default_rng(3).normal(size=(500, 300)).astype(np.float32)
    exact = float(np.linalg.norm(vectors.astype(float), axis=1).max())
    assert exact <= longest(vectors) < exact * 1.001
    assert longest(vectors[:0]) == 0.0


def test_found_texts_are_scored_exactly_and_ranked() -> None:
    left, right = _unit(1, 2), _unit(2, 50)
    nearest = Nearest(left, 2)
    nearest.add_found(right, _groups(50), 100, np.array([[4, 9, 30, -1], [1, -1, -1, -1]]))
    exact = _exact(left, right)
    best = sorted((4, 9, 30), key=lambda text: -exact[0, text])
    first, second = _found(nearest, 2)
    assert [text - 100 for text, _ in first[:2]] == best[:2]
    assert second == [(101, float(exact[1, 1]))]


def test_no_texts_are_no_pairs() -> None:
    nearest = Nearest(_unit(1, 2), 2)
    nearest.add(np.empty((0, 8), np.float32), _groups(0), 0)
    assert _found(nearest, 2) == [[], []]


def test_the_order_is_by_query_and_falling_score_for_scores_of_both_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.array([1, 0, 1, 0, 1, 0], np.int32)
    scores = np.array([-0.5, 0.0, 0.25, -0.0, -3.0, 1e-30], np.float32)
    assert module._order(rows, scores).tolist() == [5, 1, 3, 2, 0, 4]
    monkeypatch.setattr(module, "_PLACES", 2)  # too many pairs for a packed key
    assert module._order(rows, scores).tolist() == [5, 1, 3, 2, 0, 4]


def test_keys_are_found_among_sorted_ones_and_the_first_of_equal_ones_is_known() -> None:
    assert is_in(np.array([3, 1, 9]), np.array([1, 2, 9])).tolist() == [False, True, True]
    assert is_in(np.array([3]), np.array([], np.int64)).tolist() == [False]
    assert are_first(np.array([5, 7, 5, 5, 8, 7])).tolist() == [True, True, False, False, True, False]
