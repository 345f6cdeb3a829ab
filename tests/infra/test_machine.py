"""Facts about the machine, from files and programs that stand in for its own."""

import json
import os
import struct
import sys
from pathlib import Path

import pytest

from infra import machine
from infra.machine import free_disk_of, give_back_memory, gpu_memory, gpus, model_bytes, processor, total_memory, where


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


def test_freed_memory_is_given_back_and_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[int]()
    monkeypatch.setattr(machine, "_malloc_trim", lambda: given.append)
    give_back_memory()
    monkeypatch.setattr(machine, "_malloc_trim", lambda: None)
    give_back_memory()
    assert given == [0]


def test_gpus_are_told_by_their_driver_and_none_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory() == ()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 81559\necho 81559\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpu_memory() == (81559 * 2**20, 81559 * 2**20)


def test_a_folder_that_cannot_be_written_says_so_and_one_that_can_is_left_as_it_was(tmp_path: Path) -> None:
    for _ in range(2):  # a folder that is new, and one that is there
        problem, free = free_disk_of(tmp_path / "deep" / "new")
        assert (problem, free > 0) == ("", True)
    assert list((tmp_path / "deep" / "new").iterdir()) == []
    (tmp_path / "file").touch()
    problem, free = free_disk_of(tmp_path / "file" / "below")
    assert (problem.partition(":")[0], free) == ("NotADirectoryError", 0)


@pytest.mark.parametrize(
    ("stored", "size", "loaded"),
    [("F64", 8, 4), ("F32", 4, 4), ("F16", 2, 4), ("BF16", 2, 4), ("I8", 1, 1), ("F8_E4M3", 1, 1), ("I32", 4, 4)],
)
def test_each_kind_of_number_is_counted_by_its_own_width(tmp_path: Path, stored: str, size: int, loaded: int) -> None:
    safetensors(tmp_path / "a.safetensors", w=(stored, 16, 16 + 10 * size))
    assert model_bytes(tmp_path, "float32") == 10 * loaded


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_weights_take_the_width_they_are_loaded_as(tmp_path: Path, dtype: str, width: int) -> None:
    safetensors(tmp_path / "a.safetensors", w=("F64", 0, 80))
    assert model_bytes(tmp_path, dtype) == 10 * width


@pytest.mark.parametrize("script", ["echo 81559; exit 9", "echo 'N/A'", "exit 0"])
def test_a_driver_that_does_not_answer_properly_has_no_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpu_memory() == ()


class Ray:
    """As the `ray` module answers where this process is, or is not, connected to a cluster."""

    def __init__(self, connected: bool) -> None:
        self.util = self
        self._connected = connected

    def is_initialized(self) -> bool:
        return self._connected

    def get_node_ip_address(self) -> str:
        return "10.0.0.1"

    def get_runtime_context(self) -> "Ray":
        return self

    def get_node_id(self) -> str:
        return "0123456789abcdef"


def test_the_ray_node_is_named_by_address_and_the_first_eight_digits_of_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    machine._node.cache_clear()
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert where() == ""
    monkeypatch.setitem(sys.modules, "ray", Ray(connected=False))  # type: ignore[arg-type]
    assert where() == ""
    monkeypatch.setitem(sys.modules, "ray", Ray(connected=True))  # type: ignore[arg-type]
    assert where() == "10.0.0.1 (node 01234567)"
    machine._node.cache_clear()


def test_a_processor_is_named_with_the_instruction_sets_that_decide_kernels(tmp_path: Path) -> None:
    x86 = "processor\t: 0\nmodel name\t: AMD EPYC 9B14\nflags\t\t: fpu avx2 sse avx512f amx_tile avx512_bf16\n"
    (tmp_path / "x86").write_text(x86 * 2)
    assert processor(tmp_path / "x86") == ("AMD EPYC 9B14", ("avx2", "avx512f", "avx512_bf16", "amx_tile"))
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd sve i8mm\n")
    assert processor(tmp_path / "arm")[1] == ("asimd", "i8mm", "sve")
    name, instructions = processor(tmp_path / "absent")
    assert name
    assert instructions == ()


def test_gpus_of_one_kind_are_described_once_and_only_those_that_this_process_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    said = 'echo "NVIDIA H200, 9.0, 570.1"\n'
    (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\ncase "$*" in *--id=0,1*) {said}{said};; *) exit 1;; esac\n')
    (tmp_path / "nvidia-smi").chmod(0o755)
    gpus.cache_clear()
    assert gpus() == ("NVIDIA H200, compute 9.0, driver 570.1",)
    gpus.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert gpus() == ()
    gpus.cache_clear()


def test_a_header_longer_than_the_format_allows_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="a header of 1152921504606846976 bytes"):
        model_bytes(tmp_path, "float32")
