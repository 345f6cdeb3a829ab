"""Measure mining: Reneg beside `mine_hard_negatives` of sentence-transformers, and its search beside a matrix product.

Both get the same generated vectors (`benchmarks.mining_data`), and the same window, margin and number of negatives.
Encoding is taken out: sentence-transformers gets a model that returns the vectors. Reneg reads its tables from a store,
as in a curation, and writes hits and negatives there. Each way runs in a process of its own, in turn, several times;
the figures are medians. Memory is the highest resident set of the process; `gib_before` is what it held before it began
to mine, with its imports and, for sentence-transformers, the texts. `cpu_…` are the same ratios of processor seconds:
on a machine that does other work too, the seconds say little.

- `speedup`, `memory_ratio`: seconds and memory of sentence-transformers with its defaults / those of Reneg.
- `faiss_speedup`, `faiss_memory_ratio`: the same with `use_faiss=True, faiss_batch_size=1024`.
- `deep_speedup`, `deep_faiss_speedup`: the same, of one run of Reneg that searches 100 deep, its default. In the other
  runs it searches as deep as its window, 25, as sentence-transformers does.
- `equal_share`: queries for which both pick the same negatives; `differences` says why the others differ.
- `gemm_share`: seconds of torch's float32 product of the same shapes / seconds of the search, at 1,000,000 passages
  and 20,000 queries (`large`).
- `bm25_share`: speed of the search by words as a share of bm25s alone.

Everything has two threads.

    python -m benchmarks.mining

writes benchmarks/results/mining.json. The data, about 5 GB, lie in a temporary folder and are removed.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from benchmarks.mining_data import Size, fill_store, read_part, read_size, write_data

RESULT = Path(__file__).parent / "results" / "mining.json"
_THREADS = 2
_WINDOW, _NEGATIVES, _MARGIN = 25, 7, 0.05
_DEFAULT_DEPTH = 100  # of Reneg's search; sentence-transformers searches as deep as its window and the positives
_BLOCK = (2_048, 16_384)  # rows of queries and passages that torch multiplies at a time: its fastest of those tried
_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]


def mine_with_reneg(folder: Path, scratch: Path, depth: int = _WINDOW) -> dict[str, Any]:
    """Search and mine as a curation does, part by part in this process."""
    from flows.method.curate import mine
    from flows.method.tables import Generations, Vectors
    from flows.runs.light_parts import LightParts
    from infra.stages.runner import Runner
    from infra.storage.artifacts import Piece, Table, read_table
    from infra.storage.store import Store
    from tasks.mining.mine import MineConfig
    from tasks.mining.search import SearchConfig

    store, size = Store.open(str(scratch / "store")), read_size(folder)
    found = json.loads((folder / "tables.json").read_text(encoding="utf-8"))
    tables = {name: Table(name, tuple(Piece(**piece) for piece in pieces)) for name, pieces in found.items()}
    vectors = Vectors(queries=tables.pop("query_vectors"), passages=tables.pop("passage_vectors"))
    config = SimpleNamespace(
        search=SearchConfig(threads=_THREADS, depth=depth),
        mine=MineConfig(depth=depth, range_max=_WINDOW, num_negatives=_NEGATIVES, relative_margin=_MARGIN),
    )
    setup: Any = SimpleNamespace(config=config, encoder_key="generated", software=lambda stage: {}, rescorer=None)
    data: Any = SimpleNamespace(generations=Generations((size.query_parts,), (size.passage_parts,)), **tables)
    ends, cpu, failed, peaks = dict[str, float](), dict[str, float](), dict[str, str](), [_peak_gib()]
    started, used = time.monotonic(), time.process_time()

    def note(done: Any) -> None:
        ends[done.name] = time.monotonic() - started
        cpu[done.name] = time.process_time() - used
        peaks.extend(float(manifest.stats["peak_gib"]) for manifest in done.manifests)
        failed.update({f"{done.name}-{number}": why for number, why in done.failed.items()})

    pool = mine(Runner(store, executor=LightParts(store, scratch), on_stage=note), setup, data, vectors)
    if failed:
        raise RuntimeError(f"parts failed: {failed}")
    for name in ("candidates", "negatives", "rejects"):
        read_table(store, getattr(pool, name)).write_parquet(scratch / f"{name}.parquet")
    each, spent = _differences(ends), _differences(cpu)
    mined = ("hash_passages", "search", "mine")
    return {
        "seconds": sum(each[name] for name in mined),
        "cpu_seconds": sum(spent[name] for name in mined),
        "gib": max(peaks),  # the peak begins anew with each part
        "gib_before": peaks[0],
        "stages": each,
        "cpu_stages": spent,
    }


def _differences(ends: Mapping[str, float]) -> dict[str, float]:
    names = list(ends)
    return {name: ends[name] - ends.get(before, 0.0) for before, name in zip(["", *names], names, strict=False)}


def search_with_reneg(folder: Path, scratch: Path) -> dict[str, Any]:
    """Mine, and return the figures of the search alone, as deep as it is by default."""
    made = mine_with_reneg(folder, scratch, _DEFAULT_DEPTH)
    return {**made, "seconds": made["stages"]["search"], "cpu_seconds": made["cpu_stages"]["search"]}


class VectorModel:
    """What `mine_hard_negatives` calls of a SentenceTransformer: returns the vectors as they are."""

    device = "cpu"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def encode_document(self, texts: list[str], **_: Any) -> Any:
        return self._read("corpus", texts)

    def encode_query(self, texts: list[str], **_: Any) -> Any:
        return self._read("queries", texts)

    def get_embedding_dimension(self) -> int:
        return read_size(self._folder).dimension

    def similarity(self, left: Any, right: Any) -> Any:
        import torch

        return torch.as_tensor(left) @ torch.as_tensor(right).T

    def similarity_pairwise(self, left: Any, right: Any) -> Any:
        import torch

        return (torch.as_tensor(left) * torch.as_tensor(right)).sum(dim=1)

    def _read(self, name: str, texts: list[str]) -> Any:
        vectors = np.load(self._folder / f"{name}.npy")
        if len(vectors) != len(texts):
            raise ValueError(f"{len(vectors)} vectors of {name} expected, {len(texts)} texts came")
        return vectors


def mine_with_theirs(folder: Path, scratch: Path, **settings: Any) -> dict[str, Any]:
    """Mine with sentence-transformers."""
    import datasets
    import torch
    from sentence_transformers.util import mine_hard_negatives

    torch.set_num_threads(_THREADS)
    corpus = pl.read_parquet(folder / "texts.parquet")["text"].to_list()
    rows = datasets.Dataset.from_parquet(str(folder / "pairs.parquet"), cache_dir=str(scratch / "cache"))
    before, started, used = _peak_gib(), time.monotonic(), time.process_time()
    made = mine_hard_negatives(
        rows,
        VectorModel(folder),  # type: ignore[arg-type] - what it calls of a model
        corpus=corpus,
        range_max=_WINDOW,
        num_negatives=_NEGATIVES,
        relative_margin=_MARGIN,
        verbose=False,
        **settings,
    )
    seconds, cpu, peak = time.monotonic() - started, time.process_time() - used, _peak_gib()
    made.to_polars().write_parquet(scratch / "triplets.parquet")
    return {"seconds": seconds, "cpu_seconds": cpu, "gib": peak, "gib_before": before}


def multiply(folder: Path, _scratch: Path) -> dict[str, Any]:
    """Multiply all queries and passages with torch, block by block, and keep nothing."""
    import torch

    torch.set_num_threads(_THREADS)
    queries, passages = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("queries", "corpus"))
    room = torch.empty(_BLOCK)
    started, used = time.monotonic(), time.process_time()
    for some in queries.split(_BLOCK[0]):
        for block in passages.split(_BLOCK[1]):
            out = room.view(-1)[: len(some) * len(block)].view(len(some), len(block))
            torch.mm(some, block.T, out=out)
    cpu = time.process_time() - used
    return {"seconds": time.monotonic() - started, "cpu_seconds": cpu, "gib": _peak_gib(), "gib_before": 0.0}


def compare(folder: Path, ours: Path, theirs: Path) -> dict[str, Any]:
    """Say for how many queries both picked the same negatives in the same order, and why the others differ.

    Reasons, by what one of them has and the other has not: `copy`: Reneg masks it, for its normalised text is that of
    the query, of a positive or of a nearer passage; `window`: it has no place among the first of Reneg's pool, whose
    window is cut after the positives are masked; `rounding`: its score is within 1e-6 of the margin, or of the score of
    what stands in its place. What takes the place of such a passage is explained with it.
    """
    names = pl.concat(read_part(folder, "queries", n) for n in range(read_size(folder).query_parts))
    texts = pl.read_parquet(folder / "texts.parquet")
    triplets = pl.read_parquet(theirs / "triplets.parquet").with_row_index("order")
    picked = (
        triplets.join(names.select("query_id", anchor="text"), on="anchor")
        .join(texts.rename({"text": "negative"}), on="negative")
        .unique(["query_id", "doc_id"], keep="first")
        .sort("order")
        .group_by("query_id", maintain_order=True)
        .agg(theirs="doc_id")
    )
    kept = pl.read_parquet(ours / "negatives.parquet").sort("query_id", "rank")
    lists = names.select("query_id").join(
        kept.group_by("query_id", maintain_order=True).agg(ours="doc_id"), on="query_id", how="left"
    )
    lists = lists.join(picked, on="query_id", how="left").with_columns(pl.col("ours", "theirs").fill_null([]))
    different = lists.filter(pl.col("ours") != pl.col("theirs"))
    reasons: dict[str, int] = {}
    for why in _reasons(ours, different):
        reasons[why] = reasons.get(why, 0) + 1
    share = 1 - different.height / lists.height
    return {"equal_share": round(share, 4), "queries": lists.height, "differences": dict(sorted(reasons.items()))}


def _reasons(ours: Path, different: pl.DataFrame) -> Iterator[str]:
    masked = set(pl.read_parquet(ours / "rejects.parquet")["key"])
    pool = pl.read_parquet(ours / "candidates.parquet").join(different, on="query_id", how="semi")
    scores = {(query, doc): score for query, doc, score in pool.select("query_id", "doc_id", "score").iter_rows()}
    dataset = pool["dataset"][0] if pool.height else ""
    for query, mine, theirs in different.select("query_id", "ours", "theirs").iter_rows():
        more = [doc for doc in theirs if doc not in mine]
        if any(f"{dataset}/{query}/{doc}" in masked for doc in more):
            yield "copy"
        elif any((query, doc) not in scores for doc in more):
            yield "window"
        elif sorted(mine) == sorted(theirs):
            pairs = zip(mine, theirs, strict=True)
            near = all(abs(scores[query, a] - scores[query, b]) < 1e-6 for a, b in pairs)
            yield "rounding" if near else "unexplained"
        else:
            only = [doc for doc in mine if doc not in theirs]
            edge = [scores[query, doc] for doc in (*more, *only)]
            yield "rounding" if max(edge) - min(edge) < 1e-6 or len(edge) == 1 else "unexplained"


def _peak_gib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 2**20


_WAYS: Mapping[str, Callable[[Path, Path], dict[str, Any]]] = {
    "reneg": mine_with_reneg,
    "deep": lambda folder, scratch: mine_with_reneg(folder, scratch, _DEFAULT_DEPTH),
    "search": search_with_reneg,
    "defaults": mine_with_theirs,
    "faiss": lambda folder, scratch: mine_with_theirs(folder, scratch, use_faiss=True, faiss_batch_size=1024),
    "product": multiply,
}


def run_way(way: str, folder: Path, scratch: Path) -> dict[str, Any]:
    """Take one way in a process of its own; Reneg gets a copy of the store without any finished part."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(folder / "store", scratch / "store", copy_function=os.link)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS"), str(_THREADS))
    environment = {**os.environ, **threads, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [
        sys.executable,
        "-m",
        "benchmarks.mining",
        "--way",
        way,
        "--folder",
        str(folder),
        "--scratch",
        str(scratch),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{way} failed: {done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(f"{way}: {json.dumps(figures)}\n")
    return figures


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Take the three ways in turn, several times; returns medians and ratios of medians."""
    made = _take_turns(folder, ("reneg", "faiss", "defaults"), rounds)
    seconds, cpu, gib = (_medians(made, name) for name in ("seconds", "cpu_seconds", "gib"))
    equal = compare(folder / "data", folder / "reneg", folder / "faiss")
    deep = _take_turns(folder, ("deep",), 1)["deep"][0]["seconds"]
    return {
        "speedup": round(seconds["defaults"] / seconds["reneg"], 3),
        "memory_ratio": round(gib["defaults"] / gib["reneg"], 2),
        "faiss_speedup": round(seconds["faiss"] / seconds["reneg"], 3),
        "faiss_memory_ratio": round(gib["reneg"] / gib["faiss"], 3),
        "deep_speedup": round(seconds["defaults"] / deep, 3),
        "deep_faiss_speedup": round(seconds["faiss"] / deep, 3),
        **equal,
        "cpu_speedup": round(cpu["defaults"] / cpu["reneg"], 3),
        "cpu_faiss_speedup": round(cpu["faiss"] / cpu["reneg"], 3),
        **_raw(made),
    }


def measure_search(folder: Path, rounds: int) -> dict[str, Any]:
    """Take the product and the search in turn; returns the share of the medians, and the peak."""
    made = _take_turns(folder, ("product", "search"), rounds)
    seconds, cpu = (_medians(made, name) for name in ("seconds", "cpu_seconds"))
    return {
        "gemm_share": round(seconds["product"] / seconds["search"], 3),
        "cpu_gemm_share": round(cpu["product"] / cpu["search"], 3),
        **_raw(made),
    }


def _take_turns(folder: Path, ways: Sequence[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    made: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            made[way].append(run_way(way, folder / "data", folder / way))
    return made


def _medians(made: Mapping[str, list[dict[str, Any]]], name: str) -> dict[str, float]:
    return {way: statistics.median(each[name] for each in several) for way, several in made.items()}


def _raw(made: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The figures of all rounds."""
    raw: dict[str, Any] = {
        name: {way: [round(each[name], 3) for each in several] for way, several in made.items()}
        for name in ("seconds", "cpu_seconds", "gib", "gib_before")
    }
    ours = next(several for way, several in made.items() if way in ("reneg", "search"))
    for name in ("stages", "cpu_stages"):
        raw[name] = [{stage: round(value, 2) for stage, value in each[name].items()} for each in ours]
    return raw


def prepare(folder: Path, size: Size) -> None:
    """Generate data in a process of its own, unless they are there."""
    if (folder / "data" / "tables.json").exists():
        return
    command = [sys.executable, "-m", "benchmarks.mining", "--way", "data", "--folder", str(folder / "data")]
    for name, value in vars(size).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    subprocess.run(command, check=True)


_SMALL = Size(200_000, 10_000)
_LARGE = Size(1_000_000, 20_000, query_parts=79, passage_parts=20)


def _divided(size: Size, by: int) -> Size:
    return replace(size, passages=size.passages // by, queries=size.queries // by)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="times each way is taken at 200,000 passages")
    parser.add_argument(
        "--divide", type=int, default=1, help="by which the numbers of queries and passages are divided"
    )
    parser.add_argument("--large-rounds", type=int, default=2, help="times each is taken at 1,000,000; 0: left out")
    parser.add_argument("--keep", type=Path, help="folder for the data, which are kept and used again")
    parser.add_argument("--note", default="", help="a remark for the result")
    parser.add_argument("--way", choices=["data", *_WAYS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    for name in vars(_SMALL):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Measure and write the result; with `--way` take one way and print its figures."""
    asked = _arguments().parse_args()
    if asked.way == "data":
        write_data(asked.folder, Size(**{name: getattr(asked, name) for name in vars(_SMALL)}))
        fill_store(asked.folder, str(asked.folder / "store"))
        return
    if asked.way:
        sys.stdout.write(json.dumps(_WAYS[asked.way](asked.folder, asked.scratch)) + "\n")
        return
    with tempfile.TemporaryDirectory(prefix="reneg-mining-") as temporary:
        folder = asked.keep or Path(temporary)
        prepare(folder / "small", _divided(_SMALL, asked.divide))
        result: dict[str, Any] = {
            "command": "python -m benchmarks.mining" + (f" --divide {asked.divide}" if asked.divide > 1 else ""),
            "sizes": [vars(_divided(size, asked.divide)) for size in (_SMALL, _LARGE)],
            "device": f"CPU, {os.cpu_count()} cores, {_THREADS} threads",
            **measure(folder / "small", asked.rounds),
            "gemm_share": None,
            "bm25_share": None,
        }
        if asked.large_rounds:
            prepare(folder / "large", _divided(_LARGE, asked.divide))
            large = measure_search(folder / "large", asked.large_rounds)
            result |= {"gemm_share": large.pop("gemm_share"), "large": large}
    if asked.note:
        result["note"] = asked.note
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
