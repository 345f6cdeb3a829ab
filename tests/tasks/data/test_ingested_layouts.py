"""What ingest makes of the layouts: queries, positives and given negatives, by their texts."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.tasks.data.inputs import Tables, ingest_all, reasons_of, row_of, write_beir, write_lines

EGG, BUS = "how to boil an egg", "what drives"


def _pairs(out: Tables, table: str) -> list[tuple[str, str]]:
    """Return the pairs of a table as texts of query and passage, sorted."""
    queries = out["queries"].select("dataset", "query_id", query="text")
    passages = out["passages"].select("dataset", "doc_id", "text")
    joined = out[table].join(queries, on=["dataset", "query_id"]).join(passages, on=["dataset", "doc_id"])
    return sorted(joined.select("query", "text").rows())


@pytest.mark.parametrize(
    "lines",
    [
        [{"anchor": EGG, "positive": "water", "negative_1": "bus"}, {"anchor": BUS, "positive": "a tram"}],
        [{"question": EGG, "answer": "water", "negative": "bus"}, {"query": BUS, "response": "a tram"}],
        [
            {"sentence1": EGG, "sentence2": "water", "label": 1},
            {"sentence1": BUS, "sentence2": "a tram", "label": 1},
            {"sentence1": EGG, "sentence2": "bus", "label": 0},
        ],
        [
            {"query": EGG, "docs": ["bus", "water"], "labels": [0, 1]},
            {"query": BUS, "docs": ["a tram"], "labels": [1]},
        ],
        [
            {"question": EGG, "positive_ctxs": [{"text": "water"}], "hard_negative_ctxs": [{"text": "bus"}]},
            {"question": BUS, "positive_ctxs": [{"text": "a tram"}], "negative_ctxs": []},
        ],
        [{"query": EGG, "pos": "water", "neg": "bus"}, {"query": BUS, "pos": ["a tram"]}],
    ],
)
def test_every_layout_of_rows_gives_the_same_pairs(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    write_lines(tmp_path / "a.jsonl", *lines)
    out = ingest_all(tmp_path)
    assert _pairs(out, "positives") == [(EGG, "water"), (BUS, "a tram")]
    assert _pairs(out, "given") == [(EGG, "bus")]
    assert {reason for _, reason in reasons_of(out)} <= {"duplicate_query"}


def test_names_of_the_settings_are_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", {"frage": EGG, "gut": "water", "schlecht": ["bus"], "nr": 7})
    fields = {"query": "frage", "positive": "gut", "negative": "schlecht", "query_id": "nr"}
    out = ingest_all(tmp_path, fields=fields)
    assert (_pairs(out, "positives"), _pairs(out, "given")) == ([(EGG, "water")], [(EGG, "bus")])
    assert out["queries"]["query_id"].to_list() == ["7"]
    assert (out["facts"]["format"], out["facts"]["fields"]) == ("sentence-transformers", fields)


def test_a_query_with_negatives_alone_is_told_once(tmp_path: Path) -> None:
    pairs = [{"sentence1": EGG, "sentence2": text, "label": label} for text, label in (("water", 1), ("bus", 0))]
    write_lines(tmp_path / "a.jsonl", *pairs, {"sentence1": BUS, "sentence2": "egg", "label": 0})
    out = ingest_all(tmp_path)
    assert out["queries"]["text"].to_list() == [EGG]
    assert reasons_of(out) == [("a.jsonl:3", "no_positive")]


def test_files_that_number_their_queries_from_1_keep_all_rows(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row_of("1", "a1=water", query=EGG), row_of("2", "a2=pan", query="and then?"))
    write_lines(tmp_path / "b.jsonl", row_of("1", "b1=tram", query=BUS), row_of("2", "b2=fork", query="and now?"))
    out = ingest_all(tmp_path)
    assert sorted(out["queries"]["query_id"]) == ["1", "2", "b.jsonl/1", "b.jsonl/2"]
    assert out["positives"].height == 4
    assert reasons_of(out) == [("b.jsonl", "ids_reused")]


def test_rows_that_number_their_passages_keep_all_of_them(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", *(row_of(f"q{n}", f"0=good-{n}", f"1=bad-{n} 2=worse-{n}") for n in range(20)))
    out = ingest_all(tmp_path)
    assert [out[name].height for name in ("queries", "positives", "given", "passages")] == [20, 20, 40, 60]
    assert reasons_of(out) == [("a.jsonl", "local_ids")]


def test_rows_with_ids_of_a_corpus_are_trained_on_with_their_negatives(tmp_path: Path) -> None:
    write_lines(tmp_path / "corpus.jsonl", *({"docid": f"d{n}", "text": f"text {n}"} for n in range(3)))
    row = {"query_id": "q1", "query_text": EGG, "positive_document_ids": ["d0"], "negative_document_ids": ["d2", "d9"]}
    write_lines(tmp_path / "rows.jsonl", row)
    out = ingest_all(tmp_path)
    assert _pairs(out, "positives") == [(EGG, "text 0")]
    assert out["given"].select("doc_id", "rank").rows() == [("d2", 1)]
    assert reasons_of(out) == [("rows.jsonl:1", "unknown_document")]


def test_a_run_gives_the_candidates_of_a_corpus_with_their_scores(tmp_path: Path) -> None:
    write_beir(tmp_path, {"d1": "water", "d2": "bus", "d3": "tram"}, {"q1": EGG}, train="q1 d1 1")
    write_lines(tmp_path / "runs" / "bm25.trec", "q1 Q0 d3 1 9.5 bm25", "q1 Q0 d2 2 8 bm25", "q2 Q0 d1 1 3 bm25")
    out = ingest_all(tmp_path, test_split=None)
    assert out["given"].sort("rank").select("doc_id", "rank", "score").rows() == [("d3", 1, 9.5), ("d2", 2, 8.0)]
    assert reasons_of(out) == [("runs/bm25.trec:3", "unknown_query")]


def test_the_folders_of_the_hub_are_read(tmp_path: Path) -> None:
    frames = {
        "corpus/corpus-00000-of-00001": {"_id": ["d1", "d2"], "title": ["", ""], "text": ["water", "bus"]},
        "queries/queries-00000-of-00001": {"_id": ["q1"], "text": [EGG]},
        "default/train-00000-of-00001": {"query-id": ["q1"], "corpus-id": ["d1"], "score": [1.0]},
    }
    for name, columns in frames.items():
        (tmp_path / name).parent.mkdir()
        pl.DataFrame(columns).write_parquet(tmp_path / f"{name}.parquet")
    out = ingest_all(tmp_path, test_split=None)
    assert (_pairs(out, "positives"), out["passages"].height) == ([(EGG, "water")], 2)
    assert reasons_of(out) == []


def test_rows_that_repeat_their_query_are_all_counted(tmp_path: Path) -> None:
    """100 triplets of ten queries: a problem of a joined row is no lost row, a query without positives loses all."""
    rows = [{"query": f"query {number // 10}", "passage": f"text {number}", "label": 1} for number in range(100)]
    rows += [{"query": "only negatives", "passage": f"text {number}", "label": 0} for number in range(5)]
    write_lines(tmp_path / "a.jsonl", *rows, {"query": "query 9", "passage": "x", "label": "perhaps"})
    facts = ingest_all(tmp_path)["facts"]
    assert (facts["rows_read"], facts["rows_kept"], facts["queries_kept"]) == (106, 100, 10)
