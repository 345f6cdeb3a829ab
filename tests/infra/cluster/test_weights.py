"""Weights through the store, without Ray: published once, fetched once per node, verified, refused when wrong."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra.cluster import weights
from infra.cluster.weights import ensure, publish, publish_for, publish_stored
from infra.engines.specs import OpenAISpec, SentenceTransformersSpec
from infra.models.model_files import directory_digest
from infra.models.resolve import resolve
from infra.models.wheels import ModelError
from infra.storage import large_files
from infra.storage.artifacts import write_directory
from infra.storage.large_files import get_file, put_file
from infra.storage.store import Store, StoreError
from tests.conftest import ROOT


def user_model(folder: Path) -> Path:
    """A folder as `path:` names it: files that decide the answers, and others."""
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text('{"mode": "mean"}')
    (folder / "model.safetensors").write_bytes(os.urandom(100_000))
    (folder / "README.md").write_text("not part of it")
    (folder / "old.bin").write_bytes(b"pickled")
    return folder


@pytest.fixture
def published(store_url: str, tmp_path: Path) -> tuple[Store, SentenceTransformersSpec]:
    """A user's model in a store, and a spec that names a path which is not on this node."""
    store = Store.open(store_url)
    folder = user_model(tmp_path / "driver" / "mine")
    digest = directory_digest(folder, tmp_path / "driver")
    assert publish(store, folder, digest, tmp_path / "driver")
    return store, SentenceTransformersSpec(model="/nowhere/mine", digest=digest)


def test_a_published_model_is_laid_out_on_a_node_with_the_files_that_decide_its_answers(
    published: tuple[Store, SentenceTransformersSpec], tmp_path: Path
) -> None:
    store, spec = published
    here = Path(ensure(store, spec, tmp_path / "node").model)
    assert here == tmp_path / "node" / "weights" / spec.digest
    files = {p.relative_to(here).as_posix() for p in here.rglob("*") if p.is_file()}
    assert files == {"config.json", "1_Pooling/config.json", "model.safetensors", ".reneg-weights.json"}
    assert directory_digest(here, tmp_path / "other") == spec.digest
    assert weights.is_here(spec.model, spec.digest, tmp_path / "node")


def test_publishing_again_reads_nothing_and_writes_nothing(
    published: tuple[Store, SentenceTransformersSpec], tmp_path: Path
) -> None:
    store, spec = published
    before = store.sizes("")
    assert publish_for(store, [spec, OpenAISpec(model="gpt"), None], tmp_path / "node") == []
    assert store.sizes("") == before


