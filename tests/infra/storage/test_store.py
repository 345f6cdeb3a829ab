"""The store, in a directory and behind two S3 servers: written once, read back whole, errors that say what to do."""

import errno
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.storage.store import Entry, Store, StoreError, entry_of
from tests.conftest import ACCESS_KEY, SECRET_KEY, free_port, require_binary, stop, wait_for_http
from tests.infra.frozen import can_be_changed


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


# Without moto: on a busy machine its server lets two writers win, because it looks and writes in two steps.
@pytest.mark.parametrize("store_url", ["directory", "seaweedfs"], indirect=True)
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


@pytest.fixture
def directory(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def path_of(store: Store, key: str) -> Path:
    return Path(store.url) / key


def test_a_store_that_is_only_read_is_not_probed_and_a_new_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[str] = []
    create = Store.create

    def note(self: Store, key: str, data: bytes) -> bool:
        created.append(key.partition("/")[0])
        return create(self, key, data)

    monkeypatch.setattr(Store, "create", note)
    Store.open(str(tmp_path / "store"), write=False)
    assert created == ["probe", "probe", "FORMAT.json"]
    Store.open(str(tmp_path / "store"), write=False)
    assert len(created) == 3
    Store.open(str(tmp_path / "store"))
    assert created[3:] == ["probe", "probe"]


@pytest.mark.parametrize("content", ["[]", "1", '{"version": 1}', '{"format": "1"}', '{"format": 0}'])
def test_a_format_that_is_not_ours_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "FORMAT.json").write_text(content)
    with pytest.raises(StoreError, match="found, this version reads 1; use another store path"):
        Store.open(str(tmp_path))


def test_the_last_bytes_of_an_object_are_read_alone(store_url: str) -> None:
    store = Store(store_url)
    store.create("a", b"0123456789")
    assert store.read("a", last=3) == b"789"
    assert store.read("a", last=20) == b"0123456789"


def test_objects_manifests_and_models_are_read_from_the_trash_and_other_keys_are_not(directory: Store) -> None:
    for key in ("objects/aa/aa", "parts/s/a-000.json", "models/a.json", "weights/a.json", "curations/a/b.json"):
        directory.create(f"trash/{key}", b"{}")
    assert [directory.read(key) for key in ("objects/aa/aa", "parts/s/a-000.json")] == [b"{}", b"{}"]
    assert [directory.read(key) for key in ("models/a.json", "weights/a.json")] == [b"{}", b"{}"]
    assert directory.read("curations/a/b.json") is None


def test_an_object_is_found_in_its_place_before_the_trash(directory: Store) -> None:
    key = directory.put_object(b"content", "")
    assert directory.find(key) == (key, 7)
    directory.move(key, f"trash/{key}")
    assert directory.find(key) == directory.find_object(key) == (f"trash/{key}", 7)
    directory.delete(f"trash/{key}")
    assert directory.find(key) is None
    with pytest.raises(StoreError, match=f"object {key} is missing; rerun its part"):
        directory.find_object(key)
    with pytest.raises(StoreError, match=r"'FORMAT\.json' is no object"):
        directory.find_object("FORMAT.json")


def test_a_listing_has_sizes_and_times_and_no_temporary_files_folders_or_links_to_folders(directory: Store) -> None:
    directory.create("a/one", b"12345")
    directory.create("a/.two.tmp", b"half")
    path_of(directory, "a/empty").mkdir()
    path_of(directory, "a/link").symlink_to(path_of(directory, "a"))
    path_of(directory, "a/two").symlink_to(path_of(directory, "a/one"))
    assert sorted(directory.sizes("a")) == ["a/one", "a/two"]
    assert directory.sizes("a")["a/one"] == 5
    assert abs(directory.entries("a")["a/one"].written - time.time()) < 60
    assert (directory.holds("a"), directory.holds("b")) == (True, False)


@pytest.mark.parametrize("damaged", [b"cont", b"contend"], ids=["cut short", "changed"])
def test_an_object_that_is_damaged_is_written_again_and_a_whole_one_is_not(directory: Store, damaged: bytes) -> None:
    key = directory.put_object(b"content", ".txt")
    assert key.endswith(".txt")
    inode = path_of(directory, key).stat().st_ino
    assert directory.put_object(b"content", ".txt") == key
    assert path_of(directory, key).stat().st_ino == inode
    path_of(directory, key).write_bytes(damaged)
    assert directory.put_object(b"content", ".txt") == key
    assert directory.get_object(key) == b"content"
    assert [path for path in path_of(directory, key).parent.iterdir() if path.suffix == ".tmp"] == []


def test_only_temporary_files_older_than_an_hour_are_swept_away(directory: Store) -> None:
    folder = path_of(directory, "objects/ab")
    folder.mkdir(parents=True)
    for name, age in ((".old.1.tmp", 3700), (".older.2.tmp", 9000), (".young.3.tmp", 3500), ("kept.tmp", 9000)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age, time.time() - age))
    assert directory.sweep() == 2
    assert sorted(path.name for path in folder.iterdir()) == [".young.3.tmp", "kept.tmp"]


def test_a_copy_is_made_once_and_from_the_trash_too(directory: Store) -> None:
    key = directory.put_object(b"content", "")
    assert directory.copy_object(key, "published/a") == 7
    inode = path_of(directory, "published/a").stat().st_ino
    assert directory.copy_object(key, "published/a") == 7
    assert path_of(directory, "published/a").stat().st_ino == inode
    directory.move(key, f"trash/{key}")
    assert directory.copy_object(key, "published/b") == 7
    assert directory.read("published/b") == b"content"
    directory.replace(f"trash/{key}", b"damaged")
    with pytest.raises(StoreError, match="is damaged; rerun its part"):
        directory.copy_object(key, "published/c")
    assert not directory.exists("published/c")


