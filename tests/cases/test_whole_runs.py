"""Whole runs of `reneg curate` over inputs that people have, with engines of this process that cost nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.method.setup import TooManyRejected
from tests.flows.cli.conftest import Shell, open_shell, shell

__all__ = ["open_shell", "shell"]
CASES = Path(__file__).parent


@pytest.fixture
def curate(shell: Shell) -> Callable[..., dict[str, Any]]:
    """Curate a folder without a judge and without training; returns what a script reads."""

    def run(source: Path, **changes: Any) -> dict[str, Any]:
        path = shell.nights.written(
            source, ingest={"test_split": None}, tiers=[], decide={}, train=None, sample={"size": 4}, **changes
        )
        return shell.json("curate", path)

    return run


def exported(done: dict[str, Any], treatment: str) -> list[dict[str, Any]]:
    """Return the rows of one treatment's export."""
    path = Path(done["report"]).parent / "export" / treatment / "tevatron" / "train.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["duplicate-questions", "query-text-in-corpus"])
def test_a_query_that_stands_in_the_corpus_is_neither_its_negative_nor_its_positive(
    curate: Callable[..., dict[str, Any]], name: str
) -> None:
    done = curate(CASES / name, mine={"num_negatives": 2, "range_max": 3})
    for treatment in ("default", "relabel"):
        rows = exported(done, treatment)
        assert rows
        for row in rows:
            for passage in (*row["positive_passages"], *row["negative_passages"]):
                assert passage["docid"] != row["query_id"]
                assert passage["text"] != row["query"]
    assert "same text as query" in Path(done["report"]).read_text(encoding="utf-8")


def test_a_run_that_loses_most_of_its_rows_says_so(shell: Shell, tmp_path: Path) -> None:
    rows = (CASES / "rejects-not-on-terminal" / "x.jsonl").read_text(encoding="utf-8").splitlines()
    source = tmp_path / "rows" / "x.jsonl"
    source.parent.mkdir()
    source.write_text("\n".join([rows[0], '{"query_id": "q2"', '{"query_id": "q3", "positive_passages": []}']))
    asked = {"tiers": [], "train": None, "treatments": ["default"], "sample": {"size": 4}}
    config = tmp_path / "my.yaml"
    config.write_text(yaml.safe_dump({**shell.nights.asked(source.parent), **asked, "decide": {}}))
    with pytest.raises(TooManyRejected, match=r"left out 2 of 3 rows: broken_json 1, no_query 1. 67% is more than"):
        shell.run("curate", config)
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "ingest": {"max_rejected": 0.7}}))
    said = shell.run("curate", config)
    assert "ingest left out 2 of 3 rows: broken_json 1, no_query 1 (see report.html)" in said.splitlines()[-1]
    done = shell.json("curate", config)
    counted = {"rows_read": 3, "rows_kept": 1, "lost": 2, "by_reason": {"broken_json": 1, "no_query": 1}}
    assert done["rejects"] == counted | {"by_choice": {}, "notes": {}}
    summary = json.loads((Path(done["report"]).parent / "summary.json").read_text(encoding="utf-8"))
    assert summary["rejects"] == done["rejects"]


def test_rows_with_passages_numbered_within_each_row_are_read(curate: Callable[..., dict[str, Any]]) -> None:
    rows = exported(curate(CASES / "rejects-not-on-terminal"), "default")
    assert [row["positive_passages"][0]["text"] for row in rows] == [
        "put it in water",
        "a bus drives",
        "a rail vehicle",
    ]
