import io
from pathlib import Path

import polars as pl
import pytest

from infra.storage.purge import Target, forget_rows
from infra.storage.store import Store, StoreError

HASH, OTHER = "ab" * 16, "cd" * 16
TEXT = "a sentence that is long enough to be sought"


def write(store: Store, name: str, *rows: tuple[str, str]) -> None:
    buffer = io.BytesIO()
    pl.DataFrame(rows, schema=["text_hash", "comment"], orient="row").write_parquet(buffer)
    store.create(f"labels/{name}.parquet", buffer.getvalue())


def rows(store: Store) -> list[tuple[str, str]]:
    return sorted(row for key in store.list("labels") for row in pl.read_parquet(store.read(key) or b"").rows())


def test_rows_that_name_or_hold_the_text_go_and_the_others_stay(tmp_path: Path, store_url: str) -> None:
    store = Store.open(store_url)
    write(store, "a", (HASH, ""), (OTHER, ""), (OTHER, f"see: {TEXT}"))
    write(store, "b", (HASH, ""))
    write(store, "c", (OTHER, "kept"))
    target = Target(frozenset({HASH}), frozenset({TEXT}))
    before = rows(store)
    assert (forget_rows(store, target, dry_run=True), rows(store)) == (3, before)
    assert forget_rows(store, target) == 3
    assert rows(store) == [(OTHER, ""), (OTHER, "kept")]
    assert forget_rows(store, target) == 0


def test_a_damaged_table_goes_for_nobody_can_say_what_it_holds(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    store.create("labels/damaged.parquet", b"PAR1 cut short")
    assert forget_rows(store, Target(frozenset({HASH}), frozenset())) == 1
    assert store.list("labels") == []


def test_what_stays_is_written_before_the_old_table_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path / "store"))
    write(store, "a", (HASH, ""), (OTHER, ""))
    target = Target(frozenset({HASH}), frozenset())

    def die(self: Store, key: str) -> None:
        raise StoreError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", die)
        with pytest.raises(StoreError, match="killed here"):
            forget_rows(store, target)
    assert (OTHER, "") in rows(store)
    assert forget_rows(store, target) == 1
    assert set(rows(store)) == {(OTHER, "")}
