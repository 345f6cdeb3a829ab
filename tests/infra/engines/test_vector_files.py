"""Vectors from files: found by id or by hash, scaled to length 1, and every fault named."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from infra.engines.kinds import build_engine, kind_of
from infra.engines.specs import VectorsSpec
from infra.engines.vector_files import VectorFilesEngine
from infra.stages.part_keys import semantic


def _keys(*ids: str, dataset: str = "d") -> pl.DataFrame:
    return pl.DataFrame({"dataset": [dataset] * len(ids), "id": ids, "text_hash": [f"h-{one}" for one in ids]})


def _write(folder: Path, stem: str = "passages", **columns: Any) -> Path:
    pl.DataFrame(columns).write_parquet(folder / f"{stem}.parquet")
    return folder


def _find(folder: Path, keys: pl.DataFrame, role: Any = "passage") -> list[list[float]]:
    engine = VectorFilesEngine(VectorsSpec(model=str(folder), digest="d"))
    try:
        found: list[list[float]] = engine.find(keys, role).to_list()
        return found
    finally:
        engine.close()


def test_vectors_are_found_by_id_in_the_order_that_is_asked_for_and_have_length_one(tmp_path: Path) -> None:
    _write(tmp_path, id=["a", "b", "c"], vector=[[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    found = np.array(_find(tmp_path, _keys("b", "a", "b", "c")))
    assert np.allclose(found, [[0, 1], [0.6, 0.8], [0, 1], [0, 0]])


def test_vectors_that_have_length_one_stay_as_they_are_to_the_last_bit(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 64))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    ids = [str(n) for n in range(20)]
    _write(tmp_path, id=ids, vector=pl.Series(unit, dtype=pl.Array(pl.Float32, 64)))
    assert np.array_equal(np.array(_find(tmp_path, _keys(*ids)), dtype=np.float32), unit)


def test_queries_and_passages_have_files_of_their_own(tmp_path: Path) -> None:
    _write(tmp_path, id=["a"], vector=[[1.0, 0.0]])
    _write(tmp_path, "queries", id=["a"], vector=[[0.0, 1.0]])
    assert _find(tmp_path, _keys("a"), "query") == [[0.0, 1.0]]
    assert _find(tmp_path, _keys("a")) == [[1.0, 0.0]]


def test_a_hash_or_a_dataset_may_name_a_text_too(tmp_path: Path) -> None:
    _write(tmp_path, text_hash=["h-b", "h-a"], vector=[[0.0, 1.0], [1.0, 0.0]])
    assert _find(tmp_path, _keys("a")) == [[1.0, 0.0]]
    _write(tmp_path, dataset=["e", "d"], id=["a", "a"], vector=[[0.0, 1.0], [1.0, 0.0]])
    assert _find(tmp_path, _keys("a")) == [[1.0, 0.0]]
    assert _find(tmp_path, _keys("a", dataset="e")) == [[0.0, 1.0]]


@pytest.mark.parametrize(("ending", "names"), [("ids", ["a", "b"]), ("hashes", ["h-a", "h-b"])])
def test_a_matrix_has_its_keys_beside_it(tmp_path: Path, ending: str, names: list[str]) -> None:
    np.save(tmp_path / "passages.npy", np.array([[1, 0], [0, 2]], dtype=np.float16))
    (tmp_path / f"passages.{ending}.txt").write_text("\n".join(names) + "\n")
    assert _find(tmp_path, _keys("b", "a")) == [[0.0, 1.0], [1.0, 0.0]]


def test_a_file_of_many_batches_is_read_whole(tmp_path: Path) -> None:
    count = 25_000
    vectors = pl.Series(np.eye(4, dtype=np.float32)[np.arange(count) % 4], dtype=pl.Array(pl.Float32, 4))
    pl.DataFrame({"id": pl.Series(range(count)), "vector": vectors}).write_parquet(tmp_path / "passages.parquet")
    assert _find(tmp_path, _keys("24999", "12346")) == [[0, 0, 0, 1], [0, 0, 1, 0]]


def test_nothing_of_it_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    _find(_write(tmp_path, id=["a"], vector=[[1.0]]), _keys("a"))
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"], "vector": [[1.0]]}, r"1 of 2 texts have no vector \(first: b\); add them to the file"),
        ({"id": ["a", "a"], "vector": [[1.0], [1.0]]}, "keys that are there once expected, a is there several times"),
        ({"id": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}, "vectors of one length expected, got lengths 1, 2"),
        ({"id": ["a", "b"], "vector": [[1.0], None]}, "vectors of one length expected, got lengths 1, None"),
        ({"id": ["a", "b"], "vector": [[1.0], [float("nan")]]}, r"finite numbers expected, the vector of \('b',\)"),
        ({"id": ["a", "b"], "vector": ["x", "y"]}, "lists of numbers expected in the column 'vector', got String"),
        ({"id": ["a"], "emb": [[1.0]]}, "columns `vector`, and `id` or `text_hash`, expected, it has id, emb"),
        (
            {"id": pl.Series([], dtype=pl.String), "vector": pl.Series([], dtype=pl.List(pl.Float32))},
            "the file is empty",
        ),
    ],
)
def test_files_that_cannot_be_used_are_refused_with_the_reason(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"passages.parquet: .*{message}"):
        _find(_write(tmp_path, **columns), _keys("a", "b"))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder with files of vectors expected"):
        build_engine(VectorsSpec(model=str(tmp_path / "none"), digest="d"))
    with pytest.raises(ValueError, match=r"passages.parquet expected, or passages.npy; neither is there"):
        _find(tmp_path, _keys("a"))
    (tmp_path / "passages.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"passages.parquet: a parquet file expected"):
        _find(tmp_path, _keys("a"))
    (tmp_path / "passages.parquet").unlink()
    np.save(tmp_path / "passages.npy", np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"expected in one of passages.ids.txt, passages.hashes.txt, got 0"):
        _find(tmp_path, _keys("a"))
    (tmp_path / "passages.ids.txt").write_text("a\n")
    with pytest.raises(ValueError, match="2 vectors expected, one per key, got 1 keys"):
        _find(tmp_path, _keys("a"))
    np.save(tmp_path / "passages.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="a matrix of numbers expected"):  # a pickle is not loaded
        _find(tmp_path, _keys("a"))
    np.save(tmp_path / "passages.npy", np.ones(2))
    with pytest.raises(ValueError, match=r"a matrix of floats expected, got float64 of shape \(2,\)"):
        _find(tmp_path, _keys("a"))


def test_the_path_is_in_no_key_and_the_content_is() -> None:
    spec = VectorsSpec(model="/here", digest="d1")
    assert (
        semantic(spec)
        == semantic(VectorsSpec(model="/there", digest="d1"))
        != semantic(VectorsSpec(model="/here", digest="d2"))
    )
    assert kind_of(spec).does == "encode"
