"""Artifacts that were forged, cut or planted: nothing leaves the store, nothing is unpickled, and it is told."""

import hashlib
import io
import json
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyarrow import parquet

from infra.models.wheels import ModelError
from infra.storage import artifacts
from infra.storage.artifacts import (
    Directory,
    Files,
    Manifest,
    Piece,
    Table,
    commit,
    materialise,
    newest_attempts,
    place_directory,
    read_manifest,
    read_table,
    write_directory,
    write_table,
)
from infra.storage.large_files import get_files
from infra.storage.store import Store, StoreError
from tasks.schemas import Schema
from tests.infra.frozen import can_be_changed


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


_NAMES = {
    "parent": "../outside.txt",
    "parent further in": "a/../../outside.txt",
    "absolute": "/tmp/outside.txt",
    "drive": "C:\\outside.txt",
    "drive with a slash": "C:/outside.txt",
    "share": "\\\\server\\share",
    "backslashes": "..\\outside.txt",
    "null byte": "a\0.txt",
    "encoded": "%2e%2e/outside.txt",
    "empty": "",
    "here": ".",
}


@pytest.mark.parametrize("name", _NAMES.values(), ids=_NAMES.keys())
def test_a_file_of_a_forged_manifest_cannot_be_laid_out_elsewhere(store: Store, tmp_path: Path, name: str) -> None:
    directory = Directory("sum", {"good.txt": store.put_object(b"good", ""), name: store.put_object(b"bad", "")})
    with pytest.raises(StoreError, match="would leave its folder"):
        materialise(store, directory, tmp_path / "cache" / "scratch")
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "store" not in path.parts]
    assert left == []


@pytest.mark.parametrize(
    "key", ["FORMAT.json", "configs/secret.json", "../outside", "/etc/passwd", "objects/../FORMAT.json", "parts/x"]
)
def test_a_forged_manifest_cannot_name_what_is_no_object(store: Store, tmp_path: Path, key: str) -> None:
    with pytest.raises(StoreError, match=r"is no object|would leave the store"):
        materialise(store, Directory("sum", {"a": key}), tmp_path / "cache")
    with pytest.raises(StoreError, match=r"is no object|would leave the store"):
        read_table(store, Table("numbers", (Piece(0, key, 1),)))


def test_a_name_below_another_file_is_told(store: Store, tmp_path: Path) -> None:
    key = store.put_object(b"x", "")
    with pytest.raises(StoreError, match="lies below another file"):
        materialise(store, Directory("sum", {"a": key, "a/b": key}), tmp_path / "cache")


def test_a_source_holds_what_its_links_to_files_lead_to(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "snapshots" / "0123"  # as the caches of model and data hubs are made
    folder.mkdir(parents=True)
    (tmp_path / "repository" / "blobs").mkdir()
    (tmp_path / "repository" / "blobs" / "abc").write_text("{}")
    (folder / "rows.jsonl").symlink_to("../../blobs/abc")
    assert store.get_object(write_directory(store, "source", folder).files["rows.jsonl"]) == b"{}"


def test_of_a_folder_only_the_files_that_are_named_are_kept(store: Store, tmp_path: Path) -> None:
    for name in ("a", "b", "c/d"):
        (tmp_path / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rows" / name).write_text(name)
    named = [tmp_path / "rows" / "c" / "d", tmp_path / "rows" / "a", tmp_path / "rows" / "c"]
    assert list(write_directory(store, "source", tmp_path / "rows", named).files) == ["a", "c/d"]


def test_a_link_out_of_a_folder_is_refused_and_in_a_model_it_is_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "rows.jsonl").symlink_to("../secret")
    with pytest.raises(
        StoreError, match=r"source/rows\.jsonl: a link to .*/secret, outside of .*/source; put the file"
    ):
        write_directory(store, "source", folder)
    assert store.get_object(write_directory(store, "model", folder).files["rows.jsonl"]) == b"secret"


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_in_a_source_to_a_folder_or_to_nothing_is_refused(store: Store, tmp_path: Path, target: str) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "link").symlink_to(tmp_path / target)
    with pytest.raises(StoreError, match=f"a link to .*{target}, which is no file"):
        write_directory(store, "source", folder)


