"""The settings of held-out queries, and what they do to rows and to BEIR folders."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from infra.stages.part_keys import semantic
from tasks.data.ingest_config import IngestConfig
from tests.tasks.data.inputs import ingest_all, pairs_of, row_of, write_beir, write_lines
from tests.tasks.data.test_splits import question


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holdout": 0.7, "dev": 0.4}, "their sum must not exceed 1: got 0.7 and 0.4"),
        ({"dev_split": "test"}, "must be different files, got train, test, test"),
        ({"holdout_by": ["answer"]}, "'query', 'near_duplicate' or 'positive'"),
        ({"near_duplicate": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        IngestConfig.model_validate({"dataset": "d"} | changes)


def test_settings_at_their_defaults_stay_out_of_the_keys_of_finished_parts() -> None:
    keyed = semantic(IngestConfig(dataset="d"))
    added = {"dev", "dev_split", "holdout_by", "near_duplicate", "holdout_cluster", "near_test_queries"}
    assert not added & set(keyed)
    assert semantic(IngestConfig(dataset="d", dev=0.1))["dev"] == 0.1


def test_no_held_out_question_of_500_is_trained_on_in_its_other_spelling(tmp_path: Path) -> None:
    rows = []
    for number in range(500):
        text = question(number)
        rows.append(row_of(f"q{number}", f"p{number}", query=f"{text.capitalize()}?"))
        rows.append(row_of(f"v{number}", f"v{number}", query=text))
    write_lines(tmp_path / "rows.jsonl", *rows)
    queries = ingest_all(tmp_path, holdout=0.2)["queries"]
    held_out = set(queries.filter(split="test")["text"].str.to_lowercase().str.strip_chars("?"))
    trained = set(queries.filter(split="train")["text"].str.to_lowercase().str.strip_chars("?"))
    assert not held_out & trained
    assert 0.14 < queries.filter(split="test").height / 1_000 < 0.26


def test_rows_are_cut_into_train_dev_and_test_and_the_qrels_are_of_both_that_are_held_out(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", *(row_of(f"q{n}", f"p{n}", query=question(n)) for n in range(200)))
    out = ingest_all(tmp_path, holdout=0.2, dev=0.3)
    counts = dict(out["queries"].group_by("split").len().iter_rows())
    assert sum(counts.values()) == 200
    assert 20 < counts["test"] < 60
    assert 40 < counts["dev"] < 80
    held_out = out["queries"].filter(pl.col("split") != "train")
    assert sorted(out["qrels"]["query_id"]) == sorted(held_out["query_id"])


def test_a_beir_folder_has_a_dev_split_and_training_queries_near_held_out_ones_are_rejects(tmp_path: Path) -> None:
    asked = {"q1": "Where does the otter sleep?", "q2": "where does the otter sleep", "q3": "a heron", "q4": "A heron!",
             "q5": "the lynx", "q6": "the lynx"}  # fmt: skip
    documents = {"d1": "one", "d2": "two"}
    qrels = {"train": "q2 d2 1, q3 d1 1, q5 d1 1", "dev": "q4 d1 1, q6 d2 1", "test": "q1 d1 1", "known": "q3 d2 1"}
    write_beir(tmp_path, documents, asked, **qrels)
    out = ingest_all(tmp_path, dev_split="dev", known_split="known", near_test_queries="keep")
    assert out["queries"].select("query_id", "split").sort("query_id").rows() == [
        ("q1", "test"), ("q2", "train"), ("q3", "train"), ("q4", "dev"), ("q5", "dev"),
    ]  # fmt: skip
    assert pairs_of(out["qrels"]) == ["q1 d1 1", "q4 d1 1", "q5 d2 1"]
    out = ingest_all(tmp_path, dev_split="dev", known_split="known")
    assert out["queries"].filter(split="train").is_empty()
    assert out["positives"]["query_id"].to_list() == ["q1", "q4", "q5"]
    assert out["rejects"].filter(reason="near_test_query").select("key", "detail").rows() == [
        ("queries.jsonl:2", "query q2 says the same, or nearly, as the held-out query q1"),
        ("queries.jsonl:3", "query q3 says the same, or nearly, as the held-out query q4"),
    ]
    assert out["rejects"].filter(reason="unknown_query")["key"].to_list() == ["qrels/known.tsv:2"]
