"""Merge lines that query parts wrote into sorted files.

The index is read first: it says how long each line is, so where it stands in its file. Then the lines are read part by
part, and each is written to its place. In memory are the index (ids and numbers of all rows) and the lines of one part.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.data.rendering.render import INDEX
from tasks.data.writing.files import alone_folder

_FILE = ["format", "alone"]


def merge_lines(
    out: Path, formats: Iterable[str], index: Iterable[pl.DataFrame], texts: Iterable[pl.DataFrame]
) -> dict[str, dict[str, int]]:
    """Write `<format>/train.jsonl` below `out`, sorted by dataset and query_id; rows without negatives apart.

    Args:
        out: the folder of the export.
        formats: a file is written for each, which may have no line.
        index: INDEX, part by part.
        texts: TEXTS, cut as the index is; read after it.

    Returns:
        By format the number of rows with negatives, and without.

    Raises:
        ValueError: index and texts are not of the same parts.
    """
    rows = pl.concat([INDEX.empty(), *index]).with_row_index("place")
    rows = rows.sort(*_FILE, "dataset", "query_id").select(
        "place", *_FILE, "bytes", start=(pl.col("bytes").cum_sum() - pl.col("bytes")).over(_FILE)
    )
    sums = rows.group_by(_FILE).agg(pl.len(), pl.col("bytes").sum())
    counts = {(name, alone): (count, size) for name, alone, count, size in sums.iter_rows()}
    wanted = sorted({(name, False) for name in formats} | counts.keys())
    files = {key: number for number, key in enumerate(wanted)}
    numbers = pl.DataFrame([(*key, number) for key, number in files.items()], schema=[*_FILE, "file"], orient="row")
    rows = rows.join(numbers, on=_FILE, maintain_order="left").sort("place").select("file", "start", "bytes")
    with ExitStack() as stack:
        handles = []
        for name, alone in wanted:
            path = (alone_folder(out / name) if alone else out / name) / "train.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            handles.append(stack.enter_context(path.open("wb", buffering=0)).fileno())
        _write_lines(handles, rows, texts)
    return {name: _count(counts, name) for name in formats}


def _count(counts: Mapping[tuple[str, bool], tuple[int, int]], name: str) -> dict[str, int]:
    with_negatives, without = (counts.get((name, alone), (0, 0))[0] for alone in (False, True))
    return {"rows": with_negatives, "without_negatives": without}


def _write_lines(handles: list[int], rows: pl.DataFrame, texts: Iterable[pl.DataFrame]) -> None:
    """Write each text to its place; rows: `file`, `start` and `bytes` of each, in the order of the texts."""
    done = 0
    for frame in texts:
        here = rows[done : done + frame.height]
        done += frame.height
        data, bounds = _bytes_of(frame["line"])
        if here.height != frame.height or not np.array_equal(np.diff(bounds), here["bytes"].to_numpy()):
            raise ValueError(f"export: lines {done - frame.height} to {done} are not those of the index; rerun render")
        places = zip(here["file"], here["start"], bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        for file, start, begin, end in places:
            _write_at(handles[file], data[begin:end], start)
    if done != rows.height:
        raise ValueError(f"export: {rows.height} lines are in the index, {done} came; rerun render")


def _bytes_of(texts: pl.Series) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """Return the bytes of all texts one after another, and where each begins; at the end, where the last one ends."""
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    if not len(array):
        return memoryview(b""), np.zeros(1, np.int64)
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return memoryview(data) if data is not None else memoryview(b""), bounds


def _write_at(handle: int, data: memoryview, start: int) -> None:
    while data:
        written = os.pwrite(handle, data, start)
        data, start = data[written:], start + written
