"""Origins: the software and the processor that computed a part, an embedding or an answer; or the endpoint asked.

Two machines of one kind, with the same packages, have equal origins. The names of machines are not in them.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from typing import Any, Self

from infra.machine import gpus, processor

UNRECORDED = "not recorded (made before origins were recorded)"
_LENGTH = 16
# Packages that decide the numbers of a stage that names none: it only computes on tables.
_TABLES = ("polars", "numpy")
# Variables by which libraries are told to use other kernels than the processor allows.
_CHOOSE_KERNELS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "FAISS_OPT_LEVEL", "MKL_CBWR")


@dataclass(frozen=True)
class Origin:
    """What computed something.

    software: version by package. processor: device, name, instruction sets, kernels that the libraries loaded.
    endpoint: model and address, for what somebody else's server answered; the others are empty then.
    """

    software: Mapping[str, str] = field(default_factory=dict)
    processor: Mapping[str, str] = field(default_factory=dict)
    endpoint: str = ""

    @property
    def digest(self) -> str:
        """The hash of its content: 16 hexadecimal digits."""
        return hashlib.sha256(self.to_json()).hexdigest()[:_LENGTH]

    @property
    def line(self) -> str:
        """All of it in a line that people can read.

        >>> Origin({"torch": "2.13.0"}, {"device": "cpu", "name": "AMD EPYC", "threads": "2"}).line
        'torch 2.13.0; cpu: name AMD EPYC, threads 2'
        """
        if self.endpoint:
            return f"endpoint {self.endpoint}"
        software = ", ".join(f"{name} {version}" for name, version in sorted(self.software.items()))
        facts = ", ".join(f"{name} {fact}" for name, fact in sorted(self.processor.items()) if name != "device")
        return f"{software}; {self.processor.get('device', 'cpu')}: {facts}"

    def to_json(self) -> bytes:
        """Write it as JSON; equal origins give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read one.

        Raises:
            ValueError: the bytes are no origin.
        """
        try:
            record: dict[str, Any] = json.loads(data)
            return cls(dict(record["software"]), dict(record["processor"]), str(record["endpoint"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"no origin: {type(error).__name__}: {error}") from error


@cache
def here(libraries: tuple[str, ...] = (), device: str = "cpu", *, with_threads: bool = False) -> Origin:
    """Return the origin of what this process computes.

    Args:
        libraries: the packages that decide the numbers, already loaded; with none polars and numpy.
        device: `cpu` or `cuda`.
        with_threads: the number of torch's threads counts too, on a CPU.
    """
    software, torch = versions(libraries or _TABLES), _loaded("torch", libraries)
    if torch is not None:
        software["torch"] = str(torch.__version__)  # with the name of its build
    if device == "cuda":
        return Origin(software, {"device": "cuda", "gpu": "; ".join(gpus()) or "unknown"})
    name, instructions = processor()
    facts = {"device": "cpu", "name": name, "instructions": " ".join(instructions), **_kernels(libraries)}
    facts |= {variable: os.environ[variable] for variable in _CHOOSE_KERNELS if os.environ.get(variable)}
    if with_threads and torch is not None:
        facts["threads"] = str(torch.get_num_threads())
    return Origin(software, facts)


def declared(libraries: Iterable[str], device: str = "cpu") -> dict[str, str]:
    """Return what a key can know before anything is computed: versions here, and the kind of processor.

    Builds of one release for a CPU and for a GPU count as the same, because the driver may have another one than the
    nodes. The instruction sets are those of this machine; a GPU's kind is not known here.
    """
    found = {name: version.partition("+")[0] for name, version in versions(libraries).items()}
    return found | {"processor": "cuda" if device == "cuda" else f"cpu {' '.join(processor()[1])}".strip()}


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages as they are installed here, also where the package is the build for CPUs."""
    found = {}
    for library in libraries:
        for name in (library, f"{library}-cpu"):
            try:
                found[library] = metadata.version(name)
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def _kernels(libraries: Iterable[str]) -> dict[str, str]:
    """Return the kernels that loaded libraries say they use; this loads none."""
    found: dict[str, str] = {}
    torch, faiss = _loaded("torch", libraries), _loaded("faiss", libraries)
    if torch is not None:
        found["torch kernels"] = str(torch.backends.cpu.get_cpu_capability())
    if faiss is not None:
        level = getattr(faiss, "SIMDConfig", None)
        found["faiss kernels"] = str(level.get_level_name() if level else faiss.get_compile_options()).strip()
    return found


def _loaded(library: str, libraries: Iterable[str]) -> Any:  # noqa: ANN401 - a module
    return sys.modules.get(library) if library in libraries else None
