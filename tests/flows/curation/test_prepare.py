"""What an execution takes up when it begins, and what a look at it later sees."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation import prepare
from flows.curation.prepare import Intake, check_gold
from infra.storage.numbered_records import keep_next
from infra.storage.store import Store
from tests.conftest import free_port
from tests.flows.animals import tier
from tests.flows.nightly import ENDPOINT, write_gold

NOW = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)


def config(**changes: object) -> object:
    return parse_config({"name": "nq", "source": {"path": "rows.jsonl"}, **changes}, "test")


def test_the_night_counts_only_where_an_endpoint_is_asked_about_a_gold_set(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    gold = {"gold": {"path": str(write_gold(tmp_path / "gold.jsonl", 4))}}
    far = {"tiers": [{**tier(), "engine": ENDPOINT}]}
    nights = [Intake.now(store, config(**c), NOW).night for c in ({}, gold, far, gold | far)]  # type: ignore[arg-type]
    assert nights == ["", "", "", "2026-03-01"]


def test_it_is_recorded_once_and_a_new_one_only_where_something_came_in(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    gold = config(gold={"path": str(write_gold(tmp_path / "gold.jsonl", 4))})
    for _ in range(2):
        Intake.now(store, gold, NOW).keep(store, "nq-000001")  # type: ignore[arg-type]
    assert store.list("curations/nq-000001") == ["curations/nq-000001/intake-000001.json"]
    store.create("labels/abc.parquet", b"")
    Intake.now(store, gold, NOW).keep(store, "nq-000001")  # type: ignore[arg-type]
    assert Intake.of(store, "nq-000001").labels == ("labels/abc.parquet",)
    assert len(store.list("curations/nq-000001")) == 2
    assert Intake.of(store, "nq-000002") == Intake()


def test_a_bucket_out_of_reach_is_served_by_the_copy_and_without_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = Store.open(str(tmp_path / "store"))
    far = config(gold={"path": "s3://nowhere/gold.jsonl"})
    with pytest.raises(ConfigError, match="cannot be read"):
        Intake.now(store, far, NOW)  # type: ignore[arg-type]
    said: list[str] = []
    known = Intake(gold={"gold.jsonl": "objects/ab/abc"})
    assert Intake.now(store, far, NOW, known, said.append).gold == known.gold  # type: ignore[arg-type]
    assert "the copy of the last execution is used" in said[0]


def test_a_gold_set_that_is_too_large_or_whose_address_is_not_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path / "store"))
    path = write_gold(tmp_path / "gold.jsonl", 4)
    known = Intake(gold={"gold.jsonl": "objects/ab/abc"})
    for address in ("memory://gold.jsonl", "simplecache::s3://bucket/gold.jsonl", "ftp://host/gold.jsonl"):
        with pytest.raises(ConfigError, match=r"^gold\.path: \w+:// is not read; a path, s3://"):
            Intake.now(store, config(gold={"path": address}), NOW, known)  # type: ignore[arg-type]
    monkeypatch.setattr(prepare, "_LARGEST_GOLD", path.stat().st_size)
    assert Intake.now(store, config(gold={"path": str(path)}), NOW).gold  # type: ignore[arg-type]
    monkeypatch.setattr(prepare, "_LARGEST_GOLD", path.stat().st_size - 1)
    with pytest.raises(ConfigError, match=r"gold\.jsonl is larger than \d+ bytes"):
        Intake.now(store, config(gold={"path": f"file://{path}"}), NOW)  # type: ignore[arg-type]


def test_rows_of_a_gold_set_that_are_left_out_are_told_by_reason(tmp_path: Path) -> None:
    data = write_gold(tmp_path / "gold.jsonl", 4).read_bytes() + b"{}\n{}\n"
    said: list[str] = []
    assert check_gold(data, config(), said.append) == 4  # type: ignore[arg-type]
    assert said == ["gold: 2 row(s) left out: unknown_label"]
    with pytest.raises(ConfigError, match="no usable row"):
        check_gold(b"{}", config())  # type: ignore[arg-type]


def test_imported_verdicts_are_taken_in_and_records_of_older_versions_have_none(tmp_path: Path) -> None:
    store, table = Store.open(str(tmp_path / "store")), tmp_path / "verdicts.csv"
    table.write_text("query,passage,label\na,b,relevant\n")
    found = Intake.now(store, config(imported={"path": str(table)}), NOW)  # type: ignore[arg-type]
    assert found.imported is not None
    assert [*found.imported] == ["verdicts.parquet"]
    found.keep(store, "nq-000001")
    assert Intake.of(store, "nq-000001") == found
    keep_next(store, "curations/nq-000002/intake", {"labels": [], "gold": None, "night": ""})
    assert Intake.of(store, "nq-000002") == Intake()


def test_the_page_of_a_preview_names_the_command_that_made_it() -> None:
    commands = [prepare._command(name) for name in ("nq", "nq-preview", "demo")]
    assert commands == ["reneg curate nq.yaml", "reneg preview nq.yaml", "make demo"]