def test_a_source_file_that_could_not_be_laid_out_again_is_refused(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a\\b.jsonl").write_text("{}")
    with pytest.raises(StoreError, match="rename it"):
        write_directory(store, "source", folder)


@pytest.mark.parametrize("data", [b"", b'{"stage": "toy"', b"[]", b"{}", b'{"tables": {"a": [{"x": 1}]}}', b"\x80\x04"])
def test_a_manifest_that_was_cut_or_planted_is_told(store: Store, data: bytes) -> None:
    store.create("parts/toy/abc-000.json", data)
    with pytest.raises(StoreError, match=r"parts/toy/abc-000\.json is damaged .* computed again"):
        read_manifest(store, "toy", "abc", 0)


def planted(store: Store, data: bytes, suffix: str = "") -> str:
    """Plant bytes under the digest that is theirs, as somebody with write access would."""
    key = f"objects/{hashlib.sha256(data).hexdigest()[:2]}/{hashlib.sha256(data).hexdigest()}{suffix}"
    assert store.create(key, data)
    return key


def test_a_pickle_in_the_place_of_a_table_is_refused_unread(store: Store, tmp_path: Path) -> None:
    key = planted(store, pickle.dumps(Bomb(tmp_path / "exploded")), ".parquet")
    with pytest.raises(StoreError, match=r"is no parquet file .* nothing else is read"):
        read_table(store, Table("numbers", (Piece(0, key, 1),)))
    assert not (tmp_path / "exploded").exists()


def test_a_parquet_file_with_a_pickle_in_it_is_bytes(store: Store, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"n": [pickle.dumps(Bomb(tmp_path / "exploded"))]}).write_parquet(buffer)
    frame = read_table(store, Table("numbers", (Piece(0, planted(store, buffer.getvalue()), 1),)))
    assert frame.schema == {"n": pl.Binary}
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "weights.pt", "1_Pooling/model.pkl", "2_Dense/pytorch_model.bin"]
)
def test_a_model_with_pickled_weights_is_refused_before_anybody_loads_it(
    store: Store, tmp_path: Path, name: str
) -> None:
    files = {
        "config.json": store.put_object(b"{}", ""),
        name: planted(store, pickle.dumps(Bomb(tmp_path / "exploded"))),
    }
    if "/" in name:
        files["model.safetensors"] = store.put_object(b"numbers", "")
    with pytest.raises(ModelError, match="loading a pickle can run any code"):
        materialise(store, Directory("model", files), tmp_path / "cache")
    assert not (tmp_path / "exploded").exists()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
        ("modules.json", [{"type": "evil.Module", "path": ""}]),
    ],
)
def test_a_model_with_code_of_its_own_is_refused_before_anybody_loads_it(
    store: Store, tmp_path: Path, name: str, content: Any
) -> None:
    files = {
        "model.safetensors": store.put_object(b"numbers", ""),
        name: store.put_object(json.dumps(content).encode(), ""),
    }
    with pytest.raises(ModelError, match="code of its own"):
        materialise(store, Directory("model", files), tmp_path / "cache")


def test_a_manifest_is_read_as_it_was_written() -> None:
    manifest = Manifest("toy", 1, 0, "abc", 0, {"a": 1}, {"t": (Piece(0, "objects/x", 1),)}, {"d": {"n": "k"}}, {})
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_newest_attempt_of_each_key_is_found_and_a_stray_file_is_named(store: Store) -> None:
    for name in ("abc-000", "abc-001", "abc-002", "def-000", "def-010", "def-009", "ghi-000"):
        store.create(f"parts/toy/{name}.json", b"{}")
    store.create("parts/toy_other/abc-007.json", b"{}")
    assert newest_attempts(store, "toy") == {"abc": 2, "def": 10, "ghi": 0}
    assert newest_attempts(store, "never_run") == {}
    store.create("parts/toy/notes.json", b"{}")
    with pytest.raises(StoreError, match=r"parts/toy/notes\.json does not belong there .* remove it"):
        newest_attempts(store, "toy")


NUMBERS = Schema({"n": pl.Int64}, key=())


def numbers_of(store: Store, *pieces: list[int]) -> Table:
    frames = [pl.DataFrame({"n": piece}, schema={"n": pl.Int64}) for piece in pieces]
    return Table("numbers", tuple(write_table(store, "numbers", f, NUMBERS, i) for i, f in enumerate(frames)))


