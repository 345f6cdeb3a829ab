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
from collections.abc import Callable, Collection, Iterator
from functools import partial
from types import TracebackType
from typing import Literal, Self

import numpy as np
import polars as pl

from infra.ledger.compaction import Compaction, settle
from infra.ledger.ledger import Forgotten, JudgeStats, Ledger
from infra.ledger.names import NEW, VECTORS, is_segment, shelf_of
from infra.ledger.segments import Segments
from infra.storage.store import Store

Role = Literal["query", "passage"]
_FLOAT = np.dtype("<f4")
_AT_ONCE = 4096  # vectors that are made rows of a segment at a time
_MODEL = "model"  # in place of a role: the folder with the name under which an endpoint answered
_ENCODER = re.compile(rf"(?P<encoder>.+)-(?:query|passage|{_MODEL})-\d+")


class Vectors:
    """The vectors of one encoder; fits `tasks.protocols.Vectors`. Use it as a context: leaving it waits for the writes.

    encoder: digest of everything that decides the vectors. version: of the stage. origin: the digest of what computes
    those that are remembered. since: in seconds since the epoch; only what was remembered with this or a later `since`
    is recalled, and what is remembered counts from then on; 0 for everything. recalled: how many were recalled, by
    their origins.
    """

    def __init__(
        self,
        store: Store,
        encoder: str,
        version: int,
        origin: str = "",
        since: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep what they are of; nothing is read."""
        self._name = f"{encoder}-{{}}-{version}"
        self._model_key = f"{VECTORS}/{encoder}-{_MODEL}-{version}/name"
        self._store = store
        self._ledger = Ledger(store, origin, since, clock, root=VECTORS)

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
        matrix = np.empty((len(known), sizes.pop()), np.float32)
        for row, text in enumerate(known):
            matrix[row] = np.frombuffer(found.pop(text), _FLOAT)
        vectors = pl.Series(matrix, dtype=pl.Array(pl.Float32, matrix.shape[1]))
        return pl.DataFrame({"text_hash": pl.Series(known, dtype=pl.String), "vector": vectors})

    def first_model(self, model: str) -> str:
        """Return the model that is noted as that of the encoder's vectors, of both roles; if none is, note this one.

        Raises:
            StoreError: the store cannot be read or written.
        """
        if self._store.create(self._model_key, model.encode()):
            return model
        noted = self._store.read(self._model_key)
        return model if noted is None else noted.decode()

    def remember(self, role: Role, embeddings: pl.DataFrame) -> None:
        """Keep vectors (`text_hash`, each once, and `vector`), all of one call or none; returns at once.

        They are not copied, but for some at a time when they are written.

        Raises:
            ValueError: a text has another name than a hash.
        """
        if embeddings.is_empty():
            return
        for text in embeddings["text_hash"]:
            shelf_of(text)
        if not embeddings["text_hash"].is_sorted():
            embeddings = embeddings.sort("text_hash")
        self._ledger.remember_slices(self._name.format(role), partial(_rows_of, embeddings))


def _rows_of(embeddings: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield vectors as rows of a segment, some at a time."""
    for some in embeddings.iter_slices(_AT_ONCE):
        matrix = np.ascontiguousarray(some["vector"].to_numpy(), dtype=_FLOAT)
        payloads = pl.Series("payload", [row.tobytes() for row in matrix], dtype=pl.Binary)
        yield some.select(payloads, entry="text_hash", subjects=pl.concat_list("text_hash"))


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
    """Delete the vectors of encoders that are not used, if nothing of the encoder was written for some seconds.

    Returns:
        How many segments that were.
    """
    dropped = 0
    newest: dict[str, float] = {}
    entries = store.entries(VECTORS)
    for key, entry in entries.items():
        encoder = _encoder_of(key)
        newest[encoder] = max(newest.get(encoder, 0.0), entry.written)
    for key in entries:
        encoder = _encoder_of(key)
        if encoder not in used and time.time() - newest[encoder] >= older:
            store.delete(key)
            dropped += is_segment(key)
    return dropped


def _folders(store: Store) -> dict[str, dict[str, int]]:
    """Return the sizes of the segments that are not sorted, which is all of them, by folder."""
    found: dict[str, dict[str, int]] = {}
    for key, size in store.sizes(VECTORS).items():
        folder = key.rpartition("/")[0]
        if is_segment(key) and folder.endswith(f"/{NEW}"):
            found.setdefault(folder, {})[key] = size
    return found


def _encoder_of(key: str) -> str:
    """Return the encoder whose vectors are in a folder, or in an object of it.

    >>> _encoder_of("vectors/0123abcd-passage-1/new")
    '0123abcd'
    """
    named = _ENCODER.fullmatch(key.split("/")[1])
    return named["encoder"] if named else ""
