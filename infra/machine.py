"""Facts about this machine: memory, GPUs, free disk space, its Ray node; and how much memory a model takes."""

import json
import os
import shutil
import struct
import subprocess
import sys
import uuid
from functools import cache
from pathlib import Path
from typing import Any

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # a container's own limit
_NUMBER_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def total_memory() -> int:
    """Return the bytes of memory of this machine, or of this container where it has a limit."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(machine, int(_CGROUP.read_text()))
    except (OSError, ValueError):
        return machine


def gpu_memory() -> tuple[int, ...]:
    """Return the bytes of memory of each GPU; empty where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return tuple(int(line) * 2**20 for line in told.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


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
