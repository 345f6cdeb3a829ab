"""Rows of a ledger by the thousand, and a store that counts what is read of it."""

import hashlib

import polars as pl

from infra.ledger.segments import SCHEMA
from infra.storage.store import Store


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def frame_of(count: int, start: int = 0, per_query: int = 25, shelf: str = "") -> pl.DataFrame:
    """Rows as a judge writes them: so many passages of each query, whose hashes begin with a shelf."""
    rows = []
    for n in range(start, start + count):
        query = (shelf + hashed(f"query {n // per_query}"))[:32]
        payload = f'{{"text": "Yes", "logprobs": {{"Yes": -0.{n}}}}}'
        rows.append((hashed(f"entry {shelf}{n}"), [query, hashed(f"passage {n}")], payload, "", 1_000, 0))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def asked_of(rows: pl.DataFrame) -> dict[str, str]:
    """Entries with their first subjects."""
    return dict(rows.select("entry", pl.col("subjects").list.first()).rows())


class Counted(Store):
    """Counts the bytes that are read of objects, whole or in part, and of those that are written."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.bytes_read = self.bytes_written = self.requests = 0
        inner = self._fs.cat_file

        def cat_file(*args: object, **options: object) -> bytes:
            data: bytes = inner(*args, **options)
            self.bytes_read += len(data)
            self.requests += 1
            return data

        self._fs = _Shown(self._fs, cat_file)

    def create(self, key: str, data: bytes) -> bool:
        self.bytes_written += len(data)
        return super().create(key, data)


class _Shown:
    """A file system with another way to read a file."""

    def __init__(self, inner: object, cat_file: object) -> None:
        self.inner, self.cat_file = inner, cat_file

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)