def test_a_table_is_read_from_all_its_pieces_in_order_and_empty_ones_do_not_matter(store: Store) -> None:
    table = numbers_of(store, [3, 1], [], [2])
    assert read_table(store, table)["n"].to_list() == [3, 1, 2]
    assert (table.rows, table.indexes, table.at(2)) == (3, {0, 1, 2}, Table("numbers", table.pieces[2:]))
    empty = read_table(store, numbers_of(store, [], []))
    assert (empty.height, empty.schema) == (0, {"n": pl.Int64})


def test_a_table_without_pieces_is_read_by_its_schema_only(store: Store) -> None:
    assert read_table(store, Table("numbers"), NUMBERS).schema == {"n": pl.Int64}
    with pytest.raises(StoreError, match="table numbers has no piece and no schema was given"):
        read_table(store, Table("numbers"))


def test_missing_pieces_count_as_indexes_and_stay_missing_in_their_part() -> None:
    table = Table("numbers", (Piece(0, "objects/aa/aa.parquet", 5),), frozenset({1, 2}))
    assert table.indexes == {0, 1, 2}
    assert table.at(1) == Table("numbers", (), frozenset({1}))
    assert table.at(0) == Table("numbers", table.pieces)
    assert table.content() == ["aa.parquet"]
    directory = Directory("sum", {"b": "objects/bb/bb", "a": "objects/aa/aa"}, frozenset({0}))
    assert (directory.indexes, directory.at(3)) == ({0}, directory)
    assert directory.content() == ["a=aa", "b=bb"]


def test_equal_frames_are_one_object_however_they_are_chunked(store: Store) -> None:
    whole = pl.DataFrame({"n": [1, 2, 3]})
    chunked = pl.concat([whole.slice(0, 1), whole.slice(1)], rechunk=False)
    assert write_table(store, "numbers", chunked, NUMBERS, 0) == write_table(store, "numbers", whole, NUMBERS, 0)
    metadata = parquet.ParquetFile(io.BytesIO(store.get_object(store.list("objects")[0]))).metadata
    column = metadata.row_group(0).column(0)
    assert (column.compression, column.is_stats_set) == ("ZSTD", True)


def test_a_frame_that_is_not_of_its_schema_is_not_written(store: Store) -> None:
    with pytest.raises(ValueError, match=r"table numbers: columns \['n'\] expected"):
        write_table(store, "numbers", pl.DataFrame({"m": [1]}), NUMBERS, 0)
    assert store.list("objects") == []


def test_a_directory_is_written_out_once_for_the_same_content(store: Store, tmp_path: Path) -> None:
    directory = Directory("sum", {"deep/a": store.put_object(b"one", "")})
    folder = materialise(store, directory, tmp_path / "cache")
    assert (folder.parent, len(folder.name)) == (tmp_path / "cache", 32)
    assert oct(folder.parent.stat().st_mode)[-3:] == "700"  # texts of sources, on a machine that others use too
    (folder / "deep" / "a").write_text("changed")
    assert materialise(store, directory, tmp_path / "cache") == folder
    assert (folder / "deep" / "a").read_text() == "changed"
    other = materialise(store, Directory("sum", {"a": directory.files["deep/a"]}), tmp_path / "cache")
    assert other != folder
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted([folder.name, other.name])