def test_a_link_is_made_moved_and_removed(directory: Store) -> None:
    for number in ("000001", "000002"):
        directory.create(f"published/nq/{number}/a", number.encode())
    link = path_of(directory, "published/nq/current")
    directory.link("published/nq/current", None)  # none there: no error
    directory.link("published/nq/current", "000001")
    first = link.lstat().st_ino
    directory.link("published/nq/current", "000001")
    assert link.lstat().st_ino == first
    directory.link("published/nq/current", "000002")
    assert (link / "a").read_bytes() == b"000002"
    directory.link("published/nq/current", None)
    assert not link.is_symlink()


def test_folders_and_objects_that_are_gone_already_are_no_error(directory: Store) -> None:
    directory.create("a/b/c", b"1")
    directory.delete("a/b/none")
    directory.delete_folder("a")
    directory.delete_folder("a")
    assert directory.list("a") == []
    assert (directory.size("a/b/c"), directory.exists("a/b/c")) == (None, False)


def test_an_object_can_be_replaced_where_there_was_none(directory: Store) -> None:
    directory.replace("new/folder/latest.json", b"1")
    directory.replace("new/folder/latest.json", b"22")
    assert (directory.read("new/folder/latest.json"), directory.size("new/folder/latest.json")) == (b"22", 2)


def test_an_object_is_swapped_only_while_it_is_what_it_was(store_url: str) -> None:
    store = Store.open(store_url)
    assert store.swap("a/latest.json", b"1", None) is True
    assert store.swap("a/latest.json", b"2", None) is False
    assert store.swap("a/latest.json", b"2", b"0") is False
    assert store.swap("a/latest.json", b"2", b"1") is True
    assert store.read("a/latest.json") == b"2"
    assert store.swap("a/none.json", b"2", b"1") is False
    assert store.read("a/none.json") is None


def test_a_bucket_refuses_a_swap_of_what_changed_just_before_the_write(
    s3_environment: Callable[[str], None], seaweedfs: str
) -> None:
    s3_environment(seaweedfs)
    store = Store.open(f"s3://reneg/{uuid.uuid4().hex}")
    store.create("latest.json", b"1")
    call = store._fs.call_s3

    def overtaken(method: str, **arguments: Any) -> Any:
        if method == "put_object" and arguments["Body"] == b"2":
            call("put_object", Bucket=arguments["Bucket"], Key=arguments["Key"], Body=b"3")
        return call(method, **arguments)

    store._fs.call_s3 = overtaken
    try:
        assert store.swap("latest.json", b"2", b"1") is False
    finally:
        del store._fs.call_s3
    assert store.read("latest.json") == b"3"


def test_a_directorys_failures_are_raised_at_once(directory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def fail(path: str, **_: object) -> bytes:
        calls.append(path)
        raise ConnectionResetError("as a network share may")

    monkeypatch.setattr(directory._fs, "cat_file", fail)
    with pytest.raises(StoreError, match="cannot read a: ConnectionResetError"):
        directory.read("a")
    assert len(calls) == 1


def test_entries_of_files_and_of_buckets_have_the_same_times() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    assert entry_of({"size": 5, "mtime": moment.timestamp()}).written == moment.timestamp()
    assert entry_of({"size": 5, "LastModified": moment}).written == moment.timestamp()
    assert (entry_of({}).size, entry_of({}).written) == (0, 0.0)


def test_an_entry_of_a_listing_cannot_be_changed() -> None:
    assert not can_be_changed(Entry(1, 2.0))


def s3_error(kind: type[OSError], code: str = "") -> OSError:
    """An error as s3fs raises it from what botocore answered."""
    error, cause = kind("refused"), Exception(code)
    cause.response = {"Error": {"Code": code}}  # type: ignore[attr-defined]
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "mark", "created"),
    [
        (s3_error(OSError, "PreconditionFailed"), "another", False),
        (s3_error(OSError, "PreconditionFailed"), "mine", True),
        (s3_error(OSError, "412"), "another", False),
        (FileExistsError("there"), "another", False),
        (FileExistsError("there"), "mine", True),
        (FileNotFoundError("the upload"), "mine", True),
    ],
)
def test_a_bucket_that_refuses_a_write_is_asked_whose_mark_is_there(
    s3_environment: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, error: OSError, mark: str, created: bool
) -> None:
    s3_environment("http://127.0.0.1:9")
    store = Store("s3://bucket/store")
    assert (store.local, store._fs.retries) == (False, 1)

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store._fs, "pipe_file", refuse)
    monkeypatch.setattr(store, "_writer_of", lambda key: mark)
    assert store._create_object("a", b"1", "mine") is created


@pytest.mark.parametrize(
    ("error", "mark"),
    [
        (s3_error(OSError, "AccessDenied"), "mine"),
        (FileNotFoundError("no bucket"), "another"),
        (OSError("odd"), "mine"),
    ],
)
def test_a_bucket_that_fails_otherwise_is_an_error(
    s3_environment: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, error: OSError, mark: str
) -> None:
    s3_environment("http://127.0.0.1:9")
    store = Store("s3://bucket/store")

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store._fs, "pipe_file", refuse)
    monkeypatch.setattr(store, "_writer_of", lambda key: mark)
    with pytest.raises(type(error)):
        store._create_object("a", b"1", "mine")
