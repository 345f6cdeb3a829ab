"""Silver labels of the paper's published layout: as a gold set and as a table of verdicts."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.section import ConfigError
from flows.curation import silver
from flows.curation.prepare import check_gold
from flows.curation.silver import write_silver
from infra.settings import Settings
from tasks.texts import hash_passage, hash_text
from tests.flows.nightly import Nights
from tests.flows.paper_sets import default_rows, relabelled_rows, write_lines, write_set
from tests.tasks.data.inputs import ingest_all

NEGATIVES = 6


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Nights(tmp_path).settings


def sets(tmp_path: Path, dropped: int = 0) -> dict[Any, str]:
    rows = default_rows()
    return {
        "default": str(write_set(tmp_path / "default", rows)),
        "relabelled": str(write_set(tmp_path / "rlhn", relabelled_rows(rows, dropped), shards=3, seed=1)),
    }


def test_the_published_layout_is_read_as_it_is(tmp_path: Path) -> None:
    rows = default_rows()
    ids = [one["docid"] for row in rows for one in row["negative_passages"]]
    assert len(set(ids)) < len(ids), "ids are unique within a subset only"
    made = ingest_all(write_set(tmp_path / "default", rows))
    for name, count in (("queries", 12), ("positives", 12), ("given", 12 * NEGATIVES), ("passages", 12 * 7)):
        assert made[name].height == count
    assert set(made["queries"]["dataset"]) == {"fiqa", "msmarco_passage"}
    assert made["rejects"].filter(pl.col("reason") != "metadata").is_empty()


@pytest.mark.parametrize("at_once", [10, 500_000])
def test_what_moved_is_relevant_what_stayed_is_not_and_dropped_rows_have_no_label(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(silver, "_PAIRS_AT_ONCE", at_once)
    done = write_silver(settings, sets(tmp_path, dropped=2), tmp_path / "silver.parquet").as_json()
    assert done["rows"] == {"default": 12, "relabelled": 10}
    assert done["labels"] == {"not_relevant": 40, "relevant": 20}
    assert done["without"] == {"row_dropped": 2 * NEGATIVES}
    table = pl.read_parquet(tmp_path / "silver.parquet")
    assert table.height == done["written"] == 60
    row = default_rows()[0]
    moved = table.filter(pl.col("query_id") == row["query_id"], pl.col("label") == "relevant").sort("doc_id")
    assert moved["text_hash"].to_list() == [hash_passage("", row["negative_passages"][n]["text"]) for n in (0, 3)]
    assert set(moved["query_hash"]) == {hash_text(row["query"])}
    write_silver(settings, sets(tmp_path / "again", dropped=2), tmp_path / "silver.csv")
    assert pl.read_csv(tmp_path / "silver.csv", infer_schema=False).rows() == table.rows()
    assert [path.name for path in tmp_path.glob("reneg-silver-*")] == []


def test_the_hashes_are_those_of_ingest_so_the_table_fits_the_pairs_of_a_curation(
    tmp_path: Path, settings: Settings
) -> None:
    rows = default_rows(2)
    rows[0]["query"] += " \x00 tidied "
    rows[0]["negative_passages"][0]["text"] = " long" * 10_000
    both: dict[Any, str] = {
        "default": str(write_lines(tmp_path / "default", rows)),
        "relabelled": str(write_lines(tmp_path / "rlhn", relabelled_rows(rows))),
    }
    write_silver(settings, both, tmp_path / "silver.parquet")
    made = ingest_all(Path(both["default"]))
    given = made["given"].join(made["queries"], on=["dataset", "query_id"])
    table = pl.read_parquet(tmp_path / "silver.parquet")
    assert set(given.select("text_hash_right", "text_hash").rows()) == set(
        table.select("query_hash", "text_hash").rows()
    )


def test_pairs_with_texts_are_a_gold_set_that_can_be_used_as_it_is(tmp_path: Path, settings: Settings) -> None:
    done = write_silver(settings, sets(tmp_path), tmp_path / "silver.jsonl", pairs=20)
    lines = [json.loads(line) for line in (tmp_path / "silver.jsonl").read_text().splitlines()]
    assert (done.written, len(lines)) == (20, 20)
    assert {line["made_by"] for line in lines} == {"silver"}
    assert {line["label"] for line in lines} == {"relevant", "not_relevant"}
    by_query = {row["query"]: row for row in default_rows()}
    for line in lines:
        row = by_query[line["query"]]
        assert line["positives"] == [row["positive_passages"][0]["text"]]
        assert line["passage"] in [one["text"] for one in row["negative_passages"]]
        assert line["dataset"] == row["subset"]
    config = Nights(tmp_path).config(tmp_path)
    assert check_gold((tmp_path / "silver.jsonl").read_bytes(), config) == 20
    write_silver(settings, sets(tmp_path / "again"), tmp_path / "other.jsonl", pairs=20)
    assert (tmp_path / "other.jsonl").read_bytes() == (tmp_path / "silver.jsonl").read_bytes()


def test_sets_that_cannot_be_compared_are_refused(tmp_path: Path, settings: Settings) -> None:
    both = sets(tmp_path)
    other = write_lines(tmp_path / "other", [{**row, "query_id": "x" + row["query_id"]} for row in default_rows()])
    with pytest.raises(ConfigError, match=r"no labelled pair in common: \{'row_dropped': 72\}"):
        write_silver(settings, both | {"relabelled": str(other)}, tmp_path / "silver.csv")
    with pytest.raises(ConfigError, match=r"a \.csv, \.parquet or \.jsonl file expected"):
        write_silver(settings, both, tmp_path / "silver.txt")
    with pytest.raises(ConfigError, match="does not exist"):
        write_silver(settings, both | {"default": str(tmp_path / "none")}, tmp_path / "silver.csv")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"^--relabelled: ingest: no row of a known format"):
        write_silver(settings, both | {"relabelled": str(tmp_path / "text")}, tmp_path / "silver.csv")
    assert not (tmp_path / "silver.csv").exists()


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path, settings: Settings) -> None:
    both = sets(tmp_path)
    (tmp_path / "default" / "data" / "train-more.jsonl").write_text("no json\n")
    assert sum(write_silver(settings, both, tmp_path / "silver.csv").passed_over.values()) == 1
