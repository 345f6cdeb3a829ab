"""Imported verdicts: read from three kinds of files, and used in place of judges."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation.lookup import look_at
from flows.curation.records import load_curation
from flows.curation.silver import write_silver
from flows.inputs.imported import keep_imported
from infra.storage.artifacts import Table, read_table
from infra.storage.store import Store
from tasks import schemas
from tasks.quality.imported import FILE
from tasks.texts import hash_passage, hash_text
from tests.flows.nightly import Nights
from tests.flows.paper_sets import default_rows, relabelled_rows, write_lines

TEXTS = [
    {"query": "a", "passage": "x ", "title": "t", "label": "relevant"},
    {"query": "a", "passage": "y", "title": None, "label": "not_relevant"},
    {"query": "b", "passage": None, "title": "", "label": "relevant"},
]


def kept(tmp_path: Path, path: Path, **known: Any) -> tuple[pl.DataFrame, list[str]]:
    store, said = Store.open(str(tmp_path / "store")), list[str]()
    files = keep_imported(store, str(path), known.get("known"), said.append)
    made = tmp_path / "made.parquet"
    made.write_bytes(store.get_object(files[FILE]))
    return pl.read_parquet(made), said


def test_texts_are_hashed_as_ingest_does_it_and_each_kind_of_file_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEXTS))
    pl.DataFrame(TEXTS).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(TEXTS).write_csv(tmp_path / "a.csv")
    wanted = sorted(
        [
            (hash_text("a"), hash_passage("t", "x"), "relevant", 1.0),
            (hash_text("a"), hash_passage("", "y"), "not_relevant", 0.0),
        ]
    )
    for kind in ("jsonl", "parquet", "csv"):
        table, said = kept(tmp_path, tmp_path / f"a.{kind}")
        assert sorted(table.rows()) == wanted
        assert said == ["imported: 1 row(s) left out: no_hash"]


def test_a_file_without_the_columns_or_of_another_kind_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    pl.DataFrame({"query": ["a"], "text": ["b"]}).write_csv(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=r"has the columns query, text; query_hash and text_hash \(or query and"):
        kept(tmp_path, tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=r"a file of the kind \.parquet, \.csv, \.jsonl expected"):
        kept(tmp_path, tmp_path / "a.xlsx")
    (tmp_path / "b.parquet").write_text("no parquet")
    with pytest.raises(ConfigError, match=r"b\.parquet cannot be read as \.parquet"):
        kept(tmp_path, tmp_path / "b.parquet")
    pl.DataFrame({"query": ["a"], "passage": ["b"], "label": ["yes"]}).write_csv(tmp_path / "c.csv")
    with pytest.raises(ConfigError, match=r"holds no usable row \(\{'unknown_state': 1\}\)"):
        kept(tmp_path, tmp_path / "c.csv")


def test_a_file_that_is_gone_is_replaced_by_the_copy_of_the_last_execution(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        kept(tmp_path, tmp_path / "none.csv")
    store, said = Store.open(str(tmp_path / "store")), list[str]()
    assert keep_imported(store, str(tmp_path / "none.csv"), {FILE: "x"}, said.append) == {FILE: "x"}
    assert said == [
        f"imported.path: {tmp_path / 'none.csv'} cannot be read here; the copy of the last execution is used"
    ]


def decisions_of(nights: Nights, curation: str) -> pl.DataFrame:
    _, runs = look_at(nights.workspace, load_curation(nights.workspace.store, curation))
    (decide,) = [run for run in runs if run.name == "decide"]
    pieces = [m.tables["decisions"] for m in decide.manifests]
    return read_table(nights.workspace.store, Table("decisions", sum(pieces, ())), schemas.VERDICTS)


def test_silver_labels_stand_in_for_a_judge_and_judges_are_asked_about_the_other_pairs_only(tmp_path: Path) -> None:
    nights, rows = Nights(tmp_path), default_rows()
    source = write_lines(tmp_path / "default", rows)
    relabelled = write_lines(tmp_path / "rlhn", relabelled_rows(rows, dropped=4))
    both: dict[Any, str] = {"default": str(source), "relabelled": str(relabelled)}
    write_silver(nights.settings, both, tmp_path / "silver.parquet")
    changes: dict[str, Any] = {
        "ingest": {"query_parts": 2, "passage_parts": 2},
        "imported": {"path": str(tmp_path / "silver.parquet")},
    }
    done = nights.curate(source, **changes)
    asked = " ".join(nights.judge.asked)
    for number, row in enumerate(rows):
        assert (f"{row['query']}\n" in asked) == (number >= 8), row["query"]
    decisions = decisions_of(nights, done.curation)
    silver = decisions.filter(pl.col("judge").str.contains("imported"))
    assert silver.height == 8 * 6
    assert silver.filter(pl.col("state") == "relevant").height == 8 * 2
    assert silver["call_id"].null_count() == silver.height
    assert {row["tier"] for row in done.summary["tiers"]} >= {"imported", "llm"}
    (cost,) = [line for line in done.summary["conclusions"] if "imported" in line]
    assert cost.startswith("48 candidates (67%) have imported verdicts. The language model was asked about 24 candid")
    again = nights.curate(source, **changes)
    assert (again.curation, again.computed) == (done.curation, 0)
    relabelled_too = write_lines(tmp_path / "more", relabelled_rows(rows))
    write_silver(nights.settings, both | {"relabelled": str(relabelled_too)}, tmp_path / "more.parquet")
    more = nights.curate(source, **changes | {"imported": {"path": str(tmp_path / "more.parquet")}})
    assert more.curation == done.curation
    assert "imported" in nights.computed
    assert decisions_of(nights, more.curation).filter(pl.col("judge").str.contains("imported")).height == 12 * 6


def test_no_tier_may_have_the_name_of_the_imported_verdicts() -> None:
    tier = {"name": "imported"}
    parse_config({"name": "a", "source": {"path": "x"}, "tiers": [tier]}, "test")
    with pytest.raises(ConfigError, match="is that of the imported verdicts"):
        parse_config({"name": "a", "source": {"path": "x"}, "tiers": [tier], "imported": {"path": "x.csv"}}, "test")
