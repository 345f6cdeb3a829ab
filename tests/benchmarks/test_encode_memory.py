"""The memory of encoding: a part's texts and vectors are not held many times over."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.encode_memory import compute_parts, write_parts
from infra.execution.shared_engine import EngineThread
from infra.machine import give_back_memory

_TEXTS, _DIMENSIONS = 20_000, 384
_BYTES = 10_000  # of a text of 560 bytes with a vector of 1,536; more copies take 11,300 and more


class Drawn:
    """An encoder whose vectors are drawn: it holds nothing but what it returns."""

    def encode(self, texts: Sequence[str], role: str) -> pl.Series:
        vectors = np.random.default_rng(len(texts)).standard_normal((len(texts), _DIMENSIONS), dtype=np.float32)
        return pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, _DIMENSIONS))


def test_a_part_takes_few_times_the_bytes_of_its_texts_and_vectors(tmp_path: Path) -> None:
    pieces = write_parts(tmp_path, 1, _TEXTS)
    engine = EngineThread(Drawn)
    compute_parts(tmp_path, [write_parts(tmp_path, 3, 300)[2]], engine)  # what is loaded once
    give_back_memory()
    made = compute_parts(tmp_path, pieces, engine, lanes=1)
    each = (made["peak_gib"] - made["start_gib"]) * 2**30 / _TEXTS
    assert each < _BYTES, f"{each:.0f} bytes of memory for each text; {made}"
