"""Treatments of a finished curation, made again without a judge and without an encoder."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.config.section import ConfigError
from flows.curation.records import load_curation
from flows.runs.treat_curation import Laid, change_settings, treat_curation
from tests.flows.nightly import Nights, sources

NAME = "animals-000001"


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    nights = Nights(tmp_path_factory.mktemp("treated"))
    nights.curate(sources(nights.folder, 6)[0])
    nights.judge.asked.clear()
    return nights


def again(nights: Nights, **wanted: Any) -> Laid:
    workspace = nights.workspace
    return treat_curation(workspace, load_curation(workspace.store, NAME), **wanted)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "tevatron" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_same_settings_give_the_bytes_of_the_curation(nights: Nights) -> None:
    laid = again(nights)
    own = nights.settings.home / "curations" / NAME
    assert laid.folder == own / "treat"
    for treatment in ("default", "relabel"):
        name = Path(treatment) / "tevatron" / "train.jsonl"
        assert (laid.folder / name).read_bytes() == (own / "export" / name).read_bytes()
        assert laid.made[treatment].now == laid.made[treatment].before


def test_another_cut_and_a_further_treatment_are_made_without_a_judge_an_encoder_or_a_flow_run(
    nights: Nights, tmp_path: Path
) -> None:
    runs, stored = len(nights.executors), set(nights.workspace.store.list(""))
    out = tmp_path / "out"
    laid = again(
        nights,
        treatments=["relabel", "drop_ambiguous"],
        changes=["treat.max_false_negatives=0", "export.formats=[tevatron, flagembedding]"],
        out=out,
    )
    assert nights.judge.asked == []
    assert len(nights.executors) == runs
    new = {key.split("/")[1] for key in set(nights.workspace.store.list("")) - stored if key.startswith("manifests/")}
    assert new <= {"treat", "render", "export"}
    relabel = laid.made["relabel"]
    assert relabel.before is not None
    assert relabel.before.relabelled > 0
    assert (relabel.now.relabelled, relabel.now.dropped > relabel.before.dropped) == (0, True)
    assert laid.made["drop_ambiguous"].before is None
    assert len(rows_in(out / "relabel")) == relabel.now.instances
    assert (out / "relabel" / "flagembedding" / "train.jsonl").exists()
    record = json.loads((out / "treat.json").read_text())
    assert record["settings"]["max_false_negatives"] == 0
    assert record["treatments"]["relabel"]["now"]["dropped"] == relabel.now.dropped


def test_a_threshold_above_all_scores_relabels_nothing(nights: Nights) -> None:
    laid = again(nights, changes=["treat.relevant_from=1.0"])
    assert laid.made["relabel"].now.relabelled == 0
    assert laid.made["default"].now == laid.made["default"].before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("mine.depth=3", "treat.NAME=VALUE or export.NAME=VALUE expected"),
        ("treat.max_false_negatives", "treat.NAME=VALUE or export.NAME=VALUE expected"),
        ("treat.max_false_negative=3", "did you mean 'max_false_negatives'"),
        ("treat.max_false_negatives=-1", "greater than or equal to 0"),
        ("treat.max_false_negatives=[", "the value is no YAML"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(nights: Nights, change: str, message: str) -> None:
    config = load_curation(nights.workspace.store, NAME).config
    with pytest.raises(ConfigError, match=message):
        change_settings(config, [], [change])


def test_a_folder_that_holds_files_is_left_alone(nights: Nights, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds files already"):
        again(nights, out=tmp_path)
