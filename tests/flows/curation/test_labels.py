"""People's labels from the sheet to the training set, over several nights."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows import stages as st
from flows.cli.__main__ import app
from flows.cli.inspect_commands import show_plan, show_status
from flows.config.section import ConfigError
from flows.curation import labels
from flows.curation.labels import import_labels, resumable, waiting
from flows.curation.lookup import look_at
from flows.curation.records import load_curation
from flows.maintenance.purge import Wanted
from flows.method.human_labels import read_labels
from flows.method.setup import WaitingForLabels
from flows.runs.execute import execute
from infra.storage.artifacts import read_table
from infra.storage.numbered_records import keep_next
from tasks.texts import hash_text
from tests.flows.nightly import Nights, fill, sources, write_gold
from tests.flows.purging import purged, traces


def take_in(nights: Nights, curation: str, sheet: Path, annotator: str = "ann") -> dict[str, object]:
    return import_labels(nights.workspace, load_curation(nights.workspace.store, curation), sheet, annotator).as_json()


def edits_of(nights: Nights, curation: str) -> pl.DataFrame:
    _, runs = look_at(nights.workspace, load_curation(nights.workspace.store, curation))
    pieces = [p for run in runs if run.name == "treat-relabel" for m in run.manifests for p in m.tables["edits"]]
    return pl.concat(pl.read_parquet(nights.workspace.store.read(p.object) or b"") for p in pieces)


def instances_of(nights: Nights, curation: str) -> pl.DataFrame:
    outcome, _ = look_at(nights.workspace, load_curation(nights.workspace.store, curation))
    return read_table(nights.workspace.store, outcome.instances["relabel"])


def test_a_label_overrules_the_judges_and_recomputes_only_what_lies_after_the_decision(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 8)
    first = nights.curate(source)
    assert "people" not in first.summary
    before = instances_of(nights, first.curation)
    sheet = nights.sheet(first.curation)
    rows = sheet.read_text(encoding="utf-8-sig").count('"animals"')
    done = take_in(nights, first.curation, fill(sheet, ["relevant", "not_relevant", "not_relevant"] * (rows // 3)))
    assert (done["labels"], done["new"], done["rejects"]) == (rows, rows, {})
    second = nights.curate(source)
    assert second.curation == first.curation
    assert nights.computed == {
        "apply_labels", "agree_people", "tally", "complete", "treat-relabel", "render-relabel", "export-relabel",
        "sum_up_verdicts", "sum_up_edits", "excerpt", "report",
    }  # fmt: skip
    edits = edits_of(nights, first.curation)
    assert set(edits["because"]) == {"human", "judge"}
    assert edits.filter(pl.col("because") == "human")["score"].unique().to_list() == [1.0]
    assert not instances_of(nights, first.curation).equals(before)
    people = {row["tier"]: row for row in second.summary["people"]}
    assert people["cascade"]["labelled"] == rows
    assert 0 < people["cascade"]["contradicted"] < rows
    assert any(line.startswith(f"People decided {rows} of the pairs") for line in second.summary["conclusions"])
    assert nights.curate(source).computed == 0


def test_labels_carry_over_to_the_next_curation_by_text_under_other_ids(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    monday, tuesday = sources(tmp_path, 6, 9)
    first = nights.curate(monday)
    take_in(nights, first.curation, fill(nights.sheet(first.curation), ["relevant"] * 12))
    labelled = read_labels(nights.workspace.store).height
    for name in ("queries.jsonl", "qrels/train.tsv", "qrels/test.tsv", "qrels/known.tsv"):
        path = tuesday / name
        path.write_text(path.read_text().replace('"_id": "q', '"_id": "x').replace("\nq", "\nx"))
    nights.sleep()
    second = nights.curate(tuesday, name="elsewhere")
    people = {row["tier"]: row for row in second.summary["people"]}
    # The larger corpus of queries does not change whom a query of Monday's has for candidates.
    assert people["cascade"]["labelled"] == labelled
    assert set(edits_of(nights, second.curation)["query_id"].str.slice(0, 1)) == {"x"}


def test_without_a_label_for_any_candidate_nothing_is_computed_again(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    first = nights.curate(source)
    other = tmp_path / "labels.jsonl"
    other.write_text(json.dumps({"query": "something else", "passage": "entirely", "label": "relevant"}) + "\n")
    assert take_in(nights, first.curation, other)["new"] == 1
    assert nights.curate(source).computed == 0


def test_a_finished_curation_stays_finished_when_labels_come_in_and_takes_them_up_when_it_is_run(
    tmp_path: Path,
) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    first = nights.curate(source)
    before = instances_of(nights, first.curation)
    take_in(nights, first.curation, fill(nights.sheet(first.curation), ["relevant"] * 12))
    assert instances_of(nights, first.curation).equals(before)
    nights.curate(source)
    assert not instances_of(nights, first.curation).equals(before)


def test_a_sheet_can_be_imported_as_often_as_it_grows_and_a_later_label_wins(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    curation, sheet = nights.curate(source).curation, nights.sheet("animals-000001")
    assert take_in(nights, curation, fill(sheet, ["relevant"] * 4))["new"] == 4
    again = take_in(nights, curation, fill(sheet, ["relevant"] * 6))
    assert (again["new"], again["known"], again["blank"]) == (2, 4, 6)
    assert take_in(nights, curation, sheet)["key"] is None
    nights.sleep()
    changed = take_in(nights, curation, fill(sheet, ["not_relevant"] + ["relevant"] * 5))
    assert (changed["new"], changed["changed"], changed["known"]) == (0, 1, 5)
    labels = read_labels(nights.workspace.store)
    assert labels["label"].value_counts().sort("label").rows() == [("not_relevant", 1), ("relevant", 5)]
    assert take_in(nights, curation, sheet, "ben")["new"] == 6


def test_a_sheet_is_refused_where_nothing_in_it_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    curation = nights.curate(source).curation
    sheet = fill(nights.sheet(curation), ["perhaps"] * 12)
    with pytest.raises(ConfigError, match="unknown_label: 12"):
        take_in(nights, curation, sheet)
    with pytest.raises(ConfigError, match="No such file"):
        take_in(nights, curation, tmp_path / "nowhere.csv")
    monkeypatch.setattr(labels, "_LARGEST", 10)
    with pytest.raises(ConfigError, match="a sheet of at most 10 bytes expected; import it in several files"):
        take_in(nights, curation, sheet)
    assert read_labels(nights.workspace.store).is_empty()


def test_a_curation_that_waits_for_labels_does_not_hold_up_the_next_and_goes_on_with_its_own_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = Nights(tmp_path)
    monday, tuesday = sources(tmp_path, 6, 9)
    patient = {"sample": {"size": 12, "wait_for": 0.5}}
    with pytest.raises(WaitingForLabels, match="0 of 12 drawn pairs are labelled, 6 are wanted") as waits:
        nights.curate(monday, **patient)
    assert "reneg labels import animals-000001" in str(waits.value)
    sheet = nights.sheet("animals-000001")
    assert str(sheet) in str(waits.value)
    assert sheet.exists()
    assert not [name for name in nights.executors[-1].computed if name.startswith(("treat", "report", "export"))]
    with pytest.raises(WaitingForLabels):  # once more: nothing is computed for it
        nights.curate(monday, **patient)
    assert len(nights.executors) == 1
    outcome, runs = look_at(nights.workspace, load_curation(nights.workspace.store, "animals-000001"))
    assert (outcome, runs[-1].unfinished) == (None, frozenset())
    out = Console(file=io.StringIO(), width=200)
    show_status(nights.settings, "animals-000001", out)
    show_plan(nights.settings, nights.config(monday, **patient), out)
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    assert "waits for people: 0 of 12 drawn pairs" in printed
    assert "people must label enough of the sample" in printed

    nights.sleep()
    assert nights.curate(tuesday).curation == "animals-000002"
    assert waiting(nights.workspace.store, "animals") == ["animals-000001"]
    take_in(nights, "animals-000001", fill(sheet, ["relevant"] * 5))
    assert resumable(nights.workspace) == []
    take_in(nights, "animals-000001", fill(sheet, ["relevant"] * 6))
    assert resumable(nights.workspace) == ["animals-000001"]
    with monkeypatch.context() as upgrade:  # in this version the sample is drawn otherwise: of it nothing is labelled
        upgrade.setattr(st, "SAMPLE", replace(st.SAMPLE, version=st.SAMPLE.version + 1))
        assert resumable(nights.workspace) == []
    assert "animals-000001 waits for labels, and has parts to compute up to its sample" in nights.said[-1]
    keep_next(nights.workspace.store, "curations/animals-000001/settings", {"of": "another version"})
    assert resumable(nights.workspace) == []  # and no error: it holds up nothing
    nights.workspace.store.delete("curations/animals-000001/settings-000001.json")
    done = execute(nights.workspace, load_curation(nights.workspace.store, "animals-000001"), nights.compute)
    assert (done.curation, done.summary["people"][0]["labelled"]) == ("animals-000001", 6)
    assert waiting(nights.workspace.store) == []


def test_a_purge_takes_the_labels_of_a_text_and_leaves_the_others(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    gold = {"gold": {"path": str(write_gold(tmp_path / "gold.jsonl", 6))}}
    curation = nights.curate(source, **gold).curation
    take_in(nights, curation, fill(nights.sheet(curation), ["relevant"] * 12))
    nights.curate(source, **gold)
    text = "where does the otter live"
    (tmp_path / "text").write_text(text)
    store = nights.workspace.store
    before = read_labels(store)
    named = before.filter(pl.col("query_hash") == hash_text(text)).height
    assert 0 < named < before.height
    dry = purged(nights.settings, Wanted(text_file=tmp_path / "text"), yes=False)
    assert (dry["labels"], read_labels(store).height) == (named, before.height)
    purged(nights.settings, Wanted(text_file=tmp_path / "text"), yes=True)
    assert read_labels(store).height == before.height - named
    assert traces(nights.settings, text, hash_text(text)) == []
    # A gold pair, by its text: the copy in the store goes, and whoever runs it is told to clean the file.
    (tmp_path / "text").write_text("where does the creature3 live")
    done = purged(nights.settings, Wanted(text_file=tmp_path / "text"), yes=True)
    assert {"curation": curation, "file": "gold.jsonl", "path": "gold.path/gold.jsonl"} in done["sources"]
    assert traces(nights.settings, "where does the creature3 live", hash_text("where does the creature3 live")) == []


def test_the_commands_import_count_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    curation = nights.curate(source).curation
    for name in ("home", "store", "cache"):
        monkeypatch.setenv(f"RENEG_{name.upper()}", str(getattr(nights.settings, name)))

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.output.splitlines()[-1])

    assert run("labels") == []
    elsewhere = tmp_path / "labels.jsonl"
    elsewhere.write_text(json.dumps({"query": "something", "passage": "else", "label": "relevant"}) + "\n")
    done = run("labels", "import", curation, str(elsewhere), "--annotator", "cy", "--resume")
    assert (done["new"], done["result"]["curation"], done["result"]["parts"]["computed"]) == (1, curation, 0)
    sheet = fill(nights.sheet(curation), ["relevant", "unsure", "perhaps"])
    done = run("labels", "import", curation, str(sheet), "--annotator", "ann")
    assert (done["new"], done["rejects"]) == (2, {"unknown_label": 1})
    row, _ = run("labels")
    assert (row["annotator"], row["curation"], row["labels"], row["unsure"]) == ("ann", curation, 2, 1)
    assert run("history")[0]["curation"] == curation
