"""Ingest: what is kept, what is rejected and why; no input row is in neither."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from infra.stages.part_keys import semantic
from tasks import schemas
from tasks.data.ingest import IngestConfig, IngestError
from tasks.data.layouts.fields import FieldNames
from tasks.lines import ReadLimits
from tasks.texts import hash_guard, hash_passage, hash_shown, hash_text
from tests.tasks.data.inputs import (
    TABLES,
    ingest_all,
    ingest_parts,
    pairs_of,
    reasons_of,
    row_of,
    write_beir,
    write_lines,
)
from tests.tasks.settings import REQUIRED, settings_of


def test_rows_become_queries_positives_given_negatives_and_the_union_of_their_passages(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row_of("q2", "d3", "d1 d2"), row_of("q1", "d1", "d4", subset="other"))
    out = ingest_all(tmp_path)
    assert out["queries"].select("dataset", "query_id", "text", "split").rows() == [
        ("d", "q2", "about q2", "train"),
        ("other", "q1", "about q1", "train"),
    ]
    assert out["queries"]["text_hash"].to_list() == [hash_text("about q2"), hash_text("about q1")]
    assert out["positives"].select("dataset", "query_id", "doc_id", "text_hash").rows() == [
        ("d", "q2", "d3", hash_passage("", "text of d3")),
        ("other", "q1", "d1", hash_passage("", "text of d1")),
    ]
    assert pairs_of(out["given"]) == ["q2 d1 1 None", "q2 d2 2 None", "q1 d4 1 None"]
    passages = [("d", "d1"), ("d", "d2"), ("d", "d3"), ("other", "d1"), ("other", "d4")]
    assert out["passages"].select("dataset", "doc_id").sort("dataset", "doc_id").rows() == passages
    assert out["rejects"].is_empty()


def test_labelled_and_given_passages_carry_the_hashes_of_what_is_shown_and_of_its_normalised_form(
    tmp_path: Path,
) -> None:
    positive, negative = ({"docid": name, "title": "A  Title", "text": f"Of {name}"} for name in ("P", "N"))
    write_lines(tmp_path / "a.jsonl", row_of("q1", "", positive_passages=[positive], negative_passages=[negative]))
    out = ingest_all(tmp_path)
    for table, name in (("positives", "P"), ("given", "N")):
        (row,) = out[table].select("text_hash", "shown_hash", "guard_hash").rows()
        title, text = "A  Title", f"Of {name}"
        assert row == (hash_passage(title, text), hash_shown(title, text), hash_guard(title, text))
        assert row[2] == hash_guard("", f"a title of {name}")


def test_given_scores_and_order_survive_and_identical_texts_of_flagembedding_rows_are_one_passage(
    tmp_path: Path,
) -> None:
    write_lines(tmp_path / "a.jsonl", {"query": "x", "pos": ["p"], "neg": ["c", "b", "c"], "neg_scores": [3, 2.5, 1]})
    out = ingest_all(tmp_path)
    given = out["given"].sort("rank").select("doc_id", "rank", "score").rows()
    assert given == [(hash_passage("", "c"), 1, 3.0), (hash_passage("", "b"), 2, 2.5)]
    assert out["passages"].height == 3
    assert reasons_of(out) == [("a.jsonl:1", "duplicate_negative")]


def test_a_passage_on_both_sides_is_dropped_from_the_negatives_by_id_and_by_text(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row_of("q1", "d1 d5=same", "d1 d2 d4=same d3"))
    out = ingest_all(tmp_path)
    assert pairs_of(out["positives"]) == ["q1 d1", "q1 d4"]
    assert pairs_of(out["given"]) == ["q1 d2 1 None", "q1 d3 2 None"]
    assert out["rejects"].select("key", "reason", "detail").rows() == [
        ("d/d5", "duplicate_text", "same text as d4, which stands for it"),
        ("a.jsonl:1", "negative_is_positive", "passage d1 is also a positive of the query"),
        ("a.jsonl:1", "negative_is_positive", "passage d4 is also a positive of the query"),
    ]
    assert out["copies"].rows() == [("d", "passage", "d5", "d4")]


def test_an_id_keeps_its_first_text_and_references_to_another_one_are_rejected(tmp_path: Path) -> None:
    rows = [
        row_of("q1", "d1", "d2"),
        row_of("q2", "d3", "d1=changed d2"),
        row_of("q3", "d1=changed"),
        row_of("q1", "d9"),
    ]
    write_lines(tmp_path / "a.jsonl", *rows, row_of("q1", "d1", query="another question"))
    out = ingest_all(tmp_path)
    assert out["passages"].filter(doc_id="d1")["text"].to_list() == ["text of d1"]
    assert out["queries"]["query_id"].to_list() == ["q1", "q2"]
    assert pairs_of(out["positives"]) == ["q1 d1", "q1 d9", "q2 d3"]
    assert pairs_of(out["given"]) == ["q1 d2 1 None", "q2 d2 1 None"]
    assert reasons_of(out) == [
        ("a.jsonl:2", "id_conflict"),
        ("a.jsonl:3", "id_conflict"),
        ("a.jsonl:3", "no_positive"),
        ("a.jsonl:4", "duplicate_query"),
        ("a.jsonl:5", "id_conflict"),
    ]
    assert "d1 has another text at a.jsonl:1, which is kept" in out["rejects"]["detail"][0]


def test_rows_of_one_query_are_merged_and_counted_whether_they_share_the_id_or_the_text(tmp_path: Path) -> None:
    first, second = row_of("q2", "d1", "d2 d3"), row_of("q2", "d2", "d3 d4")
    write_lines(tmp_path / "a.jsonl", first, second, row_of("q1", "d5", "d6", query="about q2"))
    out = ingest_all(tmp_path)
    assert out["queries"].select("query_id", "text").rows() == [("q1", "about q2")]
    assert pairs_of(out["positives"]) == ["q1 d1", "q1 d2", "q1 d5"]
    assert pairs_of(out["given"].sort("rank")) == ["q1 d3 1 None", "q1 d4 2 None", "q1 d6 3 None"]
    assert out["rejects"].select("key", "reason", "detail").rows() == [
        ("a.jsonl:2", "duplicate_query", "query q2 again; merged into a.jsonl:1"),
        ("a.jsonl:1", "duplicate_query", "same text as q1, which stands for it"),
        ("a.jsonl:2", "duplicate_negative", "passage d3 is there more than once for the query"),
        ("a.jsonl:1", "negative_is_positive", "passage d2 is also a positive of the query"),
    ]
    assert out["copies"].rows() == [("d", "query", "q2", "q1")]


def test_a_very_long_passage_is_cut_once_and_its_length_told(tmp_path: Path) -> None:
    long = "x" * 100_000
    write_lines(tmp_path / "a.jsonl", row_of("q1", f"d1={long}", "d2"), row_of("q2", "d2", f"d1={long}"))
    out = ingest_all(tmp_path)
    assert out["passages"].filter(doc_id="d1")["text"].str.len_chars().to_list() == [20_000]
    assert pairs_of(out["given"]) == ["q1 d2 1 None", "q2 d1 1 None"]
    assert out["rejects"].select("key", "reason", "detail").rows() == [
        ("d/d1", "passage_cut", "100000 characters long, cut to 20000")
    ]


def test_a_very_long_query_is_cut_and_told(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row_of("q1", "d1", query="abc def"))
    out = ingest_all(tmp_path, max_chars=4)
    assert out["queries"]["text"].to_list() == ["abc"]
    assert reasons_of(out) == [("d/d1", "passage_cut"), ("d/q1", "query_cut")]


def test_every_planted_fault_ends_as_one_reject_and_everything_else_is_kept(tmp_path: Path) -> None:
    faults: list[tuple[Any, str | None]] = [
        ({}, None),
        ("{broken", "broken_json"),
        ({"query": None}, "no_query"),
        ({"query": " "}, "empty_text"),
        ({"query_id": 1.5}, "wrong_type"),
        ({"query_id": []}, "wrong_type"),
        ({"positive_passages": []}, "no_positive"),
        ({"negative_passages": 3}, "wrong_type"),
    ]
    cases, lines = [faults[number % len(faults)] for number in range(80)], []
    for number, (change, _) in enumerate(cases):
        row = row_of(f"q{number}", f"p{number}", f"n{number} d{number % 7}")
        lines.append(change if isinstance(change, str) else row | change)
    write_lines(tmp_path / "a.jsonl", *lines)
    out = ingest_all(tmp_path, query_parts=3)
    assert reasons_of(out) == [(f"a.jsonl:{number}", why) for number, (_, why) in enumerate(cases, start=1) if why]
    kept = [f"q{number}" for number, (_, why) in enumerate(cases) if why is None]
    assert sorted(out["queries"]["query_id"]) == sorted(kept)
    assert (out["positives"].height, out["given"].height) == (len(kept), 2 * len(kept))


def test_bytes_that_are_no_utf8_cost_one_row(tmp_path: Path) -> None:
    row = json.dumps(row_of("q1", "d1")).encode()
    (tmp_path / "a.jsonl").write_bytes(row.replace(b"about", b"\xff") + b"\n" + row + b"\n")
    out = ingest_all(tmp_path)
    assert out["queries"].height == 1
    assert reasons_of(out) == [("a.jsonl:1", "not_utf8")]


def test_queries_and_their_tables_are_cut_alike_by_the_hash_of_the_text(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", *(row_of(f"q{number}", "d1", f"n{number}") for number in range(20)))
    out = ingest_parts(tmp_path, query_parts=4, passage_parts=3)
    assert [len(out[name]) for name in ("queries", "positives", "given", "passages")] == [4, 4, 4, 3]
    for part, (queries, positives, given) in enumerate(zip(*(out[name] for name in list(TABLES)[:3]), strict=True)):
        assert all(int(text_hash, 16) % 4 == part for text_hash in queries["text_hash"])
        assert queries["query_id"].to_list() == positives["query_id"].to_list() == given["query_id"].to_list()
    for part, passages in enumerate(out["passages"]):
        assert all(int(text_hash, 16) % 3 == part for text_hash in passages["text_hash"])


def test_a_part_without_queries_is_an_empty_frame(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row_of("q1", "d1"))
    out = ingest_parts(tmp_path, query_parts=3)
    assert sorted(frame.height for frame in out["queries"]) == [0, 0, 1]
    assert all(dict(frame.schema) == schemas.GIVEN.columns for frame in out["given"])


def test_the_order_of_files_does_not_change_what_is_kept_and_all_are_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "one" / "a.jsonl", row_of("q1", "d1"), row_of("q2", "d2"))
    write_lines(tmp_path / "two" / "b.jsonl", row_of("q1", "d1"))
    write_lines(tmp_path / "two" / "a.jsonl", row_of("q2", "d2"))
    one, two = (ingest_all(tmp_path / name) for name in ("one", "two"))
    assert all(one[name].equals(two[name]) for name in TABLES)


def test_a_share_of_the_queries_is_held_out_by_their_text_and_their_positives_become_qrels(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", *(row_of(f"q{number}", "d1", "d2") for number in range(200)))
    out = ingest_all(tmp_path, holdout=0.25)
    test = out["queries"].filter(split="test")
    assert 30 < test.height < 70
    assert out["qrels"].rows() == [("d", query_id, "d1", 1) for query_id in test["query_id"]]
    assert out["positives"].height == out["given"].height == 200
    assert all(int(text_hash[:13], 16) / 16**13 < 0.25 for text_hash in test["text_hash"])


def test_a_beir_folder_gives_train_queries_held_out_queries_and_known_false_negatives(tmp_path: Path) -> None:
    documents = {"d1": "one", "d2": "two", "d3": "three"}
    queries = {"q1": "first?", "q2": "second?", "q3": "never judged?"}
    write_beir(
        tmp_path, documents, queries, train="q1 d1 1", test="q2 d2 2, q2 d3 0", known="q1 d2 1, q1 d1 1, q1 d3 0"
    )
    out = ingest_all(tmp_path, known_split="known")
    assert out["queries"].select("query_id", "split").rows() == [("q1", "train"), ("q2", "test")]
    assert pairs_of(out["positives"]) == ["q1 d1", "q2 d2"]
    assert pairs_of(out["qrels"]) == ["q2 d2 2", "q2 d3 0"]
    assert pairs_of(out["known"]) == ["q1 d2"]
    assert out["given"].is_empty()
    assert reasons_of(out) == [
        ("queries.jsonl:3", "not_in_splits"),
        ("qrels/known.tsv:4", "below_min_relevance"),
        ("qrels/known.tsv:3", "known_is_positive"),
    ]


def test_qrels_that_name_nothing_known_are_rejected_at_their_line(tmp_path: Path) -> None:
    train = "q1 d1 1, q9 d1 1, q1 d9 1, q2 d9 1, q1 d1 1"
    write_beir(tmp_path, {"d1": "one"}, {"q1": "first?", "q2": "second?"}, train=train)
    out = ingest_all(tmp_path, test_split=None)
    assert reasons_of(out) == [
        ("qrels/train.tsv:3", "unknown_query"),
        ("qrels/train.tsv:4", "unknown_document"),
        ("qrels/train.tsv:5", "unknown_document"),
        ("qrels/train.tsv:6", "duplicate_pair"),
        ("queries.jsonl:2", "no_positive"),
    ]
    assert out["queries"]["query_id"].to_list() == ["q1"]


def test_low_scores_are_no_positives_and_stay_in_the_qrels_of_answered_held_out_queries_only(tmp_path: Path) -> None:
    queries = {key: f"{key}?" for key in ("q1", "q2", "q3")}
    write_beir(
        tmp_path, {"d1": "one", "d2": "two"}, queries, train="q1 d1 2, q1 d2 1", test="q2 d1 3, q2 d2 1, q3 d1 1"
    )
    out = ingest_all(tmp_path, min_relevance=2)
    assert pairs_of(out["positives"]) == ["q1 d1", "q2 d1"]
    assert pairs_of(out["qrels"]) == ["q2 d1 3", "q2 d2 1"]
    assert pairs_of(out["irrelevant"]) == ["q1 d2 1"]
    assert reasons_of(out) == [
        ("qrels/test.tsv:4", "below_min_relevance"),
        ("queries.jsonl:3", "no_positive"),
        ("splits", "positive_shared_with_held_out"),
    ]


def test_a_query_that_is_held_out_anywhere_is_trained_on_nowhere(tmp_path: Path) -> None:
    queries = {"q1": "same?", "q2": "same?", "q3": "third?", "q4": "fourth?"}
    train = "q1 d1 1, q3 d1 1, q4 d2 1"
    write_beir(tmp_path, {"d1": "one", "d2": "two"}, queries, train=train, test="q2 d2 1, q4 d9 1")
    out = ingest_all(tmp_path)
    assert out["queries"].select("query_id", "split").rows() == [("q1", "test"), ("q3", "train"), ("q4", "test")]
    assert pairs_of(out["qrels"]) == ["q1 d2 1", "q4 d9 1"]
    assert reasons_of(out) == [
        ("qrels/test.tsv:3", "unknown_document"),
        ("queries.jsonl:2", "duplicate_query"),
        ("qrels/train.tsv:2", "query_in_test"),
        ("qrels/train.tsv:4", "query_in_test"),
        ("splits", "positive_shared_with_held_out"),
    ]


def test_a_held_out_label_of_a_passage_that_is_not_there_stays_for_the_evaluation(tmp_path: Path) -> None:
    """Before, it was lost, and the best ranking was one without it: nDCG@10 of .797 where .536 is right."""
    queries = {"q1": "first?", "q2": "second?"}
    write_beir(tmp_path, {"d1": "one", "d2": "two"}, queries, train="q2 d2 1", test="q1 d1 1, q1 gone 2, q1 lost 0")
    out = ingest_all(tmp_path)
    assert pairs_of(out["qrels"]) == ["q1 d1 1", "q1 gone 2", "q1 lost 0"]
    assert set(out["positives"]["doc_id"]) == {"d1", "d2"}


def test_labels_move_to_the_passage_that_stands_for_identical_texts(tmp_path: Path) -> None:
    documents = {"d9": "same", "d10": "same", "d2": "two"}
    qrels = {"train": "q1 d9 1, q1 d10 2", "test": "q2 d9 1", "known": "q1 d2 1"}
    write_beir(tmp_path, documents, {"q1": "first?", "q2": "second?"}, **qrels)
    out = ingest_all(tmp_path, known_split="known")
    assert out["passages"]["doc_id"].to_list() == ["d10", "d2"]
    assert (pairs_of(out["positives"]), pairs_of(out["qrels"])) == (["q1 d10", "q2 d10"], ["q2 d10 1"])
    assert out["rejects"].filter(pl.col("key") != "splits").select("key", "reason", "detail").rows() == [
        ("d/d9", "duplicate_text", "same text as d10, which stands for it"),
        ("qrels/train.tsv:2", "duplicate_pair", "passage d9 (same text as d10) is there more than once for the query"),
    ]


def test_lines_of_a_corpus_or_of_queries_that_repeat_an_id_are_told_apart_by_their_text(tmp_path: Path) -> None:
    write_beir(tmp_path, {"d1": "one", "d2": " "}, {"q1": "first?"}, train="q1 d1 1, q1 d2 1")
    with (tmp_path / "corpus.jsonl").open("a") as corpus, (tmp_path / "queries.jsonl").open("a") as queries:
        corpus.write('{"_id": "d1", "text": "one"}\n{"_id": "d1", "text": "uno"}\n')
        queries.write('{"_id": "q1", "text": "first?"}\n{"_id": "q1", "text": "primero?"}\n')
    out = ingest_all(tmp_path, test_split=None)
    assert (out["passages"].height, out["queries"]["text"].to_list()) == (1, ["first?"])
    assert reasons_of(out) == [
        ("corpus.jsonl:2", "empty_text"),
        ("corpus.jsonl:3", "duplicate_passage"),
        ("corpus.jsonl:4", "id_conflict"),
        ("queries.jsonl:2", "duplicate_query"),
        ("queries.jsonl:3", "id_conflict"),
        ("qrels/train.tsv:3", "unknown_document"),
    ]


@pytest.mark.parametrize(
    ("lines", "form", "says"),
    [
        ([], "tevatron", r"no usable query is left\. 1 empty_file \(first a\.jsonl:1: the file holds no line\)"),
        ([{"query": "x"}, "{", "{"], "flagembedding", r"2 broken_json \(first a\.jsonl:2: .*; 1 no_positive"),
        (["{"], "auto", r"no row of a known format in 1 file\(s\); a\.jsonl:1: broken_json"),
        ([], "beir", r"a BEIR folder needs corpus\.jsonl and queries\.jsonl"),
    ],
)
def test_nothing_usable_is_one_clear_error(tmp_path: Path, lines: list[object], form: str, says: str) -> None:
    write_lines(tmp_path / "a.jsonl", *lines)
    with pytest.raises(IngestError, match=says):
        ingest_all(tmp_path, format=form)


def test_a_source_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="is not a folder"):
        ingest_all(tmp_path / "absent")


@pytest.mark.parametrize(
    "config",
    [{"holdout": 1.5}, {"query_parts": 0}, {"train_split": "test"}, {"train_split": "../x"}, {"dataset": ""}, {"x": 1}],
)
def test_a_config_that_cannot_be_meant_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        IngestConfig.model_validate({"dataset": "d"} | config)


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(IngestConfig) == {
        "dataset": (REQUIRED, "len>=1"),
        "format": "auto",
        "query_parts": (None, ">=1"),
        "passage_parts": (None, ">=1"),
        "train_split": "train",
        "test_split": "test",
        "dev_split": None,
        "known_split": None,
        "holdout": (0.0, ">=0", "<=1"),
        "dev": (0.0, ">=0", "<=1"),
        "holdout_by": ("query", "near_duplicate", "positive"),
        "near_duplicate": (0.8, ">0", "<=1"),
        "holdout_cluster": (0.02, ">=0", "<=1"),
        "near_test_queries": "leave_out",
        "min_relevance": 1,
        "max_chars": (20000, ">=1"),
        "max_rejected": (0.2, ">=0", "<=1", "operational"),
        "limits": ReadLimits(),
        "fields": FieldNames(),
        "run": None,
        "positive_from": None,
        "subset": None,
    }


def test_the_limits_are_in_the_key_of_the_stage_only_where_they_are_set() -> None:
    settings = {"limits", "fields", "run", "positive_from", "subset"}
    assert not settings & set(semantic(IngestConfig(dataset="d")))
    assert semantic(IngestConfig(dataset="d", limits=ReadLimits(depth=9)))["limits"]["depth"] == 9


def test_a_row_over_a_limit_is_a_reject_and_the_rest_of_the_file_is_read(tmp_path: Path) -> None:
    long = row_of("q2", "d2", query="x" * 2_000)
    write_lines(tmp_path / "rows.jsonl", row_of("q1", "d1"), long, row_of("q3", "d3"))
    out = ingest_all(tmp_path, limits={"line_bytes": 1_000})
    assert sorted(out["queries"]["query_id"]) == ["q1", "q3"]
    assert reasons_of(out) == [("rows.jsonl:2", "line_too_long")]


def test_rejects_over_their_limit_are_counted_for_each_reason(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", row_of("q1", "d1"), {}, [], {}, {})
    out = ingest_all(tmp_path, limits={"rejects": 2})
    assert reasons_of(out) == [("rows.jsonl:2", "no_query"), ("rows.jsonl:3", "wrong_type"), ("more", "no_query")]
    assert out["rejects"]["detail"][2] == "2 more are not listed (ingest.limits.rejects is 2)"


def test_the_limits_hold_in_a_beir_folder_too(tmp_path: Path) -> None:
    write_beir(tmp_path, {"d1": "one", "d2": "x" * 2_000}, {"q1": "first?"}, train="q1 d1 1", test="")
    with (tmp_path / "qrels" / "train.tsv").open("a") as file:
        file.write(f"q1\t{'d' * 2_000}\t1\n")
    out = ingest_all(tmp_path, limits={"line_bytes": 1_000})
    assert reasons_of(out) == [("corpus.jsonl:2", "line_too_long"), ("qrels/train.tsv:3", "line_too_long")]


def _train_and_test(tmp_path: Path, **config: object) -> list[tuple[str, str]]:
    return ingest_all(tmp_path, **config)["queries"].select("query_id", "split").rows()


def test_a_beir_folder_holds_out_a_share_only_where_no_test_split_is_named(tmp_path: Path) -> None:
    write_beir(tmp_path, {"d1": "one"}, {"q1": "first?", "q2": "second?"}, train="q1 d1 1", test="q2 d1 1")
    assert _train_and_test(tmp_path, holdout=1.0) == [("q1", "train"), ("q2", "test")]
    assert _train_and_test(tmp_path, holdout=1.0, test_split=None) == [("q1", "test")]
    assert _train_and_test(tmp_path, holdout=0.0, test_split=None) == [("q1", "train")]


def test_a_text_of_exactly_the_longest_length_is_kept_whole_and_not_reported(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row_of("q1", "d1=12345", "d2=abcdef", query="abcde"))
    out = ingest_all(tmp_path, max_chars=5)
    assert out["queries"]["text"].to_list() == ["abcde"]
    assert out["passages"].sort("doc_id")["text"].to_list() == ["12345", "abcde"]
    assert out["rejects"].filter(reason="passage_cut").select("key", "detail").rows() == [
        ("d/d2", "6 characters long, cut to 5")
    ]


def test_a_title_is_cut_and_reported_like_a_text(tmp_path: Path) -> None:
    passage = {"docid": "d1", "title": "a long title", "text": "text"}
    write_lines(tmp_path / "a.jsonl", row_of("q1", "", positive_passages=[passage], query="ask"))
    out = ingest_all(tmp_path, max_chars=6)
    assert out["passages"].select("title", "text").rows() == [("a long", "text")]
    assert out["rejects"].select("key", "reason", "detail").rows() == [
        ("d/d1", "passage_cut", "12 characters long, cut to 6")
    ]


def test_a_score_of_zero_says_that_a_pair_is_not_known_as_a_false_negative(tmp_path: Path) -> None:
    documents = {"d1": "one", "d2": "two", "d3": "three"}
    write_beir(tmp_path, documents, {"q1": "first?"}, train="q1 d1 1", known="q1 d2 0, q1 d3 1")
    out = ingest_all(tmp_path, known_split="known", test_split=None)
    assert pairs_of(out["known"]) == ["q1 d3"]
    assert reasons_of(out) == [("qrels/known.tsv:2", "below_min_relevance")]


def test_parts_are_as_many_as_the_rows_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.data.partition._FEW_QUERIES", 3)
    monkeypatch.setattr("tasks.data.partition._PASSAGES", 4)
    write_lines(tmp_path / "a.jsonl", *(row_of(f"q{number}", f"d{number}") for number in range(7)))
    out = ingest_parts(tmp_path)
    assert [len(out[name]) for name in ("queries", "positives", "given", "passages")] == [3, 3, 3, 2]


def test_a_beir_folder_without_queries_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "corpus.jsonl", {"_id": "d1", "text": "one"})
    with pytest.raises(IngestError, match=r"a BEIR folder needs corpus\.jsonl and queries\.jsonl"):
        ingest_all(tmp_path, format="beir")


def test_the_commonest_reason_comes_first_where_nothing_is_left(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", "{", row_of("q1", ""), row_of("q2", ""))
    with pytest.raises(IngestError, match=r"left\. 2 no_positive \(first a\.jsonl:2: .*\); 1 broken_json"):
        ingest_all(tmp_path)


def test_reasons_that_are_equally_common_come_by_name(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row_of("q1", ""), "{")
    with pytest.raises(IngestError, match=r"left\. 1 broken_json \(.*\); 1 no_positive"):
        ingest_all(tmp_path)


def _passage(doc_id: str, text: str, title: str = "") -> dict[str, str]:
    return {"docid": doc_id, "title": title, "text": text}


def test_a_given_negative_that_reads_like_a_positive_is_rejected_and_the_reject_says_by_which_hash(
    tmp_path: Path,
) -> None:
    positive = _passage("p", "to Boil an egg", "How")
    negatives = [
        _passage("n1", "How to Boil an egg"),
        _passage("n2", "how  to boil an EGG"),
        _passage("n3", "to Boil an egg", "How"),
        _passage("n4", "how to fry an egg"),
    ]
    write_lines(tmp_path / "a.jsonl", row_of("q1", "", positive_passages=[positive], negative_passages=negatives))
    out = ingest_all(tmp_path)
    assert pairs_of(out["given"]) == ["q1 n4 1 None"]
    assert out["rejects"].filter(reason="negative_is_positive")["detail"].to_list() == [
        "passage n3 is also a positive of the query",
        "passage n1 reads as the positive n3 of the query, with title and text cut elsewhere (same shown text)",
        "passage n2 is the positive n3 of the query but for case, spaces or Unicode form (same normalised text)",
    ]


def test_a_given_negative_that_is_the_query_itself_is_rejected(tmp_path: Path) -> None:
    negatives = [_passage("n1", "About  Q1"), _passage("n2", "about q2")]
    write_lines(tmp_path / "a.jsonl", row_of("q1", "d1", negative_passages=negatives))
    out = ingest_all(tmp_path)
    assert pairs_of(out["given"]) == ["q1 n2 1 None"]
    assert out["rejects"].select("key", "reason", "detail").rows() == [
        ("a.jsonl:1", "same_text_as_query", "passage n1 is the query's own text")
    ]


def test_what_people_called_irrelevant_is_kept_beside_positives_only(tmp_path: Path) -> None:
    documents = {"d1": "One", "d2": "two", "d3": "one", "d4": "four"}
    train = "q1 d1 2, q1 d2 0, q1 d3 0, q1 d4 1, q2 d2 0, q2 d4 1"
    write_beir(tmp_path, documents, {"q1": "first?", "q2": "second?"}, train=train)
    out = ingest_all(tmp_path, test_split=None, min_relevance=2)
    assert pairs_of(out["irrelevant"]) == ["q1 d2 0", "q1 d4 1"]
    assert pairs_of(out["positives"]) == ["q1 d1"]
    assert reasons_of(out) == [
        ("qrels/train.tsv:7", "below_min_relevance"),
        ("qrels/train.tsv:6", "below_min_relevance"),
        ("qrels/train.tsv:4", "irrelevant_is_positive"),
        ("queries.jsonl:2", "no_positive"),
    ]


def test_scores_and_prompts_of_rows_are_tables_of_their_own(tmp_path: Path) -> None:
    row = {"query": "x", "pos": ["p"], "neg": ["c", "b"], "pos_scores": [0.9], "neg_scores": [0.5, 0.25]}
    write_lines(tmp_path / "a.jsonl", row | {"prompt": "Find it", "type": "normal"})
    out = ingest_all(tmp_path)
    texts = dict(out["passages"].select("doc_id", "text").iter_rows())
    assert {texts[doc]: score for _, _, doc, score in out["teacher"].iter_rows()} == {"p": 0.9, "c": 0.5, "b": 0.25}
    assert out["extras"].select("name", "value").rows() == [("prompt", "Find it"), ("type", "normal")]


def test_the_facts_count_what_was_read_and_kept(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row_of("q1", "d1", "d2 d1"), "{", row_of("q2", "d2", "d3"), row_of("q2", "d2"))
    facts = ingest_all(tmp_path)["facts"]
    assert facts == {
        "format": "tevatron", "fields": facts["fields"],
        "rows_read": 4, "rows_kept": 3, "queries_kept": 2, "passages_kept": 3, "positives": 2, "negatives": 2,
        "query_generations": [1], "passage_generations": [1], "queries_new": 2, "passages_new": 3,
        "rejects": {"broken_json": 1, "duplicate_query": 1, "duplicate_pair": 1, "negative_is_positive": 1},
    }  # fmt: skip
    assert facts["fields"]["positive"] == "positive_passages"


def rows_about(*numbers: int) -> list[dict[str, object]]:
    return [row_of(f"q{number:03}", f"p{number:03}", f"n{number:03} m{number:03}") for number in sorted(numbers)]


IN_PARTS = ("queries", "positives", "given", "irrelevant", "teacher", "extras", "passages")


def test_rows_between_the_old_ones_get_parts_of_their_own_and_the_old_parts_stay_as_they_are(tmp_path: Path) -> None:
    old, new = range(0, 100, 2), (3, 41, 77)
    write_lines(tmp_path / "monday" / "a.jsonl", *rows_about(*old))
    write_lines(tmp_path / "between" / "a.jsonl", *rows_about(*old, *new))
    write_lines(tmp_path / "appended" / "a.jsonl", *rows_about(*old), *rows_about(*new))
    first = ingest_parts(tmp_path / "monday", query_parts=4, passage_parts=3)
    second, third = (
        ingest_parts(tmp_path / name, first, query_parts=4, passage_parts=3) for name in ("between", "appended")
    )
    assert first["facts"]["query_generations"] == [4]
    assert second["facts"]["query_generations"] == [4, 1]
    assert second["facts"]["passage_generations"] == [3, 1]
    for name in IN_PARTS:
        assert all(a.equals(b) for a, b in zip(first[name], second[name], strict=False))
        assert all(a.equals(b) for a, b in zip(second[name], third[name], strict=True))
    assert second["queries"][4]["query_id"].to_list() == ["q003", "q041", "q077"]
    assert second["passages"][3].height == 9
    assert second["generations"].rows() == [("passage", 0, 3), ("passage", 1, 1), ("query", 0, 4), ("query", 1, 1)]


def test_only_the_parts_of_deleted_rows_change_and_all_parts_stay(tmp_path: Path) -> None:
    write_lines(tmp_path / "monday" / "a.jsonl", *rows_about(*range(40)))
    write_lines(tmp_path / "tuesday" / "a.jsonl", *rows_about(*range(1, 40)))
    first = ingest_parts(tmp_path / "monday", query_parts=4, passage_parts=5)
    second = ingest_parts(tmp_path / "tuesday", first, query_parts=4, passage_parts=5)
    (lost,) = [n for n, frame in enumerate(first["queries"]) if "q000" in frame["query_id"]]
    changed = {n for n, (a, b) in enumerate(zip(first["queries"], second["queries"], strict=True)) if not a.equals(b)}
    assert changed == {lost}
    gone = {n for n, frame in enumerate(first["passages"]) if frame["doc_id"].is_in(["p000", "n000", "m000"]).any()}
    pairs = zip(first["passages"], second["passages"], strict=True)
    assert {n for n, (a, b) in enumerate(pairs) if not a.equals(b)} == gone


def test_where_nothing_is_left_of_the_source_before_the_parts_are_numbered_anew(tmp_path: Path) -> None:
    for name, numbers in (("monday", range(5)), ("tuesday", range(5, 9)), ("shared", (4, *range(9, 12)))):
        write_lines(tmp_path / name / "a.jsonl", *rows_about(*numbers))
    first = ingest_parts(tmp_path / "monday")
    other, shared = (ingest_parts(tmp_path / name, first) for name in ("tuesday", "shared"))
    assert (other["facts"]["query_generations"], other["facts"]["queries_new"]) == ([1], 4)
    assert (shared["facts"]["query_generations"], shared["facts"]["queries_new"]) == ([1, 1], 3)
