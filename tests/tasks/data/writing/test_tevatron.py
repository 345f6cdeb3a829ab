"""Tevatron rows: what is written is read back, with what the settings add."""

import tempfile
from pathlib import Path

from hypothesis import given, settings

from tasks import schemas
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import alone_folder
from tasks.data.writing.tevatron import write_tevatron
from tests.tasks.data.writing.sets import Row, Texts, decided, generated, lines, pairs, read_back, training_set


@settings(max_examples=30, deadline=None)
@given(generated())
def test_what_is_written_is_read_back(made: tuple[list[Row], Texts]) -> None:
    rows, texts = made
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tevatron"
        counts = write_tevatron(ExportConfig(), place, training_set(rows, texts=texts))
        sources = [place, alone_folder(place)] if counts["rows"] else [alone_folder(place)]
        found, _ = read_back(*sources)
    passages = {key: (key, *text, None) for key, text in texts.items()}
    assert found == {
        (row[0], row[1]): {True: [passages[key] for key in row[2]], False: [passages[key] for key in row[3]]}
        for row in rows
    }
    assert counts == {"rows": sum(bool(row[3]) for row in rows), "without_negatives": sum(not row[3] for row in rows)}


def test_a_row_without_negatives_stands_apart_because_the_trainer_draws_one(tmp_path: Path) -> None:
    rows = training_set([("d", "q1", ["d1"], ["d2"]), ("d", "q2", ["d3"], [])])
    assert write_tevatron(ExportConfig(), tmp_path / "tevatron", rows) == {"rows": 1, "without_negatives": 1}
    assert [line["query_id"] for line in lines(tmp_path / "tevatron" / "train.jsonl")] == ["q1"]
    alone = tmp_path / "tevatron-without-negatives" / "train.jsonl"
    assert [line["query_id"] for line in lines(alone)] == ["q2"]


def test_soft_labels_and_provenance_stand_in_each_passage(tmp_path: Path) -> None:
    config = ExportConfig(soft_labels="decision", provenance=True)
    rows = training_set(
        [("d", "q", ["d1", "d2"], ["d3"])],
        config,
        positives=pairs(schemas.POSITIVES, ("d", "q", "d1")),
        negatives=pairs(schemas.NEGATIVES, ("d", "q", "d2")),
        decisions=decided(("d", "q", "d2", "human:1", "relevant", 0.75), ("d", "q", "d3", "m", "not_relevant", 0.125)),
    )
    write_tevatron(config, tmp_path / "tevatron", rows)
    (line,) = lines(tmp_path / "tevatron" / "train.jsonl")
    assert line["positive_passages"] == [
        {"docid": "d1", "text": "text 1", "title": "One", "score": 1.0, "decided_by": "label", "origin": "positive"},
        {"docid": "d2", "text": "text 2", "title": "", "score": 0.75, "decided_by": "human", "origin": "negative"},
    ]
    assert line["negative_passages"] == [
        {"docid": "d3", "text": "text 3", "title": "", "score": 0.125, "decided_by": "judge", "origin": "pool"}
    ]
