"""Facts about this machine: processor, memory, GPUs, free disk, its Ray node; and how much memory a model takes."""

import ctypes
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # a container's own limit
_NUMBER_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_LONGEST_HEADER = 100_000_000  # bytes, as the format says
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_CPU = Path("/proc/cpuinfo")
# Instruction sets by which torch, oneDNN, numpy and faiss choose their kernels, on x86 and on ARM.
_INSTRUCTIONS = (
    "avx", "fma", "f16c", "avx2", "avx_vnni", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "avx512_vpopcntdq", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


def total_memory() -> int:
    """Return the bytes of memory of this machine, or of this container where it has a limit."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(machine, int(_CGROUP.read_text()))
    except (OSError, ValueError):
        return machine


def give_back_memory() -> None:
    """Return to the system what the C library holds of freed memory; only glibc holds any, and can be told to.

    What a process frees in small pieces, such as texts, stays with it, a piece here and there on each page.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return found


def gpu_memory() -> tuple[int, ...]:
    """Return the bytes of memory of each GPU; empty where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return tuple(int(line) * 2**20 for line in told.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


@cache
def processor(cpu_info: Path = _CPU) -> tuple[str, tuple[str, ...]]:
    """Return the processor's name, and those of its instruction sets that decide which kernels a library takes."""
    try:
        lines = [line.partition(":") for line in cpu_info.read_text().splitlines()]
    except OSError:
        lines = []
    facts = {name.strip().lower(): value.strip() for name, _, value in lines}
    flags = set(facts.get("flags", facts.get("features", "")).split())
    name = facts.get("model name") or platform.processor() or platform.machine()
    return name, tuple(flag for flag in _INSTRUCTIONS if flag in flags)


@cache
def gpus() -> tuple[str, ...]:
    """Describe each distinct GPU that this process may use: name, compute capability and driver; empty for none."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command.append(f"--id={visible}")
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = [[cell.strip() for cell in line.split(",")] for line in told.splitlines() if line.count(",") >= 2]  # noqa: PLR2004 - three columns
    return tuple(dict.fromkeys(f"{','.join(n)}, compute {cap}, driver {driver}" for *n, cap, driver in found))


def free_disk_of(folder: Path) -> tuple[str, int]:
    """Try to write below a folder; returns the problem, empty where there is none, and the bytes that are free."""
    trial = folder / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"1")
        trial.unlink()
        return "", shutil.disk_usage(folder).free
    except OSError as error:
        return f"{type(error).__name__}: {error}", 0


def model_bytes(folder: Path, dtype: str) -> int:
    """Return the bytes that a model's weights take in memory, loaded as `dtype`; read from the safetensors headers."""
    return sum(_tensor_bytes(file, _DTYPE_BYTES[dtype]) for file in folder.rglob("*.safetensors"))


def _tensor_bytes(file: Path, per_number: int) -> int:
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > _LONGEST_HEADER:
            raise ValueError(f"{file}: a header of {length} bytes; safetensors has at most {_LONGEST_HEADER}: damaged")
        head = json.loads(opened.read(length))
    total = 0
    for name, tensor in head.items():
        if name == "__metadata__":
            continue
        start, end = tensor["data_offsets"]
        stored = _NUMBER_BYTES.get(tensor["dtype"])
        total += (end - start) if stored is None else (end - start) // stored * per_number  # integers stay as they are
    return total


def where() -> str:
    """Return the Ray node this runs on, by address and the beginning of its id; empty outside Ray."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return ""
    return _node()


@cache
def _node() -> str:
    import ray

    return f"{ray.util.get_node_ip_address()} (node {ray.get_runtime_context().get_node_id()[:8]})"
