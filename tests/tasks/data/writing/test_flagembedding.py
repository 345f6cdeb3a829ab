"""FlagEmbedding rows: texts with scores, prompt and type where the source had them."""

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import schemas
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import alone_folder
from tasks.data.writing.flagembedding import write_flagembedding
from tests.tasks.data.writing.sets import Row, Texts, decided, generated, lines, pairs, read_back, teacher, training_set

ROWS: list[Row] = [("d", "q1", ["d1", "d3"], ["d2"]), ("d", "q2", ["d4"], ["d5"]), ("d", "q3", ["d6"], [])]


def test_scores_prompt_and_type_are_carried_and_a_moved_passage_keeps_its_score(tmp_path: Path) -> None:
    """d3 came as a negative with its score, and is a positive now."""
    extras = pairs(schemas.EXTRAS, ("d", "q1", "prompt", "Represent: "), ("d", "q2", "type", "normal"))
    scores = teacher(("d", "q1", "d1", 0.98), ("d", "q1", "d2", 0.05), ("d", "q1", "d3", 0.81), ("d", "q2", "d4", 0.5))
    counts = write_flagembedding(ExportConfig(), tmp_path / "f", training_set(ROWS, extras=extras, teacher=scores))
    first = {"query": "about q1", "pos": ["One text 1", "text 3"], "neg": ["text 2"]}
    second = {"query": "about q2", "pos": ["text 4"], "neg": ["text 5"]}
    third = {"query": "about q3", "pos": ["text 6"], "neg": []}
    assert lines(tmp_path / "f" / "train.jsonl") == [
        {**first, "pos_scores": [0.98, 0.81], "neg_scores": [0.05], "prompt": "Represent: ", "type": ""},
        {**second, "pos_scores": [0.5], "neg_scores": [None], "prompt": "", "type": "normal"},
    ]
    assert lines(tmp_path / "f-without-negatives" / "train.jsonl") == [
        {**third, "pos_scores": [None], "neg_scores": [], "prompt": "", "type": ""}
    ]
    assert counts == {"rows": 2, "without_negatives": 1, "partly_scored": 2}


def test_a_source_without_scores_gives_rows_without_any(tmp_path: Path) -> None:
    empty = teacher(("d", "other", "d1", 0.5))
    write_flagembedding(ExportConfig(), tmp_path / "f", training_set(ROWS, teacher=empty))
    assert [set(line) for line in lines(tmp_path / "f" / "train.jsonl")] == [{"query", "pos", "neg"}] * 2


def test_soft_labels_take_the_place_of_the_teachers_scores(tmp_path: Path) -> None:
    config = ExportConfig(soft_labels="decision", provenance=True)
    rows = training_set(
        [("d", "q", ["d1"], ["d2"])],
        config,
        teacher=teacher(("d", "q", "d1", 9.5)),
        positives=pairs(schemas.POSITIVES, ("d", "q", "d1")),
        negatives=pairs(schemas.NEGATIVES, ("d", "q", "d2")),
        decisions=decided(("d", "q", "d2", "m", "unsure", 0.5)),
    )
    write_flagembedding(config, tmp_path / "f", rows)
    assert lines(tmp_path / "f" / "train.jsonl") == [
        {
            **{"query": "about q", "pos": ["One text 1"], "neg": ["text 2"], "pos_scores": [1.0], "neg_scores": [0.5]},
            **{"pos_decided_by": ["label"], "neg_decided_by": ["judge"]},
            **{"pos_origin": ["positive"], "neg_origin": ["negative"]},
        }
    ]


@settings(max_examples=30, deadline=None)
@given(made=generated(st.just("d")), scored=st.booleans())
def test_what_is_written_is_read_back(made: tuple[list[Row], Texts], scored: bool) -> None:
    rows, texts = made
    scores = (
        {(row[1], key): float(place) for row in rows for place, key in enumerate((*row[2], *row[3]))} if scored else {}
    )
    given = teacher(*(("d", *pair, score) for pair, score in scores.items()))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "f"
        counts = write_flagembedding(ExportConfig(), place, training_set(rows, texts=texts, teacher=given))
        sources = [place, alone_folder(place)] if counts["rows"] else [alone_folder(place)]
        found, _ = read_back(*sources, by="query")
    assert len(found) == len(rows)
    for row in rows:
        sides = found["", f"about {row[1]}"]
        for positive, keys in ((True, row[2]), (False, row[3])):
            shown = [" ".join(filter(None, texts[key])) for key in keys]
            assert [passage[2] for passage in sides[positive]] == shown
            read = [passage[3] for passage in sides[positive]]
            assert read == [scores.get((row[1], key)) for key in keys] or (positive and not any(read))


def test_the_datasets_library_loads_rows_of_which_only_a_late_one_has_scores(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows: list[Row] = [("d", f"q{number:03}", ["d1"], ["d2"]) for number in range(300)]
    late = pl.concat([teacher(("d", "q299", "d1", 0.5)), teacher(("d", "q299", "d2", 0.25))])
    write_flagembedding(ExportConfig(), tmp_path / "f", training_set(rows, teacher=late))
    files, cache = str(tmp_path / "f" / "train.jsonl"), str(tmp_path / "cache")
    loaded = datasets.load_dataset("json", data_files=files, split="train", cache_dir=cache)
    assert loaded[299]["neg_scores"] == [0.25]
    assert loaded[0]["neg_scores"] == [None]
