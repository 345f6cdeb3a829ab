"""The finished parts of a store, as the walks of one run find them: one listing of a stage's folder in each walk.

Manifests are read in bulk and kept for the next walk of the same run. A finished part stays finished, so a stage whose
parts were all found before is not looked up again.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from infra.storage.artifacts import Manifest, newest_attempts, read_manifest
from infra.storage.store import Store

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

    manifests: by stage (without a label) and key, the newest attempt that was found or computed.
    listed: by stage, the newest attempt of every key in the store, as listed in this walk.
    """

    manifests: dict[str, dict[str, Manifest]] = field(default_factory=dict)
    listed: dict[str, dict[str, int]] = field(default_factory=dict)

    def for_another_walk(self) -> "FoundParts":
        """Return what the next walk begins with: the manifests, and no listing."""
        return FoundParts({stage: dict(found) for stage, found in self.manifests.items()})

    def look_up(self, store: Store, stage: str, keys: Sequence[str], *, anew: bool = False) -> Mapping[str, Manifest]:
        """Return the manifests of those keys that are finished, by key.

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
        known.update({manifest.key: manifest for manifest in read_manifests(store, stage, unread)})
        return {key: known[key] for key in keys if key in known}

    def add(self, stage: str, manifests: Iterable[Manifest]) -> None:
        """Add parts that were computed in this walk."""
        self.manifests.setdefault(stage, {}).update({manifest.key: manifest for manifest in manifests})
