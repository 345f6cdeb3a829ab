"""Measure what a part costs besides its work, in stages of hundreds and thousands of tiny parts.

A stage multiplies pieces of ten numbers, through Runner and PrefectRayExecutor, with a real Prefect server, a local Ray
and a store in a folder. For each number of parts there are four walks over the same store:

- `computed`: all parts are computed, in a flow run.
- `reused`: all parts are finished, in another flow run.
- `looked_up`: the same without an executor: the manifests alone, as `reneg status` and the first walk of `curate` do.
- `second_walk`: once more, with what the first walk found.

Seconds are those of the stage, without making its input and without the start of the servers. `cpu_seconds` are those
of this process alone, which other work on the machine changes little. `driver_peak_gib` is the peak resident memory of
this process during the walk, `driver_growth_mb` how far that was above its memory before. `spec_bytes` is what Ray gets
for a part of a stage that reads all pieces in each part, and `spec_mb_of_all` the same for all parts together.
`listings` and `reads` count what this process asked the store for.

    python -m benchmarks.parts_overhead --before benchmarks/results/parts_overhead_before.json

writes benchmarks/results/parts_overhead.json, with the ratios to the figures of an earlier commit, if there are any.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.orchestration import MULTIPLY, NUMBERS, ROOT, ToyConfig
from infra.settings import max_parts, silence_telemetry
from infra.stages.runner import Failure, PartSpec, Runner
from infra.storage.artifacts import Manifest, Piece, Table, commit, write_table
from infra.storage.store import Entry, Store

silence_telemetry()
RESULT = Path(__file__).parent / "results" / "parts_overhead.json"
SIZES = (300, 1000, 3000)
_COMPARED = {"seconds": "seconds_per_part", "cpu": "cpu_seconds_per_part", "growth": "driver_growth_mb"}
_WARM_PARTS = 8
_MB = 2**20


class Counted(Store):
    """A store that counts what this process asks it for."""

    listings = reads = 0

    def entries(self, prefix: str) -> dict[str, Entry]:
        Counted.listings += 1
        return super().entries(prefix)

    def read(self, key: str, **how: Any) -> bytes | None:
        Counted.reads += 1
        return super().read(key, **how)


def make_numbers(store: Store, parts: int) -> Table:
    """Write this many pieces of ten numbers each, all different."""
    frames = (pl.DataFrame({"n": np.arange(n * 10, (n + 1) * 10)}) for n in range(parts))
    return Table("numbers", tuple(write_table(store, "numbers", frame, NUMBERS, n) for n, frame in enumerate(frames)))


@contextmanager
def measured(row: dict[str, float], parts: int) -> Iterator[None]:
    """Put the seconds per part, this process's peak memory and the calls to the store into a row."""
    gc.collect()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    Counted.listings = Counted.reads = 0
    started, cpu = time.monotonic(), time.process_time()
    yield
    seconds, cpu, peak = time.monotonic() - started, time.process_time() - cpu, _resident("VmHWM")
    row |= {
        "seconds": round(seconds, 3),
        "seconds_per_part": round(seconds / parts, 5),
        "cpu_seconds": round(cpu, 3),
        "cpu_seconds_per_part": round(cpu / parts, 6),
        "driver_peak_gib": round(peak / 2**30, 3),
        "driver_growth_mb": round((peak - before) / _MB, 1),
        "listings": Counted.listings,
        "reads": Counted.reads,
    }


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


