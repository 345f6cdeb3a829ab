"""Embeddings remembered by text hash: a text that was encoded once is not encoded again, whatever part it is in.

They lie below `vectors/<encoder>-<role>-<version>/`, in segments like those of the ledger, with the bytes of a vector
(float32, little-endian) as the payload. The encoder is the digest of everything that decides its vectors; the version
is that of the stage, which is raised when it reads texts in another way. Segments are not sorted into shelves: each is
sorted in itself and has an index, and there is one for each part that encoded something. Only small ones are merged.

Vectors can be computed again, so nothing is kept aside: `drop_unused` deletes those of encoders that nobody uses.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Literal, Self

import numpy as np
import polars as pl

from infra.ledger.compaction import Compaction, settle
from infra.ledger.ledger import Forgotten, JudgeStats, Ledger
from infra.ledger.names import NEW, VECTORS, is_segment
from infra.ledger.segments import Segments
from infra.storage.store import Store

Role = Literal["query", "passage"]
_FLOAT = np.dtype("<f4")
_ENCODER = re.compile(r"(?P<encoder>.+)-(?:query|passage)-\d+")


class Vectors:
    """The vectors of one encoder; fits `tasks.protocols.Vectors`. Use it as a context: leaving it waits for the writes.

    encoder: digest of everything that decides the vectors. version: of the stage. origin: the digest of what computes
    those that are remembered. anew: nothing is recalled, and what is remembered counts from now on. recalled: how many
    were recalled, by their origins.
    """

    def __init__(
        self,
        store: Store,
        encoder: str,
        version: int,
        origin: str = "",
        *,
        anew: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep what they are of; nothing is read."""
        self._name = f"{encoder}-{{}}-{version}"
        self._anew = anew
        self._ledger = Ledger(store, origin, int(clock()) if anew else 0, clock, root=VECTORS)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until everything remembered is durable."""
        self._ledger.__exit__(kind, error, trace)

    @property
    def recalled(self) -> Counter[str]:
        """How many vectors were recalled, by the digest of what computed them."""
        return self._ledger.recalled

    def recall(self, role: Role, hashes: pl.Series) -> pl.DataFrame | None:
        """Look up texts by their hashes.

        Returns:
            `text_hash` and `vector`, Array(Float32), of those that are known, sorted by hash; None if none is.

        Raises:
            StoreError: the store cannot be read.
            ValueError: vectors of several dimensions are remembered.
        """
        if self._anew:
            return None
        found = self._ledger.recall(self._name.format(role), {text: text for text in hashes.to_list()})
        if not found:
            return None
        known = sorted(found)
        sizes = {len(payload) // _FLOAT.itemsize for payload in found.values()}
        if len(sizes) > 1:
            raise ValueError(
                f"vectors of {sorted(sizes)} dimensions are remembered of one encoder: two models have one digest; "
                f"remove `{VECTORS}/` from the store"
            )
        matrix = np.frombuffer(b"".join(found[text] for text in known), _FLOAT).reshape(len(known), -1)
        vectors = pl.Series(matrix.astype(np.float32), dtype=pl.Array(pl.Float32, matrix.shape[1]))
        return pl.DataFrame({"text_hash": pl.Series(known, dtype=pl.String), "vector": vectors})

    def remember(self, role: Role, embeddings: pl.DataFrame) -> None:
        """Keep vectors (`text_hash`, `vector`), all of one call or none; returns at once."""
        matrix = np.ascontiguousarray(embeddings["vector"].to_numpy(), dtype=_FLOAT)
        texts = embeddings["text_hash"].to_list()
        self._ledger.remember(
            self._name.format(role), ((text, (text,), row.tobytes()) for text, row in zip(texts, matrix, strict=True))
        )


def compact_vectors(store: Store) -> Compaction:
    """Merge small segments of each encoder's vectors; a segment of a large part stays as it is."""
    segments = Segments(store, VECTORS)
    return sum((settle(segments, sizes) for sizes in _folders(store).values()), Compaction(0, 0))


def forget_vectors(store: Store, hashes: Collection[str], *, dry_run: bool = False) -> Forgotten:
    """Remove the vectors of these texts, of every encoder; returns what was (or would be) removed."""
    return Ledger(store, root=VECTORS).forget(hashes, dry_run=dry_run)


def stats_of_vectors(store: Store) -> dict[str, JudgeStats]:
    """Count segments, vectors and bytes by encoder, role and version."""
    return Ledger(store, root=VECTORS).stats()


def drop_unused(store: Store, used: Collection[str], older: float) -> int:
    """Delete the vectors of encoders that are not used, if nothing was written there for some seconds.

    Returns:
        How many segments that were.
    """
    dropped = 0
    newest: dict[str, float] = {}
    entries = store.entries(VECTORS)
    for key, entry in entries.items():
        folder = key.rpartition("/")[0]
        newest[folder] = max(newest.get(folder, 0.0), entry.written)
    for key in entries:
        folder = key.rpartition("/")[0]
        if _encoder_of(folder) not in used and time.time() - newest[folder] >= older:
            store.delete(key)
            dropped += 1
    return dropped


def _folders(store: Store) -> dict[str, dict[str, int]]:
    """Return the sizes of the segments that are not sorted, which is all of them, by folder."""
    found: dict[str, dict[str, int]] = {}
    for key, size in store.sizes(VECTORS).items():
        folder = key.rpartition("/")[0]
        if is_segment(key) and folder.endswith(f"/{NEW}"):
            found.setdefault(folder, {})[key] = size
    return found


def _encoder_of(folder: str) -> str:
    """Return the encoder whose vectors are in a folder.

    >>> _encoder_of("vectors/0123abcd-passage-1/new")
    '0123abcd'
    """
    named = _ENCODER.fullmatch(folder.split("/")[1])
    return named["encoder"] if named else ""
