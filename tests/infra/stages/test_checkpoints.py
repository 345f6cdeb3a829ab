"""Checkpoints in the store: whole or not there, the newest counts, and nothing is left of a finished part."""

import json
import pickle
from pathlib import Path

import pytest

from infra.stages.checkpoints import Checkpoints
from infra.storage.store import Store

PART = "train/5f3c-000"


def folder_of(path: Path, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def read(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_newest_checkpoint_is_found_again_and_older_ones_are_deleted(tmp_path: Path, store_url: str) -> None:
    Store.open(store_url)
    checkpoints = Checkpoints(store_url, PART)
    assert checkpoints.fetch(tmp_path / "none") is None
    made = folder_of(tmp_path / "made", weights="1")
    folder_of(made / "deep", more="2")
    checkpoints.put(10, made)
    checkpoints.put(20, folder_of(tmp_path / "made", weights="3"))
    elsewhere = pickle.loads(pickle.dumps(checkpoints))  # as it travels to a worker
    assert elsewhere.fetch(tmp_path / "found") == 20
    assert read(tmp_path / "found") == {"weights": "3", "deep/more": "2"}
    assert {key.split("/")[3] for key in Store(store_url).list("checkpoints")} == {"000000020"}
    assert Checkpoints(store_url, "train/5f3c-001").fetch(tmp_path / "other") is None
    checkpoints.drop()
    assert Store(store_url).list("checkpoints") == []
    checkpoints.drop()


def test_a_checkpoint_is_whole_when_every_worker_has_kept_its_share(tmp_path: Path, store_url: str) -> None:
    Store.open(store_url)
    checkpoints = Checkpoints(store_url, PART)
    for step in (10, 20):
        checkpoints.put(step, folder_of(tmp_path / f"{step}-0", weights=f"{step}", own="0"), 0, 2)
        if step == 10:
            checkpoints.put(step, folder_of(tmp_path / f"{step}-1", own="1"), 1, 2)
    assert checkpoints.fetch(tmp_path / "first", 0, 2) == 10
    assert checkpoints.fetch(tmp_path / "second", 1, 2) == 10
    assert read(tmp_path / "second") == {"weights": "10", "own": "1"}
    assert checkpoints.fetch(tmp_path / "alone") is None
    checkpoints.put(20, folder_of(tmp_path / "20-1", own="1"), 1, 2)
    assert checkpoints.fetch(tmp_path / "second", 1, 2) == 20
    checkpoints.put(21, folder_of(tmp_path / "model", weights="21"))
    assert checkpoints.fetch(tmp_path / "alone") == 21


def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store.open(str(tmp_path / "store"))
    checkpoints = Checkpoints(store.url, PART)
    checkpoints.put(10, folder_of(tmp_path / "ten", weights="1"), 1, 2)  # the second worker deletes nothing
    checkpoints.put(10, folder_of(tmp_path / "ten", weights="1"), 0, 2)
    checkpoints.put(20, folder_of(tmp_path / "twenty", weights="2"), 1, 2)
    (tmp_path / "store" / "checkpoints" / PART / "000000020" / "0000").mkdir()
    record = {"workers": 2, "files": {"weights": {"sha256": "0" * 64, "size": 1}}}
    store.replace(f"checkpoints/{PART}/000000020/0000.json", json.dumps(record).encode())
    store.replace(f"checkpoints/{PART}/000000020/0000/weights", b"x")
    assert checkpoints.fetch(tmp_path / "found", 1, 2) == 10
    assert "the checkpoint of step 20 cannot be used" in caplog.text


def test_a_forged_record_cannot_name_a_file_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store.open(str(tmp_path / "store"))
    record = {"workers": 1, "files": {"../../outside": {"sha256": "0" * 64, "size": 1}}}
    store.replace(f"checkpoints/{PART}/000000005/0000.json", json.dumps(record).encode())
    assert Checkpoints(store.url, PART).fetch(tmp_path / "found") is None
    assert "would leave its folder" in caplog.text
