"""Run whole curations of the paper's shape at several sizes, and measure time, memory, reads, growth and repair.

The data is generated (`benchmarks.paper_size_data`): seven datasets, 1.1 positives and 20 negatives a row, texts of 100
words. The encoder adds up word vectors, and the two judges are files, so what is measured is Reneg: ingest, adopt,
similarity, two tiers, decide, sample, treat, export and the report, through the command line with a real Ray and a real
Prefect server, on a store in a folder.

    python -m benchmarks.paper_size --queries 10000 30000 100000

writes benchmarks/results/paper_size.json. At the middle size one percent of rows, with their passages, is added. At the
largest one a part of a judge fails and is computed again (`benchmarks.paper_size_repair`). Last comes a mined run: a
corpus of 1,000,000 passages, 20,000 queries, 25 candidates for each. `--add` keeps the runs that the result holds, so
that the sizes can be measured one by one.

- `seconds`, `cpu_seconds`: of the command with everything that it starts. `cpu_by_process`: the driver is the command,
  workers are Ray's, servers are Prefect's and Ray's.
- `peak_driver_gib`: the largest resident set of the command's process. `peak_worker_gib`: that of any Ray worker.
- `read_over_input`: the most that a stage's parts read together, over the distinct bytes of what they were given.
- `parts`: of all stages. `work`: the working seconds of the dearest stages' parts.
- `marginal_ratio`: (t3 - t2) / (n3 - n2) over (t2 - t1) / (n2 - n1). 1 is linear growth.
- `hours_of_680k`: the paper's number of rows, at the cost of a further row between the two largest sizes.
- `growth`: shares (`benchmarks.paper_size_parts.growth_shares`), and `time_share`: (seconds after the growth - seconds
  of an unchanged run) over the seconds of the full run. An unchanged run starts no server. `time_share_started`: the
  same, with the seconds of a run that starts them and computes one small part (`seconds_started`).
- `retry_seconds`: of the repair; `repair` has `part_seconds`, the working seconds of the part alone.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import paper_size_data as data
from benchmarks import paper_size_mined as mined
from benchmarks.paper_size_parts import Part, growth_shares, new_by_stage, parts_of, read_over_input, seconds_by_stage
from benchmarks.paper_size_repair import curation_of, repair
from benchmarks.paper_size_watch import Run, reneg

RESULT = Path(__file__).parent / "results" / "paper_size.json"
_PAPER = 680_000
_GROWTH = 0.01
_NAME = "paper-size"
_CONFIG = f"{_NAME}.yaml"
_JUDGE = "read_scores-strong"  # of which a part fails
_SMALL = "tally"  # whose parts take no time
_DEAREST = 8  # stages whose working seconds are written down


def measure(folder: Path, queries: int) -> dict[str, Any]:
    """Generate so many rows, curate them, and return the figures; the folder keeps source, home and store."""
    total = round(queries * (1 + _GROWTH))
    data.write_source(folder / "source", 0, queries, total)
    scores = folder / "scores"
    scores.mkdir()
    for seed, name in enumerate(data.JUDGES):
        data.write_scores(scores / f"{name}.parquet", total, total, seed)
    data.write_encoder(folder / "encoder")
    data.write_config(folder / _CONFIG, _NAME, folder / "source", scores, folder / "encoder")
    run = reneg(folder, "curate", str(folder / _CONFIG))
    return {"name": f"rows-{queries}", "queries": queries, **figures([run], parts_of(folder, _NAME))}


def figures(runs: Sequence[Run], parts: Sequence[Part]) -> dict[str, Any]:
    """Return the figures of a curation that one or several commands made."""
    ratios = read_over_input(parts)
    seen = [run.peak.get("worker", 0.0) for run in runs]
    return {
        "seconds": round(sum(run.seconds for run in runs), 1),
        "cpu_seconds": round(sum(sum(run.cpu.values()) for run in runs), 1),
        "cpu_by_process": dict(sum((Counter(run.cpu) for run in runs), Counter())),
        "peak_worker_gib": round(max(*seen, *(part.peak_gib for part in parts)), 3),
        "peak_driver_gib": max(run.peak.get("driver", 0.0) for run in runs),
        "read_over_input": max(ratios.values(), default=None),
        "read_over_input_by_stage": ratios,
        "parts": len(parts),
        "work": dict(list(seconds_by_stage(parts).items())[:_DEAREST]),
    }


def grow(folder: Path, queries: int, full: Mapping[str, Any]) -> dict[str, Any]:
    """Curate an unchanged source again, then one with one percent more; returns what the growth cost."""
    config, before = str(folder / _CONFIG), parts_of(folder, _NAME)
    unchanged = reneg(folder, "curate", config)
    started = reneg(folder, "rerun", curation_of(unchanged.output), "--stage", _SMALL, "--part", "0")
    total = round(queries * (1 + _GROWTH))
    data.write_source(folder / "source", queries, total - queries, total)
    grown = reneg(folder, "curate", config)
    after = parts_of(folder, _NAME)
    return {
        "queries": queries,
        "added": total - queries,
        **growth_shares(before, after),
        "new_parts_by_stage": new_by_stage(before, after),
        "seconds": grown.seconds,
        "seconds_unchanged": unchanged.seconds,
        "seconds_started": started.seconds,
        "time_share": round((grown.seconds - unchanged.seconds) / full["seconds"], 4),
        "time_share_started": round((grown.seconds - started.seconds) / full["seconds"], 4),
    }


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


def add_run(result: dict[str, Any], run: Mapping[str, Any]) -> None:
    """Put a run into the result, in the place of an older one of its name, and work out what follows from all runs."""
    runs = [one for one in result["runs"] if one["name"] != run["name"]] + [dict(run)]
    rows = sorted((one for one in runs if one["name"].startswith("rows-")), key=lambda one: one["queries"])
    result["runs"] = rows + [one for one in runs if one not in rows]
    result |= {"marginal_ratio": marginal_ratio(rows), "hours_of_680k": forecast(rows)}


def run_all(given: argparse.Namespace, root: Path, result: dict[str, Any]) -> None:
    """Measure each size in a folder of its own, and write the result after each."""
    sizes = sorted(given.queries)
    growing = sizes[len(sizes) // 2] if given.grow is None and sizes else given.grow
    failing = max(sizes, default=0) if given.fail is None else given.fail
    for queries in sizes:
        folder = root / str(queries)
        folder.mkdir(parents=True)
        run = measure(folder, queries)
        add_run(result, run)
        _keep(given.out, result, run)
        if queries == growing:
            result["growth"] = grow(folder, queries, run)
            _keep(given.out, result, result["growth"])
        if queries == failing:
            result["repair"] = repair(folder, folder / _CONFIG, _NAME, _JUDGE)
            result["retry_seconds"] = result["repair"].pop("retry_seconds")
            _keep(given.out, result, result["repair"])
        if given.folder is None:
            shutil.rmtree(folder)
    if given.mined_queries:
        folder = root / "mined"
        folder.mkdir(parents=True)
        runs = mined.curate(folder, given.mined_passages, given.mined_queries)
        parts = parts_of(folder, mined.NAME)
        run = {"name": f"mined-{given.mined_passages}", "queries": given.mined_queries, **figures(runs, parts)}
        add_run(result, run | {"seconds_mining": runs[0].seconds})
        _keep(given.out, result, run)


def _keep(path: Path, result: Mapping[str, Any], news: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(news), flush=True)


def main() -> None:
    """Read the options, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, nargs="*", default=[10_000, 30_000, 100_000])
    parser.add_argument("--grow", type=int, help="the size that grows; by default the middle one, 0 for none")
    parser.add_argument("--fail", type=int, help="the size at which a part fails; by default the largest, 0 for none")
    parser.add_argument("--mined-passages", type=int, default=1_000_000)
    parser.add_argument("--mined-queries", type=int, default=20_000, help="0: no mined run")
    parser.add_argument("--folder", type=Path, help="where data and stores are written, and kept")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--add", action="store_true", help="keep the runs that the result holds")
    given = parser.parse_args()
    result: dict[str, Any] = {"machine": {"cpus": os.cpu_count(), "processor": platform.machine()}, "runs": []}
    if given.add and given.out.exists():
        result = json.loads(given.out.read_text())
    root = given.folder or Path(tempfile.mkdtemp(prefix="reneg-paper-size-"))
    try:
        run_all(given, root, result)
    finally:
        if given.folder is None:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
