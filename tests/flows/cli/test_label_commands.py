"""`reneg labels`: what people said is imported, counted, and a curation that waited goes on."""

from pathlib import Path

import pytest

from flows.config.section import ConfigError
from flows.method.setup import WaitingForLabels
from tests.flows.cli.conftest import Shell
from tests.flows.nightly import fill, sources
from tests.flows.paper_sets import default_rows, relabelled_rows, write_lines


@pytest.fixture
def waiting(shell: Shell) -> Shell:
    """A shell beside a curation that waits for labels of half its sample."""
    with pytest.raises(WaitingForLabels):
        shell.nights.curate(sources(shell.nights.folder, 8)[0], sample={"size": 12, "wait_for": 0.5})
    return shell


def sheet_of(shell: Shell, *labels: str) -> Path:
    return fill(shell.nights.sheet("animals-000001"), labels, shell.nights.folder / "filled.csv")


def test_nobody_has_labelled_anything_at_first(shell: Shell) -> None:
    assert "there are no labels yet" in shell.run("labels")
    assert shell.json("labels") == []


def test_a_sheet_is_imported_and_counted_by_who_filled_it_in(waiting: Shell) -> None:
    sheet = sheet_of(waiting, "relevant", "not_relevant", "nonsense")
    done = waiting.json("labels", "import", "animals-000001", sheet, "--annotator", "ann")
    assert (done["labels"], done["new"], done["rejects"]) == (2, 2, {"unknown_label": 1})
    said = waiting.run("labels", "import", "animals-000001", sheet, "--annotator", "ann")
    assert "2 labels read: 0 new, 0 changed, 2 known already; 9 rows blank, 0 rows repeated" in said
    assert "left out, unknown_label: 1" in said
    (row,) = waiting.json("labels")
    assert (row["annotator"], row["curation"], row["labels"]) == ("ann", "animals-000001", 2)
    assert (row["relevant"], row["not_relevant"], row["unsure"]) == (1, 1, 0)
    assert "2 pairs of texts, 0 of them by several people, 0 without a majority; 1 imports" in waiting.run("labels")


def test_two_people_who_disagree_leave_a_pair_without_a_majority(waiting: Shell) -> None:
    waiting.run("labels", "import", "animals-000001", sheet_of(waiting, "relevant"), "--annotator", "ann")
    waiting.run("labels", "import", "animals-000001", sheet_of(waiting, "not_relevant"), "--annotator", "ben")
    assert "1 pairs of texts, 1 of them by several people, 1 without a majority; 2 imports" in waiting.run("labels")


def test_with_resume_the_curation_goes_on_as_soon_as_enough_is_labelled(waiting: Shell) -> None:
    sheet = sheet_of(waiting, *["relevant", "not_relevant"] * 3)
    done = waiting.json("labels", "import", "animals-000001", sheet, "--annotator", "ann", "--resume")
    assert done["new"] == 6
    assert done["result"]["curation"] == "animals-000001"
    assert waiting.run("status", "animals-000001").splitlines()[-1] == "finished"


def test_a_sheet_that_is_none_is_refused(waiting: Shell) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.csv"):
        waiting.run("labels", "import", "animals-000001", waiting.nights.folder / "nowhere.csv")


def test_silver_labels_are_written_as_a_table_and_as_a_gold_set_and_never_imported_as_those_of_people(
    waiting: Shell,
) -> None:
    rows = default_rows()
    folder = waiting.nights.folder
    default = write_lines(folder / "default", rows)
    relabelled = write_lines(folder / "rlhn", relabelled_rows(rows, dropped=1))
    sets = ("--default", default / "rows.jsonl", "--relabelled", relabelled)
    said = waiting.run("labels", "silver", *sets, "--out", folder / "silver.csv")
    assert "12 rows as they were, 11 relabelled" in said
    assert "labels: 44 not_relevant, 22 relevant" in said
    assert "without a label: 6 row_dropped" in said
    assert "66 pairs; made by a machine, not by people. Use it as `imported: {path: …}`" in said
    gold = waiting.json("labels", "silver", *sets, "--out", folder / "silver.jsonl", "--pairs", "10")
    assert gold["written"] == 10
    with pytest.raises(ConfigError, match=r"silver\.csv exists; give another file"):
        waiting.run("labels", "silver", *sets, "--out", folder / "silver.csv")
    for name in ("silver.csv", "silver.jsonl"):
        with pytest.raises(ConfigError, match="these are labels of a machine"):
            waiting.run("labels", "import", "animals-000001", folder / name, "--annotator", "ann")
    assert waiting.json("labels") == []
