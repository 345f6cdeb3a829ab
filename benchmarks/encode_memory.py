"""Measure the memory of the process that encodes: an engine's actor with a few parts, without a cluster.

The parts have the shape of the mined run of `benchmarks.paper_size`: texts of 100 words, vectors of 384 dimensions. The
encoder adds up word vectors, so nearly all of the memory is Reneg's own. As in an actor, two parts are at work at a
time: one is read or written while the engine works for the other. Vectors are remembered in the store, as in a
curation. The process has imported what an actor imports, Ray among it.

- `start_gib`: resident memory with the encoder loaded, before the first part.
- `peak_gib`: the highest of all parts; `peaks_gib`: of each, since the first of those at work with it began.
- `after_gib`: resident memory at the end of each part.
- `digest`: of the tables that were written. Equal digests are equal vectors.

    python -m benchmarks.encode_memory

writes benchmarks/results/encode_memory.json.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.paper_size_data import write_encoder, write_texts
from flows.stages import ENCODE_PASSAGES
from infra.engines.kinds import environment
from infra.engines.specs import SentenceTransformersSpec
from infra.execution.shared_engine import EngineThread, LentEngine
from infra.execution.usage_meter import Usage
from infra.provenance import here
from infra.stages.compute_part import compute_part
from infra.stages.part_spec import PartSpec
from infra.storage.artifacts import write_table
from infra.storage.store import Store
from infra.storage.tables import Piece, Table
from tasks import schemas
from tasks.texts import hash_passage

RESULT = Path(__file__).parent / "results" / "encode_memory.json"
_DIMENSIONS, _WORDS, _BATCH = 384, 100, 256
_LANES = 2
_STREAM = 2  # of the random numbers: texts of passages


class NoMeter:
    """Counts nothing and has no budget."""

    def add(self, stage: str, usage: Usage) -> None:
        """Count nothing."""

    def reached(self) -> str | None:
        """Return no reason to stop."""
        return None


def write_parts(folder: Path, parts: int, texts: int) -> list[Piece]:
    """Write a store with parts of passages; returns their pieces."""
    store = Store.open(str(folder / "store"))
    return [write_table(store, "passages", _passages(n, texts), schemas.PASSAGES, n) for n in range(parts)]


def _passages(part: int, texts: int) -> pl.DataFrame:
    numbers = np.arange(part * texts, (part + 1) * texts)
    made = write_texts(_STREAM, numbers, _WORDS)
    hashes = [hash_passage("", text) for text in made]
    table = {"dataset": "generated", "doc_id": numbers.astype(str), "title": "", "text": made, "text_hash": hashes}
    return pl.DataFrame(table).sort("doc_id")


def compute_parts(folder: Path, pieces: Sequence[Piece], engine: EngineThread, lanes: int = _LANES) -> dict[str, Any]:
    """Encode the parts as an engine's actor does; returns the figures."""
    start, began, used = _memory("VmRSS"), time.monotonic(), time.process_time()

    def compute(piece: Piece) -> tuple[str, float, float]:
        spec = PartSpec(
            stage=ENCODE_PASSAGES,
            name=f"encode_passages-{piece.index:05d}",
            index=piece.index,
            number=piece.index,
            key=hashlib.sha256(f"encode {piece.content}".encode()).hexdigest(),
            attempt=0,
            ingredients={"engine": "generated"},
            config={},
            inputs={"passages": Table("passages", (piece,))},
        )
        lent = LentEngine(engine, NoMeter(), spec.stage_name, here(("numpy",), "cpu"))
        made = compute_part(str(folder / "store"), spec, folder / "cache", lent)
        return made.tables["embeddings"][0].object, float(made.stats["peak_gib"]), _memory("VmRSS")

    with ThreadPoolExecutor(lanes) as pool:
        made = list(pool.map(compute, pieces))
    return {
        "start_gib": start,
        "peak_gib": max(peak for _, peak, _ in made),
        "peaks_gib": [round(peak, 3) for _, peak, _ in made],
        "after_gib": [after for *_, after in made],
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "digest": hashlib.sha256("".join(key for key, *_ in made).encode()).hexdigest()[:16],
    }


def encode(folder: Path) -> dict[str, Any]:
    """Encode the parts of a folder with its encoder. Run it in a process of its own."""
    import infra.execution.engine_pool  # noqa: F401 - an actor has it
    from infra.engines.kinds import build_engine

    model = SentenceTransformersSpec(model=str(folder / "encoder"), digest="generated", batch_size=_BATCH)
    pieces = [Piece(**piece) for piece in json.loads((folder / "pieces.json").read_text(encoding="utf-8"))]
    return compute_parts(folder, pieces, EngineThread(lambda: build_engine(model)))


def _memory(name: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return round(next(int(line.split()[1]) for line in status if line.startswith(f"{name}:")) / 2**20, 3)


def measure(parts: int, texts: int) -> dict[str, Any]:
    """Generate the parts and encode them, each in a process of its own; the folder is removed."""
    with tempfile.TemporaryDirectory(prefix="reneg-encode-") as temporary:
        command = [sys.executable, "-m", "benchmarks.encode_memory", "--folder", temporary]
        size = ["--parts", str(parts), "--texts", str(texts)]
        variables = environment(SentenceTransformersSpec(model="encoder", digest="generated"))
        for way in ("prepare", "encode"):
            done = subprocess.run(
                [*command, *size, "--way", way],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **variables},
                check=True,
            )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"parts": parts, "texts": texts, "dimensions": _DIMENSIONS, **figures}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--texts", type=int, default=50_000, help="of each part")
    parser.add_argument("--way", choices=("prepare", "encode"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way == "prepare":
        write_encoder(asked.folder / "encoder", _DIMENSIONS)
        pieces = write_parts(asked.folder, asked.parts, asked.texts)
        (asked.folder / "pieces.json").write_text(json.dumps([vars(piece) for piece in pieces]), encoding="utf-8")
    elif asked.way == "encode":
        sys.stdout.write(json.dumps(encode(asked.folder)) + "\n")
    else:
        result = {"command": "python -m benchmarks.encode_memory", **measure(asked.parts, asked.texts)}
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
