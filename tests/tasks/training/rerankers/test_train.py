"""A reranker is trained on the rows of the retriever: what is judged relevant or unsure is no negative."""

import json
from pathlib import Path

import polars as pl
import pytest

from tasks.training.losses.pairs import with_names
from tasks.training.rerankers.settings import RerankerTrainConfig
from tasks.training.rerankers.train import train_reranker
from tests.tasks.training.rerankers.rows import build_tiny_cross_encoder, train_toy_reranker
from tests.tasks.training.tables import eight_instances, instances_table, passages_table, queries_table

SHORT = {"model": "", "steps": 1, "batch_size": 2, "threads": 1, "max_seq_length": 64}
TABLES = {"queries": queries_table(), "passages": passages_table()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_cross_encoder(tmp_path_factory.mktemp("base"))


def unsure_about(query_id: str, doc_id: str) -> pl.DataFrame:
    query = queries_table().filter(pl.col("query_id") == query_id)["text_hash"][0]
    passage = passages_table().filter(pl.col("doc_id") == doc_id)["text_hash"][0]
    named = with_names(pl.DataFrame({"dataset": ["toy"], "query_hash": [query], "text_hash": [passage]}))
    return named.select("query", "text", state=pl.lit("unsure"), score=pl.lit(None, pl.Float64))


@pytest.mark.parametrize(("mask", "masked"), [("unsure", 1), ("relevant", 0)])
def test_a_pair_that_the_judges_are_unsure_of_is_no_negative(
    base: Path, tmp_path: Path, mask: str, masked: int
) -> None:
    config = RerankerTrainConfig.model_validate({**SHORT, "mask": mask})
    known = unsure_about("q0", "n0")
    train_reranker(config, instances=eight_instances(), **TABLES, known=known, out=tmp_path, base=base)
    summary = json.loads((tmp_path / "training.json").read_text())
    assert (summary["masked_negatives"], summary["mask"]) == (masked, mask)
    assert "model" not in summary


def test_rows_without_any_negative_and_no_rows_are_refused(base: Path, tmp_path: Path) -> None:
    config = RerankerTrainConfig(model="", steps=1)
    bare = instances_table([("q0", ["p0"], []), ("q1", ["p1"], [])])
    with pytest.raises(ValueError, match="rows with a negative expected, none of 2 has one"):
        train_reranker(config, instances=bare, **TABLES, out=tmp_path, base=base)
    with pytest.raises(ValueError, match="at least one instance expected"):
        train_reranker(config, instances=bare.head(0), **TABLES, out=tmp_path, base=base)


def test_several_workers_need_to_be_lent(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers=2 expects workers and checkpoints"):
        train_toy_reranker(base, tmp_path / "out", workers=2)


def test_the_same_seed_gives_the_same_files(base: Path, tmp_path: Path) -> None:
    for name in ("one", "again"):
        train_toy_reranker(base, tmp_path / name, steps=3)
    files = [
        {path.name: path.read_bytes() for path in sorted((tmp_path / name).rglob("*")) if path.is_file()}
        for name in ("one", "again")
    ]
    assert files[0] == files[1]
