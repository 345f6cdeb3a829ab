"""Measure what orchestration costs: the seconds per part that are added to a bare function, and memory.

A toy stage reads a table of a thousand numbers and writes another. The same parts are computed in three ways, each
into a store of its own, with the same reads, writes and manifests:

- `pipeline`: through Runner and PrefectRayExecutor, a real Prefect server and a local Ray: one task run per part.
- `bare`: the same function called in a loop in this process.
- `ray`: the same function as bare Ray tasks, submitted all at once, without Prefect.

`flow_run_whole` also counts what happens once: the numbers are written, the flow run starts and ends. Overhead per
part = (seconds of the pipeline - seconds of `bare`) / parts. The servers are running and have had one small run
before. While the pipeline runs, the memory of this process, of the Prefect server and of Ray's processes is sampled:
PSS, and for `growth` the anonymous memory (without shared libraries). Growth is the slope over the second half of all
rounds, in MB per 100 parts; it would show a leak. Ray's workers start and end, so their growth is that of the largest
one.

    python -m benchmarks.orchestration --parts 300 --rounds 3

writes benchmarks/results/orchestration.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from infra.settings import silence_telemetry
from infra.stages.compute_part import compute_part
from infra.stages.runner import Failure, PartSpec, Runner
from infra.stages.stage import Resources, Stage
from infra.storage.artifacts import Manifest, Table, write_table
from infra.storage.store import Store
from tasks.schemas import Schema

silence_telemetry()
RESULT = Path(__file__).parent / "results" / "orchestration.json"
ROOT = Path(__file__).parents[1]
NUMBERS = Schema({"n": pl.Int64}, key=("n",))
_WARM_PARTS = 8
_SECONDS = 1.0  # between two samples of the memory
_HISTORY_SECONDS = 120.0


class ToyConfig(BaseModel):
    """The factor of the toy stage."""

    model_config = ConfigDict(frozen=True)
    factor: int = 2


def multiply(config: ToyConfig, *, numbers: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Multiply numbers. This takes almost no time, so the benchmark measures everything around it."""
    return {"multiplied": numbers.select(pl.col("n") * config.factor)}


MULTIPLY = Stage(
    "multiply",
    "benchmarks.orchestration:multiply",
    1,
    "map",
    each=("numbers",),
    outputs={"multiplied": NUMBERS},
    resources=Resources(num_cpus=0.5, deadline=120.0),
)


def make_numbers(store: Store, parts: int) -> Table:
    """Write this many pieces of a thousand numbers each, all different."""
    frames = (pl.DataFrame({"n": np.arange(n * 1000, (n + 1) * 1000)}) for n in range(parts))
    return Table("numbers", tuple(write_table(store, "numbers", frame, NUMBERS, n) for n, frame in enumerate(frames)))


class Loop:
    """An executor that computes parts one after another in this process."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self.store, self.scratch = store, scratch

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        return {spec.number: compute_part(self.store.url, spec, self.scratch) for spec in specs}


class BareRay(Loop):
    """An executor of bare Ray tasks."""

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        import ray

        task = ray.remote(max_retries=0, num_cpus=0.5)(compute_part)
        references = [task.remote(self.store.url, spec, self.scratch) for spec in specs]
        return dict(zip((spec.number for spec in specs), ray.get(references), strict=True))


def run_parts(store: Store, executor: Any, parts: int) -> float:
    """Compute all parts; return the seconds."""
    numbers = make_numbers(store, parts)
    runner = Runner(store, executor)
    started = time.monotonic()
    runner(MULTIPLY, ToyConfig(), numbers=numbers)
    seconds = time.monotonic() - started
    run = runner.runs[0]
    if (run.computed, run.failed) != (parts, {}):
        raise RuntimeError(f"{parts} computed parts expected, {run.computed} came; failed: {run.failed}")
    return seconds


@dataclass
class Memory:
    """Samples the memory of groups of processes while parts are computed.

    server: its process id. samples: (parts done, group, PSS, anonymous) in MB, in the order of time.
    """

    server: int
    done: int = 0
    samples: list[tuple[int, str, float, float]] = field(default_factory=list)

    def add(self, _stage: str, done: int, total: int) -> None:
        self.done += done > 0

    def look(self) -> None:
        tree = _tree()
        servers = _below(tree, self.server)
        ours = _below(tree, os.getpid()) - servers - {os.getpid()}
        workers = {pid for pid in ours if _command(pid).startswith("ray::")}
        groups = {
            "driver": {os.getpid()},
            "prefect_server": servers,
            "ray_workers": workers,
            "ray": {pid for pid in ours - workers if "ray" in _command(pid)},
        }
        for name, pids in groups.items():
            sizes = [_memory(pid) for pid in pids] or [(0.0, 0.0)]
            allocated = (max if name == "ray_workers" else sum)(size for _, size in sizes)
            self.samples.append((self.done, name, sum(size for size, _ in sizes), allocated))

    @contextmanager
    def watch(self) -> Iterator[None]:
        over = threading.Event()

        def go_on() -> None:
            while not over.wait(_SECONDS):
                self.look()

        thread = threading.Thread(target=go_on, daemon=True, name="memory")
        self.look()
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.look()

    def figures(self) -> dict[str, dict[str, float]]:
        """Return the first, last and highest MB of each group, and its growth over the second half."""
        found = {}
        for name in sorted({group for _, group, _, _ in self.samples}):
            rows = [(done, size, allocated) for done, group, size, allocated in self.samples if group == name]
            found[name] = {
                "first_mb": round(rows[0][1], 1),
                "last_mb": round(rows[-1][1], 1),
                "highest_mb": round(max(size for _, size, _ in rows), 1),
                "growth_mb_per_100_parts": round(growth([(done, allocated) for done, _, allocated in rows]), 2),
            }
        return found


def growth(rows: Sequence[tuple[int, float]]) -> float:
    """Slope of MB over parts, in MB per 100 parts, from half of the parts on.

    >>> growth([(0, 50.0), (100, 80.0), (200, 81.0), (150, 80.5)])
    1.0
    """
    half = max(done for done, _ in rows) / 2
    late = np.array([row for row in rows if row[0] >= half], dtype=float)
    if len(np.unique(late[:, 0])) < 2:
        return 0.0
    return float(round(np.polyfit(late[:, 0], late[:, 1], 1)[0] * 100, 6))


def measure(parts: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Measure `rounds` times `parts`; starts and stops its own servers.

    Ray's workers find this module through PYTHONPATH, which must hold the repository's root before.
    """
    from prefect.settings import PREFECT_HOME, temporary_settings

    from infra.cluster.ray_cluster import ray_cluster
    from infra.prefect_api.client import connected
    from infra.prefect_api.server import PrefectServer

    server = PrefectServer(folder / "home")
    try:
        address = server.start()
        home = temporary_settings({PREFECT_HOME: folder / "client"})
        with connected(server.api(address)), home, ray_cluster(None):
            pid = int(json.loads((folder / "home" / "prefect" / "server.json").read_text())["pid"])
            memory = Memory(pid)
            _pipeline(folder / "warm", _WARM_PARTS, Memory(pid))
            found = [_measure_round(folder / f"round-{number}", parts, memory) for number in range(rounds)]
            recorded = sum(_task_runs(row.pop("flow_run"), parts) for row in found)
    finally:
        server.stop()
    return {
        "rounds": found,
        "overhead_seconds_per_part": round(statistics.fmean(row["overhead_per_part"] for row in found), 4),
        "overhead_over_ray_seconds_per_part": round(
            statistics.fmean((row["pipeline"] - row["ray"]) / parts for row in found), 4
        ),
        "task_runs_recorded": recorded,
        "memory": memory.figures(),
    }


