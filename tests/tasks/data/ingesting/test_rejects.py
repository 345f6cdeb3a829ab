"""Rejects are listed up to a limit, and all are counted."""

import polars as pl

from tasks import schemas
from tasks.data.ingesting.rejects import Rejects


def test_what_is_over_the_limit_is_counted_for_each_reason() -> None:
    rejects = Rejects(3)
    rejects.add(pl.DataFrame({"key": ["a:1", "a:2"], "reason": ["odd", "even"], "detail": ["first", "second"]}))
    rejects.add(pl.DataFrame({"key": ["b:1", "b:2"], "reason": ["odd", "even"], "detail": ["x", "y"]}))
    assert rejects.room == 0
    rejects.count_only("even", 5)
    rejects.count_only("never", 0)
    frame = rejects.frame()
    assert dict(frame.schema) == schemas.REJECTS.columns
    assert frame.select("key", "reason", "detail").rows() == [
        ("a:1", "odd", "first"),
        ("a:2", "even", "second"),
        ("b:1", "odd", "x"),
        ("more", "even", "6 more are not listed (ingest.limits.rejects is 3)"),
    ]
    assert rejects.counts == {"odd": 2, "even": 7}


def test_nothing_left_out_is_an_empty_table() -> None:
    assert Rejects(10).frame().equals(schemas.REJECTS.empty())
