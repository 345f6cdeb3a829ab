"""Rows for sentence-transformers: each shape, its counts, and two steps of the real trainers on them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infra.models.random_models import build_tiny_cross_encoder, build_tiny_encoder
from tasks.data.writing.config import ExportConfig
from tasks.data.writing.sentence_transformers import columns_of, write_sentence_transformers
from tasks.texts import show_passage
from tests.tasks.data.writing.sets import Row, Texts, generated, lines, read_back, teacher, training_set

ROWS: list[Row] = [("d", "q1", ["d1", "d2"], ["d3", "d4"]), ("d", "q2", ["d5"], ["d6"]), ("d", "q3", ["d7"], [])]
SCORES = teacher(
    *(("d", "q1", key, score) for key, score in (("d1", 0.9), ("d2", 0.8), ("d3", 0.2), ("d4", 0.1))),
    ("d", "q2", "d5", 0.7),
)


def write(folder: Path, rows: list[Row] = ROWS, **config: Any) -> tuple[pl.DataFrame, dict[str, int]]:
    parsed = ExportConfig.model_validate({"num_negatives": 2, **config})
    counts = write_sentence_transformers(parsed, folder / "st", training_set(rows, parsed, teacher=SCORES))
    frame = pl.read_parquet(folder / "st" / "train.parquet")
    assert tuple(frame.columns) == columns_of(parsed)
    assert frame.height == counts["rows"]
    return frame, counts


def test_rows_without_negatives_are_pairs_in_a_folder_of_their_own(tmp_path: Path) -> None:
    frame, counts = write(tmp_path)
    assert frame.rows() == [
        ("about q1", "One text 1", "text 3", "text 4"),
        ("about q1", "text 2", "text 3", "text 4"),
        ("about q2", "text 5", "text 6", "text 6"),
    ]
    pairs = pl.read_parquet(tmp_path / "st-without-negatives" / "train.parquet")
    assert pairs.rows(named=True) == [{"anchor": "about q3", "positive": "text 7"}]
    assert counts == {"rows": 3, "short": 2, "dropped": 0, "pairs": 1}


@pytest.mark.parametrize(("short", "dropped"), [("drop", 2), ("keep", 0)])
def test_nothing_stands_apart_where_the_policy_says_so(tmp_path: Path, short: str, dropped: int) -> None:
    counts = write(tmp_path, short=short)[1]
    assert counts == {"rows": 4 - dropped, "short": 2, "dropped": dropped}
    assert [path.name for path in tmp_path.iterdir()] == ["st"]


def test_a_triplet_is_a_positive_with_one_of_the_first_negatives(tmp_path: Path) -> None:
    rows: list[Row] = [("d", "q1", ["d1", "d2"], ["d3", "d4", "d5"]), ("d", "q2", ["d5"], ["d6"])]
    frame, counts = write(tmp_path, rows, shape="triplet")
    found = [("about q1", p, n) for p in ("One text 1", "text 2") for n in ("text 3", "text 4")]
    assert frame.rows() == [*found, ("about q2", "text 5", "text 6")]
    assert counts == {"rows": 5, "short": 1, "dropped": 0}


def test_pairs_need_no_negatives(tmp_path: Path) -> None:
    frame, counts = write(tmp_path, shape="pair")
    assert frame["positive"].to_list() == ["One text 1", "text 2", "text 5", "text 7"]
    assert counts == {"rows": 4, "short": 0, "dropped": 0}


def test_labelled_pairs_and_lists_hold_positives_then_negatives(tmp_path: Path) -> None:
    pairs, counts = write(tmp_path / "1", shape="labeled-pair", num_negatives=1)
    assert pairs.rows() == [
        ("about q1", "One text 1", 1.0),
        ("about q1", "text 2", 1.0),
        ("about q1", "text 3", 0.0),
        ("about q2", "text 5", 1.0),
        ("about q2", "text 6", 0.0),
        ("about q3", "text 7", 1.0),
    ]
    assert counts == {"rows": 6, "short": 1, "dropped": 0}
    lists, counts = write(tmp_path / "2", shape="labeled-list")
    assert lists.rows() == [
        ("about q1", ["One text 1", "text 2", "text 3", "text 4"], [1.0, 1.0, 0.0, 0.0]),
        ("about q2", ["text 5", "text 6"], [1.0, 0.0]),
    ]
    assert counts == {"rows": 2, "short": 1, "dropped": 1}


def test_soft_labels_are_the_scores_of_the_passages_in_their_order(tmp_path: Path) -> None:
    """d6 has no score of a teacher, so the row of q2 cannot be written."""
    frame, counts = write(tmp_path / "1", soft_labels="teacher")
    assert frame["label"].to_list() == [[0.9, 0.2, 0.1], [0.8, 0.2, 0.1]]
    assert counts == {"rows": 2, "short": 2, "dropped": 0, "unscored": 1, "pairs": 1}
    triplets, counts = write(tmp_path / "2", soft_labels="teacher", shape="triplet")
    assert triplets["label"].to_list() == [[0.9, 0.2], [0.9, 0.1], [0.8, 0.2], [0.8, 0.1]]
    assert counts["unscored"] == 1
    pairs, counts = write(tmp_path / "3", soft_labels="teacher", shape="labeled-pair")
    assert pairs["label"].to_list() == [0.9, 0.8, 0.2, 0.1, 0.7]
    assert counts["unscored"] == 2
    lists, counts = write(tmp_path / "4", soft_labels="teacher", shape="labeled-list")
    assert lists["labels"].to_list() == [[0.9, 0.8, 0.2, 0.1]]
    assert (counts["unscored"], counts["dropped"]) == (1, 1)


def test_lines_of_json_hold_the_same_rows_as_parquet(tmp_path: Path) -> None:
    for shape in ("n-tuple", "labeled-list"):
        frame, counts = write(tmp_path / shape, shape=shape, soft_labels="teacher")
        config = ExportConfig.model_validate(
            {"num_negatives": 2, "shape": shape, "soft_labels": "teacher", "file_type": "jsonl"}
        )
        folder = tmp_path / f"{shape}-lines"
        assert write_sentence_transformers(config, folder, training_set(ROWS, config, teacher=SCORES)) == counts
        assert lines(folder / "train.jsonl") == frame.rows(named=True)


@pytest.mark.parametrize("shape", ["n-tuple", "triplet", "pair", "labeled-pair", "labeled-list"])
def test_no_rows_give_an_empty_file_with_its_columns(tmp_path: Path, shape: str) -> None:
    assert write(tmp_path, [], shape=shape)[1]["rows"] == 0
    assert write(tmp_path / "2", [], shape=shape, soft_labels="teacher")[1]["rows"] == 0


@settings(max_examples=20, deadline=None)
@given(
    made=generated(st.just("d")),
    shape=st.sampled_from(["n-tuple", "triplet", "labeled-pair", "labeled-list"]),
    file_type=st.sampled_from(["parquet", "jsonl"]),
)
def test_what_is_written_is_read_back_as_it_is_shown(made: tuple[list[Row], Texts], shape: str, file_type: str) -> None:
    """Repeated negatives and positives of several rows of a query are one passage again."""
    rows, texts = made
    rows = [row for row in rows if row[3]]
    assume(rows)
    config = ExportConfig.model_validate({"shape": shape, "file_type": file_type, "num_negatives": 9})
    with tempfile.TemporaryDirectory() as folder:
        write_sentence_transformers(config, Path(folder) / "st", training_set(rows, texts=texts))
        found, _ = read_back(Path(folder) / "st", by="query")
    shown = {key: show_passage(*text) for key, text in texts.items()}
    read = {
        query: [list(dict.fromkeys(passage[2] for passage in sides[side])) for side in (True, False)]
        for (_, query), sides in found.items()
    }
    assert read == {f"about {row[1]}": [[shown[key] for key in side] for side in row[2:]] for row in rows}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folder = tmp_path_factory.mktemp("models")
    build_tiny_encoder(folder / "encoder")
    build_tiny_cross_encoder(folder / "cross_encoder")
    yield {"encoder": folder / "encoder", "cross_encoder": folder / "cross_encoder"}


EMBEDDING_LOSSES = [
    ({}, "MultipleNegativesRankingLoss"),
    ({"soft_labels": "teacher"}, "MarginMSELoss"),
]


@pytest.mark.parametrize(("config", "loss"), EMBEDDING_LOSSES)
def test_an_embedding_model_trains_two_steps(
    tmp_path: Path, models: dict[str, Path], config: dict[str, Any], loss: str
) -> None:
    from datasets import load_dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses

    write(tmp_path, **config)
    data = load_dataset("parquet", data_dir=str(tmp_path / "st"), split="train", cache_dir=str(tmp_path / "cache"))
    model = SentenceTransformer(str(models["encoder"]), device="cpu")
    arguments = SentenceTransformerTrainingArguments(**_arguments(tmp_path))
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=data, loss=getattr(losses, loss)(model)
    )
    assert trainer.train().global_step == 2


@pytest.mark.parametrize(
    ("config", "loss"),
    [
        ({"shape": "labeled-pair"}, "BinaryCrossEntropyLoss"),
        ({"shape": "labeled-list"}, "LambdaLoss"),
    ],
)
def test_a_reranker_trains_two_steps(
    tmp_path: Path, models: dict[str, Path], config: dict[str, Any], loss: str
) -> None:
    from datasets import load_dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    write(tmp_path, **config)
    data = load_dataset("parquet", data_dir=str(tmp_path / "st"), split="train", cache_dir=str(tmp_path / "cache"))
    model = CrossEncoder(str(models["cross_encoder"]), device="cpu")
    arguments = CrossEncoderTrainingArguments(**_arguments(tmp_path))
    trainer = CrossEncoderTrainer(model=model, args=arguments, train_dataset=data, loss=getattr(losses, loss)(model))
    assert trainer.train().global_step == 2


def _arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "trained"),
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
