"""The finished parts of a store, as the walks of one run find them: one listing of a stage's folder in each walk.

Manifests are read in bulk and kept for the next walk of the same run. A finished part stays finished, so a stage whose
parts were all found before is not looked up again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from infra.stages import part_keys
from infra.storage.artifacts import Artifact, Manifest, newest_attempts, read_manifest
from infra.storage.store import Store

T = TypeVar("T")
_READERS = 16
_AT_ONCE = 16  # manifests that a thread reads before it takes others


def read_manifests(store: Store, stage: str, attempts: Iterable[tuple[str, int]]) -> list[Manifest]:
    """Read the manifests of a stage, given as (key, attempt), in this order, by several threads.

    Raises:
        StoreError: one is gone or damaged.
    """
    wanted = list(attempts)
    batches = [wanted[start : start + _AT_ONCE] for start in range(0, len(wanted), _AT_ONCE)]

    def read(batch: Sequence[tuple[str, int]]) -> list[Manifest]:
        return [read_manifest(store, stage, key, attempt) for key, attempt in batch]

    if len(batches) <= 1:
        return read(wanted)
    with ThreadPoolExecutor(min(_READERS, len(batches)), "manifests") as pool:
        return [manifest for found in pool.map(read, batches) for manifest in found]


@dataclass
class FoundParts:
    """What one walk knows of the finished parts.

    manifests: by stage (without a label) and key, the newest attempt that was found or computed. They are kept without
        the ingredients of their keys, which are most of a manifest: whoever asks for a key has its ingredients.
    listed: by stage, the newest attempt of every key in the store, as listed in this walk.
    noted: what was worked out from tables, by the digest of what it is and of their content.
    """

    manifests: dict[str, dict[str, Manifest]] = field(default_factory=dict)
    listed: dict[str, dict[str, int]] = field(default_factory=dict)
    noted: dict[str, Any] = field(default_factory=dict)

    def for_another_walk(self) -> "FoundParts":
        """Return what the next walk begins with: the manifests and the notes, and no listing."""
        return FoundParts({stage: dict(found) for stage, found in self.manifests.items()}, noted=dict(self.noted))

    def look_up(self, store: Store, stage: str, keys: Sequence[str], *, anew: bool = False) -> Mapping[str, Manifest]:
        """Return the manifests of those keys that are finished, by key, without their ingredients.

        The store is listed if this walk has not listed the stage's folder yet and a key is not known to be finished.

        Args:
            store: where to look.
            stage: its name without a label.
            keys: of the parts.
            anew: list in any case, so that an attempt made since is seen.

        Raises:
            StoreError: the store cannot be read, or a manifest is damaged.
        """
        known = self.manifests.setdefault(stage, {})
        if anew or (stage not in self.listed and any(key not in known for key in keys)):
            self.listed[stage] = newest_attempts(store, stage)
        newest = self.listed.get(stage, {})
        wanted = {key: newest[key] for key in keys if key in newest}
        unread = [(key, attempt) for key, attempt in wanted.items() if key not in known or known[key].attempt < attempt]
        self.add(stage, read_manifests(store, stage, unread))
        return {key: known[key] for key in keys if key in known}

    def note(self, what: str, tables: Iterable[Artifact], work: Callable[[], T]) -> T:
        """Return what a function works out from tables; for the same content it is called once in all walks."""
        key = part_keys.digest([what, [table.content() for table in tables]])
        if key not in self.noted:
            self.noted[key] = work()
        found: T = self.noted[key]
        return found

    def add(self, stage: str, manifests: Iterable[Manifest]) -> None:
        """Add finished parts."""
        light = {manifest.key: replace(manifest, ingredients={}) for manifest in manifests}
        self.manifests.setdefault(stage, {}).update(light)
