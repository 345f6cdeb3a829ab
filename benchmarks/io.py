"""Measure how fast a large file is ingested, and how much memory that takes, beside the same edit in `datasets.map`.

The file is generated, in the layout in which the paper's data is published: `query_id`, `query`, `positive_passages`,
`negative_passages`, `subset`, as parquet. Each row has one positive and 15 to 25 negatives of about 100 words; a
passage is in three rows on average, and some negatives repeat the positive of their row.

- `ours`: the stage `ingest` as a part of a curation: the file is copied out of the store, read, treated and written.
- `datasets`: `load_dataset` and `Dataset.map`, row by row, with the same edit: texts are cleaned, cut and hashed, and
  negatives that are there twice or repeat the positive are removed. `map` merges no passages across rows.

Each runs in a process of its own, one after the other, on the same file. Memory is the largest resident set of that
process; `cpu_seconds` is what it computed in all its threads, with its imports. On a machine that does other work too,
the seconds say little, and the ratio of `cpu_seconds` says more.

    python -m benchmarks.io --megabytes 1000

writes benchmarks/results/io.json. The file and the store are in a temporary folder and removed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

RESULT = Path(__file__).parent / "results" / "io.json"
_GROUP = 1_000  # rows of one row group
_WORDS, _SYLLABLES = 30_000, ("ba", "den", "ko", "li", "mar", "no", "per", "ri", "sta", "ten", "u", "ven")
_SHARED = 3  # rows that have a passage, on average
_COPIES = 0.02  # share of rows with a negative that repeats the positive
_MB = 1_000_000


def write_rows(path: Path, megabytes: float, seed: int) -> int:
    """Write a file of about so many megabytes; returns its rows. Equal arguments give equal rows."""
    numbers = np.random.default_rng(seed)
    words = np.array(["".join(numbers.choice(_SYLLABLES, size)) for size in numbers.integers(1, 5, _WORDS)])
    pool, rows = _passages(words, numbers, 5_000), 0
    with pq.ParquetWriter(path, _table(pool, words, numbers, 0, 1).schema, compression="zstd") as writer:
        while path.stat().st_size < megabytes * _MB - _MB:
            wanted = (rows + _GROUP) * 21 // _SHARED
            while pool.height < wanted:
                pool = pl.concat([pool, _passages(words, numbers, 5_000, pool.height)])
            writer.write_table(_table(pool.tail(200_000), words, numbers, rows, _GROUP))
            rows += _GROUP
    return rows


def _passages(words: Any, numbers: np.random.Generator, count: int, first: int = 0) -> pl.DataFrame:
    lengths = numbers.integers(60, 140, count)
    drawn = words[np.minimum(numbers.zipf(1.2, lengths.sum()), len(words)) - 1].tolist()
    ends = np.cumsum(lengths)
    texts = [" ".join(drawn[end - length : end]) for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]
    titles = [text[: int(cut)].strip() for text, cut in zip(texts, numbers.integers(0, 40, count), strict=True)]
    return pl.DataFrame({"docid": [str(first + n) for n in range(count)], "title": titles, "text": texts})


def _table(pool: pl.DataFrame, words: Any, numbers: np.random.Generator, first: int, rows: int) -> pa.Table:
    counts = numbers.integers(15, 26, rows)
    positives = numbers.integers(0, pool.height, rows)
    negatives = numbers.integers(0, pool.height, counts.sum())
    starts = np.concatenate([[0], np.cumsum(counts)])
    again = np.flatnonzero(numbers.random(rows) < _COPIES)
    negatives[starts[again]] = positives[again]
    queries = [" ".join(numbers.choice(words, 9)) for _ in range(rows)]
    columns = {
        "query_id": pa.array([f"q{first + n}" for n in range(rows)]),
        "query": pa.array(queries),
        "positive_passages": _lists(pool, positives, np.arange(rows + 1)),
        "negative_passages": _lists(pool, negatives, starts),
        "subset": pa.array(["synthetic"] * rows),
    }
    return pa.table(columns)


def _lists(pool: pl.DataFrame, chosen: Any, starts: Any) -> pa.Array:
    passages = pool[chosen].to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    structs = pa.StructArray.from_arrays(
        [passages[name].combine_chunks().cast(pa.string()) for name in pool.columns], names=pool.columns
    )
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), structs)


def run_ours(source: Path, folder: Path) -> dict[str, float]:
    """Ingest the file as a part of a curation; returns the seconds, the rows kept and lost, and the passages."""
    from flows import stages as st
    from infra.stages.compute_part import compute_part
    from infra.stages.runner import PartSpec
    from infra.storage.artifacts import write_directory
    from infra.storage.store import Store
    from tasks.data.ingest import IngestConfig

    store = Store.open(str(folder / "store"))
    config = IngestConfig(dataset="synthetic").model_dump(mode="json")
    inputs = {"source": write_directory(store, "source", source)}
    spec = PartSpec(st.INGEST, "ingest-00000", 0, 0, "io", 0, {}, config, inputs)
    started = time.monotonic()
    manifest = compute_part(store.url, spec, folder / "cache")
    seconds = time.monotonic() - started
    facts = manifest.stats["facts"]
    return {"seconds": seconds, "rows": facts["rows_kept"], "passages": facts["passages_kept"]}


def run_datasets(source: Path, folder: Path) -> dict[str, float]:
    """Read the file with `datasets`, map the edit over its rows; returns the seconds and the rows."""
    import datasets

    datasets.disable_progress_bars()
    started = time.monotonic()
    files = sorted(str(path) for path in source.glob("*.parquet"))
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "cache"))
    made = found.map(edit)
    return {"seconds": time.monotonic() - started, "rows": made.num_rows}


def edit(row: Mapping[str, Any]) -> dict[str, Any]:
    """Clean, cut and hash the texts of a row, and remove negatives that repeat a passage: what ingest does to it."""
    from tasks.texts import clean, hash_guard, hash_passage, hash_shown, hash_text

    longest = 20_000
    query = clean(row["query"])[:longest]
    seen: set[str] = set()
    made: dict[str, Any] = {"query": query, "query_hash": hash_text(query)}
    for side in ("positive_passages", "negative_passages"):
        kept = []
        for passage in row[side]:
            title, text = clean(passage["title"])[:longest], clean(passage["text"])[:longest]
            hashes = hash_passage(title, text), hash_shown(title, text), hash_guard(title, text)
            if seen.isdisjoint(hashes):
                names = ("docid", "title", "text", "text_hash", "shown_hash", "guard_hash")
                kept.append(dict(zip(names, (passage["docid"], title, text, *hashes), strict=True)))
                seen.update(hashes)
        made[side] = kept
    return made


_WAYS = {"ours": run_ours, "datasets": run_datasets}


def measure(megabytes: float, seed: int, folder: Path) -> dict[str, Any]:
    """Generate the file, and take both ways in processes of their own; returns the figures."""
    source = folder / "source"
    source.mkdir(parents=True)
    rows = write_rows(source / "train.parquet", megabytes, seed)
    found = {way: _in_process(way, source, folder / way) for way in _WAYS}
    speed = {way: round(rows / figures["seconds"], 1) for way, figures in found.items()}
    return {
        "file_bytes": (source / "train.parquet").stat().st_size,
        "rows": rows,
        "passages": int(found["ours"]["passages"]),
        "rows_per_second": speed["ours"],
        "datasets_rows_per_second": speed["datasets"],
        "ratio": round(speed["ours"] / speed["datasets"], 2),
        "seconds": {way: round(figures["seconds"], 2) for way, figures in found.items()},
        "cpu_seconds": {way: round(figures["cpu_seconds"], 2) for way, figures in found.items()},
        "peak_rss_bytes": {way: int(figures["peak_rss_bytes"]) for way, figures in found.items()},
    }


def _in_process(way: str, source: Path, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.io", "--way", way, "--source", str(source), "--folder", str(folder)]
    environment = {**os.environ, "TMPDIR": str(folder), "HF_DATASETS_OFFLINE": "1"}
    folder.mkdir(parents=True)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{way} failed: {done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _arguments() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "--megabytes", {"type": float, "default": 1000.0, "help": "size of the file"}
    yield "--seed", {"type": int, "default": 7}
    yield "--note", {"default": "", "help": "a remark for the result"}
    yield "--way", {"choices": sorted(_WAYS), "help": argparse.SUPPRESS}
    yield "--source", {"type": Path, "help": argparse.SUPPRESS}
    yield "--folder", {"type": Path, "help": argparse.SUPPRESS}


def main() -> None:
    """Measure and write the result; with `--way` take one way and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, more in _arguments():
        parser.add_argument(name, **more)
    asked = parser.parse_args()
    if asked.way:
        figures = _WAYS[asked.way](asked.source, asked.folder)
        used = resource.getrusage(resource.RUSAGE_SELF)
        more = {"peak_rss_bytes": used.ru_maxrss * 1024, "cpu_seconds": used.ru_utime + used.ru_stime}
        sys.stdout.write(json.dumps({**figures, **more}) + "\n")
        return
    with tempfile.TemporaryDirectory(prefix="reneg-io-") as folder:
        figures = measure(asked.megabytes, asked.seed, Path(folder))
    command = f"python -m benchmarks.io --megabytes {asked.megabytes:g} --seed {asked.seed}"
    result = {"command": command, "device": f"CPU, {os.cpu_count()} cores", "gpu": "not measured", **figures}
    if asked.note:
        result["note"] = asked.note
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