def test_of_two_processes_that_write_one_directory_out_the_second_uses_the_firsts(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Directory("sum", {"a": store.put_object(b"one", "")})
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        target.mkdir()
        (target / "a").write_bytes(b"the first's")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    folder = materialise(store, directory, tmp_path / "cache")
    assert (folder / "a").read_bytes() == b"the first's"
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_of_many_that_ask_for_one_directory_at_once_one_copies_it_and_the_others_wait(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Directory("source", {"a": store.put_object(b"one", "")})
    copied = []

    def slow(*given: Any) -> None:
        copied.append(given)
        time.sleep(0.2)
        get_files(*given)

    monkeypatch.setattr(artifacts, "get_files", slow)
    with ThreadPoolExecutor(4) as threads:
        folders = list(threads.map(lambda _: materialise(store, directory, tmp_path / "cache"), range(4)))
    assert len(copied) == 1
    assert [(folder / "a").read_bytes() for folder in folders] == [b"one"] * 4
    assert list((tmp_path / "cache").iterdir()) == folders[:1]


def test_a_part_that_another_writer_finished_first_keeps_the_first_manifest(store: Store) -> None:
    first = Manifest("toy", 1, 0, "abc", 0, {}, {}, {}, {"seconds": 1})
    second = Manifest("toy", 1, 0, "abc", 0, {}, {}, {}, {"seconds": 2})
    assert commit(store, first) == first
    assert commit(store, second) == first
    assert (str(first.name), first.path) == ("abc-000", "parts/toy/abc-000.json")
    with pytest.raises(StoreError, match="manifest of toy abc vanished between listing and reading"):
        read_manifest(store, "toy", "abc", 1)


def test_a_manifest_names_every_object_its_part_wrote() -> None:
    pieces = (Piece(0, "objects/a", 1), Piece(1, "objects/b", 1))
    manifest = Manifest(
        "toy", 1, 0, "abc", 0, {}, {"t": pieces}, {"d": {"x": "objects/c"}, "e": {"y": "objects/a"}}, {}
    )
    assert manifest.objects == {"objects/a", "objects/b", "objects/c"}


def test_artifacts_and_manifests_cannot_be_changed() -> None:
    manifest = Manifest("toy", 1, 0, "abc", 0, {}, {}, {}, {})
    values = [Piece(0, "objects/aa/aa", 1), Table("numbers"), Directory("sum"), manifest]
    assert [value for value in values if can_be_changed(value)] == []


def test_the_files_of_a_directory_are_parts_and_one_that_was_written_out_alone_is_not_copied_again(
    store: Store, tmp_path: Path
) -> None:
    source, cache = tmp_path / "source", tmp_path / "cache"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_text(f"text of {name}")
    whole = write_directory(store, "source", source)
    files = Files("source", tuple(whole.files.items()))
    assert (files.indexes, files.incomplete, files.lacks(0)) == (frozenset({0, 1}), False, False)
    assert files.at(1) == Directory("source", {"b": whole.files["b"]})
    assert files.content() == whole.content()
    alone = materialise(store, files.at(0), cache) / "a"
    folder = materialise(store, whole, cache)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "text of a", "b": "text of b"}
    assert (folder / "a").samefile(alone)
    assert (folder / "b").stat().st_nlink == 1


def test_a_directory_is_placed_as_copies_and_files_that_lie_there_are_left_alone(tmp_path: Path) -> None:
    store, made, folder = Store.open(str(tmp_path / "store")), tmp_path / "made", tmp_path / "folder"
    (made / "a").mkdir(parents=True)
    for name in ("one", "a/two"):
        (made / name).write_text(name)
    directory = write_directory(store, "export", made, ours=True)
    assert (made / "one").samefile(tmp_path / "store" / directory.files["one"])
    place_directory(store, directory, folder)
    inodes = [(folder / name).stat().st_ino for name in directory.files]
    place_directory(store, directory, folder)
    assert [(folder / name).stat().st_ino for name in directory.files] == inodes
    (folder / "one").write_text("changed by people")
    assert store.get_object(directory.files["one"]) == b"one"
    place_directory(store, directory, folder)
    assert [(folder / name).read_text() for name in ("one", "a/two")] == ["one", "a/two"]


def test_a_name_that_would_leave_the_folder_is_not_placed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    forged = Directory("export", {"good": store.put_object(b"1", ""), "../bad": store.put_object(b"2", "")})
    with pytest.raises(StoreError, match=r"'\.\./bad' would leave its folder"):
        place_directory(store, forged, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_link_is_stored_as_the_content_of_its_file_also_where_files_are_taken(tmp_path: Path) -> None:
    store, made = Store.open(str(tmp_path / "store")), tmp_path / "made"
    made.mkdir()
    (made / "file").write_text("content")
    (made / "link").symlink_to("file")
    directory = write_directory(store, "export", made, ours=True)
    assert {store.get_object(key) for key in directory.files.values()} == {b"content"}
    assert not (tmp_path / "store" / directory.files["link"]).is_symlink()
