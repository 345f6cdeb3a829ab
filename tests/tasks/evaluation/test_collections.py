"""A collection is read as it is: every judged query, all passages part by part, nothing merged."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from tasks import schemas
from tasks.evaluation import collections as module
from tasks.evaluation.collections import CollectionConfig, ReadConfig, read_collection, say_unreadable
from tests.tasks.evaluation.collection import write_collection
from tests.tasks.settings import REQUIRED, settings_of


def _read(folder: Path, **how: Any) -> dict[str, Any]:
    made = read_collection(ReadConfig(name="mine", **how), source=folder)
    facts = made.pop("facts")
    return {**{name: list(frames) for name, frames in made.items()}, "facts": facts}


def test_texts_come_in_parts_and_judgements_beside_their_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 64)
    made = _read(write_collection(tmp_path), query_rows=15, passage_rows=120)
    assert [part.height for part in made["passages"]] == [120, 120, 60]
    assert [part.height for part in made["queries"]] == [15, 15, 10]
    for name, schema in (("passages", schemas.PASSAGES), ("queries", schemas.QUERIES), ("qrels", schemas.QRELS)):
        assert {tuple(part.schema.items()) for part in made[name]} == {tuple(schema.columns.items())}
    for queries, qrels in zip(made["queries"], made["qrels"], strict=True):
        assert set(qrels["query_id"]) == set(queries["query_id"])
    assert set(pl.concat(made["queries"])["split"]) == {"test"}
    assert made["facts"] == {"queries": 40, "judgements": 210, "unreadable": {}}
    assert "gone0" in set(pl.concat(made["qrels"])["doc_id"])


def test_what_is_left_out_is_known_once_the_passages_have_gone_by(tmp_path: Path) -> None:
    folder = write_collection(tmp_path)
    labelled = {(one["query_id"], one["doc_id"]) for one in _relevant(folder)}
    (left_out,) = _read(folder)["left_out"]
    shared = {f"a{n * 7}" for n in range(40)}
    assert set(left_out["query_id"]) == {id_ for id_ in shared if (id_, id_) not in labelled}
    assert _read(folder, ignore_same_id=True)["left_out"][0].height == 40
    assert _read(folder, ignore_same_id=False)["left_out"][0].is_empty()


def _relevant(folder: Path) -> list[dict[str, Any]]:
    qrels = pl.concat(_read(folder, ignore_same_id=False)["qrels"])
    return qrels.filter(pl.col("relevance") > 0).to_dicts()


def test_of_records_with_one_id_the_first_is_kept_and_copies_of_texts_stay(tmp_path: Path) -> None:
    write_collection(tmp_path)
    with (tmp_path / "corpus.jsonl").open("a") as corpus:
        corpus.writelines(json.dumps({"_id": id_, "text": "other"}) + "\n" for id_ in ("a5", "z", "y"))
    passages = pl.concat(_read(tmp_path, passage_rows=200)["passages"])
    assert passages.height == 302
    assert passages.filter(text="other")["doc_id"].to_list() == ["z", "y"]


@pytest.mark.parametrize(
    ("split", "text", "said"),
    [
        ("dev", "", r"mine: a BEIR folder with corpus.jsonl, queries.jsonl and qrels/dev.tsv expected"),
        (
            "test",
            "query-id\tcorpus-id\tscore\nnobody\ta1\t1\n",
            "no query of queries.jsonl is judged",
        ),
    ],
)
def test_a_folder_without_judged_queries_is_refused(tmp_path: Path, split: str, text: str, said: str) -> None:
    write_collection(tmp_path)
    if text:
        (tmp_path / "qrels" / "test.tsv").write_text(text)
    with pytest.raises(ValueError, match=said):
        _read(tmp_path, split=split)


def test_lines_that_cannot_be_read_are_counted_by_reason(tmp_path: Path) -> None:
    """Before, they were dropped without a word."""
    write_collection(tmp_path)
    for name, lines in (("corpus.jsonl", "{broken\n[1]\n"), ("queries.jsonl", "{broken\n"), ("qrels/test.tsv", "a0\n")):
        with (tmp_path / name).open("a") as file:
            file.write(lines)
    unreadable = _read(tmp_path)["facts"]["unreadable"]
    assert (unreadable["corpus: broken_json"], unreadable["queries: broken_json"]) == (1, 1)
    assert sum(unreadable.values()) == 4
    assert "4 lines could not be read" in say_unreadable("mine", unreadable)


def test_a_collection_without_a_readable_passage_is_refused(tmp_path: Path) -> None:
    write_collection(tmp_path)
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": 3}\n')
    with pytest.raises(ValueError, match="mine: no passage of the corpus could be read"):
        _read(tmp_path)


def test_judged_queries_without_a_text_are_refused(tmp_path: Path) -> None:
    write_collection(tmp_path)
    lines = (tmp_path / "queries.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "queries.jsonl").write_text("".join(lines[2:]))
    with pytest.raises(ValueError, match=r"2 queries that qrels/test.tsv judges have no .* \(the first is 'a0'\)"):
        _read(tmp_path)


def _as_parquet(folder: Path, corpus: str, queries: str, qrels: str) -> Path:
    """Lay a collection out as data sets of a hub are, with one file of another split beside each."""
    plain = write_collection(folder / "plain")
    lines = {name: pl.read_ndjson(plain / f"{name}.jsonl") for name in ("corpus", "queries")}
    labels = pl.read_csv(plain / "qrels" / "test.tsv", separator="\t")
    other = {"corpus": pl.DataFrame({"_id": ["x"], "title": [""], "text": ["of another split"]})}
    other["queries"] = pl.DataFrame({"_id": ["qx"], "text": ["another"]})
    for name, place in (("corpus", corpus), ("queries", queries)):
        for split, frame in (("test", lines[name]), ("train", other[name])):
            path = folder / "hub" / place.format(split=split)
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [frame] if not path.exists() else [pl.read_parquet(path), frame]
            pl.concat(rows, how="diagonal").write_parquet(path)
    for split, frame in (("test", labels), ("train", labels[:1].with_columns(pl.lit("qx").alias("query-id")))):
        path = folder / "hub" / qrels.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
    return folder / "hub"


@pytest.mark.parametrize("qrels", ["qrels", "default", "data"])
def test_a_data_set_of_a_hub_is_read_like_its_folder_and_files_of_other_splits_are_not(
    tmp_path: Path, qrels: str
) -> None:
    parts = "{split}-00000-of-00001.parquet"
    folder = _as_parquet(tmp_path, f"corpus/{parts}", f"queries/{parts}", f"{qrels}/{parts}")
    made, plain = _read(folder), _read(tmp_path / "plain")
    for name in ("passages", "queries", "qrels", "left_out"):
        assert pl.concat(made[name]).equals(pl.concat(plain[name])), name
    assert made["facts"] == plain["facts"]


def test_where_the_names_say_no_split_all_passages_are_read(tmp_path: Path) -> None:
    folder = _as_parquet(tmp_path, "corpus/0.parquet", "queries/0.parquet", "qrels/{split}.parquet")
    assert pl.concat(_read(folder)["passages"]).height == 301
    assert pl.concat(_read(folder)["queries"]).height == 40
    folder = _as_parquet(tmp_path / "dev", "corpus/{split}.parquet", "queries/0.parquet", "qrels/{split}.parquet")
    (folder / "qrels" / "test.parquet").rename(folder / "qrels" / "dev.parquet")
    assert pl.concat(_read(folder, split="dev")["passages"]).height == 301  # no file is named after this split


def test_rows_are_no_collection(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"query": "q", "pos": ["p"], "neg": ["n"]}) + "\n")
    with pytest.raises(ValueError, match=r"a BEIR folder .* expected \(rows came\)"):
        _read(tmp_path)


def test_an_address_alone_is_a_collection_named_after_its_last_part() -> None:
    found = CollectionConfig.model_validate("s3://sets/NFCorpus/")
    assert (found.path, found.name, found.split, found.label) == ("s3://sets/NFCorpus/", "NFCorpus", "test", "nfcorpus")
    assert CollectionConfig(path="a/b", name="Sci.Fact-2").label == "sci_fact_2"
    with pytest.raises(ValidationError, match="a name of letters"):
        CollectionConfig.model_validate("zip://x::s3://a/b c")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://h/x/nf.zip?X-Amz-Signature=hunter2/hunter2", "nf.zip"),
        ("https://h/x/nf/#hunter2", "nf"),
        ("https://user:hunter2@host", "host"),
        ("https://user:hunter2@host/", "host"),
    ],
)
def test_a_name_is_taken_from_the_path_alone(address: str, name: str) -> None:
    """Before, a signature or a password became part of the name, and the error about the name repeated it."""
    assert CollectionConfig.model_validate(address).name == name


def test_an_error_about_a_name_does_not_repeat_it() -> None:
    for given, said in (("https://user:hunter2", "give the collection such a `name`"), ("/", "ends in no name")):
        with pytest.raises(ValidationError) as caught:
            CollectionConfig.model_validate(given)
        (problem,) = caught.value.errors()
        assert "hunter2" not in problem["msg"]
        assert said in problem["msg"]


def test_defaults_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(ReadConfig) == {
        "name": REQUIRED,
        "split": "test",
        "ignore_same_id": "auto",
        "query_rows": (5000, ">=1"),
        "passage_rows": (50000, ">=1"),
    }
    assert settings_of(CollectionConfig) == {
        "path": (REQUIRED, "len>=1"),
        "name": "",
        "split": ("test", "len>=1"),
        "languages": (),
        "main": "",
        "revision": "",
    }
