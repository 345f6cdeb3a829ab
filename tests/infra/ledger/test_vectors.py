"""Vectors are remembered by text hash, exactly; they are forgotten with their text and dropped with their encoder."""

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from infra.ledger.compaction import Compaction
from infra.ledger.ledger import Ledger
from infra.ledger.names import VECTORS
from infra.ledger.vectors import Vectors, compact_vectors, drop_unused, forget_vectors, stats_of_vectors
from infra.storage.store import Store
from tests.infra.ledger.rows import Counted, hashed


def embeddings(count: int, start: int = 0, dimension: int = 24) -> pl.DataFrame:
    """Vectors with every kind of float32 among them."""
    texts = [hashed(f"text {n}") for n in range(start, start + count)]
    matrix = np.stack([np.random.default_rng(n).normal(size=dimension) for n in range(start, start + count)])
    matrix[0, :3] = (-0.0, 1e-42, 3.4e38)
    series = pl.Series(matrix.astype(np.float32), dtype=pl.Array(pl.Float32, dimension))
    return pl.DataFrame({"text_hash": texts, "vector": series})


def keep(store: Store, rows: pl.DataFrame, encoder: str = "e", origin: str = "") -> None:
    with Vectors(store, encoder, 1, origin) as vectors:
        vectors.remember("passage", rows)


def bits(rows: pl.DataFrame | None) -> list[tuple[str, bytes]]:
    assert rows is not None
    return [(text, np.array(vector, np.float32).tobytes()) for text, vector in rows.sort("text_hash").rows()]


