"""Writes rows in every kind of file and every packing, so that tests can read them back."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[Mapping[str, Any]]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}


def lines(rows: Rows) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def parquet(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink, row_group_size=2)
    return sink.getvalue()


def arrow(rows: Rows, *, stream: bool) -> bytes:
    table, sink = pa.Table.from_pylist(list(rows)), pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return bytes(sink.getvalue().to_pybytes())


TEXTS: dict[str, Callable[[Rows], bytes]] = {
    "lines": lines,
    "list": lambda rows: json.dumps(rows).encode(),
    "indented list": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False).encode(),
    "list in an object": lambda rows: json.dumps({"data": rows}).encode(),
    "UTF-16": lambda rows: lines(rows).decode().encode("utf-16"),
}
TABLES: dict[str, Callable[[Rows], bytes]] = {
    "parquet": parquet,
    "Arrow file": lambda rows: arrow(rows, stream=False),
    "Arrow stream": lambda rows: arrow(rows, stream=True),
}