class _Pickled:
    """An executor that computes nothing, and notes the bytes that Ray would get for each part."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        from ray import cloudpickle

        self.sizes = [len(cloudpickle.dumps(_sent(spec))) for spec in specs[:20]]
        return {spec.number: Failure("not computed") for spec in specs}


def _sent(spec: PartSpec) -> Any:
    """Return what is sent with each part, as the commit at hand does it; now the rest is sent once for all parts."""
    try:
        from infra.stages.part_spec import own_of
    except ImportError:  # of an earlier commit
        return spec
    return spec if spec.shared is None else own_of(spec, spec.shared)


def spec_bytes(store: Store, numbers: Table) -> float:
    """Return the mean bytes of a part that reads its own piece, and beside it all pieces."""
    executor = _Pickled()
    stage = replace(MULTIPLY, name="multiply_all", every=("all",))
    Runner(store, executor)(stage, ToyConfig(), numbers=numbers, all=numbers)
    return sum(executor.sizes) / len(executor.sizes)


def walk(store: Store, numbers: Table, executor: Any = None, **known: Any) -> Runner:
    """Run the stage once."""
    runner = Runner(store, executor, **known)
    runner(MULTIPLY, ToyConfig(), numbers=numbers)
    return runner


def in_flow_run(store: Store, folder: Path, work: Callable[[Any], None]) -> None:
    """Do something with a real executor in a flow run."""
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    from infra.execution.executor import PrefectRayExecutor

    @flow(name="parts", task_runner=ThreadPoolTaskRunner(max_workers=max_parts()), persist_result=False)
    def run_all() -> None:
        with PrefectRayExecutor(store, folder / "scratch") as executor:
            work(executor)

    run_all()


class _Written:
    """An executor that computes nothing, and writes the manifest of each part."""

    def __init__(self, store: Store, pieces: Sequence[Piece]) -> None:
        self._store, self._pieces = store, pieces

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        return {spec.number: commit(self._store, self._manifest(spec)) for spec in specs}

    def _manifest(self, spec: PartSpec) -> Manifest:
        tables = {"multiplied": (self._pieces[spec.number],)}
        stats = {"seconds": 0.1, "rows_in": 10, "rows_out": 10, "rows": {"multiplied": 10}}
        return Manifest(MULTIPLY.name, 1, spec.number, spec.key, 0, spec.ingredients, tables, {}, stats)


def measure_size(folder: Path, parts: int) -> dict[str, Any]:
    """Measure the walks over one number of parts."""
    Store.open(str(folder))
    store = Counted(str(folder))
    numbers = make_numbers(store, parts)
    found: dict[str, dict[str, float]] = {"computed": {}, "reused": {}}
    _compute_and_reuse(store, folder, numbers, found)
    return _look_up(store, numbers, found)


def measure_look_up(folder: Path, parts: int) -> dict[str, Any]:
    """Measure the walks without an executor; the parts are not computed, only their manifests are written."""
    Store.open(str(folder))
    store = Counted(str(folder))
    numbers = make_numbers(store, parts)
    walk(store, numbers, _Written(store, numbers.pieces))
    return _look_up(store, numbers, {})


def _compute_and_reuse(store: Store, folder: Path, numbers: Table, found: dict[str, dict[str, float]]) -> None:
    parts, ended = len(numbers.pieces), list[Runner]()

    def flow_walk(name: str) -> Callable[[Any], None]:
        def work(executor: Any) -> None:
            with measured(found[name], parts):
                ended.append(walk(store, numbers, executor))

        return work

    in_flow_run(store, folder, flow_walk("computed"))
    in_flow_run(store, folder, flow_walk("reused"))
    counts = [(run.computed, run.reused, dict(run.failed)) for runner in ended for run in runner.runs]
    if counts != [(parts, 0, {}), (0, parts, {})]:
        raise RuntimeError(f"{parts} parts computed and then reused expected, {counts} came")


def _look_up(store: Store, numbers: Table, found: dict[str, dict[str, float]]) -> dict[str, Any]:
    parts = len(numbers.pieces)
    found |= {"looked_up": {}, "second_walk": {}}
    with measured(found["looked_up"], parts):
        first = walk(store, numbers)
    with measured(found["second_walk"], parts):
        walk(store, numbers, **_known(first))
    each = spec_bytes(store, numbers)
    row = {"parts": parts, **found, "spec_bytes": round(each), "spec_mb_of_all": round(each * parts / _MB, 1)}
    print(json.dumps(row), flush=True)
    return row


def _known(first: Runner) -> dict[str, Any]:
    if hasattr(first, "known"):  # of an earlier commit
        return {"known": {run.name: run for run in first.runs}}
    return {"found": first.found.for_another_walk()}


def measure(sizes: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """Measure each number of parts; starts and stops its own servers."""
    from prefect.settings import PREFECT_HOME, temporary_settings

    from infra.cluster.ray_cluster import ray_cluster
    from infra.prefect_api import server as servers
    from infra.prefect_api.client import connected

    servers._START_SECONDS = 900.0  # on a busy machine the start takes minutes; it is not measured
    server = servers.PrefectServer(folder / "home")
    try:
        address = server.start()
        home = temporary_settings({PREFECT_HOME: folder / "client"})
        with connected(server.api(address)), home, ray_cluster(None):
            warm = Store.open(str(folder / "warm"))
            numbers = make_numbers(warm, _WARM_PARTS)
            in_flow_run(warm, folder / "warm", lambda executor: (walk(warm, numbers, executor), None)[1])
            return [measure_size(folder / f"parts-{parts}", parts) for parts in sizes]
    finally:
        server.stop()


def compare(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how many times as much an earlier commit took, by number of parts.

    >>> row = {"parts": 300, "spec_bytes": 5, "reused": {"seconds_per_part": 0.1, "driver_growth_mb": 4.0}}
    >>> compare([row | {"spec_bytes": 50}], [row])
    [{'parts': 300, 'spec_bytes': 10.0, 'reused_seconds': 1.0, 'reused_growth': 1.0}]
    """
    earlier = {row["parts"]: row for row in before}
    found = []
    for row in after:
        old = earlier.get(row["parts"])
        if old is None:
            continue
        ratios = {"parts": row["parts"], "spec_bytes": round(old["spec_bytes"] / row["spec_bytes"], 2)}
        for name in (name for name, figures in row.items() if isinstance(figures, dict)):
            for short, figure in _COMPARED.items():
                if row[name].get(figure):
                    ratios[f"{name}_{short}"] = round(old[name][figure] / row[name][figure], 2)
        found.append(ratios)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--before", type=Path, help="figures of an earlier commit to compare with")
    parser.add_argument("--look-up", action="store_true", help="no servers: only what needs no executor")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "600")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with tempfile.TemporaryDirectory(prefix="reneg-parts-") as folder:
        if arguments.look_up:
            sizes = [measure_look_up(Path(folder) / f"parts-{parts}", parts) for parts in arguments.parts]
        else:
            sizes = measure(arguments.parts, Path(folder))
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.parts_overhead", *sys.argv[1:]]),
        "device": f"CPU, {os.cpu_count()} cores",
        "notes": "The machine was shared with other work; load is the load average at the end.",
        "load": round(os.getloadavg()[0], 1),
        "sizes": sizes,
    }
    if arguments.before is not None:
        before = json.loads(arguments.before.read_text())["sizes"]
        result |= {"before": before, "times_as_much_before": compare(before, sizes)}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
