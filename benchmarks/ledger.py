"""Measure the ledger at ten million rows: look-ups, a night's news and a purge, with what is read and rewritten.

The rows are generated as a judge writes them: 25 candidates of each query, an answer of one token with 20
log-probabilities (about 650 characters of JSON), three hashes of texts. They are written straight into the shelves, one
segment each, as compaction leaves them. Then, each with its seconds, bytes and requests:

- `part`: 10,000 entries of 400 queries are recalled, as a part of a judge asks; by a process that has read nothing yet,
  and once more. `random`: 10,000 entries of as many queries. `unknown`: 10,000 new pairs of known queries.
- `news`: 1% of the rows are remembered by 4 writers in calls of 128 rows; `night`: the compaction that a run ends with;
  `sorted`: one that sorts all of them into the shelves (`reneg ledger --compact` does).
- `purge_one`, `purge`: the rows that name one passage, and those that name one of 1,000 passages, are removed.

    python -m benchmarks.ledger --rows 10000000

writes benchmarks/results/ledger.json. The store is a directory in a temporary folder (2.5 GB for 10^7 rows), and is
removed. `--rows 312500 --shelves 8` measures a thirty-second part of that ledger: eight of its shelves, with a
thirty-second part of the entries and texts that are asked for. `--before FILE` puts the result of an earlier version of
the code beside this one's: the script runs on both.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from infra.ledger.ledger import Ledger
from infra.ledger.segments import SCHEMA, Segments
from infra.storage.store import Store

RESULT = Path(__file__).parent / "results" / "ledger.json"
JUDGE = "judge"
_ALL_SHELVES, _CANDIDATES, _TOP = 256, 25, 20
_TOKENS = ("Yes", "No", "yes", "no", " Yes", " No", "The", "It", "Relevant", "Not", "Maybe", "1", "0", "I", "This",
           "True", "False", "YES", "NO", "A")  # fmt: skip
_KEYS, _SUBJECTS, _CALL, _WRITERS = 10_000, 1_000, 128, 4
_AFTER_A_RUN = 64  # new segments from which a run's compaction sorts them


class Counted(Store):
    """Counts what is read of objects and what is written."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.read_bytes = self.written_bytes = self.requests = 0
        self._fs = _Watched(self._fs, self)

    def create(self, key: str, data: bytes) -> bool:
        self.written_bytes += len(data)
        return super().create(key, data)


class _Watched:
    """A file system that tells how much is read."""

    def __init__(self, inner: Any, to: Counted) -> None:
        self._inner, self._to = inner, to

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def cat_file(self, path: str, **options: Any) -> bytes:
        data: bytes = self._inner.cat_file(path, **options)
        self._to.read_bytes += len(data)
        self._to.requests += 1
        return data


