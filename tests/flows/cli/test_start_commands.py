"""`reneg init` and `reneg preview`, with fake engines in this process."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from flows.config.section import ConfigError
from tests.flows.animals import write_source
from tests.flows.cli.conftest import Shell
from tests.flows.nightly import sources
from tests.flows.paper_sets import default_rows, write_lines, write_set


def test_a_preview_shows_the_figures_of_the_whole_and_stays_out_of_the_nights(shell: Shell) -> None:
    promote = {"treatment": "relabel", "against": "default", "require": "none"}
    config = shell.nights.written(sources(shell.nights.folder, 12)[0], promote=promote)
    shown = shell.json("preview", config, "--queries", "3", "--passages", "20")
    assert shown["curation"] == "animals-preview-000001"
    assert (shown["preview"]["drawn"], shown["preview"]["whole"]) == (3, 9)
    assert "promotion" not in shown
    assert Path(shown["report"]).exists()
    said = shell.run("preview", config, "--queries", "3", "--passages", "20")
    assert "preview of animals: 3 of 9 training queries" in said
    assert "judged false: " in said
    assert "negatives from a cut corpus are easier" in said
    assert f"next: reneg curate {config}" in said
    done = shell.json("curate", config)
    assert done["curation"] == "animals-000001"
    assert done["promotion"]["number"] == 1
    assert [row["curation"] for row in shell.json("list")] == ["animals-000001", "animals-preview-000001"]


def test_no_other_curation_may_have_the_name_of_a_preview(shell: Shell) -> None:
    config = shell.nights.written(sources(shell.nights.folder, 5)[0], name="animals-preview")
    with pytest.raises(ConfigError, match="names that end in -preview are those of `reneg preview`"):
        shell.run("curate", config)


def test_init_writes_a_configuration_that_previews_and_curates_unchanged(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "rows", default_rows())
    monkeypatch.chdir(tmp_path)
    said = shell.run("init", "rows/rows.jsonl")
    assert "rows/rows.jsonl: training rows (tevatron), 12" in said
    assert "each row: 1.0 positives and 6.0 negatives on average, 0 rows without any" in said
    assert "written: rows.yaml" in said
    assert "next: reneg preview rows.yaml, then reneg plan rows.yaml, then reneg curate rows.yaml" in said
    text = (tmp_path / "rows.yaml").read_text()
    assert 'source: {path: "rows/rows.jsonl"}' in text
    with pytest.raises(ConfigError, match=r"rows\.yaml exists; give another file with --out, or --force"):
        shell.run("init", "rows")
    assert shell.json("init", "rows", "--force", "--out", "my.yaml", "--name", "mine")["name"] == "mine"
    model = shell.nights.asked(tmp_path)["encoder"]["model"]
    judged = (tmp_path / "my.yaml").read_text().replace("w8a8:package:qwen2.5-coder-1.5b-instruct", model)
    (tmp_path / "my.yaml").write_text(f'{judged}encoder: {{model: "{model}"}}\ncomplete: {{max_unparsed: 0.5}}\n')
    assert shell.json("preview", "my.yaml", "--queries", "5")["preview"]["drawn"] == 5
    assert shell.json("curate", "my.yaml")["curation"] == "mine-000001"


def test_init_names_what_is_no_source(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "picture.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    for wrong in ("picture.jsonl", "nowhere.jsonl"):
        with pytest.raises(ConfigError, match=wrong.replace(".", r"\.")):
            shell.run("init", tmp_path / wrong, "--out", tmp_path / "my.yaml")
    assert not (tmp_path / "my.yaml").exists()


def _flagembedding(folder: Path) -> Path:
    path = folder / "rows.jsonl.gz"
    rows = [
        {
            "query": row["query"],
            "pos": [one["text"] for one in row["positive_passages"]],
            "neg": [one["text"] for one in row["negative_passages"]],
        }
        for row in default_rows()
    ]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def _triplets(folder: Path) -> Path:
    path = folder / "triplets.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["anchor", "positive", "negative"])
        for row in default_rows():
            negatives = (one["text"] for one in row["negative_passages"])
            writer.writerows((row["query"], row["positive_passages"][0]["text"], text) for text in negatives)
    return path


def _own_fields(folder: Path) -> Path:
    path = folder / "questions.json"
    rows = [{"question": row["query"], "answer": row["positive_passages"][0]["text"]} for row in default_rows()]
    path.write_text(json.dumps(rows, indent=1))
    return path


@pytest.mark.parametrize(
    ("write", "form", "exported"),
    [
        (lambda folder: write_set(folder / "hub", default_rows()), "tevatron", "tevatron/train.jsonl"),
        (_flagembedding, "flagembedding", "flagembedding/train.jsonl"),
        (_triplets, "sentence-transformers", "sentence-transformers/train.parquet"),
        (lambda folder: write_source(folder / "beir"), "beir", "beir/beir/corpus.jsonl"),
        (_own_fields, "sentence-transformers", "sentence-transformers/train.parquet"),
    ],
    ids=["hub-parquet", "flagembedding-gz", "triplets-csv", "beir", "own-fields-json"],
)
def test_five_formats_go_from_a_file_to_a_training_set_that_loads(
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], Path],
    form: str,
    exported: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path)
    assert shell.json("init", source, "--out", "my.yaml")["survey"]["form"] == form
    model = shell.nights.asked(tmp_path)["encoder"]["model"]
    judged = Path("my.yaml").read_text().replace("w8a8:package:qwen2.5-coder-1.5b-instruct", model)
    Path("my.yaml").write_text(f'{judged}encoder: {{model: "{model}"}}\ncomplete: {{max_unparsed: 0.5}}\n')
    assert shell.json("preview", "my.yaml", "--queries", "5")["preview"]["pairs"] > 0
    done = shell.json("curate", "my.yaml")
    found = Path(done["report"]).parent / "export" / "default" / exported
    kind = "parquet" if found.suffix == ".parquet" else "json"
    loaded = datasets.load_dataset(kind, data_files=str(found), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(loaded) > 5
