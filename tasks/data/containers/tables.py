"""Read parquet and Arrow files in batches of rows, within limits.

Types that JSON lacks become its nearest: a dictionary its values, times a string, a decimal number a float, bytes a
string. Lists and structs stay.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.data.containers.kinds import SourceFile
from tasks.lines import Problem, ReadLimits
from tasks.packed import TooMuchUnpackedError, Unpacked

_LIMITS = ReadLimits()
_ROWS = 2_000  # of a batch at most
_BATCH_BYTES = 32 * 2**20  # of a batch, as the file's own figures foretell them
_OBJECTS = 100  # rows that become objects at a time: who looks at the first one does not wait for the others
_BUFFER = 2**20  # bytes of a column that are read at a time
# Without a buffer, or with columns fetched ahead, a whole row group is read into memory.
_STREAMED: Mapping[str, Any] = {"buffer_size": _BUFFER, "pre_buffer": False, "page_checksum_verification": True}
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_INT64_DIGITS = 18
_PLAIN = (  # what a type is, by any of these, and what it is cast to
    ((pa.types.is_timestamp, pa.types.is_date, pa.types.is_time), pa.string()),
    ((pa.types.is_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view), pa.string()),
    ((pa.types.is_large_binary,), pa.large_string()),
    ((pa.types.is_string_view,), pa.string()),
    ((pa.types.is_duration,), pa.int64()),
    ((pa.types.is_float16,), pa.float32()),
)


def read_frames(
    file: SourceFile, limits: ReadLimits = _LIMITS, columns: Sequence[str] | None = None, rows: int = _ROWS
) -> Iterator[tuple[int, pl.DataFrame] | Problem]:
    """Yield the number of the first row (from 1) and a frame, for each batch of a parquet or Arrow file.

    Args:
        file: of kind `parquet` or `arrow`.
        limits: a row or file over them becomes a problem.
        columns: names of the columns that are read, those that the file lacks left out; all by default.
        rows: of a frame at most.
    """
    for item in read_batches(file, limits, columns, rows):
        yield item if isinstance(item, Problem) else (item[0], pl.DataFrame(pl.from_arrow(item[1])))


def read_table(file: SourceFile, limits: ReadLimits = _LIMITS) -> Iterator[tuple[str, dict[str, object]] | Problem]:
    """Yield `(file#row, object)` for each row of a parquet or Arrow file."""
    for item in read_batches(file, limits, None, _ROWS):
        if isinstance(item, Problem):
            yield item
            continue
        first, batch = item
        for start in range(0, batch.num_rows, _OBJECTS):
            rows = batch.slice(start, _OBJECTS).to_pylist(maps_as_pydicts="lossy")
            for number, row in enumerate(rows, start=first + start):
                yield f"{file.name}#{number}", row


def read_batches(
    file: SourceFile, limits: ReadLimits, columns: Sequence[str] | None, rows: int
) -> Iterator[tuple[int, pa.RecordBatch] | Problem]:
    """Yield the number of the first row and a record batch of plain types. What is damaged becomes a problem."""
    size, number = file.path.stat().st_size, 1
    unpacked = Unpacked(size, limits.unpacked_bytes, limits.unpacked_ratio)
    plain = _Plain(file.name, limits)
    try:
        with _opened(file, rows, columns) as (schema, batches):
            yield from plain.look_at(schema)
            for whole in batches:
                for column in whole.columns:
                    _check(column)
                for start in range(0, whole.num_rows, rows):
                    batch = whole.slice(start, rows)
                    unpacked.add(batch.nbytes, batch.nbytes)
                    yield from plain.batches(number, batch)
                    number += batch.num_rows
        if number == 1:
            yield Problem(f"{file.name}#1", "empty_file", "the file holds no row")
    except TooMuchUnpackedError as error:
        yield Problem(f"{file.name}#{number}", "too_much_unpacked", str(error))
    except (pa.ArrowException, OSError, ValueError, _EndsEarlyError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk failed, not the file
            raise
        said = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        detail = f"the rest of the file is damaged or missing ({said}); get or write it again"
        yield Problem(f"{file.name}#{number}", "broken_file", detail)


class _EndsEarlyError(Exception):
    """The file ends before its end mark."""


@contextmanager
def _opened(
    file: SourceFile, rows: int, columns: Sequence[str] | None
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Open a file; with its schema and its batches, of the wanted columns."""
    if file.kind == "parquet":
        with pq.ParquetFile(file.path, **_STREAMED) as parquet:
            wanted = [name for name in parquet.schema_arrow.names if columns is None or name in columns]
            facts = parquet.metadata
            total = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
            fitting = _BATCH_BYTES * max(facts.num_rows, 1) // max(total, 1)
            size = max(1, min(rows, fitting))
            yield parquet.schema_arrow, parquet.iter_batches(batch_size=size, columns=list(dict.fromkeys(wanted)))
        return
    with pa.OSFile(str(file.path)) as source:
        batches: Iterator[pa.RecordBatch]
        if source.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
            batches = _streamed(reader, file)
        schema = reader.schema
        wanted = [name for name in dict.fromkeys(schema.names) if columns is None or name in columns]
        yield schema, (batch.select([schema.names.index(name) for name in wanted]) for batch in batches)


