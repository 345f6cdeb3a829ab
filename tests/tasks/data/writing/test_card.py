"""The card of a dataset folder."""

from pathlib import Path

import yaml

from tasks import schemas
from tasks.data.writing import card as module
from tasks.data.writing.card import write_card
from tasks.data.writing.config import ExportConfig, Facts
from tests.tasks.data.writing.sets import Row, decided, pairs, training_set
from tests.tasks.records import mutable_records

ROWS: list[Row] = [("a|b", "q1", ["d1"], ["d2"]), ("c", "q1", ["d1"], [])]


def written(
    folder: Path, config: ExportConfig, counts: dict[str, int] | None = None, **evidence: object
) -> tuple[dict[str, object], str]:
    """The front matter, and the text below it."""
    write_card(config, folder / "README.md", training_set(ROWS, config, **evidence), counts or {"without_negatives": 1})
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_front_matter_names_the_files_and_the_licences(tmp_path: Path) -> None:
    front, text = written(tmp_path, ExportConfig(licences={"c": "mit", "*": "cc-by-4.0"}))
    assert [entry["config_name"] for entry in front["configs"]] == ["default", "without_negatives"]  # type: ignore[attr-defined]
    assert front["license"] == ["cc-by-4.0", "mit"]
    assert "| a\\|b | 1 | cc-by-4.0 |" in text
    front, text = written(tmp_path, ExportConfig(), {"without_negatives": 0})
    assert "license" not in front
    assert front["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]
    assert "| c | 1 | not given |" in text


def test_it_says_what_was_curated_and_how_false_negatives_were_decided(tmp_path: Path) -> None:
    facts = Facts(curation="nq-000007", about={"Judges": "`model/1`", "Decision": "relevant from P = 0.5"})
    _, text = written(tmp_path, ExportConfig(facts=facts))
    assert "# Training set nq-000007\n" in text
    assert "treatment `relabel`, 2 rows, 2 positives, 1 negatives, 1 rows without negatives." in text
    assert "- Judges: `model/1`\n- Decision: relevant from P = 0.5\n" in text
    assert "How false negatives" not in written(tmp_path, ExportConfig())[1]


def test_columns_that_the_settings_add_are_described(tmp_path: Path) -> None:
    evidence = {
        "positives": pairs(schemas.POSITIVES, ("c", "q1", "d1")),
        "negatives": pairs(schemas.NEGATIVES, ("a|b", "q1", "d2")),
        "decisions": decided(("a|b", "q1", "d2", "m", "unsure", 0.5)),
        "extras": pairs(schemas.EXTRAS, ("c", "q1", "prompt", "Find: ")),
    }
    _, text = written(tmp_path, ExportConfig(soft_labels="decision", provenance=True), **evidence)
    for column in (
        "`…_passages[].score` | soft label: P(relevant)",
        "`…_passages[].decided_by`",
        "`…_passages[].origin`",
        "`prompt`",
    ):
        assert column in text


def test_agreement_is_shown_where_something_was_known(tmp_path: Path) -> None:
    known = pairs(schemas.AGREEMENT, ("cascade", 40, 10, 12, 8, 0.8, 0.66667))
    people = pairs(schemas.PEOPLE, ("llm", 20, 3, 1, 20, 0.71))
    _, text = written(tmp_path, ExportConfig(), agreement=known, people=people)
    assert "| cascade | 40 | 10 | 12 | 8 | 0.800 | 0.667 | – |" in text
    assert "| llm | 20 | 3 | 0.710 | – | – |" in text
    nothing = known.with_columns(known=0)
    assert "Agreement" not in written(tmp_path, ExportConfig(), agreement=nothing, people=people.clear())[1]


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(module) == set()
