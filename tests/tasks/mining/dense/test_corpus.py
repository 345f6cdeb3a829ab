"""The corpus part by part."""

import threading
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from tasks import schemas
from tasks.mining import hashing
from tasks.mining.dense.corpus import Block, Waiting, ahead, read_blocks
from tasks.mining.hashing import HashConfig, hash_corpus
from tasks.texts import hash_guard

_VECTOR = pl.Array(pl.Float32, 2)


def _passages(*rows: tuple[str, str, str, str]) -> pl.DataFrame:
    """Passages from (dataset, doc_id, text, hash)."""
    full = [(dataset, doc_id, "", text, text_hash) for dataset, doc_id, text, text_hash in rows]
    return pl.DataFrame(full, schema=schemas.PASSAGES.columns, orient="row")


def _vectors(**vectors: list[float]) -> pl.DataFrame:
    return pl.DataFrame(
        {"text_hash": list(vectors), "vector": list(vectors.values())},
        schema={"text_hash": pl.String, "vector": _VECTOR},
    )


PASSAGES = _passages(("d", "p1", "One", "a"), ("d", "p2", "one", "b"), ("e", "p1", "two", "c"), ("d", "p3", "One", "a"))
HASHES = hash_corpus(HashConfig(), passages=PASSAGES)["hashes"]
VECTORS = _vectors(c=[0, 3], a=[0, 1], b=[0, 2], unused=[0, 9])


def test_a_part_comes_dataset_by_dataset_with_a_vector_for_each_distinct_text() -> None:
    first, second = read_blocks(HASHES, VECTORS, PASSAGES, frozenset("de"), 2)
    assert (first.dataset, second.dataset) == ("d", "e")
    assert first.vectors.tolist() == [[0, 1], [0, 2]]
    assert first.passages.select("doc_id", "place").rows() == [("p1", 0), ("p2", 1), ("p3", 0)]
    assert first.passages["guard_hash"].to_list() == [hash_guard("", "one")] * 3
    assert first.groups[0] == first.groups[1]
    assert second.vectors.tolist() == [[0, 3]]
    assert second.groups[0] != first.groups[0]


def test_datasets_that_nobody_asks_for_and_empty_parts_are_left_out() -> None:
    parts, hashes = [schemas.PASSAGES.empty(), PASSAGES], [hashing.HASHES.empty(), HASHES]
    blocks = list(read_blocks(hashes, [_vectors(), VECTORS], parts, frozenset("e"), 2))
    assert [block.dataset for block in blocks] == ["e"]
    assert blocks[0].read().equals(PASSAGES.filter(pl.col("dataset") == "e"))


def test_blocks_that_wait_are_taken_together_in_their_order_and_once() -> None:
    waiting = Waiting()
    assert [found.shape for found in waiting.take()] == [(0, 0), (0,)]
    for first, count in ((0, 2), (2, 3)):
        rows = np.arange(first, first + count)
        waiting.add(
            Block("d", PASSAGES, np.outer(rows, [1, 10]).astype(np.float32), rows.astype(np.uint64), lambda: PASSAGES)
        )
    assert waiting.nbytes == 5 * 2 * 4
    vectors, groups = waiting.take()
    assert vectors.tolist() == [[n, 10 * n] for n in range(5)]
    assert groups.tolist() == [0, 1, 2, 3, 4]
    assert waiting.nbytes == 0
    assert not len(waiting.take()[0])


def test_a_missing_vector_and_another_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 of 3 distinct passages have no embedding \(first: b\)"):
        list(read_blocks(HASHES, _vectors(a=[0, 1], c=[0, 1]), PASSAGES, frozenset("de"), 2))
    with pytest.raises(ValueError, match="query vectors have 3 dimensions, passage vectors 2"):
        list(read_blocks(HASHES, VECTORS, PASSAGES, frozenset("de"), 3))
    with pytest.raises(ValueError, match="zip"):
        list(read_blocks([HASHES, HASHES], VECTORS, PASSAGES, frozenset("de"), 2))


def test_the_next_item_is_made_meanwhile_and_an_error_comes_out() -> None:
    begun = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        begun.set()
        yield 2
        raise ValueError("no third")

    coming = ahead(items())
    assert next(coming) == 1
    assert begun.wait(60)
    assert next(coming) == 2
    with pytest.raises(ValueError, match="no third"):
        next(coming)
    assert list(ahead(np.arange(5).tolist())) == [0, 1, 2, 3, 4]
    assert list(ahead([])) == []


def test_as_many_items_are_made_meanwhile_as_are_asked_for_and_no_more() -> None:
    made: list[int] = []
    third, fifth = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        for number in range(8):
            made.append(number)
            yield number
            if number == 2:
                third.set()
            if number == 4:
                fifth.set()

    coming = ahead(items(), 3)
    assert next(coming) == 0
    assert third.wait(5)
    assert not fifth.wait(0.1)
    assert made == [0, 1, 2, 3]
    coming.close()  # type: ignore[attr-defined] - a generator
    assert list(ahead(range(8), 3)) == list(range(8))
