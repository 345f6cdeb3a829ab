"""Inputs as people have them: each folder beside this file is read, or its loss is named."""

from pathlib import Path
from typing import Any

import pytest

from tests.tasks.data.inputs import ingest_all, reasons_of

CASES = Path(__file__).parent


def read(name: str, **config: object) -> dict[str, Any]:
    """Ingest the folder of a case."""
    return ingest_all(CASES / name, **config)


def texts_of(out: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted(out["passages"].select("title", "text").rows())


def pairs_by_text(out: dict[str, Any], table: str) -> list[tuple[str, str]]:
    """Return the pairs of a table as query and passage text, sorted."""
    queries = out["queries"].select("dataset", "query_id", query="text")
    passages = out["passages"].select("dataset", "doc_id", "text")
    joined = out[table].join(queries, on=["dataset", "query_id"]).join(passages, on=["dataset", "doc_id"])
    return sorted(joined.select("query", "text").rows())


EGG, FRY = ("how to boil an egg", "put it in water"), ("how to fry an egg", "put it in a pan")


# ---- what nobody reads ----


def test_a_corpus_with_its_texts_under_contents_is_read() -> None:
    out = read("beir-corpus-contents", test_split=None)
    assert texts_of(out) == [("Bus", "a bus drives"), ("Egg", "put it in water")]
    assert out["positives"].height == 2


def test_a_passage_with_its_text_under_another_key_is_read_or_named() -> None:
    out = read("passage-text-under-other-key")
    assert ("Egg", "put it in water for ten minutes") in texts_of(out)
    named = [detail for detail in out["rejects"]["detail"] if "body" in detail]
    assert ("Bus", "it drives") in texts_of(out) or named
    assert ("Bus", "") not in texts_of(out) or named


def test_scores_and_prompts_of_a_flagembedding_row_are_kept() -> None:
    out = read("flagembedding-fields-lost")
    passages = out["passages"].select("dataset", "doc_id", "text")
    scores = out["teacher"].join(passages, on=["dataset", "doc_id"]).select("text", "score").rows()
    assert sorted(scores) == [("a bus", 0.11), ("a tram", 0.05), ("put it in water", 0.98)]
    extras = dict(out["extras"].select("name", "value").rows())
    assert extras["prompt"].startswith("Represent this question:")
    assert extras["type"] == "normal"


def test_each_further_shard_is_read_or_a_reject_names_it() -> None:
    out = read("sibling-shard-other-extension")
    asked = {
        "part-0.jsonl": "how to boil an egg",
        "part-2.ndjson": "what is a tram",
        "part-3.json": "what is a bus",
        "part-5.jsonl": "what is a pan",
    }
    assert asked.items() <= _asked_or_named(out, asked).items()
    packed = {"part-1.jsonl.zst", "part-1b.jsonl.bz2", "part-4.jsonl.gzip"}  # the first one was cut on its way
    named = {name for name in packed if any(name in key for key in out["rejects"]["key"])}
    assert out["queries"].height + len(named) >= len(asked) + len(packed)
    assert "part-1.jsonl.zst" in named


def _asked_or_named(out: dict[str, Any], asked: dict[str, str]) -> dict[str, str]:
    there, keys = set(out["queries"]["text"]), list(out["rejects"]["key"])
    return {name: text for name, text in asked.items() if text in there or any(name in key for key in keys)}


# ---- names of columns ----


@pytest.mark.parametrize("name", ["qrels-extra-column", "trec-qrels"])
def test_qrels_with_four_columns_are_read(name: str) -> None:
    out = read(name, test_split=None)
    assert out["positives"].select("query_id", "doc_id").rows() == [("q1", "d1"), ("q2", "d2")]
    assert reasons_of(out) == []


def test_the_columns_of_sentence_transformers_are_read() -> None:
    out = read("sentence-transformers-columns")
    assert pairs_by_text(out, "positives") == [EGG, FRY]
    assert pairs_by_text(out, "given") == [(EGG[0], "a bus"), (EGG[0], "a tram")]


# ---- kinds of files ----


@pytest.mark.parametrize("name", ["json-array", "json-shards-and-spark"])
def test_json_files_are_read(name: str) -> None:
    out = read(name)
    assert pairs_by_text(out, "positives") == [EGG, FRY]
    assert pairs_by_text(out, "given") == [(EGG[0], "a bus"), (FRY[0], "a tram")]
    assert "not_utf8" not in dict(reasons_of(out)).values()


def test_a_parquet_file_is_read() -> None:
    out = read("st-parquet")
    assert pairs_by_text(out, "positives") == [EGG]
    assert pairs_by_text(out, "given") == [(EGG[0], "a bus")]


# ---- ids and types ----


def test_passages_with_empty_ids_are_named_by_their_texts() -> None:
    out = read("docid-empty")
    assert pairs_by_text(out, "positives") == [EGG, ("what drives", "a bus drives")]
    assert pairs_by_text(out, "given") == [(EGG[0], "a bus"), ("what drives", "an egg")]


def test_whole_numbers_written_as_floats_are_ids() -> None:
    out = read("float-ids")
    assert out["positives"].select("query_id", "doc_id").rows() == [("7", "3")]


def test_a_string_in_place_of_a_list_is_one_passage() -> None:
    out = read("pos-as-string")
    assert pairs_by_text(out, "positives") == [EGG]
    assert pairs_by_text(out, "given") == [(EGG[0], "a bus")]
    assert out["passages"].height == 2
