import json
import os
import struct
from pathlib import Path

import pytest

from infra import machine
from infra.machine import free_disk_of, gpu_memory, model_bytes, total_memory


def safetensors(path: Path, **tensors: tuple[str, int, int]) -> None:
    """Write a file's head only: dtype, first and last byte of each tensor."""
    head = {name: {"dtype": d, "shape": [], "data_offsets": [a, b]} for name, (d, a, b) in tensors.items()}
    data = json.dumps({"__metadata__": {"format": "pt"}, **head}).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data)


def test_a_models_memory_follows_the_dtype_it_is_loaded_as_and_integers_stay_as_they_are(tmp_path: Path) -> None:
    safetensors(tmp_path / "a.safetensors", w=("BF16", 0, 2000), q=("I8", 2000, 2500))
    (tmp_path / "deep").mkdir()
    safetensors(tmp_path / "deep" / "b.safetensors", w=("F32", 0, 400))
    assert model_bytes(tmp_path, "bfloat16") == 2000 + 500 + 200
    assert model_bytes(tmp_path, "float32") == 4000 + 500 + 400


def test_memory_is_the_containers_where_it_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "memory.max")
    whole = total_memory()
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "memory.max").write_text("max\n")
    assert total_memory() == whole
    (tmp_path / "memory.max").write_text("1048576\n")
    assert total_memory() == 2**20


def test_gpus_are_told_by_their_driver_and_none_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory() == ()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 81559\necho 81559\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpu_memory() == (81559 * 2**20, 81559 * 2**20)


def test_a_folder_that_cannot_be_written_says_so_and_one_that_can_is_left_as_it_was(tmp_path: Path) -> None:
    assert free_disk_of(tmp_path / "new")[0] == ""
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    assert free_disk_of(tmp_path / "file" / "below")[0].startswith("NotADirectoryError")
