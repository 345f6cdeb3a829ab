"""Commands of what trainers read: export, promote, releases, rollback, history."""

import io
import json
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from flows.cli.release_commands import show_export
from flows.config.section import ConfigError
from flows.curation.records import open_curation
from tests.flows.cli.conftest import Shell
from tests.flows.nightly import sources


def test_a_training_set_is_written_in_a_trainers_format(finished: Shell, tmp_path: Path) -> None:
    out = tmp_path / "export"
    said = finished.run("export", "animals-000001", "--format", "flagembedding", "--out", out)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    *paths, counts = said.splitlines()
    assert paths == [str(path) for path in files]
    rows = [json.loads(line) for path in files if path.suffix == ".jsonl" for line in path.read_text().splitlines()]
    assert rows and all({"query", "pos", "neg"} <= set(row) for row in rows)
    assert counts.startswith("flagembedding: rows ")
    held = finished.run("export", "animals-000001", "--format", "beir", "--out", tmp_path / "beir")
    assert "beir cannot hold: negatives (" in held


def test_an_export_says_what_it_left_out_and_whether_it_is_empty() -> None:
    file = io.StringIO()
    record = {
        "formats": {"trec": {"qrels": 0, "run": 0}, "beir": {"queries": 1200}},
        "not_held": {"trec": {"prompt": 3, "teacher": 1000}},
        "instances": 0,
    }
    show_export(record, Console(file=file, width=200))
    assert file.getvalue().splitlines() == [
        "trec: qrels 0, run 0",
        "beir: queries 1,200",
        "trec cannot hold: prompt (3), teacher (1,000)",
        "the training set is empty: the treatment left out every query; the report says why",
    ]


def test_the_verdicts_are_written_with_their_columns_described(finished: Shell, tmp_path: Path) -> None:
    out = tmp_path / "verdicts"
    said = finished.run("export", "animals-000001", "--format", "verdicts", "--out", out)
    assert said.split() == [str(out / name) for name in ("README.md", "verdicts.parquet", "verdicts.tsv")]
    frame = pl.read_parquet(out / "verdicts.parquet")
    decisions = frame.filter(tier="cascade")
    assert decisions.select(pl.col("state") == pl.col("decision"), pl.col("score") == pl.col("p")).to_series().all()
    assert frame.group_by("dataset", "query_id", "doc_id").len()["len"].min() >= 2
    assert frame["rank"].null_count() == 0


def test_a_dataset_folder_has_a_card_that_names_the_curation(finished: Shell, tmp_path: Path) -> None:
    finished.run("export", "animals-000001", "--format", "datasets", "--out", tmp_path / "out")
    card = (tmp_path / "out" / "datasets" / "README.md").read_text()
    assert "# Training set animals-000001\n" in card


def test_an_export_that_cannot_be_is_refused_and_nothing_is_written(finished: Shell, tmp_path: Path) -> None:
    out = tmp_path / "export"
    with pytest.raises(ConfigError, match="unknown format 'csv'; known: tevatron"):
        finished.run("export", "animals-000001", "--format", "csv", "--out", out)
    with pytest.raises(ConfigError, match="animals-000001 made default, relabel, not 'remove'"):
        finished.run("export", "animals-000001", "--format", "beir", "--treatment", "remove", "--out", out)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").touch()
    for taken in (out, out / "mine.txt"):
        with pytest.raises(ConfigError, match="holds files already; give another folder with --out"):
            finished.run("export", "animals-000001", "--format", "beir", "--out", taken)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_releases_are_listed_with_what_became_of_them(finished: Shell) -> None:
    (first,) = finished.json("releases")
    assert (first["name"], first["number"], first["curation"]) == ("animals", 1, "animals-000001")
    done = finished.json("promote", "animals-000001", "--treatment", "default", "--force")
    assert (done["promoted"], done["number"], done["treatment"]) == (True, 2, "default")
    back = finished.json("rollback", "animals")
    assert (back["number"], back["of"], back["promoted"]) == (3, 1, False)
    published = Path(finished.nights.settings.store) / "published" / "animals"
    (published / "latest.json").write_bytes((published / "000002" / "release.json").read_bytes())  # a promoter died
    assert [row["number"] for row in finished.json("releases", "animals")] == [1, 2, 3]
    assert json.loads((published / "latest.json").read_text())["number"] == 3
    said = finished.run("releases")
    assert "rolled back to 1" in said
    assert finished.json("releases", "other") == []
    with pytest.raises(ConfigError, match="no release 9 of animals"):
        finished.run("rollback", "animals", "--to", 9)


def test_a_store_without_a_release_says_how_to_make_one(shell: Shell) -> None:
    said = " ".join(shell.run("releases").split())
    assert said.endswith("yet; add a section `promote` to the configuration, or run `reneg promote`")


def test_a_release_that_is_current_is_promoted_once(finished: Shell) -> None:
    said = finished.run("promote", "animals-000001")
    assert "release 1 of animals is current already: animals-000001" in said
    assert [row["number"] for row in finished.json("releases")] == [1]


def test_an_unfinished_curation_is_not_promoted(shell: Shell) -> None:
    nights = shell.nights
    open_curation(nights.workspace, nights.config(sources(nights.folder, 5)[0]))
    with pytest.raises(ConfigError, match="animals-000001 is unfinished; see `reneg status animals-000001`"):
        shell.run("promote", "animals-000001")


def test_the_checks_hold_by_hand_too_unless_they_are_overruled(shell: Shell) -> None:
    nights = shell.nights
    nights.curate(sources(nights.folder, 5)[0])  # without a section `promote`
    held = shell.json("promote", "animals-000001")
    assert held["promoted"] is False
    assert shell.json("releases") == []
    forced = shell.json("promote", "animals-000001", "--force")
    assert forced["promoted"] is True
    assert forced["why"].startswith("by hand, although ")


def test_the_nights_are_shown_and_a_store_without_any_says_so(finished: Shell) -> None:
    (row,) = finished.json("history")
    assert (row["curation"], row["alarms"]) == ("animals-000001", [])
    assert "nights" in finished.run("history", "animals")
    assert f"no finished night of zoo in {finished.nights.settings.store} yet" in finished.run("history", "zoo")
