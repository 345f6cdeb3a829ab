"""Run whole curations of the paper's shape at several sizes, and measure time, memory, reads, growth and repair.

The data is generated (`benchmarks.paper_size_data`): seven datasets, 1.1 positives and 20 negatives a row, texts of 100
words. The encoder adds up word vectors, and the two judges are files, so what is measured is Reneg: ingest, adopt,
similarity, two tiers, decide, sample, treat, export and the report, through the command line with a real Ray and a real
Prefect server, on a store in a folder.

    python -m benchmarks.paper_size --queries 10000 30000 100000

writes benchmarks/results/paper_size.json. Then, at the middle size, one percent of rows and passages is added.

- `seconds`, `cpu_seconds`: of the command with everything that it starts.
- `peak_driver_gib`: the largest resident set of the command's processes. `peak_worker_gib`: that of any Ray worker.
- `read_over_input`: the most that a stage's parts read together, over the distinct bytes of their inputs.
- `marginal_ratio`: (t3 - t2) / (n3 - n2) over (t2 - t1) / (n2 - n1). 1 is linear growth.
- `growth`: `redone_share`: rows of the parts that the growth computed, over all rows. `parts_share`: the same
  of parts. `time_share`: (seconds after the growth - seconds of an unchanged run) over the seconds of the full run.

A process belongs to a run if its environment holds the run's mark, so other work on the machine is not counted; it
makes the seconds longer, and `cpu_seconds` says more then.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import paper_size_data as data
from infra.storage.store import Store

RESULT = Path(__file__).parent / "results" / "paper_size.json"
ROOT = Path(__file__).parents[1]
_GIB = 2**30
_SECONDS = 0.5  # between two looks at the processes
_PAPER = 680_000
_GROWTH = 0.01
_MARK = "RENEG_BENCHMARK_MARK"


@dataclass
class Watched:
    """What the processes of a run took: CPU seconds by process, and the largest resident set by kind."""

    mark: str
    cpu: dict[tuple[int, float], float] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _kinds: dict[tuple[int, float], str | None] = field(default_factory=dict)

    def look(self) -> None:
        """Take one sample of all processes that carry the mark."""
        for process in psutil.process_iter():
            try:
                self._take(process)
            except (psutil.Error, OSError):
                continue

    def _take(self, process: psutil.Process) -> None:
        key = (process.pid, process.create_time())
        if key not in self._kinds:
            marked = process.environ().get(_MARK) == self.mark
            self._kinds[key] = _kind(process.cmdline()) if marked else None
        kind = self._kinds[key]
        if kind == "starting":  # a worker gets its title after it has begun
            self._kinds[key] = kind = _kind(process.cmdline())
        if kind is None:
            return
        times = process.cpu_times()
        self.cpu[key] = times.user + times.system
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                self.peak[kind] = max(self.peak[kind], int(line.split()[1]) * 1024)


def _kind(command: Sequence[str]) -> str:
    said = " ".join(command)
    if said.startswith("ray::"):
        return "worker"
    if "default_worker.py" in said:
        return "starting"
    if "flows.cli" in said or "flows.runs" in said:
        return "driver"
    return "server"


@dataclass(frozen=True)
class Run:
    """What one command took."""

    seconds: float
    cpu_seconds: float
    peak_worker_gib: float
    peak_driver_gib: float
    output: str


def curate(folder: Path, config: Path) -> Run:
    """Run `reneg curate` in a home and a store below a folder.

    Raises:
        RuntimeError: it failed; the message has the end of what it printed.
    """
    mark = uuid.uuid4().hex
    watched, over = Watched(mark), threading.Event()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RENEG_")}
    environment |= {
        _MARK: mark, "RENEG_HOME": str(folder / "home"), "RENEG_STORE": str(folder / "store"),
        "PYTHONPATH": str(ROOT), "CI": "true",
    }  # fmt: skip
    log = folder / "log"
    command = [sys.executable, "-m", "flows.cli", "curate", str(config)]
    started = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
        looking = threading.Thread(target=_look_until, args=(watched, over))
        looking.start()
        code = process.wait()
    seconds = time.monotonic() - started
    over.set()
    looking.join()
    said = log.read_text(errors="replace")
    if code:
        raise RuntimeError(f"reneg curate ended with {code}:\n{said[-3000:]}")
    return Run(
        round(seconds, 1),
        round(sum(watched.cpu.values()), 1),
        round(watched.peak["worker"] / _GIB, 3),
        round(watched.peak["driver"] / _GIB, 3),
        said,
    )


def _look_until(watched: Watched, over: threading.Event) -> None:
    while not over.wait(_SECONDS):
        watched.look()


@dataclass(frozen=True)
class Part:
    """A finished part in the store: its stage, its path, what it read and its rows."""

    stage: str
    path: str
    inputs: frozenset[str]
    rows: int
    read_bytes: int


def parts_of(store: Store) -> dict[str, Part]:
    """Return the finished parts of a store, by path."""
    found = {}
    for path in store.list("parts"):
        record = json.loads(store.read(path) or b"{}")
        stats = record["stats"]
        found[path] = Part(
            stage=record["stage"],
            path=path,
            inputs=frozenset(name for names in record["ingredients"].get("inputs", {}).values() for name in names),
            rows=int(stats["rows_in"]) + int(stats["rows_out"]),
            read_bytes=int(stats.get("read_bytes", 0)),
        )
    return found


def read_over_input(store: Store, parts: Iterator[Part]) -> dict[str, float]:
    """Return by stage how many bytes its parts read, over the distinct bytes of their inputs."""
    sizes = _sizes(store)
    read: dict[str, int] = defaultdict(int)
    inputs: dict[str, set[str]] = defaultdict(set)
    for part in parts:
        read[part.stage] += part.read_bytes
        inputs[part.stage] |= part.inputs
    distinct = {stage: sum(sizes.get(name, 0) for name in names) for stage, names in inputs.items()}
    return {stage: round(read[stage] / distinct[stage], 3) for stage in sorted(read) if distinct[stage]}


def _sizes(store: Store) -> dict[str, int]:
    """Return the bytes of every object, and of every slice, by the name under which a key covers it."""
    sizes = {path.rpartition("/")[2]: size for path, size in store.sizes("objects").items()}
    for path in store.list("parts"):
        for pieces in json.loads(store.read(path) or b"{}")["tables"].values():
            sizes |= {piece["digest"]: piece["length"] for piece in pieces if piece.get("digest")}
    return sizes


def measure(folder: Path, queries: int) -> dict[str, Any]:
    """Generate so many rows, curate them, and return the figures; the folder keeps source, home and store."""
    source, scores, config = folder / "source", folder / "scores", folder / "paper-size.yaml"
    total = round(queries * (1 + _GROWTH))
    data.write_source(source, 0, queries, total)
    scores.mkdir()
    for seed, name in enumerate(("weak", "strong")):
        data.write_scores(scores / f"{name}.parquet", total, total, seed)
    data.write_encoder(folder / "encoder")
    data.write_config(config, source, scores, folder / "encoder")
    run = curate(folder, config)
    store = Store(str(folder / "store"))
    parts = parts_of(store)
    ratios = read_over_input(store, iter(parts.values()))
    return {
        "name": f"rows-{queries}",
        "queries": queries,
        "seconds": run.seconds,
        "cpu_seconds": run.cpu_seconds,
        "peak_worker_gib": run.peak_worker_gib,
        "peak_driver_gib": run.peak_driver_gib,
        "read_over_input": max(ratios.values(), default=None),
        "read_over_input_by_stage": ratios,
        "parts": len(parts),
    }


def grow(folder: Path, queries: int, full: Mapping[str, Any]) -> dict[str, Any]:
    """Curate an unchanged source again, then one with one percent more; returns what the growth cost."""
    config, store = folder / "paper-size.yaml", Store(str(folder / "store"))
    before = parts_of(store)
    unchanged = curate(folder, config)
    total = round(queries * (1 + _GROWTH))
    data.write_source(folder / "source", queries, total - queries, total)
    grown = curate(folder, config)
    after = parts_of(store)
    new = [part for path, part in after.items() if path not in before]
    return {
        "queries": queries,
        "added": total - queries,
        "parts_share": round(len(new) / len(before), 4),
        "redone_share": round(sum(part.rows for part in new) / sum(part.rows for part in before.values()), 4),
        "redone_by_stage": _by_stage(new, before.values()),
        "seconds": grown.seconds,
        "seconds_unchanged": unchanged.seconds,
        "time_share": round((grown.seconds - unchanged.seconds) / full["seconds"], 4),
    }


def _by_stage(new: Sequence[Part], before: Any) -> dict[str, float]:
    rows: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for place, parts in enumerate((new, before)):
        for part in parts:
            rows[part.stage][place] += part.rows
    return {stage: round(done / of, 4) for stage, (done, of) in sorted(rows.items()) if of}


def marginal_ratio(runs: Sequence[Mapping[str, Any]]) -> float | None:
    """Return how much dearer a further query is at the largest size than between the smaller ones; None below three."""
    if len(runs) < 3:
        return None
    (n1, t1), (n2, t2), (n3, t3) = ((run["queries"], run["seconds"]) for run in runs[-3:])
    return round(((t3 - t2) / (n3 - n2)) / ((t2 - t1) / (n2 - n1)), 3)


def forecast(runs: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the hours of the paper's 680,000 rows, by the cost of a further row between the two largest sizes."""
    if len(runs) < 2:
        return None
    (n1, t1), (n2, t2) = ((run["queries"], run["seconds"]) for run in runs[-2:])
    return round((t2 + (t2 - t1) / (n2 - n1) * (_PAPER - n2)) / 3600, 2)


def main() -> None:
    """Measure each size in a folder of its own, and write the result after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--grow", type=int, default=None, help="the size that grows; by default the middle one")
    parser.add_argument("--folder", type=Path, default=None, help="where data and stores are written, and kept")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    sizes = sorted(given.queries)
    growing = given.grow or sizes[len(sizes) // 2]
    root = given.folder or Path(tempfile.mkdtemp(prefix="reneg-paper-size-"))
    result: dict[str, Any] = {"machine": {"cpus": os.cpu_count(), "processor": platform.machine()}, "runs": []}
    try:
        for queries in sizes:
            folder = root / str(queries)
            folder.mkdir(parents=True)
            result["runs"].append(measure(folder, queries))
            if queries == growing:
                result["growth"] = grow(folder, queries, result["runs"][-1])
            result |= {"marginal_ratio": marginal_ratio(result["runs"]), "hours_of_680k": forecast(result["runs"])}
            given.out.write_text(json.dumps(result, indent=1) + "\n")
            print(json.dumps(result["runs"][-1]), flush=True)
            if given.folder is None:
                shutil.rmtree(folder)
    finally:
        if given.folder is None:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
