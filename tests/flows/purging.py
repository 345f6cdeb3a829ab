"""A purge as a script sees it, and a search of its own for what is left of a text."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from flows.maintenance.purge import Wanted, purge
from infra.settings import Settings
from infra.storage.store import Store
from infra.storage.tables import BUNDLE, slices_of


def purged(settings: Settings, wanted: Wanted, *, yes: bool) -> dict[str, Any]:
    """Purge, and return the line a script reads."""
    return purge(settings, wanted, yes=yes).as_json(yes)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def traces(settings: Settings, text: str, text_hash: str) -> list[str]:
    """Name everything below the store, the home and the cache that holds a text or its hash: a search of its own."""
    store = Store(settings.store)
    contents = {key: store.read(key) or b"" for key in store.list("")}
    contents |= files_below(settings.home / "curations") | files_below(settings.scratch)
    found = []
    for name, data in contents.items():
        pieces = list(slices_of(data)) if name.endswith(BUNDLE) else [data]
        numbers = pl.selectors.array() | pl.selectors.binary()
        tables = [pl.read_parquet(piece).drop(numbers) for piece in pieces if piece[:4] == b"PAR1"]
        rows = "".join(json.dumps(table.to_dicts()) for table in tables)
        plain = rows or data.decode()
        if text in plain or text_hash in plain or str(int(text_hash[:16], 16)) in plain:
            found.append(name)
    return found
