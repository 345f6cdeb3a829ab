"""The texts of queries and passages as they are read: cut to the longest length, hashed, and each kept once.

In memory are numbers, ids and hashes. The texts of passages go to the scratch folder.
"""

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.data.ingesting.claims import first_of
from tasks.data.ingesting.seen import Seen, keys_of
from tasks.data.on_disk.scratch import Scratch, Spill
from tasks.texts import SEPARATOR

Words = npt.NDArray[np.uint64]
_DIGEST, _HEX = 16, 32  # bytes and hexadecimal digits of a hash
# A hash is two numbers of 64 bits; `length` is that of the text before it was cut, else null.
_PASSAGES = {
    "dataset": pl.Categorical,
    "id": pl.String,
    "high": pl.UInt64,
    "low": pl.UInt64,
    "length": pl.UInt32,
}
_QUERIES = {
    "dataset": pl.Categorical,
    "id": pl.String,
    "text": pl.String,
    "high": pl.UInt64,
    "low": pl.UInt64,
    "length": pl.UInt32,
}


def hash_all(texts: pl.Series) -> tuple[Words, Words]:
    """Hash texts as `tasks.texts.hash_text` does; returns the two halves of each hash."""
    digests = b"".join([hashlib.sha256(text).digest() for text in texts.cast(pl.Binary).to_list()])
    words = np.frombuffer(digests, dtype=">u8").reshape(-1, hashlib.sha256().digest_size // 8)
    return words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)


def hash_titled(frame: pl.DataFrame) -> tuple[Words, Words]:
    """Hash `title` and `text` as `tasks.texts.hash_passage` does; returns the two halves of each hash."""
    return hash_all(frame.select(pl.concat_str("title", pl.lit(SEPARATOR), "text")).to_series())


def to_hex(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> pl.Series:
    """Return hashes as 32 hexadecimal digits."""
    words = np.column_stack([high, low]).astype(">u8")
    digits = np.frombuffer(words.tobytes().hex().encode(), dtype=f"S{_HEX}")
    return pl.Series("hash", digits, dtype=pl.Binary).cast(pl.String)


def from_hex(hashes: pl.Series) -> tuple[Words, Words]:
    """Return the halves of hashes of 32 hexadecimal digits: the reverse of `to_hex`."""
    words = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8").reshape(-1, 2)
    return words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)


def part_of_hashes(high: Words, low: Words, parts: int) -> npt.NDArray[np.uint32]:
    """Return the part of each text, as `tasks.texts.part_of` does."""
    count = np.uint64(parts)
    factor = np.uint64(2**64 % parts)
    return ((high % count * factor + low % count) % count).astype(np.uint32)


def cut_texts(texts: pl.Series, longest: int) -> tuple[pl.Series, pl.Series]:
    """Cut texts to `longest` characters; returns them, and the length of each text that was cut (null for others)."""
    lengths = pl.Series("length", [None], dtype=pl.UInt32).new_from_index(0, len(texts))
    if not (texts.str.len_bytes() > longest).any():
        return texts, lengths
    characters = texts.str.len_chars()
    over = (characters > longest).arg_true()
    if over.is_empty():
        return texts, lengths
    shorter = [text[:longest].rstrip() for text in texts.gather(over)]
    return texts.scatter(over, shorter), lengths.scatter(over, characters.gather(over))


class PassageStore:
    """Passages, numbered by their place in the scratch file; copies with one id and text are kept once."""

    def __init__(self, scratch: Scratch, longest: int) -> None:
        self.texts = Spill(scratch, "passages")
        self._longest = longest
        self._seen = Seen()
        self._frames = [pl.DataFrame(schema=_PASSAGES)]

    def add(self, frame: pl.DataFrame) -> npt.NDArray[np.uint32]:
        """Add passages with `dataset`, `id`, `title` and `text`; returns the place of each."""
        titles, title_lengths = cut_texts(frame["title"], self._longest)
        texts, text_lengths = cut_texts(frame["text"], self._longest)
        cut = frame.select(
            "dataset", "id", title=titles, text=texts, length=pl.max_horizontal(title_lengths, text_lengths)
        )
        keys = keys_of(cut.drop("length"))
        place = self._seen.find(keys)
        new = np.flatnonzero(place < 0)
        first = first_of(keys[new], "first", "second")
        is_first = first == np.arange(first.size)
        place[new] = (self.texts.rows + np.cumsum(is_first) - 1)[first]
        kept = new[is_first]
        self._seen.add(keys[kept], place[kept].astype(np.uint32))
        self._keep(cut[kept])
        return place.astype(np.uint32)

    def _keep(self, frame: pl.DataFrame) -> None:
        high, low = hash_titled(frame)
        self.texts.append(frame.select("title", "text"))
        named = frame.select(pl.col("dataset").cast(pl.Categorical), "id", high=high, low=low, length="length")
        self._frames.append(named)

    def frame(self) -> pl.DataFrame:
        """Return all passages in the order of their places, without their texts. Nothing can be added afterwards."""
        found, self._frames = pl.concat(self._frames, rechunk=True), []
        return found


class QueryStore:
    """Queries, one for each record, with their texts."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._frames = [pl.DataFrame(schema=_QUERIES)]

    def add(self, frame: pl.DataFrame) -> None:
        """Add queries with `dataset`, `id` and `text`."""
        texts, lengths = cut_texts(frame["text"], self._longest)
        high, low = hash_all(texts)
        self._frames.append(
            frame.select(pl.col("dataset").cast(pl.Categorical), "id", text=texts, high=high, low=low, length=lengths)
        )

    def frame(self) -> pl.DataFrame:
        """Return all queries in reading order. Nothing can be added afterwards."""
        found, self._frames = pl.concat(self._frames, rechunk=True), []
        return found
