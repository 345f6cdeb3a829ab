"""Commands of what trainers read: export, promote, releases, rollback, history."""

import json
from pathlib import Path

import pytest

from flows.config.section import ConfigError
from flows.curation.records import open_curation
from tests.flows.cli.conftest import Shell
from tests.flows.nightly import sources


def test_a_training_set_is_written_in_a_trainers_format(finished: Shell, tmp_path: Path) -> None:
    out = tmp_path / "export"
    said = finished.run("export", "animals-000001", "--format", "flagembedding", "--out", out)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    assert said.split() == [str(path) for path in files]
    rows = [json.loads(line) for path in files if path.suffix == ".jsonl" for line in path.read_text().splitlines()]
    assert rows and all({"query", "pos", "neg"} <= set(row) for row in rows)


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
    assert [row["number"] for row in finished.json("releases", "animals")] == [1, 2, 3]
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
