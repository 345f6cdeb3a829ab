"""Training rows that repeat texts of evaluation sets are found, with precision and recall, and dropped if wanted."""

from pathlib import Path

import polars as pl
import pytest

from tasks import schemas
from tasks.guards.config import ContaminationConfig, EvaluationConfig
from tasks.guards.contamination import find_contamination
from tasks.guards.evaluation import read_evaluation
from tasks.guards.tables import CONTAMINATION
from tasks.rejects import REASONS
from tests.tasks.guards.edits import edited, generated
from tests.tasks.guards.tables import passages_of, positives_of, queries_of
from tests.tasks.guards.test_evaluation import write_lines


def evaluation_of(folder: Path, queries: list[str], texts: list[str] | None = None) -> pl.DataFrame:
    write_lines(folder / "0" / "queries.jsonl", *({"id": f"e{n}", "text": text} for n, text in enumerate(queries)))
    if texts:
        write_lines(folder / "0" / "texts.jsonl", *({"id": f"t{n}", "text": text} for n, text in enumerate(texts)))
    return read_evaluation(EvaluationConfig(sets=("set",)), source=folder)["evaluation"]


def screen(
    queries: dict[str, str], answers: dict[str, str], evaluation: pl.DataFrame, *, drop: bool = False
) -> dict[str, pl.DataFrame]:
    """Compare queries, each with one positive of its own."""
    passages = {f"p-{query_id}": text for query_id, text in answers.items()}
    return find_contamination(
        ContaminationConfig(drop=drop),
        queries=queries_of(queries),
        positives=positives_of((query_id, f"p-{query_id}", text) for query_id, text in answers.items()),
        given=schemas.GIVEN.empty(),
        irrelevant=schemas.IRRELEVANT.empty(),
        texts=passages_of(passages),
        evaluation=evaluation,
    )


def found_in(made: dict[str, pl.DataFrame]) -> list[tuple[str, str | None, str, str]]:
    assert made["contamination"].schema == CONTAMINATION.empty().schema
    return made["contamination"].select("query_id", "doc_id", "id", "match").rows()


def test_planted_contaminations_are_found_and_nothing_else(tmp_path: Path) -> None:
    texts, asked = generated(200, seed=5), generated(200, words=12, seed=6)
    answers = {f"q{n}": text for n, text in enumerate(texts)}
    queries = {f"q{n}": text for n, text in enumerate(asked)}
    planted = [edited(texts[n], 0.05, n) for n in range(0, 200, 10)]
    others = generated(100, seed=7)
    evaluation = evaluation_of(tmp_path, [asked[1].upper(), asked[2], "where"], planted + others)
    made = screen(queries, answers, evaluation)
    expected = {(f"q{10 * n}", f"p-q{10 * n}", f"t{n}", "near") for n in range(20)}
    assert {row for row in found_in(made) if row[1]} == expected
    assert {row for row in found_in(made) if not row[1]} == {("q1", None, "e0", "same"), ("q2", None, "e1", "same")}
    counts = dict(made["figures"].filter(pl.col("measure") != "example").select("measure", "value").iter_rows())
    assert counts == {"queries": 200, "found": 22, "by_query": 2, "by_positive": 20, "same": 2, "dropped": 0}
    examples = made["figures"].filter(pl.col("measure") == "example")["example"].to_list()
    assert examples[0] == "d/q1: the query is query e0 of set"
    assert made["queries"].height == 200


def test_parts_make_no_difference(tmp_path: Path) -> None:
    texts = {f"q{n}": text for n, text in enumerate(generated(30))}
    evaluation = evaluation_of(tmp_path, [edited(texts["q3"], 0.05, 1), texts["q20"]])
    whole = screen(texts, texts, evaluation)["contamination"]
    parts = [dict(list(texts.items())[start : start + 7]) for start in range(0, 30, 7)]
    pieces = [screen(part, part, evaluation)["contamination"] for part in parts]
    assert pl.concat(pieces).sort(CONTAMINATION.key).equals(whole.sort(CONTAMINATION.key))
    assert whole["query_id"].unique().sort().to_list() == ["q20", "q3"]


@pytest.mark.parametrize(
    ("query", "other", "match"),
    [
        ("otter", "Otter?", ["same"]),
        ("otter", "heron", []),
        ("水獭住在哪里的河边", "水獭住在哪里的河边？", ["same"]),
        ("水獭在春天和夏天住在哪里的河边上", "水獭在春天和夏天住在哪里的河边", ["near"]),
        ("who won the prize for the best film in 2010", "who won the prize for the best film in 2011", []),
        ("who won the prize for the best film in 2010", "who won the prize for best film in 2010", ["near"]),
    ],
)
def test_queries_of_any_script_and_length_and_with_numbers(
    tmp_path: Path, query: str, other: str, match: list[str]
) -> None:
    made = screen({"q": query}, {"q": "an answer of its own"}, evaluation_of(tmp_path, [other]))
    assert made["contamination"]["match"].to_list() == match


def test_dropped_queries_leave_all_tables_with_a_reject_each_and_held_out_ones_are_not_compared(
    tmp_path: Path,
) -> None:
    evaluation = evaluation_of(tmp_path, ["where does the otter live"])
    rows = {"q1": "where does the otter live", "q2": "what does it eat"}
    made = screen(rows, {"q1": "River.", "q2": "Fish."}, evaluation, drop=True)
    assert made["queries"]["query_id"].to_list() == made["positives"]["query_id"].to_list() == ["q2"]
    assert made["rejects"].rows() == [
        ("find_contamination", "d/q1", "in_evaluation", "the query is query e0 of set"),
    ]
    assert REASONS["in_evaluation"].kind == "choice"
    held_out = queries_of(rows, split="test")
    again = find_contamination(
        ContaminationConfig(drop=True),
        queries=held_out,
        positives=made["positives"],
        given=schemas.GIVEN.empty(),
        irrelevant=schemas.IRRELEVANT.empty(),
        texts=passages_of({}),
        evaluation=evaluation,
    )
    assert again["contamination"].is_empty()
    assert again["queries"].equals(held_out)


def test_empty_tables_give_empty_tables_and_a_missing_text_is_an_error(tmp_path: Path) -> None:
    evaluation = evaluation_of(tmp_path, ["where"])
    assert screen({}, {}, evaluation)["contamination"].equals(CONTAMINATION.empty())
    assert screen({"q": "where"}, {"q": "x"}, evaluation.clear())["contamination"].is_empty()
    with pytest.raises(ValueError, match="its text did not come"):
        find_contamination(
            ContaminationConfig(),
            queries=queries_of({"q": "a"}),
            positives=positives_of([("q", "p", "text")]),
            given=schemas.GIVEN.empty(),
            irrelevant=schemas.IRRELEVANT.empty(),
            texts=passages_of({}),
            evaluation=evaluation,
        )
