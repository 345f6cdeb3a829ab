"""Rejects that are found while reading come in the order of the records."""

import polars as pl

from tasks.data.ingesting import records as r
from tasks.data.ingesting.lines import Lines
from tasks.data.ingesting.rejects import Rejects
from tasks.data.on_disk.scratch import Scratch
from tasks.lines import Problem


def _found(most: int = 100) -> tuple[r.Found, Rejects, Lines]:
    lines, rejects = Lines(Scratch()), Rejects(most)
    return r.Found(lines, rejects), rejects, lines


def test_what_is_found_late_stands_at_its_record() -> None:
    found, rejects, lines = _found()
    lines.add(pl.Series(["a:1", "a:2"]))
    found.problems([Problem("a:3", "broken", "what the reader says")])
    conflict = pl.DataFrame({"line": [1], "first": [0], "id": ["x"]}, schema_overrides={"line": pl.UInt32})
    found.conflicts(conflict, r.NEGATIVE)
    cut = pl.DataFrame({"line": [1, 0], "dataset": ["d", "d"], "id": ["y", "z"], "length": [9, None]})
    found.cuts(cut, r.QUERY, "query_cut", 5)
    found.finish()
    assert rejects.frame().select("key", "reason", "detail").rows() == [
        ("d/y", "query_cut", "9 characters long, cut to 5"),
        ("a:2", "id_conflict", "id x has another text at a:1, which is kept"),
        ("a:3", "broken", "what the reader says"),
    ]


def test_problems_beyond_the_limit_are_only_counted() -> None:
    found, rejects, _ = _found(2)
    for number in range(4):
        found.problems([Problem(f"a:{number}", "broken", "")])
    found.conflicts(pl.DataFrame(schema={"line": pl.UInt32, "first": pl.UInt32, "id": pl.String}), r.QUERY_ID)
    found.finish()
    assert rejects.frame()["key"].to_list() == ["a:0", "a:1", "more"]
    assert rejects.counts == {"broken": 4}