@pytest.mark.parametrize("count", [3, 900])
def test_vectors_come_back_bit_by_bit(store_url: str, count: int) -> None:
    store, rows = Store.open(store_url), embeddings(count)
    keep(store, rows, origin="o")
    with Vectors(Store(store_url), "e", 1) as vectors:
        asked = pl.concat([rows["text_hash"].head(count // 2), pl.Series(["ff" * 16])])
        found = vectors.recall("passage", asked)
        assert bits(found) == bits(rows.head(count // 2))
        assert found is not None
        assert found.schema == rows.schema
        assert vectors.recalled == {"o": count // 2}


@pytest.mark.parametrize("count", [3, 129, 5000])
def test_a_segment_has_the_bytes_that_the_ledger_writes_of_the_same_rows(tmp_path: Path, count: int) -> None:
    rows, stores = embeddings(count), [Store.open(str(tmp_path / name)) for name in "ab"]
    with Vectors(stores[0], "e", 1, "o", 0, lambda: 7.0) as vectors:
        vectors.remember("passage", rows)
    with Ledger(stores[1], "o", 0, lambda: 7.0, root=VECTORS) as ledger:
        ledger.remember("e-passage-1", ((text, (text,), vector) for text, vector in bits(rows)))
    found = [store.sizes(VECTORS) for store in stores]
    assert found[0] == found[1]
    assert len(found[0]) == 1


def test_what_is_no_hash_is_refused_and_nothing_is_no_segment(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    with Vectors(store, "e", 1) as vectors:
        with pytest.raises(ValueError, match=r"subject 'text one' is no hash"):
            vectors.remember("query", embeddings(1).with_columns(text_hash=pl.lit("text one")))
        vectors.remember("query", embeddings(1).clear())
    assert stats_of_vectors(store) == {}


def test_another_role_encoder_or_version_knows_nothing(tmp_path: Path) -> None:
    store, rows = Store.open(str(tmp_path)), embeddings(5)
    keep(store, rows)
    assert Vectors(store, "e", 1).recall("query", rows["text_hash"]) is None
    assert Vectors(store, "f", 1).recall("passage", rows["text_hash"]) is None
    assert Vectors(store, "e", 2).recall("passage", rows["text_hash"]) is None
    assert Vectors(store, "e", 1).recall("passage", rows["text_hash"].clear()) is None


def test_the_first_vector_of_a_text_stays_until_it_is_encoded_anew(tmp_path: Path) -> None:
    store, first, second = Store.open(str(tmp_path)), embeddings(2, 0), embeddings(2, 50)
    hashes = first["text_hash"]
    keep(store, first)
    with Vectors(store, "e", 1, since=1000) as vectors:
        assert vectors.recall("passage", hashes) is None
        vectors.remember("passage", second.with_columns(text_hash=hashes))
    assert bits(Vectors(store, "e", 1, since=1000).recall("passage", hashes)) == bits(
        second.with_columns(text_hash=hashes)
    )
    assert Vectors(store, "e", 1, since=1001).recall("passage", hashes) is None
    found = Vectors(store, "e", 1).recall("passage", hashes)
    assert bits(found) == bits(second.with_columns(text_hash=hashes))


def test_the_model_that_answered_first_is_noted_for_both_roles_and_dropped_with_its_encoder(store_url: str) -> None:
    store = Store.open(store_url)
    assert Vectors(store, "e", 1).first_model("A") == "A"
    assert Vectors(Store(store_url), "e", 1).first_model("B") == "A"
    assert Vectors(store, "f", 1).first_model("B") == "B"
    keep(store, embeddings(3))
    assert list(stats_of_vectors(store)) == ["e-passage-1"]
    assert compact_vectors(store) == Compaction(0, 0)
    assert forget_vectors(store, [embeddings(3)["text_hash"][0]]).damaged == 0
    assert drop_unused(store, {"f"}, 0.0) == 1
    assert Vectors(store, "f", 1).first_model("C") == "B"
    assert Vectors(store, "e", 1).first_model("C") == "C"


def test_vectors_of_several_dimensions_are_refused(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    keep(store, embeddings(2, 0, dimension=4))
    keep(store, embeddings(2, 5, dimension=6))
    hashes = pl.concat([embeddings(2)["text_hash"], embeddings(2, 5)["text_hash"]])
    with pytest.raises(ValueError, match=r"vectors of \[4, 6\] dimensions"):
        Vectors(store, "e", 1).recall("passage", hashes)


def test_texts_that_are_not_known_cost_little_to_look_up(tmp_path: Path) -> None:
    keep(Store.open(str(tmp_path)), embeddings(4000, dimension=384))
    store = Counted(str(tmp_path))
    whole = sum(store.sizes("vectors").values())
    unknown = pl.Series([hashed(f"unknown {n}") for n in range(200)])
    assert Vectors(store, "e", 1).recall("passage", unknown) is None
    assert store.bytes_read < whole / 50
    known = embeddings(3, 1000, dimension=384)["text_hash"]
    found = Vectors(store, "e", 1).recall("passage", known)
    assert found is not None
    assert found.height == 3
    assert store.bytes_read < whole / 10


def test_a_purged_text_has_no_vector_left(store_url: str) -> None:
    store, rows = Store.open(store_url), embeddings(400)
    keep(store, rows)
    keep(store, rows.head(5), "f")
    assert forget_vectors(store, [rows["text_hash"][3]], dry_run=True).rows == 2
    assert forget_vectors(store, [rows["text_hash"][3]]).rows == 2
    assert forget_vectors(store, [rows["text_hash"][3]]).rows == 0
    assert {name: stats.rows for name, stats in stats_of_vectors(store).items()} == {
        "e-passage-1": 399,
        "f-passage-1": 4,
    }
    found = Vectors(store, "e", 1).recall("passage", rows["text_hash"])
    assert bits(found) == bits(rows.filter(pl.col("text_hash") != rows["text_hash"][3]))


def test_small_segments_are_merged_and_stay_where_they_are(tmp_path: Path) -> None:
    store, rows = Store.open(str(tmp_path)), embeddings(80)
    for start in range(0, 80, 10):
        keep(store, rows.slice(start, 10))
    keep(store, embeddings(3), "f")
    assert compact_vectors(store) == Compaction(8, 1)
    assert [key.split("/")[:3] for key in store.list("vectors/e-passage-1")] == [["vectors", "e-passage-1", "new"]]
    assert bits(Vectors(store, "e", 1).recall("passage", rows["text_hash"])) == bits(rows)
    assert compact_vectors(store) == Compaction(0, 0)


def test_vectors_of_an_encoder_that_nobody_uses_are_dropped_once_they_are_old(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for encoder in ("used", "unused"):
        keep(store, embeddings(3), encoder)
    assert drop_unused(store, {"used"}, 3600.0) == 0
    time.sleep(0.01)
    assert drop_unused(store, {"used"}, 0.0) == 1
    assert list(stats_of_vectors(store)) == ["used-passage-1"]
