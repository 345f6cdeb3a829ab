"""The generated data: equal each time, of the paper's shape, and the files of the judges fit the rows."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks import paper_size_data as data

TOTAL = 303


def _rows(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(sorted(folder.glob("*.parquet")))


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        data.write_source(tmp_path / name, 0, 40, TOTAL)
        data.write_scores(tmp_path / f"{name}.parquet", 40, TOTAL, 1)
        data.write_corpus(tmp_path / f"{name}-corpus", 50, 10)
    for one, other in zip(*(sorted(tmp_path.glob(f"{name}*/**/*.*")) for name in "ab"), strict=True):
        assert one.is_dir() or one.read_bytes() == other.read_bytes()
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_rows_do_not_depend_on_the_file_in_which_they_are_written(tmp_path: Path) -> None:
    data.write_source(tmp_path / "whole", 0, 30, TOTAL)
    data.write_source(tmp_path / "cut", 0, 20, TOTAL)
    data.write_source(tmp_path / "cut", 20, 10, TOTAL)
    assert len(list((tmp_path / "cut").iterdir())) == 2
    assert _rows(tmp_path / "cut").equals(_rows(tmp_path / "whole"))


def test_rows_have_the_shape_of_the_paper(tmp_path: Path) -> None:
    data.write_source(tmp_path, 0, 300, TOTAL)
    rows = _rows(tmp_path)
    assert rows["subset"].n_unique() == 7
    assert rows["negative_passages"].list.len().unique().to_list() == [20]
    assert 1.03 < rows["positive_passages"].list.len().mean() < 1.2  # type: ignore[operator]
    negatives = rows.explode("negative_passages").unnest("negative_passages")
    assert negatives["text"].str.split(" ").list.len().unique().to_list() == [100]
    assert negatives.group_by("docid").agg(pl.col("text").n_unique())["text"].max() == 1
    assert 2.0 < negatives.height / negatives["docid"].n_unique() < 4.0


def test_a_judge_has_a_score_for_each_negative_and_no_other_pair(tmp_path: Path) -> None:
    data.write_source(tmp_path / "source", 0, 60, TOTAL)
    data.write_scores(tmp_path / "weak.parquet", 60, TOTAL, 0)
    negatives = _rows(tmp_path / "source").explode("negative_passages").unnest("negative_passages")
    named = negatives.select(pl.col("subset").alias("dataset"), "query_id", doc_id="docid").unique()
    scores = pl.read_parquet(tmp_path / "weak.parquet")
    assert scores.height == 60 * 20
    assert scores.select(named.columns).unique().sort(named.columns).equals(named.sort(named.columns))


def test_judges_agree_on_what_is_relevant_and_a_pair_has_one_score() -> None:
    queries, passages = np.arange(3000) // 20, np.arange(3000) % 977
    weak, strong = (data.judge(["d"] * 3000, queries, passages, seed)["score"].to_numpy() for seed in range(2))
    assert ((weak > 0.5) == (strong > 0.5)).all()
    assert (weak != strong).mean() > 0.9
    assert 0.06 < (weak > 0.5).mean() < 0.1
    assert data.judge(["d"], queries[7:8], passages[7:8], 0)["score"].to_pylist() == [weak[7]]


def test_a_query_of_the_corpus_begins_its_positive(tmp_path: Path) -> None:
    data.write_corpus(tmp_path, 100, 20)
    corpus = {row["_id"]: row["text"] for row in _lines(tmp_path / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in _lines(tmp_path / "queries.jsonl")}
    labels = pl.read_csv(tmp_path / "qrels" / "train.tsv", separator="\t", schema_overrides={"corpus-id": pl.String})
    assert (len(corpus), len(queries), labels.height) == (100, 20, 22)
    assert len(set(corpus.values())) == 100
    first = labels.head(20)
    for query, passage in first.select("query-id", "corpus-id").iter_rows():
        assert corpus[passage].startswith(f"{queries[query]} ")


def test_the_configuration_names_the_files_and_has_no_tier_without_scores(tmp_path: Path) -> None:
    from flows.config.load import load_config

    source, scores, encoder = (tmp_path / name for name in ("source", "scores", "encoder"))
    data.write_config(tmp_path / "with.yaml", "paper-size", source, scores, encoder)
    data.write_config(tmp_path / "without.yaml", "mined", source, None, encoder, {"mine": {"range_max": 7}})
    with_tiers, without = (load_config(tmp_path / f"{name}.yaml") for name in ("with", "without"))
    assert [tier.name for tier in with_tiers.tiers] == list(data.JUDGES)
    assert (without.tiers, without.mine.range_max) == ((), 7)


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_have_the_columns_of_the_schema() -> None:
    made = data.judge(["d"], np.array([3]), np.array([5]), 0)
    assert isinstance(made, pa.Table)
    assert made.schema.equals(data.SCORES)
    assert made.select(["query_id", "doc_id"]).to_pylist() == [{"query_id": "q3", "doc_id": "5"}]
