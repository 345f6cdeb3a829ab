"""Files of an export: names that every disk keeps, lines of JSON, and parquet in row groups."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from json.encoder import encode_basestring
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self
from urllib.parse import quote, unquote

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from tasks.data.writing.training_set import Chunk, Numbers, TrainingSet
from tasks.texts import hash_text

_REFUSED = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
# Names that Windows keeps for devices, whatever their ending; and an end that it cuts off.
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.")
_LONGEST, _WORDS = 200, 60  # characters of a file name, and of the part of it that people read


def file_names(datasets: Iterable[str]) -> dict[str, str]:
    """Turn names of datasets into file names that the store and every disk keep, all of them different.

    Names that differ only in case get a digest, because some disks take them for one.

    >>> file_names(["BeIR/nq", "../a b", "NQ", "nq"])
    {'BeIR/nq': 'BeIR%2Fnq', '../a b': 'a_b-2c2c791a0618', 'NQ': 'NQ-acf8f7780683', 'nq': 'nq-af1a411ed6a2'}
    """
    names = {dataset: _file_name(dataset) for dataset in dict.fromkeys(datasets)}
    alike = Counter(name.casefold() for name in names.values())
    return {dataset: name if alike[name.casefold()] == 1 else _slug(dataset) for dataset, name in names.items()}


def _file_name(dataset: str) -> str:
    name = quote(dataset, safe="")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    # The store refuses a name that is no plain relative path once it is decoded, as some servers do.
    decoded = unquote(dataset)
    plain = all(part not in ("", ".", "..") and part[1:2] != ":" for part in decoded.split("/"))
    if plain and not _REFUSED.search(decoded) and not _DEVICE.fullmatch(name) and len(name) <= _LONGEST:
        return name
    return _slug(dataset)


def _slug(dataset: str) -> str:
    """Put the last letters of a name before its digest."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", dataset).strip("_")[-_WORDS:]
    return f"{words}-{hash_text(dataset)[:12]}".lstrip("-")


class Lines:
    """A text file that is written line by line; `count` is the number of lines so far. Folders are made."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self._stream: IO[bytes] = path.open("wb")

    def write(self, lines: Sequence[str] | pl.Series) -> None:
        """Append lines."""
        if len(lines):
            column = lines if isinstance(lines, pl.Series) else pl.Series(lines)
            column.to_frame().write_csv(self._stream, include_header=False, quote_style="never")
            self.count += len(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


class RowFile(Protocol):
    """A file of rows that is written frame by frame; `count` is the number of rows so far."""

    count: int

    def add(self, frame: pl.DataFrame) -> None:
        """Append rows with the columns of the file's schema."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class JsonRows(Lines):
    """A file of JSON lines that is written frame by frame, with the columns of a schema in order."""

    def __init__(self, path: Path, schema: pl.Schema) -> None:
        super().__init__(path)
        self._columns = schema.names()

    def add(self, frame: pl.DataFrame) -> None:
        """Append rows with the columns of the schema."""
        self.write(json_rows(self._columns, [json_values(frame[name]) for name in self._columns]))


class Parquet:
    """A parquet file (zstd) that is written in row groups, one for each frame; `count` is the number of rows so far.

    Texts and lists have the common types of parquet, which every reader knows.
    """

    def __init__(self, path: Path, schema: pl.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self._schema = schema
        self._arrow = pa.schema([(name, _arrow_type(kind)) for name, kind in schema.items()])
        self._writer = parquet.ParquetWriter(path, self._arrow, compression="zstd")

    def add(self, frame: pl.DataFrame) -> None:
        """Append rows with the columns of the schema."""
        if frame.height:
            table = frame.select(self._schema.names()).rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
            self._writer.write_table(table.cast(self._arrow))
            self.count += frame.height

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def _arrow_type(kind: pl.DataType) -> pa.DataType:
    if isinstance(kind, pl.List):
        return pa.list_(_arrow_type(pl.List(kind.inner).inner))  # type: ignore[arg-type]
    if isinstance(kind, pl.Struct):
        return pa.struct([(field.name, _arrow_type(field.dtype)) for field in kind.fields])  # type: ignore[arg-type]
    plain = {pl.String: pa.string(), pl.Float64: pa.float64(), pl.Int32: pa.int32(), pl.Int64: pa.int64()}
    return plain[kind.base_type()]


def json_values(column: pl.Series) -> pl.Series:
    """Write each value of a column as JSON: texts, numbers, lists of them; a number that JSON does not know is null.

    >>> json_values(pl.Series(["é", None])).to_list(), json_values(pl.Series([0.5, None])).to_list()
    (['"é"', 'null'], ['0.5', 'null'])
    """
    written = pl.struct(column.alias("")).struct.json_encode()
    return column.to_frame().select(written.str.strip_prefix('{"":').str.strip_suffix("}")).to_series()


def json_objects(frame: pl.DataFrame) -> pl.Series:
    """Write each row of a frame as a JSON object.

    >>> json_objects(pl.DataFrame({"docid": ["d1"], "score": [0.5]})).to_list()
    ['{"docid": "d1", "score": 0.5}']
    """
    return json_rows(frame.columns, [json_values(column) for column in frame])


def json_rows(names: Sequence[str], columns: Sequence[pl.Series]) -> pl.Series:
    """Put columns of values, each JSON already, together to one JSON object for each row."""
    parts: list[pl.Expr] = []
    for number, name in enumerate(names):
        parts += [pl.lit(f"{', ' if number else '{'}{encode_basestring(name)}: "), pl.col(str(number))]
    frame = pl.DataFrame([column.alias(str(number)) for number, column in enumerate(columns)])
    return frame.select(pl.concat_str(*parts, pl.lit("}"))).to_series()


def json_lists(values: pl.Series, counts: Numbers) -> pl.Series:
    """Write consecutive values, each JSON already, as lists of the given lengths.

    >>> json_lists(pl.Series(["1", "2", "3"]), np.array([2, 0, 1])).to_list()
    ['[1, 2]', '[]', '[3]']
    """
    row = pl.Series("row", np.repeat(np.arange(len(counts)), counts))
    joined = (
        pl.DataFrame([row, values.alias("values")])
        .group_by("row", maintain_order=True)
        .agg(pl.col("values").str.join(", "))
    )
    rows = pl.DataFrame({"row": np.arange(len(counts))}).join(joined, on="row", how="left", maintain_order="left")
    return rows.select(pl.concat_str(pl.lit("["), pl.col("values").fill_null(""), pl.lit("]"))).to_series()


def write_rows(folder: Path, rows: TrainingSet, lines_of: Callable[[Chunk], pl.Series]) -> dict[str, int]:
    """Write one line for each row to `train.jsonl`, and count both kinds of rows.

    Rows without negatives go to `<folder>-without-negatives/train.jsonl`: trainers that draw negatives fail on them.
    """
    alone = alone_folder(folder) / "train.jsonl"
    with ExitStack() as stack:
        file = stack.enter_context(Lines(folder / "train.jsonl"))
        other = stack.enter_context(Lines(alone)) if rows.without_negatives else None
        for chunk in rows.chunks():
            has_negatives = chunk.negatives.counts > 0
            file.write(lines_of(chunk.only(has_negatives)))
            if other is not None:
                other.write(lines_of(chunk.only(~has_negatives)))
    return {"rows": file.count, "without_negatives": rows.without_negatives}


def alone_folder(folder: Path) -> Path:
    """Name the folder for rows without negatives, beside that of their format."""
    return folder.with_name(f"{folder.name}-without-negatives")
