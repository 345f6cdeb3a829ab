"""Keys are found again in any number of runs."""

import numpy as np
import polars as pl

from tasks.data.ingesting.seen import Seen, keys_of


def test_every_key_is_found_at_its_place_and_no_other() -> None:
    seen, numbers = Seen(), np.random.default_rng(1)
    frame = pl.DataFrame({"a": numbers.permutation(5_000)}).with_columns(b=pl.format("text {}", "a"))
    start = 0
    for size in (0, 1, 3, 1000, 10, 10, 10, 2000):
        keys = keys_of(frame[start : start + size])
        assert (seen.find(keys) == -1).all()
        seen.add(keys, np.arange(start, start + size, dtype=np.uint32))
        start += size
    found = seen.find(keys_of(frame))
    assert found[:start].tolist() == list(range(start))
    assert (found[start:] == -1).all()
    assert len(seen._runs) < 5


def test_a_key_covers_all_columns_and_which_is_which() -> None:
    frame = pl.DataFrame([("a", "b"), ("b", "a"), ("ab", ""), ("a", "b")], schema=["one", "two"], orient="row")
    keys = keys_of(frame).rows()
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3