def _streamed(reader: pa.RecordBatchReader, file: SourceFile) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a stream. One that was cut between two batches looks whole but for its end mark.

    Raises:
        _EndsEarlyError: the mark is missing.
    """
    yield from reader
    with file.path.open("rb") as raw:
        raw.seek(-len(_END_OF_STREAM), 2)
        if raw.read() != _END_OF_STREAM:
            raise _EndsEarlyError("the mark at the end of an Arrow stream is missing")


class _Plain:
    """Casts batches to plain types, and takes out columns and rows that cannot be read."""

    def __init__(self, name: str, limits: ReadLimits) -> None:
        self._name, self._limits = name, limits
        self._left_out: set[str] = set()

    def look_at(self, schema: pa.Schema) -> Iterator[Problem]:
        """Report columns whose name comes twice; the first one is read."""
        for name in dict.fromkeys(name for name in schema.names if schema.names.count(name) > 1):
            yield Problem(self._name, "not_read", f"column {name!r} comes more than once; the first one is read")

    def batches(self, first: int, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch] | Problem]:
        """Yield a batch in plain types; in pieces where rows of it cannot be read."""
        columns: dict[str, pa.Array] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name in columns or name in self._left_out:
                continue
            try:
                columns[name] = self._column(column)
            except (pa.ArrowException, ValueError) as error:
                self._left_out.add(name)
                detail = f"column {name!r} ({column.type}) is left out from here on: {error}"[:300]
                yield Problem(f"{self._name}#{first}", "not_read", detail)
        plain = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        valid = _is_valid(plain)
        if valid and plain.nbytes <= self._limits.line_bytes:
            yield first, plain
            return
        start = 0
        for row in range(plain.num_rows):
            if (problem := self._row_problem(first + row, plain.slice(row, 1), valid)) is not None:
                if row > start:
                    yield first + start, plain.slice(start, row - start)
                yield problem
                start = row + 1
        if plain.num_rows > start:
            yield first + start, plain.slice(start)

    def _column(self, column: pa.Array) -> pa.Array:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        if (depth := _depth(column.type)) > self._limits.depth:
            raise ValueError(f"{depth} nested lists and objects (ingest.limits.depth)")
        wanted = _plain_type(column.type)
        if wanted == column.type:
            return column
        column.validate(full=True)  # a cast trusts its input
        try:
            return column.cast(wanted)
        except pa.ArrowInvalid:
            if not pa.types.is_string(wanted) or 2 * sum(map(_is_no_text, column)) > len(column):
                raise  # pictures, say
        return pc.cast(
            column, options=pc.CastOptions(wanted, allow_invalid_utf8=True)
        )  # costs the rows, not the column

    def _row_problem(self, number: int, row: pa.RecordBatch, valid: bool) -> Problem | None:
        """Return what is wrong with a row; if it is known to be valid, only its size is looked at, as this is slow."""
        where, most = f"{self._name}#{number}", self._limits.line_bytes
        if row.nbytes > most:
            detail = f"{row.nbytes} bytes, at most {most} expected (ingest.limits.line_bytes)"
            return Problem(where, "row_too_long", detail)
        if valid:
            return None
        try:
            row.validate(full=True)
        except pa.ArrowException as error:
            return Problem(where, "not_utf8" if "UTF8" in str(error) else "broken_row", str(error)[:300])
        return None


def _check(column: pa.Array) -> None:
    """Check that a column's parts fit together: reading one that does not would end the process.

    Raises:
        pa.ArrowInvalid: they do not. Text that is no UTF-8 is left to the rows.
    """
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        for inner in _inside(column):
            _check(inner)


def _inside(column: pa.Array) -> Iterator[pa.Array]:
    if isinstance(column, pa.ExtensionArray):
        yield column.storage
    elif isinstance(column, pa.DictionaryArray):
        yield column.dictionary
    elif isinstance(column, pa.StructArray):
        yield from (column.field(number) for number in range(column.type.num_fields))
    elif isinstance(column, pa.MapArray):
        yield from (column.keys, column.items)
    elif pa.types.is_nested(column.type) and hasattr(column, "values"):
        yield column.values


def _is_valid(batch: pa.RecordBatch) -> bool:
    try:
        batch.validate(full=True)
    except pa.ArrowException:
        return False
    return True


def _is_no_text(value: pa.Scalar) -> bool:
    data = value.as_py()
    try:
        (data or b"").decode()
    except UnicodeDecodeError:
        return True
    return False


def _depth(kind: pa.DataType) -> int:
    """Count the levels of lists and objects in a column, the row included."""
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    return 1 + max((_depth(one) for one in inner), default=0)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that a value is cast to."""
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    if types.is_decimal(kind):
        whole = pa.int64() if kind.precision <= _INT64_DIGITS else pa.string()
        return whole if kind.scale == 0 else pa.float64()
    if types.is_nested(kind):
        return _plain_nested(kind)
    return next((plain for applies, plain in _PLAIN if any(one(kind) for one in applies)), kind)


def _plain_nested(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_plain_type(kind.key_type), _plain_type(kind.item_type))
    if types.is_union(kind):
        return kind
    large = types.is_large_list(kind) or types.is_large_list_view(kind)
    inner = kind.value_field.with_type(_plain_type(kind.value_type))
    return pa.large_list(inner) if large else pa.list_(inner)
