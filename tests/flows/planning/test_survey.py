"""Looking at a source: what it holds, and that no input ends in a traceback."""

import contextlib
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from flows.config.section import ConfigError
from flows.planning.survey import survey
from tests.flows.animals import write_source
from tests.flows.paper_sets import SUBSETS, default_rows, write_lines, write_set


def test_rows_are_counted_with_their_datasets_lengths_and_repetitions(tmp_path: Path) -> None:
    rows = default_rows(6)
    bare = {"query_id": "bare", "query": rows[0]["query"], "positive_passages": rows[0]["positive_passages"]}
    found = survey(write_lines(tmp_path / "rows", [*rows, bare | {"negative_passages": []}, {"query": "no id"}]))
    assert (found.form, found.complete, found.is_corpus) == ("tevatron", True, False)
    assert (found.rows, found.bare, found.queries, found.repeated_queries) == (7, 1, 6, 1)
    assert found.datasets == {SUBSETS[0]: 3, SUBSETS[1]: 3, "": 1}
    assert (found.positives, round(found.negatives, 2)) == (1.0, round(36 / 7, 2))
    assert found.repeated_passages == 1
    assert found.query_chars in {len(row["query"]) for row in rows}
    assert [passed.count for passed in found.passed_over.values()] == [1]


def test_what_would_stop_a_run_is_known_before_it_starts(tmp_path: Path) -> None:
    good = [json.dumps(row) for row in default_rows(6)]
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "rows.jsonl").write_text("\n".join([*good, "broken", "broken", ""]))
    found = survey(tmp_path / "lines")
    assert found.too_much_lost(0.2) == "2 of 8 rows are lost"
    assert found.too_much_lost(0.25) == ""
    packed = gzip.compress("\n".join(good * 50).encode())
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "rows.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "cut" / "whole.jsonl").write_text("\n".join(good))
    cut = survey(tmp_path / "cut")
    assert cut.too_much_lost(0.99) == "an unknown number of rows is missing (broken_gzip)"
    assert cut.too_much_lost(1.0) == ""


def test_only_the_beginning_of_a_large_source_is_read(tmp_path: Path) -> None:
    found = survey(write_lines(tmp_path / "rows", default_rows(2) * 700), most=1000)
    assert (found.complete, found.rows) == (False, 1000)
    corpus = survey(write_source(tmp_path / "beir"), most=10)
    assert (corpus.complete, corpus.documents, corpus.queries) == (False, 10, 10)


def test_a_corpus_is_counted_with_its_splits(tmp_path: Path) -> None:
    found = survey(write_source(tmp_path / "beir"))
    assert (found.form, found.is_corpus, found.documents, found.queries) == ("beir", True, 48, 12)
    assert found.splits == {"known": 9, "test": 3, "train": 9}
    assert found.rows == 0


def test_the_papers_layout_and_fields_under_other_names_are_recognised(tmp_path: Path) -> None:
    found = survey(write_set(tmp_path / "hub", default_rows()))
    assert (found.form, found.rows, found.recognised["dataset"]) == ("tevatron", 12, "subset")
    assert [*found.passed_over] == ["metadata"]
    named = survey(write_lines(tmp_path / "named", [{"question": "a", "answer": "b"}]))
    assert (named.recognised["query"], named.recognised["positive"]) == ("question", "answer")


def test_scores_and_titles_are_noticed(tmp_path: Path) -> None:
    row = {"query": "a", "pos": ["b"], "neg": ["c"], "neg_scores": [0.5]}
    assert survey(write_lines(tmp_path / "rows", [row])).scores


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"\x00\x01\x02", b"PAR1broken", b"{}", b"[]", b"[1, 2]", b"not json\n", b"\xff\xfe\x00a"],
)
def test_a_file_that_is_no_source_is_named_in_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(ConfigError):
        survey(tmp_path)


def test_an_empty_folder_and_rows_that_are_all_unusable_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        survey(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"query": "a", "pos": [], "neg": []}) + "\n")
    with pytest.raises(ConfigError, match="the files hold no usable row: no_positive"):
        survey(tmp_path)


_json = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(
                [
                    "query",
                    "query_id",
                    "pos",
                    "neg",
                    "positive_passages",
                    "negative_passages",
                    "docid",
                    "text",
                    "subset",
                    "_id",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=some.binary(max_size=60)
    | some.lists(_json, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
)
def test_no_content_ends_in_a_traceback(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with contextlib.suppress(ConfigError):
        survey(tmp_path)
