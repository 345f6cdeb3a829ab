"""Copies a table of verdicts into the store, checked: those of a judge that was asked elsewhere, or silver labels."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from flows.config.section import ConfigError
from flows.inputs.addresses import is_unreadable, open_address
from infra.storage.large_files import put_file
from infra.storage.store import Store
from tasks.quality.imported import COLUMNS, FILE, settle_verdicts
from tasks.texts import clean, hash_passage, hash_text

_READERS: Mapping[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": pl.scan_parquet,
    ".csv": lambda path: pl.scan_csv(path, infer_schema=False),
    ".jsonl": pl.scan_ndjson,
}
_HASHES = ("query_hash", "text_hash")
_TEXTS = ("query", "passage")
_WANTED = "query_hash and text_hash (or query and passage), and label or state"


def keep_imported(
    store: Store, path: str, known: Mapping[str, str] | None, tell: Callable[[str], None] = lambda text: None
) -> Mapping[str, str]:
    """Store the table at a path, one row per pair of texts; returns its files. `tell` reports rows that are left out.

    known: the copy of the last execution, which is used if the file cannot be read now.

    Raises:
        ConfigError: it cannot be read, lacks columns, or holds no usable row.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _READERS:
        raise ConfigError(f"imported.path: {path}: a file of the kind {', '.join(_READERS)} expected")
    with tempfile.TemporaryDirectory(prefix="reneg-imported-") as folder:
        local, made = Path(folder) / f"table{suffix}", Path(folder) / FILE
        try:
            fs, root = open_address(path, "imported.path")
            fs.get_file(root, str(local))
        except Exception as error:
            if not is_unreadable(error):
                raise
            if known is not None:
                tell(f"imported.path: {path} cannot be read here; the copy of the last execution is used")
                return known
            raise ConfigError(f"imported.path: {path} cannot be read ({type(error).__name__}: {error})") from error
        try:
            table, left_out = settle_verdicts(_columns(_READERS[suffix](local), path))
        except (PolarsError, UnicodeDecodeError) as error:
            first = str(error).partition("\n")[0]
            raise ConfigError(f"imported.path: {path} cannot be read as {suffix} ({first})") from error
        for reason, count in left_out.items():
            tell(f"imported: {count} row(s) left out: {reason}")
        if table.is_empty():
            raise ConfigError(f"imported.path: {path} holds no usable row ({left_out or 'it is empty'})")
        table.write_parquet(made)
        return {FILE: put_file(store, made)}


def _columns(rows: pl.LazyFrame, path: str) -> pl.LazyFrame:
    """Return the rows with the columns of `COLUMNS`; texts are hashed as ingest does it."""
    names = rows.collect_schema().names()
    state = next((name for name in ("state", "label") if name in names), None)
    hashed, texts = set(_HASHES) <= set(names), set(_TEXTS) <= set(names)
    if state is None or not (hashed or texts):
        raise ConfigError(f"imported.path: {path} has the columns {', '.join(names)}; {_WANTED} expected")
    score = pl.col("score").cast(pl.Float64) if "score" in names else pl.lit(None, dtype=pl.Float64)
    chosen = rows.with_columns(state=pl.col(state).cast(pl.String), score=score)
    if not hashed:
        title = pl.col("title").cast(pl.String).fill_null("") if "title" in names else pl.lit("")
        chosen = _hash_texts(chosen.with_columns(title=title).collect()).lazy()
    return chosen.select(pl.col(name).cast(dtype) for name, dtype in COLUMNS.items())


def _hash_texts(rows: pl.DataFrame) -> pl.DataFrame:
    texts = rows.select("query", "title", "passage").iter_rows()
    hashes = [
        (None, None)
        if not isinstance(query, str) or not isinstance(passage, str)
        else (hash_text(clean(query)), hash_passage(clean(title), clean(passage)))
        for query, title, passage in texts
    ]
    return rows.with_columns(pl.DataFrame(hashes, schema=dict.fromkeys(_HASHES, pl.String), orient="row"))