def test_a_model_that_the_store_holds_already_is_published_by_its_objects(store_url: str, tmp_path: Path) -> None:
    store = Store.open(store_url)
    folder = user_model(tmp_path / "trained")
    files = dict(write_directory(store, "model", folder).files)
    before = store.sizes("objects")
    assert publish_stored(store, "0123", files)
    assert not publish_stored(store, "0123", files)
    assert store.sizes("objects") == before
    here = Path(ensure(store, SentenceTransformersSpec(model="", digest="0123"), tmp_path / "node").model)
    assert (here / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_path_that_holds_the_right_model_is_used_as_it_is_and_a_wrong_one_is_not(
    published: tuple[Store, SentenceTransformersSpec], tmp_path: Path
) -> None:
    store, spec = published
    mine = spec.model_copy(update={"model": str(tmp_path / "driver" / "mine")})
    assert ensure(store, mine, tmp_path / "node") == mine
    other = user_model(tmp_path / "node" / "mine")
    found = ensure(store, spec.model_copy(update={"model": str(other)}), tmp_path / "node")
    assert found.model == str(tmp_path / "node" / "weights" / spec.digest)


def test_a_model_that_reneg_made_is_known_by_its_recipe_and_keeps_its_manifest(tmp_path: Path) -> None:
    cache = Path(os.environ["RENEG_TEST_CACHE"])
    model = resolve("tiny:encoder", cache)
    store = Store.open(str(tmp_path / "store"))
    spec = SentenceTransformersSpec(model=str(model.path), digest=model.digest)
    assert publish_for(store, [spec], cache) == [model.digest]
    assert ensure(store, spec, tmp_path / "node") == spec
    moved = ensure(store, spec.model_copy(update={"model": "/nowhere"}), tmp_path / "node")
    assert weights.holds(Path(moved.model), model.digest, tmp_path)
    (Path(moved.model) / "config.json").write_text("cut")
    again = ensure(store, spec.model_copy(update={"model": "/nowhere"}), tmp_path / "node")
    assert weights.holds(Path(again.model), model.digest, tmp_path)


def test_what_neither_path_nor_store_has_is_refused_with_what_to_do(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    spec = SentenceTransformersSpec(model="/nowhere/mine", digest="d" * 64)
    with pytest.raises(ValueError, match=r"/nowhere/mine: not on this node.*join Ray by RAY_ADDRESS"):
        ensure(store, spec, tmp_path / "node")
    with pytest.raises(ModelError, match="not the model of digest dddd"):
        publish(store, user_model(tmp_path / "mine"), "d" * 64, tmp_path)


def test_a_damaged_object_is_never_put_in_place(
    published: tuple[Store, SentenceTransformersSpec], tmp_path: Path
) -> None:
    store, spec = published
    key = store.read_json(f"weights/{spec.digest}.json")["files"]["model.safetensors"]
    store.repair(key, b"x" * 100_000)
    with pytest.raises(StoreError, match=f"{key} is damaged"):
        ensure(store, spec, tmp_path / "node")
    assert [p.name for p in (tmp_path / "node" / "weights").iterdir()] == [f"{spec.digest}.lock"]


def test_a_record_that_would_leave_its_folder_is_refused(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    record = {"files": {"../../evil": put_file(store, user_model(tmp_path / "m") / "config.json")}, "sizes": {}}
    store.create(f"weights/{'e' * 64}.json", json.dumps(record).encode())
    with pytest.raises(StoreError, match="would leave its folder"):
        ensure(store, SentenceTransformersSpec(model="/nowhere", digest="e" * 64), tmp_path / "node")


def test_a_full_disk_is_told_before_anything_is_fetched(
    published: tuple[Store, SentenceTransformersSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, spec = published
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(ValueError, match="make room, or set RENEG_CACHE"):
        ensure(store, spec, tmp_path / "node")


def test_many_actors_of_a_node_fetch_once(
    published: tuple[Store, SentenceTransformersSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, spec = published
    fetched: list[str] = []

    def count(store: Store, key: str, path: Path) -> None:
        fetched.append(key)
        get_file(store, key, path)

    monkeypatch.setattr(large_files, "get_file", count)
    threads = [threading.Thread(target=ensure, args=(store, spec, tmp_path / "node")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 3
    assert weights.is_here("", spec.digest, tmp_path / "node")


def test_files_larger_than_a_piece_come_back_whole_and_are_stored_once(store_url: str, tmp_path: Path) -> None:
    store = Store.open(store_url)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(40 * 2**20 + 7))
    key = put_file(store, big)
    assert put_file(store, big) == key == store.put_object(big.read_bytes(), "")
    get_file(store, key, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    store.repair(key, b"cut")
    assert put_file(store, big) == key
    get_file(store, key, tmp_path / "back")
    (tmp_path / "empty").touch()
    get_file(store, put_file(store, tmp_path / "empty"), tmp_path / "nothing")
    assert (tmp_path / "nothing").read_bytes() == b""
    with pytest.raises(StoreError, match="is missing"):
        get_file(store, f"objects/00/{'0' * 64}", tmp_path / "none")


@pytest.mark.slow
def test_a_file_larger_than_what_a_process_may_take_is_stored_and_fetched(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from infra.storage.store import Store
from infra.storage.large_files import get_file, put_file
store, folder = Store.open(sys.argv[1]), Path(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
key = put_file(store, folder / "big")
get_file(store, key, folder / "back")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(700 * 2**20)
    command = [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150  # MiB
