"""The store, in a directory and behind two S3 servers: written once, read back whole, errors that say what to do."""

import errno
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.storage.store import Store, StoreError
from tests.conftest import ACCESS_KEY, SECRET_KEY, free_port, require_binary, stop, wait_for_http


@pytest.fixture(params=["directory", "seaweedfs", "moto"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, s3_environment: Callable[[str], None]) -> str:
    """A fresh store: in a local directory, and in a bucket of each of two S3 servers of different authors."""
    if request.param == "directory":
        return str(tmp_path / "store")
    s3_environment(request.getfixturevalue(request.param))
    return f"s3://reneg/{uuid.uuid4().hex}"


def test_what_was_created_is_read_back_and_never_overwritten(store_url: str) -> None:
    store = Store.open(store_url)
    assert store.create("a/b.json", b"first")
    assert not store.create("a/b.json", b"second")
    assert store.read("a/b.json") == b"first"
    assert store.read("a/none") is None


def test_listing_is_sorted_and_sees_what_was_just_written(store_url: str) -> None:
    store = Store.open(store_url)
    assert store.list("parts") == []
    store.create("parts/b.json", b"{}")
    store.create("parts/a.json", b"{}")
    assert store.list("parts") == ["parts/a.json", "parts/b.json"]


def test_of_many_racing_writers_exactly_one_wins(store_url: str) -> None:
    store = Store.open(store_url)
    wins: list[bytes] = []
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        barrier.wait()
        if store.create("parts/one", f"{number}".encode()):
            wins.append(f"{number}".encode())

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert store.read("parts/one") == wins[0]


def test_objects_are_content_addressed_and_checked_when_read(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    key = store.put_object(b"bytes", ".bin")
    assert store.put_object(b"bytes", ".bin") == key
    assert store.get_object(key) == b"bytes"
    (tmp_path / key).chmod(0o644)
    (tmp_path / key).write_bytes(b"other")
    with pytest.raises(StoreError, match="damaged"):
        store.get_object(key)


def test_a_missing_object_says_what_to_do(store_url: str) -> None:
    with pytest.raises(StoreError, match="rerun its part"):
        Store.open(store_url).get_object("objects/ab/abc.parquet")


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "FORMAT.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="format 99 found, this version reads 1"):
        Store.open(str(tmp_path))


_OUTSIDE = {
    "parent": "../outside",
    "absolute": "/etc/passwd",
    "parent further in": "a/../../b",
    "empty segment": "a//b",
    "dot": "a/./b",
    "backslash": "a\\..\\b",
    "null byte": "a\0b",
    "line break": "a\nb",
    "encoded": "a/%2e%2e/%2E%2e/b",
    "encoded twice": "a/%252e%252e/b",
    "encoded slash": "..%2foutside",
    "drive": "C:/outside",
    "trailing slash": "a/",
}


@pytest.mark.parametrize("key", _OUTSIDE.values(), ids=_OUTSIDE.keys())
def test_a_key_cannot_leave_the_store(store_url: str, key: str) -> None:
    store = Store(store_url)
    operations: list[Callable[[], object]] = [
        lambda: store.create(key, b""),
        lambda: store.read(key),
        lambda: store.list(key),
        lambda: store.holds(key),
        lambda: store.delete(key),
        lambda: store.exists(key),
        lambda: store.repair(key, b""),
        lambda: store.replace(key, b""),
        lambda: store.move("a", key),
        lambda: store.move(key, "a"),
        lambda: store.delete_folder(key),
        lambda: store.get_object(f"objects/{key}"),
    ]
    for operation in operations:
        with pytest.raises(StoreError, match="leave the store"):
            operation()


def test_what_is_no_object_is_not_read_as_one(store_url: str) -> None:
    store = Store(store_url)
    store.create("configs/secret.json", b"{}")
    with pytest.raises(StoreError, match="is no object, though a manifest names it"):
        store.get_object("configs/secret.json")


def test_a_call_knows_its_own_write_from_another_ones_though_the_bytes_are_equal(store_url: str) -> None:
    store = Store(store_url)
    assert store.create("releases/x/HEAD-000001.json", b"{}")
    assert not store.create("releases/x/HEAD-000001.json", b"{}")


def test_an_object_moves_with_the_time_of_its_move(store_url: str) -> None:
    store = Store(store_url)
    assert not store.move("a/none", "b/none")
    store.create("a/one", b"bytes")
    before = store.entries("a")["a/one"]
    time.sleep(1.1)  # servers count in seconds
    assert store.move("a/one", "trash/a/one")
    assert store.list("a") == []
    after = store.entries("trash")["trash/a/one"]
    assert (after.size, store.read("trash/a/one")) == (5, b"bytes")
    assert 1 <= after.written - before.written < 60
    assert abs(after.written - time.time()) < 60


def test_json_that_is_none_is_told_as_damage(store_url: str) -> None:
    store = Store(store_url)
    store.create("curations/x/curation.json", b'{"cut')
    with pytest.raises(StoreError, match=r"curations/x/curation\.json is damaged"):
        store.read_json("curations/x/curation.json")


def test_stores_that_probe_at_once_do_not_disturb_each_other(store_url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: Store.open(store_url), range(16)))
    assert {store.read("FORMAT.json") for store in stores} == {b'{"format": 1}'}
    assert stores[0].list("probe") == []


def test_a_file_system_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as FAT, exFAT and some network shares say

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match="has no hard links"):
        Store.open(str(tmp_path / "store"))
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        Store.open(str(tmp_path / "file" / "store"))


def test_an_address_of_no_known_kind_is_refused() -> None:
    with pytest.raises(StoreError, match="give a path or s3://"):
        Store.open("nonsense://bucket")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_written(small_disk: Path) -> None:
    store = Store.open(str(small_disk))
    store.create("parts/before", b"kept")
    with pytest.raises(StoreError, match="the disk is full; nothing half-written was kept") as caught:
        store.put_object(os.urandom(2**20), ".parquet")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert store.list("objects") == []
    assert [p for p in small_disk.rglob("*") if p.name.endswith(".tmp")] == []
    assert store.read("parts/before") == b"kept"


def test_a_bucket_that_does_not_answer_is_an_error_within_seconds(s3_environment: Callable[[str], None]) -> None:
    s3_environment(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreError, match="check the address"):
        Store.open("s3://nowhere/x")


def test_wrong_keys_are_refused(
    seaweedfs: str, s3_environment: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_environment(seaweedfs)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="cannot read FORMAT"):
        Store.open("s3://reneg/denied")


@pytest.fixture
def careless_server(tmp_path: Path) -> Iterator[str]:
    """An S3 server that accepts If-None-Match and ignores it (rclone does)."""
    rclone = require_binary("rclone")
    (tmp_path / "data" / "reneg").mkdir(parents=True)
    port = free_port()
    command = [
        str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}",
        "--config", str(tmp_path / "none.conf"), str(tmp_path / "data"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_http(f"http://127.0.0.1:{port}", process)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def test_a_server_that_ignores_create_if_absent_is_refused(
    careless_server: str, s3_environment: Callable[[str], None]
) -> None:
    s3_environment(careless_server)
    with pytest.raises(StoreError, match="only if absent"):
        Store.open("s3://reneg/store")
