"""The purge: finds everything in a store that holds a text, names its hash or was made from it, and removes it.

What *holds* the text is found by content, in every object, whoever wrote it: in tables (the hash or the text in any
column of strings), in gzip files and in plain files (as it is, or escaped as in JSON, HTML or CSV). What was *made*
from it is found by the manifests: a part that has a removed object among its ingredients goes, with what it wrote, and
so on.

What stays: objects that a remaining part or a record names; and, of a table that was cut into several pieces, the
pieces that do not name the text. They hold other rows, so what was computed from them alone (embeddings, answers) is
worth keeping. Such tables must therefore hold the hash of each text they are about.

Objects are removed from the last descendants to the text itself. A purge that was killed can therefore be repeated: it
finds the rest. Nothing else may run in the store meanwhile: a running part could write the text again.
"""

import gzip
import hashlib
import html
import io
import json
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from infra.names import digest_of
from infra.storage.artifacts import Manifest
from infra.storage.store import TRASH, Store

_SHORT = 24  # characters; a shorter text is sought as a whole value only: it may occur in many others
_EXCERPT = 200  # characters of a text by which a copy that was cut is recognised
_THREADS = 8
_LABELS = "labels"  # tables of what people decided
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_WEIGHTS = ".safetensors"  # gigabytes of numbers: not searched


@dataclass(frozen=True)
class Target:
    """What is to be removed: the hashes of texts, and the texts as far as they are known."""

    hashes: frozenset[str]
    texts: frozenset[str]

    def __post_init__(self) -> None:
        """Refuse an empty target: it would be found everywhere."""
        if not self.hashes | self.texts or "" in self.hashes | self.texts:
            raise ValueError("purge: at least one hash or text expected, none of them empty")

    def excerpt(self) -> "Target":
        """Return the same with every text cut to its beginning."""
        return Target(self.hashes, frozenset(text[:_EXCERPT] for text in self.texts))


@dataclass(frozen=True)
class Removal:
    """One finished part that is removed: its manifest, and the objects that are removed with it."""

    manifest: str
    objects: tuple[str, ...]

    @property
    def stage(self) -> str:
        """The stage it is a part of."""
        return self.manifest.split("/")[1]


@dataclass(frozen=True)
class Plan:
    """What a purge removes from the store, in this order.

    removals: parts, the last descendants first. records: JSON objects beside the parts that hold the text. holders:
    objects that hold the text or its hash, or are damaged, so that what they hold is unknown. named: those of the
    holders that records name (copies of a source), with the records.
    """

    removals: tuple[Removal, ...]
    records: tuple[str, ...]
    holders: tuple[str, ...]
    named: Mapping[str, tuple[str, ...]]

    @property
    def digests(self) -> frozenset[str]:
        """SHA-256 of all objects that are removed; copies elsewhere are recognised by it."""
        objects = [*self.holders, *(key for removal in self.removals for key in removal.objects)]
        return frozenset(digest_of(key) for key in objects)


class Seeker:
    """Finds a target in tables and files."""

    def __init__(self, target: Target) -> None:
        whole = {text for text in target.texts if len(text) < _SHORT}
        self._whole = sorted(whole)
        self._parts = sorted(target.hashes | (target.texts - whole))
        self._needles = sorted({needle for part in self._parts for needle in _spellings(part)})
        short = b"|".join(re.escape(needle) for needle in sorted({n for text in whole for n in _spellings(text)}))
        self._short = re.compile(rb"(?<![^\"\r\n\t,>])(?:" + short + rb")(?![^\"\r\n\t,<])") if short else None

    def in_bytes(self, data: bytes) -> bool:
        """Tell whether a file holds the target, whatever kind of file it is."""
        if data.startswith(b"PAR1"):
            return self._in_parquet(data)
        if data.startswith(b"\x1f\x8b"):
            try:
                data = gzip.decompress(data)
            except (OSError, EOFError, zlib.error):
                return self._in_plain(data)
        return self._in_plain(data) or (b"\\" in data and b"\0" not in data and self._in_json(data))

    def in_frame(self, frame: pl.DataFrame) -> bool:
        """Tell whether any column of strings, or of lists of strings, holds the target."""
        return any(self._in_series(series) for series in frame.iter_columns())

    def _in_parquet(self, data: bytes) -> bool:
        try:
            schema = pl.read_parquet_schema(io.BytesIO(data))
            columns = [name for name, dtype in schema.items() if "String" in str(dtype)]
            return bool(columns) and self.in_frame(pl.read_parquet(io.BytesIO(data), columns=columns))
        except pl.exceptions.PolarsError:
            return self._in_plain(data)

    def _in_series(self, series: pl.Series) -> bool:
        while isinstance(series.dtype, pl.List | pl.Array):
            series = series.explode()
        if series.dtype != pl.String:
            return False
        found = series.is_in(self._whole).any() if self._whole else False
        return bool(found or (self._parts and series.str.contains_any(self._parts).any()))

    def _in_plain(self, data: bytes) -> bool:
        return any(needle in data for needle in self._needles) or bool(self._short and self._short.search(data))

    def _in_json(self, data: bytes) -> bool:
        """Look into JSON lines (or one JSON document) whose strings are escaped in another way than ours."""
        lines = [line for line in data.split(b"\n") if b"\\" in line]
        values = [_parse(line) for line in lines]
        if any(value is None for value in values):
            values.append(_parse(data))
        return any(self._in_text(_CONTROL.sub(" ", text)) for value in values for text in _strings(value))

    def _in_text(self, text: str) -> bool:
        return text.strip() in self._whole or any(part in text for part in self._parts)


