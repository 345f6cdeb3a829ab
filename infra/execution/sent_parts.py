"""Parts on their way to Ray workers and back: what all parts of a stage share is sent once, not with each part.

It lies in Ray's object store while the stage's parts are computed. A worker fetches it with the first part of a stage
that it gets. Without this, ten thousand parts that all read the same ten thousand pieces would carry gigabytes.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from infra.stages.part_spec import OwnSpec, PartSpec, SharedSpec, own_of, whole_of
from infra.storage.artifacts import Manifest

_KEPT = 2  # stages whose shared part is kept, by the driver and by a worker


@dataclass(frozen=True)
class SentPart:
    """A part on its way.

    part: the whole part, or what it has of its own.
    shared: the Ray reference of what it shares, in a tuple: Ray hands such a reference on, without fetching the value.
    """

    part: PartSpec | OwnSpec
    shared: tuple[Any, ...] = ()


class _Kept:
    """The values that were used last, by key."""

    def __init__(self) -> None:
        self._values: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Any) -> Any:  # noqa: ANN401 - whatever is kept
        """Return a value; one thread makes it, the others wait."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
                while len(self._values) > _KEPT:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
            return self._values[key]


_placed = _Kept()  # in the driver: by identity, the shared part with its reference
_fetched = _Kept()  # in a worker: by reference


def pack(spec: PartSpec) -> SentPart:
    """Make a part ready to be sent; Ray must be connected."""
    shared = spec.shared
    if shared is None:
        return SentPart(spec)
    _, reference = _placed.get(id(shared), lambda: _place(shared))
    return SentPart(own_of(spec, shared), (reference,))


def _place(shared: SharedSpec) -> tuple[SharedSpec, Any]:
    """Put it into Ray's object store. It is kept beside its reference, so that no other object gets its identity."""
    import ray

    return shared, ray.put(shared)


def unpack(sent: SentPart) -> PartSpec:
    """Put a part together again, in a worker."""
    if isinstance(sent.part, PartSpec):
        return sent.part
    (reference,) = sent.shared
    shared: SharedSpec = _fetched.get(reference.hex(), lambda: _fetch(reference))
    return whole_of(sent.part, shared)


def _fetch(reference: Any) -> SharedSpec:  # noqa: ANN401 - a Ray reference
    import ray

    shared: SharedSpec = ray.get(reference)
    return shared


def pack_result(sent: SentPart, manifest: Manifest) -> Manifest:
    """Leave out of a manifest what the driver has, in a worker: the ingredients of the part's key."""
    return manifest if isinstance(sent.part, PartSpec) else replace(manifest, ingredients={})


def unpack_result(spec: PartSpec, manifest: Manifest) -> Manifest:
    """Put the ingredients back, in the driver."""
    return manifest if spec.shared is None else replace(manifest, ingredients=spec.ingredients)
