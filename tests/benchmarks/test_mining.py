"""The benchmark of mining on small data; the figures of its own sizes are in benchmarks/results."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.mining import RESULT, compare
from benchmarks.mining_data import Size, read_part, write_data

SIZE = Size(600, 40, dimension=8, query_parts=3, passage_parts=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data")
    write_data(made, SIZE)
    return made


def test_equal_sizes_and_seeds_give_equal_data(folder: Path, tmp_path: Path) -> None:
    write_data(tmp_path, SIZE)
    assert read_part(tmp_path, "passages", 1).equals(read_part(folder, "passages", 1))
    assert np.array_equal(np.load(tmp_path / "corpus.npy"), np.load(folder / "corpus.npy"))


def test_both_sides_get_the_same_vectors(folder: Path) -> None:
    texts, corpus = pl.read_parquet(folder / "texts.parquet"), np.load(folder / "corpus.npy")
    passages = pl.concat(read_part(folder, "passages", n) for n in range(2))
    assert passages.height == 600
    assert texts["text"].is_unique().all()
    vectors = pl.concat(read_part(folder, "passage_vectors", n) for n in range(2))
    stored = texts.join(passages.unique("text"), on="text", maintain_order="left").join(
        vectors, on="text_hash", maintain_order="left"
    )
    assert np.array_equal(stored["vector"].to_numpy(), corpus)
    queries = pl.concat(read_part(folder, "queries", n) for n in range(3))
    asked = pl.concat(read_part(folder, "query_vectors", n) for n in range(3))
    ordered = queries.join(asked, on="text_hash", maintain_order="left")
    assert np.array_equal(ordered["vector"].to_numpy(), np.load(folder / "queries.npy"))
    pairs = pl.read_parquet(folder / "pairs.parquet")
    assert pairs.height == 44
    assert pairs["anchor"].unique(maintain_order=True).equals(queries["text"].alias("anchor"))


def test_each_difference_has_a_reason(folder: Path, tmp_path: Path) -> None:
    queries = pl.concat(read_part(folder, "queries", n) for n in range(3))
    texts = pl.read_parquet(folder / "texts.parquet")
    first = queries.sort("query_id")
    names = dict(zip(texts["doc_id"], texts["text"], strict=True))
    docs = texts["doc_id"].to_list()[:4]
    ours = dict.fromkeys(first["query_id"], docs[:2])
    theirs = {**ours, "q000001": [docs[0], docs[2]], "q000002": [docs[0], docs[3]], "q000003": docs[1::-1]}
    rows = [
        ("generated", query, doc, "", "", "", "dense", n + 1, 0.5) for query in ours for n, doc in enumerate(docs[:2])
    ]
    from tasks import schemas

    pool = pl.DataFrame(rows, schema=schemas.CANDIDATES.columns, orient="row")
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    pool.write_parquet(tmp_path / "ours" / "candidates.parquet")
    pool.select(*schemas.NEGATIVES.columns).write_parquet(tmp_path / "ours" / "negatives.parquet")
    masked = [("mine", f"generated/q000001/{docs[2]}", "same_text_as_candidate", "")]
    pl.DataFrame(masked, schema=schemas.REJECTS.columns, orient="row").write_parquet(
        tmp_path / "ours" / "rejects.parquet"
    )
    asked = dict(queries.select("query_id", "text").iter_rows())
    triplets = [(asked[query], names[doc]) for query, picked in theirs.items() for doc in picked]
    pl.DataFrame(triplets, schema=["anchor", "negative"], orient="row").write_parquet(
        tmp_path / "theirs" / "triplets.parquet"
    )
    assert compare(folder, tmp_path / "ours", tmp_path / "theirs") == {
        "equal_share": round(37 / 40, 4),
        "queries": 40,
        "differences": {"copy": 1, "rounding": 1, "window": 1},
    }


def test_the_published_figures_say_what_was_measured() -> None:
    figures = json.loads(RESULT.read_text(encoding="utf-8"))
    assert {"speedup", "memory_ratio", "faiss_speedup", "faiss_memory_ratio", "gemm_share"} <= figures.keys()
    assert figures["differences"].get("unexplained", 0) == 0
    assert figures["faiss_memory_ratio"] <= 1.1 or figures["note"]