def make_plan(store: Store, target: Target) -> Plan:
    """Find what a purge would remove; reads every object of the store but model weights, and changes nothing."""
    keys = [key for key in store.list("") if not key.startswith(f"{TRASH}/")]  # the caller moves the trash back first
    objects = [key for key in keys if key.startswith("objects/")]
    described = [
        key for key in keys if not key.startswith(("objects/", "ledger/", "labels/", "releases/", "published/"))
    ]
    with ThreadPoolExecutor(_THREADS, "purge") as pool:
        read = zip(described, pool.map(store.read, described), strict=True)
        texts = {key: data.decode(errors="replace") for key, data in read if data is not None}
        manifests = {key: Manifest.from_json(text.encode()) for key, text in texts.items() if _is_manifest(key)}
        records = {key: text for key, text in texts.items() if not _is_manifest(key)}
        names = _names([*manifests.values()], records)
        seeker, excerpts = Seeker(target), Seeker(target.excerpt())

        def holds(key: str) -> bool:
            # A crash left what nothing names. No manifest says what it was made from, so a cut copy counts as well.
            return _holds(store, key, seeker if digest_of(key) in names else excerpts)

        searched = [key for key in objects if not _are_weights(names.get(digest_of(key), set()))]
        holders = {key for key, found in zip(searched, pool.map(holds, searched), strict=True) if found}
    speaking = {key for key, text in texts.items() if seeker.in_bytes(text.encode())}
    found = {key: _DIGEST.findall(text) for key, text in records.items()}
    named = {o: tuple(key for key, digests in found.items() if digest_of(o) in digests) for o in sorted(holders)}
    kept = {key for key in objects if any(digest_of(key) in digests for digests in found.values())}
    return Plan(
        removals=_descend(manifests, holders, speaking & manifests.keys(), kept),
        records=tuple(sorted(speaking & records.keys())),
        holders=tuple(sorted(holders)),
        named={key: by for key, by in named.items() if by},
    )


def carry_out(store: Store, plan: Plan) -> None:
    """Remove what a plan names; after a crash, a new plan finds the rest."""
    for removal in plan.removals:
        for key in (*removal.objects, removal.manifest):
            store.delete(key)
    for key in (*plan.records, *plan.holders):
        store.delete(key)
    store.sweep()


def find_files(folder: Path, target: Target, digests: frozenset[str]) -> list[Path]:
    """Find the files below a folder that hold the target or its beginning, or are copies of removed objects."""
    seeker = Seeker(target.excerpt())

    def holds(path: Path) -> bool:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() in digests:
                return True
        return path.suffix != _WEIGHTS and seeker.in_bytes(path.read_bytes())

    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and holds(path))


def find_folders(folder: Path, target: Target, digests: frozenset[str]) -> list[Path]:
    """Find the entries of a folder that hold such a file: a folder without one of its files would count as complete."""
    return sorted({folder / path.relative_to(folder).parts[0] for path in find_files(folder, target, digests)})


