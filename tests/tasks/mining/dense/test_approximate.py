"""Lists of texts, and what they miss."""

import numpy as np
import polars as pl

from tasks.mining.dense.approximate import Measured, Sampled, count_lists, recall_of
from tasks.mining.dense.corpus import Block
from tasks.mining.search import SearchConfig


def _vectors(seed: int, count: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def _sampled(**settings: int) -> Sampled:
    hashes = pl.Series([f"{n * 37 % 300:03d}" for n in range(300)])
    return Sampled(SearchConfig(index="ivf", depth=5, **settings), hashes, _vectors(1, 300))


def _block(seed: int, count: int) -> Block:
    return Block("d", pl.DataFrame(), _vectors(seed, count), np.arange(count, dtype=np.uint64), pl.DataFrame)


def test_lists_follow_the_number_of_texts_and_need_39_each() -> None:
    assert count_lists(None, 10_000) == 200
    assert count_lists(None, 2_000) == 0
    assert count_lists(256, 39 * 256) == 256
    assert count_lists(256, 39 * 256 - 1) == 0


def test_texts_wait_until_they_are_taken_together() -> None:
    sampled = _sampled()
    assert not sampled.wait(_block(2, 30))
    assert not sampled.wait(_block(3, 10))
    vectors, groups = sampled.take()
    assert vectors.shape == (40, 4)
    assert groups.tolist() == [*range(30), *range(10)]
    assert sampled.take()[0].size == 0


def test_equal_seeds_find_the_same_and_all_lists_find_all() -> None:
    texts, queries = _vectors(4, 800), _vectors(5, 20)
    some = [sampled.find(sampled.build(texts), queries) for sampled in (_sampled(nlist=20, nprobe=2),) * 2]
    assert np.array_equal(*some)
    complete = _sampled(nlist=20, nprobe=50)
    found = complete.find(complete.build(texts), queries)
    assert found.shape == (20, 37)
    for row in range(20):
        assert set(np.argsort(-(texts @ queries[row]))[:30]) <= set(found[row])


def test_recall_is_that_of_200_queries_chosen_by_the_hashes_of_their_texts() -> None:
    sampled, texts = _sampled(nlist=100), _vectors(6, 90)
    assert sampled.build(texts) is None
    sampled.exact.add(texts, np.arange(90, dtype=np.uint64), 0)
    scores = _vectors(1, 300) @ texts.T
    best = np.argsort(-scores, axis=1)[:, :5]
    rows = np.repeat(np.arange(300), 4)
    assert sampled.measure(rows, best[:, :4].ravel()) == Measured(200, 1_000, 800, 90)


def test_recall_without_any_text_is_whole() -> None:
    assert recall_of([Measured(3, 0, 0, 0)])["recall"] == 1.0
