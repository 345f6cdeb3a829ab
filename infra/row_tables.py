"""Tables outside of any part, of rows that stand on their own: single rows can be taken from them, the others stay.

They lie below `labels/`, one parquet object each, named by its SHA-256.
"""

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import polars as pl

from infra.purge import Seeker, Target
from infra.store import Store

FOLDER = "labels/"
_THREADS = 8


def forget_rows(store: Store, target: Target, *, dry_run: bool = False) -> int:
    """Remove every row that names or holds a target, or is in a damaged table; returns how many these are.

    What stays of a table is durable before the old one goes, so a purge that was killed is repeated.
    """
    seeker = Seeker(target)
    keys = [key for key in store.list(FOLDER.rstrip("/")) if key.endswith(".parquet")]
    with ThreadPoolExecutor(_THREADS, "rows") as pool:
        return sum(pool.map(lambda key: _forget_in(store, key, seeker, dry_run), keys))


def _forget_in(store: Store, key: str, seeker: Seeker, dry_run: bool) -> int:
    data = store.read(key)
    if data is None:
        return 0
    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except pl.exceptions.PolarsError:
        if not dry_run:
            store.delete(key)
        return 1
    if not seeker.in_frame(frame):
        return 0
    held = pl.Series([seeker.in_frame(row) for row in _rows(frame)], dtype=pl.Boolean)
    count = int(held.sum())
    if count and not dry_run:
        if count < frame.height:
            buffer = io.BytesIO()
            frame.filter(~held).rechunk().write_parquet(buffer, compression="zstd", compression_level=3)
            store.create(f"{FOLDER}{hashlib.sha256(buffer.getvalue()).hexdigest()}.parquet", buffer.getvalue())
        store.delete(key)
    return count


def _rows(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    return (frame.slice(row, 1) for row in range(frame.height))
