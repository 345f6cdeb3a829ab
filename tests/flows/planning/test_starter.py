"""The first configuration: it is valid, says what was seen, and fits data and machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from flows.config.curation import CurationConfig
from flows.config.load import load_config
from flows.planning.preview import preview_name
from flows.planning.starter import Machine, name_of, path_beside, starter
from flows.planning.survey import Passed, Survey

ROWS = Survey("tevatron", True, rows=5000, datasets={"nq": 4000, "fiqa": 1000}, positives=1, negatives=7, queries=5000)
CORPUS = Survey("beir", True, documents=900, queries=700, splits={"train": 500, "test": 100})
GIB = 2**30
CPU = Machine(16 * GIB)


def made(tmp_path: Path, found: Survey, machine: Machine = CPU, path: str = "rows.jsonl") -> tuple[CurationConfig, str]:
    text = starter(found, "mine", path, machine)
    return load_text(tmp_path, text), text


def load_text(tmp_path: Path, text: str) -> CurationConfig:
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    return load_config(tmp_path / "my.yaml")


def test_rows_with_negatives_are_adopted_and_exported_as_they_came(tmp_path: Path) -> None:
    config, text = made(tmp_path, ROWS)
    assert (config.ingest.holdout, config.export.formats, config.treatments) == (
        0.1,
        ("tevatron",),
        ("default", "relabel"),
    )
    assert "Every row has negatives: they are judged as they are" in text
    assert "# datasets: nq 4,000, fiqa 1,000" in text
    assert config.source.path == str(tmp_path / "rows.jsonl")
    assert config.train is not None
    assert made(tmp_path, replace(ROWS, form="flagembedding"))[0].export.formats == ("flagembedding",)
    assert made(tmp_path, replace(ROWS, form="something-new"))[0].export.formats == ("tevatron",)


def test_a_source_that_would_stop_a_run_is_told_with_the_setting_that_goes_on(tmp_path: Path) -> None:
    assert "max_rejected" not in made(tmp_path, ROWS)[1]
    cut = replace(ROWS, passed_over={"broken_gzip": Passed(1, "b.gz:28: ends early")})
    config, text = made(tmp_path, cut)
    assert "# max_rejected: 1       # go on although an unknown number of rows is missing (broken_gzip)" in text
    assert config.ingest.max_rejected == 0.2
    allowed = load_text(tmp_path, text.replace("# max_rejected", "max_rejected"))
    assert allowed.ingest.max_rejected == 1


def test_rows_without_negatives_and_corpora_are_mined(tmp_path: Path) -> None:
    assert "Negatives are mined in the passages of all rows" in made(tmp_path, replace(ROWS, bare=5000))[1]
    assert "For the 7 rows without any, negatives are mined." in made(tmp_path, replace(ROWS, bare=7))[1]
    config, text = made(tmp_path, CORPUS)
    assert "Negatives are mined in the corpus" in text
    assert (config.ingest.train_split, config.ingest.test_split) == ("train", "test")
    assert config.export.formats == ("beir", "tevatron"), "a BEIR folder holds no negatives"


@pytest.mark.parametrize(
    ("splits", "train", "test", "holdout"),
    [
        ({"train": 5, "dev": 5}, "train", "dev", 0.0),
        ({"train": 5}, "train", None, 0.1),
        ({"test": 5}, "test", None, 0.1),
        ({}, "train", None, 0.1),
        ({"on": 9, "test": 5}, "on", "test", 0.0),
        ({"2024-10-21": 9}, "2024-10-21", None, 0.1),
        ({"a split": 9, "train": 1}, "train", None, 0.1),
    ],
)
def test_what_is_held_out_follows_from_the_splits(
    tmp_path: Path, splits: dict[str, int], train: str, test: str | None, holdout: float
) -> None:
    config, text = made(tmp_path, replace(CORPUS, splits=splits))
    assert (config.ingest.train_split, config.ingest.test_split, config.ingest.holdout) == (train, test, holdout)
    assert ("report no results on this one" in text) == (train != "train" and test is None)


def test_the_judge_fits_the_machine(tmp_path: Path) -> None:
    (cpu,) = made(tmp_path, ROWS)[0].tiers
    assert (cpu.engine.model, cpu.escalate.max_pairs) == ("w8a8:package:qwen2.5-coder-1.5b-instruct", 5000)
    (gpu,) = made(tmp_path, ROWS, Machine(16 * GIB, (80 * GIB,)))[0].tiers
    assert getattr(gpu.engine, "device", "") == "cuda"
    small, text = made(tmp_path, ROWS, Machine(4 * GIB))
    assert small.tiers == ()
    assert "Too little memory here for a language model (4 GiB; 7 needed)" in text


def test_few_queries_are_not_trained_on(tmp_path: Path) -> None:
    assert made(tmp_path, replace(ROWS, queries=150))[0].train is None
    assert made(tmp_path, replace(ROWS, queries=150, complete=False))[0].train is not None
    assert made(tmp_path, replace(CORPUS, splits={"train": 150, "test": 10}))[0].train is None


def test_names_from_other_people_break_neither_comments_nor_settings(tmp_path: Path) -> None:
    odd = {"a\nname: x": 1, "b\u2028c\x00": 2, "": 3}
    text = made(tmp_path, replace(ROWS, datasets=odd, recognised={"query": "q\n: y"}), path='a "b" #c: ü.jsonl')[1]
    assert "\nname: x" not in text
    assert r'# fields: {query: "q\n: y"}   # as recognised' in text
    config = load_config(tmp_path / "my.yaml")
    assert config.source.path == str(tmp_path / 'a "b" #c: ü.jsonl')


@pytest.mark.parametrize(
    "address", ["学習データ.jsonl", "---", "x-preview.jsonl", "A" * 90 + ".parquet", ".", "12.jsonl"]
)
def test_every_address_makes_a_name_that_is_valid_also_for_a_preview(tmp_path: Path, address: str) -> None:
    name = name_of(address)
    (tmp_path / "my.yaml").write_text(starter(ROWS, name, "x", CPU))
    assert load_config(tmp_path / "my.yaml").name == name
    assert preview_name(name) == f"{name}-preview"


def test_a_path_is_written_as_it_is_read_from_the_configuration(tmp_path: Path) -> None:
    out = tmp_path / "a" / "my.yaml"
    assert path_beside(str(tmp_path / "a" / "b" / "rows.jsonl"), out) == "b/rows.jsonl"
    assert path_beside(str(tmp_path / "c"), out) == str(tmp_path / "c")
    assert path_beside("s3://bucket/x", out) == "s3://bucket/x"


@pytest.mark.parametrize(
    "name", ['a "b"', "back\\slash", "tab\there", "\x7f\x85", "\u2028", "日本", "🙂", "a: b # c", "@x", "no"]
)
def test_a_path_of_any_letters_is_read_back_as_it_is(tmp_path: Path, name: str) -> None:
    assert made(tmp_path, ROWS, path=name)[0].source.path == str(tmp_path / name)
