"""Measure the search by words beside bm25s alone: the same texts and settings, from texts to the nearest passages.

The texts are generated: words as frequent as Zipf's law has it, about 100 in a passage, 8 in a query, which are taken
from one passage.

- `ours`: the stages `index_terms`, `count_terms` and `search_bm25`, over parts of 50,000 passages and 1,000 queries.
  Every table is written to a store and read from it, as the parts of a curation do. No Prefect and no Ray. What cannot
  be a negative is masked, and the table of hits is made.
- `bm25s`: `bm25s.tokenize`, `BM25.index` and `BM25.retrieve` on the whole corpus, with its default backend (numpy), and
  `numba` with that backend. The rows are left as arrays.

Each runs in a process of its own, one after the other. Memory is the largest resident set of that process.
`bm25_share` is the speed of `ours` as a share of that of `bm25s`; `search_share` is of the search alone, `cpu_share` of
the processor's seconds, which other work on the machine changes less.

    python -m benchmarks.bm25 --passages 200000 --queries 10000

writes benchmarks/results/bm25.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from infra.storage.artifacts import Table, read_table, write_table
from infra.storage.store import Store
from tasks import schemas
from tasks.mining.bm25.index import DOCUMENTS, POSTINGS, TERMS, TOTALS, index_terms
from tasks.mining.bm25.search import Bm25Config, search_bm25
from tasks.mining.bm25.statistics import count_terms
from tasks.mining.search import rank_by_score
from tasks.texts import hash_passage, hash_text

RESULT = Path(__file__).parent / "results" / "bm25.json"
PASSAGE_PART, QUERY_PART, DEPTH = 50_000, 1_000, 100
_WORDS, _LENGTH, _ASKED = 100_000, 100, 8
_SYLLABLES = ("ba", "den", "ko", "li", "mar", "no", "per", "ri", "sta", "ten", "u", "ven", "ol", "gri", "fa", "sun")


def write_texts(passages: int, queries: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Write passages and queries; equal arguments give equal texts."""
    numbers = np.random.default_rng(seed)
    made = {"".join(numbers.choice(_SYLLABLES, size)) for size in numbers.integers(1, 8, 2 * _WORDS)}
    words = np.array(sorted(word for word in made if len(word) > 1)[:_WORDS])
    numbers.shuffle(words)
    shares = 1 / (np.arange(len(words)) + 2.7)
    lengths = numbers.integers(_LENGTH // 2, _LENGTH * 3 // 2, passages)
    drawn = words[numbers.choice(len(words), int(lengths.sum()), p=shares / shares.sum())]
    ends = np.cumsum(lengths)
    texts = [" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)]
    asked = [" ".join(numbers.choice(texts[row].split(), _ASKED)) for row in numbers.integers(0, passages, queries)]
    return texts, asked


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started


def run_ours(texts: list[str], asked: list[str]) -> tuple[dict[str, float], list[list[str]]]:
    """Run the stages part by part; returns their seconds, and the nearest passages of each query."""
    config, seconds = Bm25Config(depth=DEPTH), dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="reneg-bm25-") as folder:
        store = Store.open(str(Path(folder) / "store"))
        corpus = pl.DataFrame(
            [("d", f"p{n:07d}", "", text, hash_passage("", text)) for n, text in enumerate(texts)],
            schema=schemas.PASSAGES.columns,
            orient="row",
        )
        questions = pl.DataFrame(
            [("d", f"q{n:07d}", text, hash_text(text), "train") for n, text in enumerate(asked)],
            schema=schemas.QUERIES.columns,
            orient="row",
        )

        def keep(name: str, frame: pl.DataFrame, schema: schemas.Schema) -> Table:
            return Table(name, (write_table(store, name, frame, schema, 0),))

        cut = range(0, corpus.height, PASSAGE_PART)
        passages = [keep("passages", corpus[at : at + PASSAGE_PART], schemas.PASSAGES) for at in cut]
        queries = [
            keep("queries", questions[at : at + QUERY_PART], schemas.QUERIES)
            for at in range(0, questions.height, QUERY_PART)
        ]
        named = {"documents": DOCUMENTS, "postings": POSTINGS, "terms": TERMS, "totals": TOTALS}
        with _timed(seconds, "index"):
            index = []
            for part in passages:
                made = index_terms(config.as_words, passages=read_table(store, part))
                index.append({name: keep(name, made[name], schema) for name, schema in named.items()})
        with _timed(seconds, "count"):
            counts = {name: pl.concat(read_table(store, one[name]) for one in index) for name in ("terms", "totals")}
            whole = count_terms(
                config.as_words, queries=pl.concat(read_table(store, part) for part in queries), **counts
            )
            kept = {
                name: keep(name, whole[name], named[to])
                for name, to in (("frequencies", "terms"), ("corpus", "totals"))
            }
        hits = []
        with _timed(seconds, "search"):
            for asking in queries:
                for part, made in zip(passages, index, strict=True):
                    found = search_bm25(
                        config,
                        queries=read_table(store, asking),
                        positives=schemas.POSITIVES.empty(),
                        passages=read_table(store, part),
                        documents=read_table(store, made["documents"]),
                        postings=read_table(store, made["postings"]),
                        **{name: read_table(store, table) for name, table in kept.items()},
                    )["hits"]
                    hits.append(keep("hits", found, schemas.HITS))
        merged = pl.concat(read_table(store, part) for part in hits).pipe(rank_by_score)
    nearest = merged.filter(pl.col("rank") <= DEPTH).group_by("query_id", maintain_order=True).agg("doc_id")
    found_by = dict(nearest.iter_rows())
    return seconds, [found_by.get(f"q{n:07d}", []) for n in range(len(asked))]


def run_bm25s(texts: list[str], asked: list[str], backend: str) -> tuple[dict[str, float], list[list[str]]]:
    """Run bm25s on the whole corpus."""
    import bm25s

    seconds: dict[str, float] = {}
    if backend == "numba":  # it compiles on its first call
        small = bm25s.BM25(backend=backend)
        small.index([["aa", "bb"], ["bb", "cc"]], show_progress=False)
        small.retrieve([["aa"]], k=1, show_progress=False)
    with _timed(seconds, "index"):
        tokens = bm25s.tokenize(texts, stopwords=None, show_progress=False)
        model = bm25s.BM25(backend=backend)
        model.index(tokens, show_progress=False)
    with _timed(seconds, "search"):
        questions = bm25s.tokenize(asked, stopwords=None, return_ids=False, show_progress=False)
        rows, _ = model.retrieve(questions, k=DEPTH, show_progress=False)
    return seconds, [[f"p{row:07d}" for row in found] for found in rows]


def run_one(name: str, passages: int, queries: int) -> dict[str, Any]:
    """Run one of the two in this process, and measure it."""
    texts, asked = write_texts(passages, queries)
    before = resource.getrusage(resource.RUSAGE_SELF)
    memory = before.ru_maxrss
    seconds, nearest = (
        run_ours(texts, asked) if name == "ours" else run_bm25s(texts, asked, {"bm25s": "numpy"}.get(name, name))
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(sum(seconds.values()), 2),
        "steps": {step: round(value, 2) for step, value in seconds.items()},
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_gib": round(after.ru_maxrss / 2**20, 2),
        "texts_gib": round(memory / 2**20, 2),
        "nearest": nearest,
    }


def compare(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Put the figures together; `equal_share` is the share of queries with the same ten nearest, but for ties."""
    first, other = (runs[name].pop("nearest") for name in ("ours", "bm25s"))
    runs["numba"].pop("nearest")
    same = [set(one[:10]) == set(two[:10]) for one, two in zip(first, other, strict=True)]
    return {
        "runs": runs,
        "bm25_share": round(runs["bm25s"]["seconds"] / runs["ours"]["seconds"], 3),
        "search_share": round(runs["bm25s"]["steps"]["search"] / runs["ours"]["steps"]["search"], 3),
        "cpu_share": round(runs["bm25s"]["cpu_seconds"] / max(runs["ours"]["cpu_seconds"], 0.1), 3),
        "numba_share": round(runs["numba"]["seconds"] / runs["ours"]["seconds"], 3),
        "numba_search_share": round(runs["numba"]["steps"]["search"] / runs["ours"]["steps"]["search"], 3),
        "equal_share": round(sum(same) / len(same), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(run_one(arguments.only, arguments.passages, arguments.queries)))
        return
    sizes = ["--passages", str(arguments.passages), "--queries", str(arguments.queries)]
    runs = {}
    for name in ("bm25s", "numba", "ours"):
        command = [sys.executable, "-m", "benchmarks.bm25", "--only", name, *sizes]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        runs[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, {key: value for key, value in runs[name].items() if key != "nearest"}, flush=True)
    figures = {"passages": arguments.passages, "queries": arguments.queries, "cpus": os.cpu_count(), **compare(runs)}
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")
    print({name: value for name, value in figures.items() if name != "runs"})


if __name__ == "__main__":
    main()
