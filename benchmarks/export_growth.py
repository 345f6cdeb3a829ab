"""Measure what an export costs when its source grew: written as a whole, and merged from lines that are kept.

The rows are those of `benchmarks.paper_size_data` (20 negatives of 100 words), in query parts of 500, in a store in a
folder. Each step is computed as the part of a curation is, in a process of its own.

- `whole`: one export joins, sorts and writes all rows, and stores its files.
- `render`: the lines of all groups of query parts, which a first curation writes. `render_new`: those of one percent
  more rows, a group of its own.
- `merge`: the export of lines that are there.
- `growth_ratio`: CPU seconds of `render_new` and `merge` over those of `whole`. `first_ratio`: of `render` and `merge`.
- `place`: the files are copied from the store into a folder. `place_again`: once more. `copy_twice`: by the cache.

`cpu_seconds` counts all threads and the kernel, and says more than `seconds` where other work runs beside it.

    python -m benchmarks.export_growth --queries 10000

writes benchmarks/results/export_growth.json.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import paper_size_data as data
from flows.method.human_labels import without
from flows.report_stages import EXPORT, RENDER, RENDERED_ROWS
from infra.names import StageName
from infra.stages.compute_part import compute_part
from infra.stages.cutting import Call, cut
from infra.stages.part_spec import PartSpec
from infra.storage.artifacts import Directory, Manifest, Piece, Table, materialise, place_directory, write_table
from infra.storage.store import Store
from tasks import schemas
from tasks.data.rendering.render import render_config, rendered_formats
from tasks.data.writing.config import ExportConfig
from tasks.texts import combine_hashes, hash_passage, hash_text

RESULT = Path(__file__).parent / "results" / "export_growth.json"
_PART = 500  # queries of a part
_SCHEMAS = {"instances": schemas.INSTANCES, "queries": schemas.QUERIES, "passages": schemas.PASSAGES}
_CONFIG = ExportConfig()
_RENDERED = rendered_formats(_CONFIG, ())


def write_tables(store: Store, queries: int) -> dict[str, Table]:
    """Store instances, queries and passages, cut into query parts."""
    pieces: dict[str, list[Piece]] = {name: [] for name in _SCHEMAS}
    for index, start in enumerate(range(0, queries, _PART)):
        for name, rows in _rows(np.arange(start, min(start + _PART, queries)), queries).items():
            frame = pl.DataFrame(rows, schema=_SCHEMAS[name].columns, orient="row").sort(_SCHEMAS[name].key)
            pieces[name].append(write_table(store, name, frame, _SCHEMAS[name], index))
    return {name: Table(name, tuple(found), schema=_SCHEMAS[name]) for name, found in pieces.items()}


def _rows(numbers: Any, total: int) -> dict[str, list[tuple[Any, ...]]]:
    positives, negatives = data.passages_of(numbers, total)
    asked = data.write_texts(1, numbers, 9).to_list()
    every = np.concatenate([positives, negatives], axis=1)
    distinct = np.unique(every[every >= 0])
    texts = dict(zip(distinct.tolist(), data.write_texts(2, distinct, 100).to_list(), strict=True))
    hashes = {number: hash_passage("", text) for number, text in texts.items()}
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _SCHEMAS}
    named: dict[tuple[str, str], tuple[Any, ...]] = {}
    for row, number in enumerate(numbers.tolist()):
        dataset, query_id, query = data.DATASETS[number % len(data.DATASETS)], f"q{number}", asked[row]
        sides = [list(dict.fromkeys(one for one in side[row].tolist() if one >= 0)) for side in (positives, negatives)]
        documents = [one for side in sides for one in side]
        named |= {(dataset, str(one)): (dataset, str(one), "", texts[one], hashes[one]) for one in documents}
        texts_hash = combine_hashes([hash_text(query), *(hashes[one] for one in documents)])
        found["queries"].append((dataset, query_id, query, hash_text(query), "train"))
        ids = ([str(one) for one in side] for side in sides)
        found["instances"].append((dataset, query_id, *ids, "relabel", texts_hash))
    return found | {"passages": list(named.values())}


def whole_parts(tables: Mapping[str, Table]) -> list[PartSpec]:
    """Return the one part of an export that writes all rows."""
    stage = without(EXPORT, *(set(EXPORT.inputs) - tables.keys()))
    return cut(Call(stage, StageName("export"), _CONFIG, dict(tables)))[0]


def render_parts(tables: Mapping[str, Table]) -> list[PartSpec]:
    """Return the parts that write the lines, each of a group of query parts."""
    size = RENDERED_ROWS // _PART
    parts = sorted(tables["instances"].indexes)
    groups = [parts[start : start + size] for start in range(0, len(parts), size)]
    stage = without(RENDER, *(set(RENDER.inputs) - tables.keys()))
    grouped = {name: table.grouped(groups) for name, table in tables.items()}
    return cut(Call(stage, StageName("render"), render_config(_CONFIG, _RENDERED), grouped))[0]


def merge_parts(rendered: list[Manifest]) -> list[PartSpec]:
    """Return the one part of an export that merges lines."""
    names = ("index", "texts", "tallies")
    lines = {name: Table(name, tuple(p for made in rendered for p in made.tables[name])) for name in names}
    stage = without(EXPORT, *(set(EXPORT.inputs) - lines.keys()))
    config = _CONFIG.model_copy(update={"rendered": _RENDERED})
    return cut(Call(stage, StageName("export"), config, lines))[0]


def compute(store: Store, cache: Path, specs: list[PartSpec]) -> list[Manifest]:
    """Compute parts one after another."""
    return [compute_part(store.url, spec, cache) for spec in specs]


def copy_twice(store: Store, directory: Directory, cache: Path, folder: Path) -> None:
    """Copy the files of an export to the cache, and from there into a folder."""
    laid_out = materialise(store, directory, cache)
    for name in directory.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(laid_out / name, folder / name)


def measured(work: Callable[..., Any], *arguments: Any) -> tuple[Any, dict[str, float]]:
    """Do work in a process of its own; returns its result, the seconds, CPU seconds and the peak of its memory."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_clocked, work, arguments).result()


