"""Vectors that were computed elsewhere: looked up in files by id or by the hash of the text, and nothing is encoded.

A folder holds `passages.parquet` and `queries.parquet`, with a column `id` or `text_hash` (the key), a column `vector`
(a list of numbers), and if ids repeat across datasets a column `dataset`. Instead of a parquet file there may be a
matrix `passages.npy` (float32 or float16, one row per text) with its keys, one a line, in `passages.ids.txt` or
`passages.hashes.txt`.

Files may be larger than memory. A parquet file is copied once per process, batch by batch, into a file on the disk
whose rows can be read one by one. What stays in memory are the keys.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from infra.engines.specs import VectorsSpec

Role = Literal["query", "passage"]

_STEMS: dict[str, str] = {"query": "queries", "passage": "passages"}
_OF_LENGTH_ONE = 1e-6  # float32 vectors that were scaled differ from length 1 by less
_BATCH = 10_000  # rows of a parquet file at a time


class VectorFilesEngine:
    """The files of one folder; vectors are scaled to length 1."""

    def __init__(self, spec: VectorsSpec) -> None:
        """Look that the folder is there. A file is read when the first of its vectors is asked for.

        Raises:
            ValueError: the folder is missing.
        """
        if not Path(spec.model).is_dir():
            raise ValueError(f"model: a folder with files of vectors expected, {spec.model!r} is none")
        self._spec = spec
        self._scratch = tempfile.mkdtemp(prefix="reneg-vectors-")
        self._tables: dict[str, _Table] = {}

    def find(self, keys: pl.DataFrame, role: Role) -> pl.Series:
        """Return the vectors of some texts, in their order.

        Args:
            keys: `dataset`, `id` and `text_hash` of each text.
            role: whether they are queries or passages.

        Returns:
            Array(Float32, dimension), of length 1 each; a vector of zeros stays one.

        Raises:
            ValueError: there is no file for the role, it cannot be used, or it lacks some of the texts.
        """
        if role not in self._tables:
            self._tables[role] = _read(self._spec, _STEMS[role], Path(self._scratch))
        return self._tables[role].find(keys)

    def close(self) -> None:
        """Remove what was copied; the engine cannot be used afterwards."""
        self._tables.clear()
        shutil.rmtree(self._scratch, ignore_errors=True)


class _Table:
    """The vectors of one file, as rows of a file on the disk, and where each key stands."""

    def __init__(self, path: Path, keys: pl.DataFrame, rows: npt.NDArray[Any]) -> None:
        """Check that the keys are unique and as many as the rows."""
        if keys.height != len(rows):
            raise ValueError(f"{path}: {len(rows)} vectors expected, one per key, got {keys.height} keys")
        twice = keys.filter(keys.is_duplicated())
        if twice.height:
            named = "/".join(map(str, twice.row(0)))
            raise ValueError(f"{path}: keys that are there once expected, {named} is there several times")
        self._path, self._on, self._rows = path, keys.columns, rows
        self._keys = keys.with_row_index("row")

    def find(self, keys: pl.DataFrame) -> pl.Series:
        """Return the vectors of some texts, in their order."""
        found = keys.select(self._on).join(self._keys, on=self._on, how="left", maintain_order="left")
        missing = found.filter(pl.col("row").is_null())
        if missing.height:
            first = "/".join(map(str, missing.row(0)[:-1]))
            raise ValueError(
                f"{self._path}: {missing.height} of {found.height} texts have no vector (first: {first}); "
                "add them to the file, or encode the texts with a model"
            )
        vectors = np.asarray(self._rows[found["row"].to_numpy()], dtype=np.float64)
        if not np.isfinite(vectors).all():
            place = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise ValueError(f"{self._path}: finite numbers expected, the vector of {found.row(place)[:-1]} has others")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        lengths[np.abs(lengths - 1) < _OF_LENGTH_ONE] = 1  # such vectors stay as they are, to the last bit
        unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return pl.Series("vector", unit.astype(np.float32), dtype=pl.Array(pl.Float32, self._rows.shape[1]))


def _read(spec: VectorsSpec, stem: str, scratch: Path) -> _Table:
    """Find the file of a role and read its keys."""
    folder = Path(spec.model)
    parquet, matrix = folder / f"{stem}.parquet", folder / f"{stem}.npy"
    if parquet.exists():
        return _read_parquet(parquet, scratch / f"{stem}.npy")
    if not matrix.exists():
        raise ValueError(f"{folder}: {stem}.parquet expected, or {stem}.npy; neither is there")
    named = {key: folder / f"{stem}.{ending}.txt" for key, ending in (("id", "ids"), ("text_hash", "hashes"))}
    found = [key for key, path in named.items() if path.exists()]
    if len(found) != 1:
        raise ValueError(
            f"{matrix}: its keys, one a line, expected in one of {', '.join(path.name for path in named.values())}, "
            f"got {len(found)} of these files"
        )
    try:
        rows: npt.NDArray[Any] = np.load(matrix, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{matrix}: a matrix of numbers expected ({error})") from error
    if rows.ndim != 2 or rows.dtype.kind != "f":  # noqa: PLR2004 - a matrix
        raise ValueError(f"{matrix}: a matrix of floats expected, got {rows.dtype} of shape {rows.shape}")
    keys = named[found[0]].read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return _Table(matrix, pl.DataFrame({found[0]: keys}, schema={found[0]: pl.String}), rows)


def _read_parquet(path: Path, copy: Path) -> _Table:
    """Copy the vectors of a parquet file to a file whose rows can be read one by one."""
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: a parquet file expected ({error})") from error
    names = file.schema_arrow.names
    by = [name for name in ("id", "text_hash") if name in names]
    if len(by) != 1 or "vector" not in names:
        raise ValueError(f"{path}: columns `vector`, and `id` or `text_hash`, expected, it has {', '.join(names)}")
    on = ["dataset", "id"] if by == ["id"] and "dataset" in names else by
    keys, rows, done = list[pl.DataFrame](), None, 0
    for batch, vectors in _batches(file, path, on):
        if rows is None:
            shape = (file.metadata.num_rows, vectors.shape[1])
            np.lib.format.open_memmap(copy, mode="w+", dtype=np.float32, shape=shape)  # type: ignore[no-untyped-call]
            rows = np.load(copy, mmap_mode="r+")
        if vectors.shape[1] != rows.shape[1]:
            raise ValueError(
                f"{path}: vectors of {rows.shape[1]} numbers expected, got {vectors.shape[1]} after row {done}"
            )
        rows[done : done + len(vectors)] = vectors
        done += len(vectors)
        keys.append(batch)
    if rows is None:
        raise ValueError(f"{path}: vectors expected, the file is empty")
    rows.flush()
    return _Table(path, pl.concat(keys), rows)


def _batches(file: pq.ParquetFile, path: Path, on: list[str]) -> Iterator[tuple[pl.DataFrame, npt.NDArray[np.float32]]]:
    """Yield keys and vectors of a parquet file, some rows at a time."""
    for batch in file.iter_batches(batch_size=_BATCH, columns=[*on, "vector"]):
        frame = pl.DataFrame(pl.from_arrow(batch))
        vectors = frame["vector"]
        if not isinstance(vectors.dtype, pl.List | pl.Array) or not vectors.dtype.inner.is_numeric():
            raise ValueError(f"{path}: lists of numbers expected in the column 'vector', got {vectors.dtype}")
        lists = vectors.cast(pl.List(pl.Float32))
        lengths = lists.list.len()
        if lists.null_count() or lengths.n_unique() > 1 or not lengths[0]:
            found = sorted({str(length) for length in lengths})[:4]
            raise ValueError(f"{path}: vectors of one length expected, got lengths {', '.join(found)}")
        numbers = lists.explode().to_numpy().astype(np.float32).reshape(frame.height, -1)
        yield frame.select(pl.col(name).cast(pl.String) for name in on), numbers
