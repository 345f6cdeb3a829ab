"""TREC files: qrels of both sides, and ranks and scores of the negatives as a run."""

from pathlib import Path

import pytest

from tasks import schemas
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.trec import write_trec
from tests.tasks.data.writing.sets import Row, pairs, training_set

ROWS: list[Row] = [("a", "q2", ["d1", "d2"], ["d3", "d4"]), ("a", "q1", ["d1"], ["d5"]), ("b/c", "q1", ["d1"], [])]


def candidates(*rows: tuple[str, str, int, float | None]) -> object:
    whole = [("a", query, doc, "h", "h", "h", "dense", rank, score) for query, doc, rank, score in rows]
    return pairs(schemas.CANDIDATES, *whole)


def test_qrels_hold_both_sides_of_each_dataset(tmp_path: Path) -> None:
    assert write_trec(ExportConfig(), tmp_path, training_set(ROWS)) == {"qrels": 7}
    lines = ["q1 0 d1 1", "q1 0 d5 0", "q2 0 d1 1", "q2 0 d2 1", "q2 0 d3 0", "q2 0 d4 0"]
    assert (tmp_path / "a.qrels").read_text().splitlines() == lines
    assert (tmp_path / "b%2Fc.qrels").read_text() == "q1 0 d1 1\n"
    assert not list(tmp_path.glob("*.run"))


def test_a_run_holds_the_negatives_with_rank_score_and_retriever(tmp_path: Path) -> None:
    mined = candidates(("q2", "d3", 4, 0.75), ("q2", "d4", 9, 0.5), ("q2", "d7", 1, 0.9), ("q1", "d5", 2, None))
    counts = write_trec(ExportConfig(), tmp_path, training_set(ROWS, candidates=mined))
    assert counts == {"qrels": 7, "run": 3}
    lines = ["q1 Q0 d5 2 0.5 dense", "q2 Q0 d3 4 0.75 dense", "q2 Q0 d4 9 0.5 dense"]
    assert (tmp_path / "a.run").read_text().splitlines() == lines
    assert (tmp_path / "b%2Fc.run").read_text() == ""


@pytest.mark.parametrize("name", ["d 1", "d\u00a01", " "])
def test_an_id_with_spaces_is_refused(tmp_path: Path, name: str) -> None:
    rows: list[Row] = [("a", "q", ["d1"], [name])]
    with pytest.raises(ValueError, match=r"holds spaces, which trec cannot write; use beir instead"):
        write_trec(ExportConfig(), tmp_path, training_set(rows, texts={"d1": ("", "x"), name: ("", "y")}))