def _clocked(work: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, dict[str, float]]:
    began, spent = time.monotonic(), time.process_time()
    made = work(*arguments)
    figures = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - spent}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return made, {name: round(value, 3) for name, value in (figures | {"peak_gib": peak}).items()}


def steps(folder: Path, queries: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each step's name and figures.

    Raises:
        RuntimeError: the merged files are not those of the export as a whole.
    """
    store, cache = Store.open(str(folder / "store")), folder / "cache"
    tables = write_tables(store, queries)
    (whole,), figures = measured(compute, store, cache, whole_parts(tables))
    yield "whole", figures
    specs = render_parts(tables)
    rendered, figures = measured(compute, store, cache, specs)
    yield "render", {**figures, "parts": len(specs)}
    new = render_parts(write_tables(store, max(1, queries // 100)))
    yield "render_new", measured(compute, store, cache, new)[1]
    (merged,), figures = measured(compute, store, cache, merge_parts(rendered))
    yield "merge", figures
    if whole.directories != merged.directories:
        raise RuntimeError(f"{whole.directories} expected, {merged.directories} came: the lines differ")
    export = Directory("export", merged.directories["export"])
    yield "copy_twice", measured(copy_twice, store, export, cache, folder / "twice")[1]
    for name in ("place", "place_again"):
        yield name, measured(place_directory, store, export, folder / "out")[1]


def measure(folder: Path, queries: int) -> dict[str, Any]:
    """Return the figures of all steps, and the ratios of growth."""
    found: dict[str, Any] = {}
    for name, figures in steps(folder, queries):
        print(json.dumps({name: figures}), flush=True)
        found[name] = figures
    spent = {name: figures["cpu_seconds"] for name, figures in found.items()}
    size = (folder / "out" / "tevatron" / "train.jsonl").stat().st_size
    return {
        "queries": queries,
        "bytes": size,
        **found,
        "growth_ratio": round((spent["render_new"] + spent["merge"]) / spent["whole"], 3),
        "first_ratio": round((spent["render"] + spent["merge"]) / spent["whole"], 3),
        "place_ratio": round(spent["place"] / spent["copy_twice"], 3),
    }


def main() -> None:
    """Read the options, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reneg-export-growth-") as folder:
        given.out.write_text(json.dumps(measure(Path(folder), given.queries), indent=1) + "\n")


if __name__ == "__main__":
    main()
