"""Files go into the store and come out in pieces; whatever is wrong with one is told, and the wrong file is removed."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from infra.storage import large_files
from infra.storage.large_files import end_uploads, get_file, get_files, place_file, put_file
from infra.storage.store import Store, StoreError

MISSING = f"objects/00/{'0' * 64}"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_files, "_PIECE", 5 * 2**20)  # the smallest that S3 takes


def test_a_file_of_several_pieces_comes_back_whole_under_the_key_of_its_bytes(store_url: str, tmp_path: Path) -> None:
    store = Store.open(store_url)
    content = b"0123456789abcdef" * (700 * 1024) + b"end"  # two whole pieces and a bit
    (tmp_path / "big").write_bytes(content)
    key = put_file(store, tmp_path / "big", ".bin")
    digest = hashlib.sha256(content).hexdigest()
    assert key == f"objects/{digest[:2]}/{digest}.bin" == store.put_object(content, ".bin")
    get_file(store, key, tmp_path / "new" / "folder" / "back")
    assert (tmp_path / "new" / "folder" / "back").read_bytes() == content


def test_an_empty_file_is_a_file(store_url: str, tmp_path: Path) -> None:
    store = Store.open(store_url)
    (tmp_path / "empty").touch()
    get_file(store, put_file(store, tmp_path / "empty"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_what_is_in_the_store_is_not_written_again_unless_it_was_cut_short(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "file").write_bytes(b"content")
    key = put_file(store, tmp_path / "file")
    written = (tmp_path / "store" / key).stat().st_ino
    assert put_file(store, tmp_path / "file") == key
    assert (tmp_path / "store" / key).stat().st_ino == written
    store.repair(key, b"cut")
    assert put_file(store, tmp_path / "file") == key
    assert store.get_object(key) == b"content"


def test_a_file_of_ours_is_taken_by_a_local_store_as_it_is(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "file").write_bytes(b"content")
    key = put_file(store, tmp_path / "file", ours=True)
    assert (tmp_path / "store" / key).stat().st_ino == (tmp_path / "file").stat().st_ino
    assert put_file(store, tmp_path / "file", ours=True) == key
    (tmp_path / "file").unlink()
    assert store.get_object(key) == b"content"
    store.repair(key, b"cut")
    (tmp_path / "again").write_bytes(b"content")
    assert put_file(store, tmp_path / "again", ours=True) == key
    assert store.get_object(key) == b"content"
    assert [path for path in (tmp_path / "store").rglob("*.tmp")] == []


def test_a_file_of_ours_on_another_file_system_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.setattr(large_files, "link_file", lambda source, target: False)
    key = put_file(store, tmp_path / "file", ours=True)
    assert (tmp_path / "store" / key).stat().st_ino != (tmp_path / "file").stat().st_ino
    assert store.get_object(key) == b"content"


def test_an_object_is_placed_once_and_again_where_somebody_changed_the_file(store_url: str, tmp_path: Path) -> None:
    store, path = Store.open(store_url), tmp_path / "out" / "file"
    first, second = (store.put_object(content, "") for content in (b"content", b"another"))
    assert place_file(store, first, path)
    assert path.read_bytes() == b"content"
    assert not place_file(store, first, path)
    path.write_bytes(b"changed")  # it has the size of the object
    assert store.get_object(first) == b"content"
    assert place_file(store, first, path)
    assert path.read_bytes() == b"content"
    path.write_bytes(b"longer than the object")
    assert place_file(store, second, path)
    assert path.read_bytes() == b"another"
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_only_what_nothing_can_bring_back_is_waited_for_until_it_is_on_the_disk(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, waited = Store.open(store_url), list[int]()
    key = store.put_object(b"content", "")
    monkeypatch.setattr(os, "fsync", waited.append)
    assert place_file(store, key, tmp_path / "placed")
    assert waited == []
    get_file(store, key, tmp_path / "kept")
    assert len(waited) == 1
    assert (tmp_path / "placed").read_bytes() == (tmp_path / "kept").read_bytes() == b"content"


def test_a_damaged_object_replaces_no_file(tmp_path: Path) -> None:
    store, path = Store.open(str(tmp_path / "store")), tmp_path / "file"
    key = store.put_object(b"content", "")
    store.repair(key, b"damaged")
    path.write_bytes(b"old")
    with pytest.raises(StoreError, match="is damaged"):
        place_file(store, key, path)
    assert [(found.name, found.read_bytes()) for found in tmp_path.glob("file*")] == [("file", b"old")]


def test_a_file_that_is_changed_while_it_is_stored_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path / "store"))
    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.setattr(large_files, "sha256_of", lambda path: "0" * 64)  # as it was when it was hashed
    with pytest.raises(StoreError, match="file was changed while it was stored"):
        put_file(store, tmp_path / "file")
    assert store.list("objects") == []


def test_an_object_in_the_trash_is_still_read(store_url: str, tmp_path: Path) -> None:
    store = Store.open(store_url)
    key = store.put_object(b"content", "")
    store.move(key, f"trash/{key}")
    get_file(store, key, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


def test_what_is_missing_damaged_or_no_object_is_told(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    with pytest.raises(StoreError, match=f"object {MISSING} is missing; rerun its part"):
        get_file(store, MISSING, tmp_path / "back")
    with pytest.raises(StoreError, match=r"'FORMAT\.json' is no object"):
        get_file(store, "FORMAT.json", tmp_path / "back")
    key = store.put_object(b"content", "")
    store.repair(key, b"another")
    with pytest.raises(StoreError, match=f"object {key} is damaged"):
        get_file(store, key, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_files_are_written_below_their_folder_and_names_that_cannot_be_are_told(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    keys = [store.put_object(data, "") for data in (b"one", b"two")]
    get_files(store, {"a": keys[0], "deep/er/b": keys[1]}, tmp_path / "out", "directory sum")
    assert (tmp_path / "out" / "a").read_bytes() == b"one"
    assert (tmp_path / "out" / "deep" / "er" / "b").read_bytes() == b"two"
    with pytest.raises(StoreError, match=r"directory sum: file name '\.\./a' would leave its folder"):
        get_files(store, {"../a": keys[0]}, tmp_path / "out", "directory sum")
    with pytest.raises(StoreError, match="directory sum: 'x/y' lies below another file"):
        get_files(store, {"x": keys[0], "x/y": keys[1]}, tmp_path / "again", "directory sum")
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / "Case").write_text("written under another spelling")
    with pytest.raises(StoreError, match="directory sum: 'Case' is the same file as another name on this file system"):
        get_files(store, {"Case": keys[0]}, tmp_path / "same", "directory sum")
    get_files(store, {}, tmp_path / "none", "directory sum")
    assert list((tmp_path / "none").iterdir()) == []


def test_uploads_that_killed_writers_left_in_a_bucket_are_ended_when_they_are_old(store_url: str) -> None:
    store = Store.open(store_url)
    assert end_uploads(store, 0.0) == 0
    if store.local:
        return
    bucket, prefix, _ = store._fs.split_path(store._path(""))
    for key in (f"{prefix}/objects/a", f"{prefix}2/objects/b"):
        store._fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    assert end_uploads(store, 3600.0) == 0
    time.sleep(1.1)  # S3 tells when an upload began in whole seconds
    assert (end_uploads(store, 0.5), end_uploads(store, 0.5)) == (1, 0)