def _measure_round(folder: Path, parts: int, memory: Memory) -> dict[str, Any]:
    bare = run_parts(Store.open(str(folder / "bare")), Loop(Store(str(folder / "bare")), folder / "scratch"), parts)
    ray = run_parts(Store.open(str(folder / "ray")), BareRay(Store(str(folder / "ray")), folder / "scratch"), parts)
    with memory.watch():
        started = time.monotonic()
        pipeline, flow_run = _pipeline(folder / "pipeline", parts, memory)
        whole = time.monotonic() - started
    row = {
        "bare": round(bare, 3),
        "ray": round(ray, 3),
        "pipeline": round(pipeline, 3),
        "flow_run_whole": round(whole, 3),
        "overhead_per_part": round((pipeline - bare) / parts, 4),
        "load": round(os.getloadavg()[0], 1),
        "flow_run": flow_run,
    }
    print({name: value for name, value in row.items() if name != "flow_run"}, flush=True)
    return row


def _pipeline(folder: Path, parts: int, memory: Memory) -> tuple[float, str]:
    """Compute the parts in a flow run; return the seconds of the stage and the id of the flow run."""
    from prefect import flow
    from prefect.runtime import flow_run
    from prefect.task_runners import ThreadPoolTaskRunner

    from infra.execution.executor import PrefectRayExecutor

    found: list[tuple[float, str]] = []

    @flow(name="orchestration", task_runner=ThreadPoolTaskRunner(max_workers=32), persist_result=False)
    def run_all() -> None:
        store = Store.open(str(folder))
        with PrefectRayExecutor(store, folder / "scratch", on_part=memory.add) as executor:
            found.append((run_parts(store, executor, parts), str(flow_run.id)))

    run_all()
    return found[0]


def _task_runs(flow_run: str, expected: int) -> int:
    """Count the task runs that the server recorded as completed; wait until its events have arrived."""
    import httpx
    from prefect.client.orchestration import get_client

    query = {
        "flow_runs": {"id": {"any_": [flow_run]}},
        "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    count, deadline = 0, time.monotonic() + _HISTORY_SECONDS
    with get_client(sync_client=True) as client:
        while count < expected and time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                count = int(client.request("POST", "/task_runs/count", json=query).text)
            time.sleep(0.5)
    return count


def _tree() -> dict[int, list[int]]:
    """Return the children of every process."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    return children


def _below(tree: Mapping[int, Sequence[int]], root: int) -> set[int]:
    found, open_ = set(), [root]
    while open_:
        pid = open_.pop()
        found.add(pid)
        open_ += tree.get(pid, [])
    return found


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def _memory(pid: int) -> tuple[float, float]:
    """Return the proportional and anonymous memory of a process in MB; zero for one that has just ended."""
    with suppress(OSError):
        rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        sizes = {row[0]: int(row[1]) / 1024 for row in rows}
        return sizes["Pss:"], sizes["Anonymous:"]
    return 0.0, 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-write", action="store_true")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with tempfile.TemporaryDirectory(prefix="reneg-orchestration-") as folder:
        figures = measure(arguments.parts, arguments.rounds, Path(folder))
    result = {
        "command": f"python -m benchmarks.orchestration --parts {arguments.parts} --rounds {arguments.rounds}",
        "device": f"CPU, {os.cpu_count()} cores",
        "notes": "The machine was shared with other work; `load` is its load average at the end of each round.",
        "parts": arguments.parts,
        **figures,
    }
    if not arguments.no_write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
