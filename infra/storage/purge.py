"""The purge: finds everything in a store that holds a text, names its hash or was made from it, and removes it.

What *holds* the text is found by content, in every object, whoever wrote it: in tables (the hash or the text in any
column of strings, however deep), in packed files and in plain files (as it is, or escaped as in JSON, HTML or CSV).
What was *made* from it is found by the manifests: a part that has a removed object among its ingredients goes, with
what it wrote, and so on.

What stays: objects that a remaining part or a record names; and, of a table that was cut into several pieces, the
pieces that do not name the text. They hold other rows, so what was computed from them alone (embeddings, answers) is
worth keeping. Such tables must therefore hold the hash of each text they are about.

Objects are removed from the last descendants to the text itself. A purge that was killed can therefore be repeated: it
finds the rest. Nothing else may run in the store meanwhile: a running part could write the text again.
"""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from infra.names import CHECKPOINTS, digest_of
from infra.storage.artifacts import Manifest
from infra.storage.store import TRASH, Store
from infra.storage.tables import BUNDLE, slices_of
from infra.text_search import Seeker, Target, strings_of

_THREADS = 8
_LABELS = "labels"  # tables of what people decided
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WEIGHTS = ".safetensors"  # gigabytes of numbers: not searched


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


def make_plan(store: Store, target: Target) -> Plan:
    """Find what a purge would remove; reads every object of the store but model weights, and changes nothing."""
    keys = [key for key in store.list("") if not key.startswith(f"{TRASH}/")]  # the caller moves the trash back first
    objects = [key for key in keys if key.startswith("objects/")]
    # An origin names software and a processor, and holds no text.
    apart = ("objects/", "ledger/", "vectors/", "labels/", "origins/", "releases/", "published/", CHECKPOINTS)
    described = [key for key in keys if not key.startswith(apart)]
    with ThreadPoolExecutor(_THREADS, "purge") as pool:
        read = zip(described, pool.map(store.read, described), strict=True)
        texts = {key: data.decode(errors="replace") for key, data in read if data is not None}
        manifests = {key: Manifest.from_json(text.encode()) for key, text in texts.items() if _is_manifest(key)}
        records = {key: text for key, text in texts.items() if not _is_manifest(key)}
        names = _names([*manifests.values()], records)
        seeker, excerpts = Seeker(target), Seeker(target.excerpt())

        def holds(key: str) -> set[str]:
            # A crash left what nothing names. No manifest says what it was made from, so a cut copy counts as well.
            return _held_in(store, key, seeker if digest_of(key) in names else excerpts)

        searched = [key for key in objects if not _are_weights(names.get(digest_of(key), set()))]
        held = {key: found for key, found in zip(searched, pool.map(holds, searched), strict=True) if found}
    holders = set(held)
    speaking = {key for key, text in texts.items() if seeker.in_bytes(text.encode())}
    found = {key: _DIGEST.findall(text) for key, text in records.items()}
    named = {o: tuple(key for key, digests in found.items() if digest_of(o) in digests) for o in sorted(holders)}
    kept = {key for key in objects if any(digest_of(key) in digests for digests in found.values())}
    return Plan(
        removals=_descend(manifests, held, speaking & manifests.keys(), kept),
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
    manifests: Mapping[str, Manifest], held: Mapping[str, set[str]], speaking: set[str], kept: set[str]
) -> tuple[Removal, ...]:
    """Follow the ingredients from the holders to the last descendants; returns the parts to remove, the last first.

    held: by object that holds the text, the digests of what holds it: its own, or those of slices of a bundle.
    """
    holders, bundles = set(held), _bundles(manifests.values())
    damaged = (bundles.get(key, set()) for key, digests in held.items() if digest_of(key) in digests)
    found = _union(*held.values(), *damaged)
    writes = {key: manifest.objects for key, manifest in manifests.items()}
    reads = {key: frozenset(_DIGEST.findall(json.dumps(m.ingredients))) for key, m in manifests.items()}
    losses = {key: _losses(manifest) for key, manifest in manifests.items()}
    writers = {key for key in manifests if writes[key] & holders} | speaking
    made = dict.fromkeys(speaking, 0)  # parts made from it, with their distance; what they wrote is removed
    while True:
        staying = manifests.keys() - writers - made.keys()
        used = _union(kept, *(writes[key] for key in staying))
        lost = _union(*(losses[key] for key in made)) - used - holders
        gone = holders | lost
        digests = _union(found, *(_names_of(key, bundles) for key in lost))
        new = {key for key in manifests if key not in made and reads[key] & digests}
        if not new:
            break
        made |= dict.fromkeys(new, max(made.values(), default=0) + 1)
    still_read = frozenset[str]().union(*(reads[key] for key in staying))
    order = sorted(writers | made.keys(), key=lambda key: (-made.get(key, 0), key))
    waste = {o for key in order for o in writes[key] - used if not _names_of(o, bundles) & still_read}
    return tuple(Removal(key, tuple(sorted(writes[key] & (gone | waste) - holders))) for key in order)


def _bundles(manifests: Iterable[Manifest]) -> dict[str, set[str]]:
    """Return the digests of the slices of each bundle, which name what a part read of it."""
    found: dict[str, set[str]] = {}
    for manifest in manifests:
        for digest, bundle in manifest.slices.items():
            found.setdefault(bundle, set()).add(digest)
    return found


def _names_of(key: str, bundles: Mapping[str, set[str]]) -> set[str]:
    return {digest_of(key)} | bundles.get(key, set())


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
        contents = strings_of(dict(manifest.ingredients))
        pairs += [text.rpartition("=")[::2] for text in contents if _DIGEST.search(text)]
    for text in records.values():
        pairs += re.findall(r'"([^"]*)":\s*"(objects/[^"]*)"', text)
    names: dict[str, set[str]] = {}
    for name, key in pairs:
        names.setdefault(digest_of(key), set()).update({name} - {""})
    return names


def _held_in(store: Store, key: str, seeker: Seeker) -> set[str]:
    """Return the digests of what holds the target: the object's own, or those of a bundle's slices; else none.

    What is damaged holds it, as far as anybody can tell; so does each slice of a damaged bundle.
    """
    data = store.read(key)
    if data is None:
        return set()
    whole = hashlib.sha256(data).hexdigest() == digest_of(key)
    if key.endswith(BUNDLE) and whole:
        return {hashlib.sha256(piece).hexdigest() for piece in slices_of(data) if seeker.in_bytes(piece)}
    return set() if whole and not seeker.in_bytes(data) else {digest_of(key)}


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
