"""The garbage collector: removes from a store what no kept manifest or record names.

The caller decides what is kept: it names the manifests that kept curations use, and the records to remove. Everything
else follows by digest: an object stays if its SHA-256 stands in any field of a kept manifest or record.

Why it is safe while curations run. Nothing is deleted at once. What nothing names and is older than a grace period is
*moved* to `trash/`, where `Store.read` still reads it. A later pass, at least one grace period after the move, looks at
everything that is kept again: what is named by then is moved back, and only the rest is deleted. A process may find an
object in its place just before it is moved, and so not write it again. It has a whole grace period to name the object
in a manifest or record, because the pass that could delete it begins later than that. What is younger than the grace
period is never moved, and a young manifest counts as kept. Any number of collectors may work at once. If a pass is
killed, the next one continues: records and manifests are moved before the objects they name, and back after them.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from infra.names import CHECKPOINTS, digest_of
from infra.storage.artifacts import Manifest
from infra.storage.store import TRASH, Entry, Store, StoreError

_THREADS = 16
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_BELOW = f"{TRASH}/"
_MODELS = ("models/", "weights/")  # each a list of files by the digest of the model
_COLLECTED = ("objects/", "parts/", *_MODELS)
_CHECKPOINT_SECONDS = 7 * 86400.0  # after which an unfinished training is not expected to go on
# What names other keys is moved first and put back last.
_RANKS, _RECORD = {"objects": 0, "models": 1, "weights": 1, "parts": 2}, 3
_APART = (
    *_COLLECTED,
    "ledger/",
    "vectors/",
    "origins/",
    "probe/",
    CHECKPOINTS,
    "published/",
    _BELOW,
)  # no records: copies, or named by others


class Snapshot(Store):
    """A store and its trash as they were listed at one moment, for a walk over the method; nothing is written to it.

    listed: every key with its size and time, keys in the trash included. manifests: the bytes of every manifest.
    """

    writable = False
    listed: dict[str, Entry]
    manifests: dict[str, bytes]
    _folders: dict[str, list[str]]
    _kept: dict[str, bytes]

    @classmethod
    def take(cls, store: Store) -> Self:
        """List everything and read the manifests."""
        taken = cls(store.url)
        taken.listed = store.entries("")
        parts = sorted({key for key in map(live, taken.listed) if key.startswith("parts/")})
        with ThreadPoolExecutor(_THREADS, "gc") as pool:
            read = zip(parts, pool.map(store.read, parts), strict=True)
            taken.manifests = {key: data for key, data in read if data is not None}
        taken._kept, taken._folders = {}, {}
        for key in sorted(set(map(live, taken.listed))):
            for end in (i for i, sign in enumerate(key) if sign == "/"):
                taken._folders.setdefault(key[:end], []).append(key)
        return taken

    def read(self, key: str, *, last: int | None = None) -> bytes | None:
        """Read a manifest as it was when it was listed, anything else as it is now, also from the trash."""
        if key.startswith("parts/"):
            return self.manifests.get(key)
        if key in self._kept:
            return self._kept[key]
        data = super().read(key, last=last)
        return super().read(_BELOW + key, last=last) if data is None and _BELOW + key in self.listed else data

    def list(self, prefix: str) -> list[str]:
        """List the keys below a prefix as they were."""
        return self._folders.get(prefix, [])

    def exists(self, key: str) -> bool:
        """Tell whether an object is in the store or kept in memory."""
        return key in self._kept or super().exists(key)

    def put_object(self, data: bytes, suffix: str) -> str:
        """Keep an object in memory: a walk makes some small tables itself."""
        key = self.key_of(data, suffix)
        self._kept[key] = data
        return key

    def create(self, key: str, data: bytes | bytearray) -> bool:
        """Refuse to write."""
        raise StoreError(f"store {self.url}: {key} would be written while the store is only looked at")


@dataclass(frozen=True)
class Roots:
    """What the caller has decided to keep and to remove.

    manifests: keys of the manifests that kept curations use. records: keys of the records to remove, in this order.
    back: records to take back from the trash. models: digests of the models in use.
    further: stages whose parts stay as long as everything they read stays.
    """

    manifests: frozenset[str] = frozenset()
    records: tuple[str, ...] = ()
    back: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    further: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Collection:
    """What a pass does, in this order: take `back` from the trash, `delete` from it, `move` into it.

    missing: objects that kept manifests wrote and that are nowhere. sizes: bytes by key.
    """

    back: tuple[str, ...]
    delete: tuple[str, ...]
    move: tuple[str, ...]
    missing: tuple[str, ...]
    sizes: Mapping[str, int] = field(repr=False)

    def bytes_of(self, keys: Iterable[str]) -> int:
        """Sum up the sizes of keys."""
        return sum(self.sizes.get(key, 0) for key in keys)


def live(key: str) -> str:
    """Return the key that an object in the trash had before; another key is returned as it is.

    >>> live("trash/objects/ab/abc"), live("parts/x/y.json")
    ('objects/ab/abc', 'parts/x/y.json')
    """
    return key.removeprefix(_BELOW)


def plan(store: Store, snapshot: Snapshot, roots: Roots, grace: float, now: float | None = None) -> Collection:
    """Decide what a pass does; changes nothing.

    Args:
        store: what is collected.
        snapshot: of it, taken *before* the roots were looked up.
        roots: what is kept and what goes.
        grace: seconds; what was written or moved less than that ago is left alone.
        now: the time, in seconds since the epoch; for tests.

    Raises:
        StoreError: a kept record or manifest cannot be read, so what it names is unknown.
    """
    listed = snapshot.listed
    time_ = time.time() if now is None else now
    old = {key for key, entry in listed.items() if time_ - entry.written >= grace}
    named = _digests_of_records(store, listed, frozenset(roots.records)) | roots.models
    manifests = set(roots.manifests) | {key for key in listed if key.startswith("parts/") and key not in old}
    manifests = _follow(snapshot, manifests, named, roots.further)
    named |= {digest for key in manifests for digest in _named_in(snapshot.manifests[key])}
    # What a part read of a bundle is named by the slice's digest.
    slices = {digest: bundle for data in snapshot.manifests.values() for digest, bundle in _slices(data).items()}
    named |= {digest_of(slices[digest]) for digest in named & slices.keys()}
    models = {live(key) for key in listed if live(key).startswith(_MODELS)}
    used = [key for key in models if digest_of(key) in named or (key in listed and key not in old)]
    named |= {digest_of(key) for key in used} | {d for key in used for d in _named_in(store.read(key) or b"")}

    def reached(key: str) -> bool:
        place = live(key)
        if place.startswith(("objects/", *_MODELS)):
            return digest_of(place) in named
        return place in manifests if place.startswith("parts/") else place in roots.back

    in_order = sorted(listed, key=lambda key: (_RANKS.get(live(key).split("/")[0], _RECORD), key))
    trashed = [key for key in in_order if key.startswith(_BELOW)]
    candidates = [key for key in in_order if key.startswith(_COLLECTED) and key in old and not reached(key)]
    dead = [key for key in in_order if key.startswith("probe/") and key in old]
    dead += _dead_checkpoints(listed, old, time_)
    places = {digest_of(live(key)) for key in listed if live(key).startswith("objects/")}
    missing = {key for path in manifests for key in _written(snapshot.manifests[path]) if digest_of(key) not in places}
    return Collection(
        back=tuple(key for key in trashed if reached(key)),
        delete=(*dead, *(key for key in reversed(trashed) if key in old and not reached(key))),
        move=(*(key for key in roots.records if key in listed), *reversed(candidates)),
        missing=tuple(sorted(missing)),
        sizes={key: entry.size for key, entry in listed.items()},
    )


def _dead_checkpoints(listed: Mapping[str, Entry], old: set[str], now: float) -> list[str]:
    """Return the checkpoints that nobody resumes from: their part is finished, or nothing was written for a week."""
    found: dict[str, list[str]] = {}  # by the part's name: stage, key and attempt
    for key in listed:
        if key.startswith(CHECKPOINTS):
            found.setdefault("/".join(key.split("/")[1:3]), []).append(key)
    dead = []
    for part, keys in found.items():
        finished = f"parts/{part}.json" in listed or f"{_BELOW}parts/{part}.json" in listed
        left = all(now - listed[key].written >= _CHECKPOINT_SECONDS for key in keys)
        if (finished or left) and old.issuperset(keys):
            dead += sorted(keys, reverse=True)  # records first: what is half deleted is not whole
    return dead


def carry_out(store: Store, collection: Collection, *, at_once: bool = False) -> None:
    """Do what was decided; `at_once` also deletes what was moved, which is safe only if nothing else uses the store."""
    phases: list[tuple[Iterable[str], Callable[[str], Any]]] = [
        (collection.back, lambda key: put_back(store, key)),
        (collection.delete, store.delete),
        (collection.move, lambda key: store.move(key, _BELOW + key)),
    ]
    if at_once:
        phases.append((collection.move, lambda key: store.delete(_BELOW + key)))
    with ThreadPoolExecutor(_THREADS, "gc") as pool:
        for keys, act in phases:
            for group in _groups(keys):
                list(pool.map(act, group))


def put_back(store: Store, key: str) -> None:
    """Move a key from the trash back to its place; an object written there meanwhile stays."""
    place = live(key)
    if place.startswith("objects/"):
        if not store.exists(place):
            store.move(key, place)  # what may be written there meanwhile has the same bytes
            return
    elif (data := store.read(key)) is not None:
        store.create(place, data)
    store.delete(key)


def empty_back(store: Store) -> int:
    """Move everything in the trash back, so that a purge finds it in its place; returns the number of objects."""
    keys = store.list(TRASH)
    carry_out(store, Collection(tuple(keys), (), (), (), {}))
    return len(keys)


def _groups(keys: Iterable[str]) -> list[list[str]]:
    """Split keys where their folder changes: within a folder the order does not matter, between folders it does."""
    groups: list[list[str]] = []
    last = None
    for key in keys:
        kind = live(key).split("/")[0]
        kind = kind if kind in _RANKS else key  # each record is a group of its own
        if kind != last:
            groups.append([])
        groups[-1].append(key)
        last = kind
    return groups


def _digests_of_records(store: Store, listed: Mapping[str, Entry], going: frozenset[str]) -> set[str]:
    """Return the digests that the kept records name; a record is any JSON file outside the collected folders."""
    staying = [key for key in listed if key.endswith(".json") and not key.startswith(_APART) and key not in going]
    with ThreadPoolExecutor(_THREADS, "gc") as pool:
        read = list(zip(staying, pool.map(store.read, staying), strict=True))
    for key, data in read:
        try:
            json.loads(data or b"null")
        except ValueError as error:
            raise StoreError(
                f"store {store.url}: {key} is damaged ({error}), so what it names is unknown; restore or delete it"
            ) from error
    return {digest for _, data in read if data for digest in _named_in(data)}


def _follow(snapshot: Snapshot, manifests: set[str], named: set[str], further: frozenset[str]) -> set[str]:
    """Add the parts of `further` stages whose inputs all stay; inputs that no part wrote do not count."""
    absent = sorted(manifests - snapshot.manifests.keys())
    if absent:
        raise StoreError(f"store {snapshot.url}: {absent[0]} is kept but cannot be found; rerun its part")
    candidates = {key for stage in further for key in snapshot.list(f"parts/{stage}")} - manifests
    written = snapshot.manifests.values()
    made = {digest_of(o) for data in written for o in _written(data, lenient=True)}
    made |= {digest for data in written for digest in _slices(data)}
    staying = named | {d for key in manifests for d in _named_in(snapshot.manifests[key])}
    while True:
        new = set()
        for key in candidates:
            reads = _inputs(snapshot.manifests[key]) & made
            if reads and reads <= staying:
                new.add(key)
        if not new:
            return manifests
        manifests = manifests | new
        candidates -= new
        staying |= {d for key in new for d in _named_in(snapshot.manifests[key])}


def _inputs(data: bytes) -> set[str]:
    """Return the digests of what a part read."""
    try:
        inputs = json.loads(data)["ingredients"]["inputs"]
    except (ValueError, KeyError, TypeError):
        return set()
    return _named_in(json.dumps(inputs).encode())


def _written(data: bytes, *, lenient: bool = False) -> set[str]:
    """Return the objects a part wrote."""
    try:
        return Manifest.from_json(data).objects
    except ValueError as error:
        if lenient:
            return set()
        raise StoreError(f"a kept manifest is damaged ({error}); rerun its part") from error


def _slices(data: bytes) -> dict[str, str]:
    """Return the digests of the slices a part wrote, and the bundle that holds each; of a damaged manifest none."""
    if b'"digest"' not in data:
        return {}
    try:
        return Manifest.from_json(data).slices
    except ValueError:
        return {}


def _named_in(data: bytes) -> set[str]:
    return {digest.decode() for digest in _DIGEST.findall(data)}
