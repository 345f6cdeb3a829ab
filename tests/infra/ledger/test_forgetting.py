"""Answers of a judge are taken out of the ledger, kept aside, put back, and deleted for good."""

import time
from pathlib import Path

import polars as pl
import pytest

from infra.ledger.forgetting import (
    begin,
    drop_old,
    forgotten,
    forgotten_at,
    put_back,
    scan,
    take_parts,
    take_rows,
)
from infra.ledger.ledger import Ledger
from infra.storage.store import Store
from tests.infra.ledger.test_ledger import answers, asked, make_rows, segments

ROWS = make_rows(40)


def bad(rows: pl.DataFrame) -> pl.Series:
    """Tell the rows that were remembered from second 100 on."""
    return rows.select(pl.col("at") >= 100).to_series()


@pytest.fixture
def store(store_url: str) -> Store:
    """A ledger of thirty good rows and, since second 100, ten bad ones; in one shelved and in new segments."""
    store = Store.open(store_url)
    for at, rows in ((50.0, ROWS[:30]), (100.0, ROWS[30:])):
        with Ledger(store, clock=lambda at=at: at) as ledger:  # type: ignore[misc]
            ledger.remember("judge", rows[:7])
            ledger.remember("judge", rows[7:])
    return store


@pytest.mark.parametrize("compacted", [False, True])
def test_chosen_rows_are_forgotten_and_can_be_put_back(store: Store, *, compacted: bool) -> None:
    if compacted:
        Ledger(store).compact("judge", min_segments=1)
    number = begin(store, {"judge": "j", "folders": ["judge"]})
    assert sum(bad(rows).sum() for rows in scan(store, "judge")) == 10
    assert take_rows(store, number, "judge", bad) == 10
    assert Ledger(store).recall("judge", asked(ROWS)) == answers(ROWS[:30])
    assert take_rows(store, number, "judge", bad) == 0
    assert put_back(store, number)["segments_back"] > 0
    assert Ledger(store).recall("judge", asked(ROWS)) == answers(ROWS)
    assert forgotten(store)[number]["kept"] is False
    Ledger(store).compact("judge", min_segments=1)
    assert Ledger(store).stats()["judge"].rows == 40


def test_what_is_forgotten_is_not_compacted_back_and_another_judge_keeps_all(store: Store) -> None:
    with Ledger(store, clock=lambda: 100.0) as ledger:
        ledger.remember("other", ROWS[30:])
    take_rows(store, begin(store, {}), "judge", bad)
    Ledger(store).compact("judge", min_segments=1)
    assert Ledger(store).recall("judge", asked(ROWS[30:])) == {}
    assert Ledger(store).recall("other", asked(ROWS[30:])) == answers(ROWS[30:])


def test_parts_are_put_back_unless_they_were_computed_again_meanwhile(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for name in ("a", "b"):
        store.create(f"parts/judge/{name}.json", b"old")
    number = begin(store, {})
    take_parts(store, number, ["parts/judge/a.json", "parts/judge/b.json"])
    assert store.list("parts/judge") == []
    store.create("parts/judge/b.json", b"new")
    assert put_back(store, number) == {"segments_back": 0, "parts_back": 1, "computed_meanwhile": 1}
    assert [store.read(f"parts/judge/{name}.json") for name in ("a", "b")] == [b"old", b"new"]


def test_the_old_is_deleted_for_good_and_when_a_judge_was_forgotten_stays_known(store: Store) -> None:
    started, number = int(time.time()), begin(store, {"folders": ["judge"]})
    take_rows(store, number, "judge", bad)
    assert drop_old(store, 3600.0) == 0
    assert forgotten(store)[number]["kept"]
    assert drop_old(store, 0.0) > 0
    assert not forgotten(store)[number]["kept"]
    assert forgotten_at(store, "judge") >= started
    assert forgotten_at(store, "other") == 0
    assert put_back(store, number) == {"segments_back": 0, "parts_back": 0, "computed_meanwhile": 0}
    assert len(segments(store)) > 0
