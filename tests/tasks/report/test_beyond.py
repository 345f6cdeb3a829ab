"""The share of verdicts that rest on text which the trainer does not read."""

from pathlib import Path

import polars as pl
import pytest

from tasks.report.beyond import sum_up_windows
from tasks.report.parts.add_up import Sums
from tasks.schemas import VERDICTS, WINDOWS
from tests.tasks.report.tables import empty_tables, sums_of, toy_tables
from tests.tasks.report.test_report import render

# pair, windows, start, end, characters, tokens before the window, tokens up to its end; its state
PLACES = [
    ("a", 1, 0, 400, 400, 0, 100, "relevant"),
    ("b", 3, 800, 1700, 2500, 200, 425, "relevant"),
    ("c", 2, 0, 900, 1700, 0, 225, "relevant"),
    ("d", 2, 800, 1700, 1700, 200, 425, "not_relevant"),
]


def tables(tier: str = "llm") -> tuple[pl.DataFrame, pl.DataFrame]:
    windows = [("d", "q", name, tier, *places) for name, *places, _ in PLACES]
    verdicts = [("d", "q", place[0], tier, "judge", place[-1], 0.5, None, None, "id", 1) for place in PLACES]
    verdicts.append(("d", "q", "unread", tier, "judge", "unparsed", None, None, None, "id", 1))
    return (
        pl.DataFrame(windows, schema=WINDOWS.columns, orient="row"),
        pl.DataFrame(verdicts, schema=VERDICTS.columns, orient="row"),
    )


def sums(windows: pl.DataFrame, verdicts: pl.DataFrame, reads: int | None) -> Sums:
    return sums_of(empty_tables() | {"windows": windows, "llm_verdicts": verdicts}, reads=reads)


@pytest.mark.parametrize(
    ("reads", "beyond", "partly", "share"),
    [(128, 1, 1, 1 / 3), (200, 1, 1, 1 / 3), (201, 0, 2, 0.0), (512, 0, 0, 0.0), (None, None, None, None)],
)
def test_relevant_verdicts_whose_window_begins_behind_the_limit_are_counted(
    reads: int | None, beyond: int | None, partly: int | None, share: float | None
) -> None:
    (row,) = sum_up_windows(sums(*tables(), reads), reads)
    assert row == {
        "tier": "llm", "verdicts": 4, "long": 3, "further": 2, "relevant": 3,
        "beyond": beyond, "partly": partly, "share": share,
    }  # fmt: skip


def test_each_tier_has_a_row_and_without_verdicts_there_is_none() -> None:
    both = zip(tables("weak"), tables("strong"), strict=True)
    windows, verdicts = (pl.concat(pair) for pair in both)
    assert [row["tier"] for row in sum_up_windows(sums(windows, verdicts, 128), 128)] == ["strong", "weak"]
    assert sum_up_windows(sums(WINDOWS.empty(), VERDICTS.empty(), 128), 128) == []
    (row,) = sum_up_windows(sums(tables()[0].tail(1), tables()[1], 128), 128)
    assert (row["relevant"], row["share"]) == (0, None)


def test_the_page_says_what_rests_on_text_beyond_the_limit(tmp_path: Path) -> None:
    windows, verdicts = tables()
    page = render(tmp_path, toy_tables() | {"windows": windows, "llm_verdicts": verdicts}, reads=128)
    assert "The trainer reads about the first 128 tokens" in page
    assert '<td>1 <span class="dim">33%</span></td><td>1</td>' in page
    assert "Where in its passage" not in render(tmp_path, toy_tables(), reads=128)