def remove_paths(paths: Iterable[Path]) -> None:
    """Delete files, and folders with all they hold."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _descend(
    manifests: Mapping[str, Manifest], holders: set[str], speaking: set[str], kept: set[str]
) -> tuple[Removal, ...]:
    """Follow the ingredients from the holders to the last descendants; returns the parts to remove, the last first."""
    writes = {key: manifest.objects for key, manifest in manifests.items()}
    reads = {key: frozenset(_DIGEST.findall(json.dumps(m.ingredients))) for key, m in manifests.items()}
    losses = {key: _losses(manifest) for key, manifest in manifests.items()}
    writers = {key for key in manifests if writes[key] & holders} | speaking
    made = dict.fromkeys(speaking, 0)  # parts made from it, with their distance; what they wrote is removed
    while True:
        staying = manifests.keys() - writers - made.keys()
        used = _union(kept, *(writes[key] for key in staying))
        gone = holders | (_union(*(losses[key] for key in made)) - used)
        digests = {digest_of(key) for key in gone}
        new = {key for key in manifests if key not in made and reads[key] & digests}
        if not new:
            break
        made |= dict.fromkeys(new, max(made.values(), default=0) + 1)
    still_read = frozenset[str]().union(*(reads[key] for key in staying))
    order = sorted(writers | made.keys(), key=lambda key: (-made.get(key, 0), key))
    waste = {o for key in order for o in writes[key] - used if digest_of(o) not in still_read}
    return tuple(Removal(key, tuple(sorted(writes[key] & (gone | waste) - holders))) for key in order)


def _losses(manifest: Manifest) -> set[str]:
    """Return the objects of a part that were made from the text: all but empty tables and pieces of split tables."""
    tables = (pieces[0].object for pieces in manifest.tables.values() if len(pieces) == 1 and pieces[0].rows)
    return {*tables, *(key for files in manifest.directories.values() for key in files.values())}


def _union(*sets: Iterable[str]) -> set[str]:
    return set[str]().union(*sets)


def _is_manifest(key: str) -> bool:
    return key.startswith("parts/")


def _are_weights(names: set[str]) -> bool:
    return bool(names) and all(name.endswith(_WEIGHTS) for name in names)


def _names(manifests: Sequence[Manifest], records: Mapping[str, str]) -> dict[str, set[str]]:
    """Collect under which file names each digest is known; a table's is empty."""
    pairs = [(name, key) for m in manifests for files in m.directories.values() for name, key in files.items()]
    pairs += [("", key) for m in manifests for key in m.objects]
    for manifest in manifests:
        # What a part read: "<digest>.parquet" of a table, "<name>=<digest>" of a directory's file.
        contents = _strings(dict(manifest.ingredients))
        pairs += [text.rpartition("=")[::2] for text in contents if _DIGEST.search(text)]
    for text in records.values():
        pairs += re.findall(r'"([^"]*)":\s*"(objects/[^"]*)"', text)
    names: dict[str, set[str]] = {}
    for name, key in pairs:
        names.setdefault(digest_of(key), set()).update({name} - {""})
    return names


def _holds(store: Store, key: str, seeker: Seeker) -> bool:
    data = store.read(key)
    if data is None:
        return False
    return hashlib.sha256(data).hexdigest() != digest_of(key) or seeker.in_bytes(data)


def _spellings(text: str) -> set[bytes]:
    """Return a text as files may hold it: as it is, and escaped as in JSON, HTML (two ways) and CSV."""
    escaped = html.escape(text)
    spellings = (
        text,
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        escaped,
        escaped.replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
        text.replace('"', '""'),
    )
    return {spelling.encode(errors="surrogatepass") for spelling in spellings}


def _parse(data: bytes) -> Any:  # noqa: ANN401 - JSON is any
    """Read JSON, or None where it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON is any
    """Yield every string of a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def forget_rows(store: Store, target: Target, *, dry_run: bool = False) -> int:
    """Remove every label that names or holds a target, or is in a damaged table; returns the number of rows.

    The rows that stay are written before the old table is deleted, so a purge that was killed can be repeated.
    """
    seeker = Seeker(target)
    keys = [key for key in store.list(_LABELS) if key.endswith(".parquet")]
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
            store.create(f"{_LABELS}/{hashlib.sha256(buffer.getvalue()).hexdigest()}.parquet", buffer.getvalue())
        store.delete(key)
    return count


def _rows(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    return (frame.slice(row, 1) for row in range(frame.height))