def rows_of(shelf: int, count: int, seed: int) -> pl.DataFrame:
    """Generate the rows of one shelf; equal arguments give equal rows."""
    numbers = np.random.default_rng([seed, shelf])
    queries = -(-count // _CANDIDATES)
    query = np.array([f"{shelf:02x}{digits[2:]}" for digits in _hashes(numbers, queries)])
    of = np.repeat(np.arange(queries), _CANDIDATES)[:count]
    hashes = {"q": query[of], "p": np.array(_hashes(numbers, queries))[of], "d": _hashes(numbers, count)}
    logprobs = -np.sort(numbers.exponential(4.0, (count, _TOP)).astype(np.float32), axis=1).astype(np.float64)
    columns = {f"l{n}": logprobs[:, n] for n in range(_TOP)}
    shown = ", ".join(f'"{token}": {{}}' for token in _TOKENS)
    payload = pl.format(
        "{}" + shown + "{}",
        pl.lit('{"text": "Yes", "logprobs": {'),
        *(pl.col(name).cast(pl.String) for name in columns),
        pl.lit('}, "finish_reason": "length", "prompt_tokens": 412, "output_tokens": 1, "fingerprint": ""}'),
    )
    frame = pl.DataFrame({"entry": _hashes(numbers, count), **hashes, **columns})
    return frame.select(
        "entry",
        subjects=pl.concat_list("q", "p", "d"),
        payload=payload,
        origin=pl.lit("0123456789abcdef"),
        at=pl.lit(1_700_000_000, pl.Int64),
        again=pl.lit(0, pl.Int64),
    ).select(*SCHEMA)


def _hashes(numbers: np.random.Generator, count: int) -> list[str]:
    digits = numbers.bytes(16 * count).hex()
    return [digits[32 * n : 32 * n + 32] for n in range(count)]


def load(store: Store, rows: int, shelves: int, seed: int) -> pl.DataFrame:
    """Write the shelves; returns a sample of the rows: entry, query and passage."""
    segments, sample = Segments(store), []
    each = rows // shelves
    for shelf in range(shelves):
        frame = rows_of(shelf, each, seed)
        segments.write(f"ledger/{JUDGE}/{shelf:02x}", frame)
        subject = pl.col("subjects").list
        named = frame.select("entry", query=subject.get(0), passage=subject.get(2))
        sample.append(named.head(2 * _CANDIDATES * (_KEYS // _ALL_SHELVES)))
    return pl.concat(sample)


def measure(rows: int, shelves: int, seed: int, url: str) -> dict[str, Any]:
    """Load the ledger and take all figures."""
    Store.open(url)
    store = Counted(url)
    figures: dict[str, Any] = {"rows": rows // shelves * shelves, "shelves": shelves}
    keys, subjects = _KEYS * shelves // _ALL_SHELVES, max(1, _SUBJECTS * shelves // _ALL_SHELVES)
    sample: list[pl.DataFrame] = []
    figures["load"] = taken(store, lambda: sample.append(load(store, rows, shelves, seed)))
    known = sample[0]
    figures["bytes"] = sum(store.sizes("ledger").values())
    by_query = known.filter(pl.int_range(pl.len()).over("query") == 0)
    chosen = by_query.sample(keys // _CANDIDATES, seed=seed)["query"]
    part = known.filter(pl.col("query").is_in(chosen.implode()))
    apart = by_query.sample(min(keys, by_query.height), seed=seed + 1)
    fresh = part.with_columns(entry=pl.col("entry").str.reverse())
    for name, asked, expected in (
        ("part", part, part.height),
        ("part_again", part, part.height),
        ("random", apart, apart.height),
        ("unknown", fresh, 0),
    ):
        figures[name] = {"entries": asked.height} | taken(store, lambda a=asked, e=expected: recall(store, a, e))
    figures["news"] = {"rows": rows // 100} | taken(store, lambda: remember(store, rows // 100, shelves, seed + 1))
    figures["part_with_news"] = {"entries": part.height} | taken(store, lambda: recall(store, part, part.height))
    figures["night"] = taken(store, lambda: Ledger(store).compact(JUDGE, min_segments=_AFTER_A_RUN))
    figures["sorted"] = taken(store, lambda: Ledger(store).compact(JUDGE, min_segments=1))
    figures["part_after"] = {"entries": part.height} | taken(store, lambda: recall(store, part, part.height))
    passages = known["passage"].unique().sample(subjects + 1, seed=seed).to_list()
    for name, named in (("purge_one", passages[:1]), ("purge", passages[1:])):
        removed: list[Any] = []
        figures[name] = taken(store, lambda n=named, r=removed: r.append(Ledger(store).forget(n)))
        figures[name] |= {"subjects": len(named), "rows_removed": removed[0].rows, "rewritten": removed[0].segments}
        assert removed[0].rows == len(named)
    return figures


def taken(store: Counted, work: Callable[[], Any]) -> dict[str, Any]:
    """Do something; returns its seconds, what was read and written, and how many segments there are then."""
    before = store.read_bytes, store.written_bytes, store.requests
    started = time.monotonic()
    work()
    seconds = time.monotonic() - started
    after = store.read_bytes, store.written_bytes, store.requests
    read, written, requests = (new - old for new, old in zip(after, before, strict=True))
    return {
        "seconds": round(seconds, 2),
        "bytes_read": read,
        "bytes_written": written,
        "reads": requests,
        "segments": len(store.list("ledger")),
    }


def recall(store: Store, asked: pl.DataFrame, expected: int) -> None:
    found = Ledger(store).recall(JUDGE, dict(asked.select("entry", "query").rows()))
    if len(found) != expected:
        raise RuntimeError(f"{expected} answers expected, {len(found)} came")


def remember(store: Store, rows: int, shelves: int, seed: int) -> None:
    """Remember news of queries all over the shelves, as the parts of a judge do one after the other."""
    each = rows // _WRITERS
    for writer in range(_WRITERS):
        frames = [rows_of(shelf, max(1, each // shelves), seed + writer) for shelf in range(shelves)]
        held = pl.concat(frames).select("entry", "subjects", "payload").sample(fraction=1.0, shuffle=True, seed=seed)
        with Ledger(store, "0123456789abcdef") as ledger:
            for start in range(0, held.height, _CALL):
                ledger.remember(JUDGE, held.slice(start, _CALL).rows())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shelves", type=int, default=_ALL_SHELVES, help="fewer: a part of such a ledger")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the store is made; default: the system's temporary folder")
    parser.add_argument("--before", type=Path, help="a result of an earlier version, to stand beside this one's")
    parser.add_argument("--note", default="", help="a remark for the result")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reneg-ledger-", dir=asked.folder) as folder:
        figures = measure(asked.rows, asked.shelves, asked.seed, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    command = f"python -m benchmarks.ledger --rows {asked.rows} --shelves {asked.shelves} --seed {asked.seed}"
    result: dict[str, Any] = {"command": command, "device": f"CPU, {os.cpu_count()} cores", "gpu": "not measured"}
    result |= {"store": "a directory on the local disk", "peak_gib": round(peak, 2), **figures}
    if asked.note:
        result["note"] = asked.note
    if asked.before:
        result["before"] = json.loads(asked.before.read_text(encoding="utf-8"))
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
