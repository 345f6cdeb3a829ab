"""Go through the texts of passages on disk: hash what is shown of them, and cut them into parts."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks import schemas
from tasks.data.ingesting.text_store import hash_all, to_hex
from tasks.data.on_disk.scratch import Scratch, Spill
from tasks.texts import normalise

_PLAIN = r"\A[ -~]*\z"  # printable ASCII
_FILES = 64  # most files that hold the texts of some parts each, while these are cut
_TEXTS = {"title": pl.String, "text": pl.String, "number": pl.UInt32}
_HASHES = {name: pl.UInt64 for name in ("shown_high", "shown_low", "guard_high", "guard_low")}


def hash_shown_texts(texts: Spill, passages: pl.DataFrame) -> pl.DataFrame:
    """Hash passages as they are shown, and their normalised form (`tasks.texts.hash_shown` and `hash_guard`).

    Args:
        texts: `title` and `text` of all passages.
        passages: those that are hashed: `number`, and `place`, the row of `texts`.

    Returns:
        `passage` (the number, in rising order) and the two halves of each hash.
    """
    found = [pl.DataFrame(schema={"passage": pl.UInt32, **_HASHES})]
    for numbers, frame in _walk(texts, passages):
        joined = pl.concat_str("title", "text", separator=" ")
        shown = frame.select(pl.when(pl.col("title") == "").then("text").otherwise(joined)).to_series()
        guard = normalise_all(shown)
        halves = dict(zip(_HASHES, (*hash_all(shown), *hash_all(guard)), strict=True))
        found.append(pl.DataFrame({"passage": numbers, **halves}))
    return pl.concat(found).sort("passage")


def normalise_all(texts: pl.Series) -> pl.Series:
    """Normalise texts as `tasks.texts.normalise` does; those of printable ASCII all at once.

    >>> normalise_all(pl.Series(["An  EGG", " Egg", "Ｅｇｇ"])).to_list()
    ['an egg', 'egg', 'egg']
    """
    found = texts.str.to_lowercase().str.strip_chars(" ")
    others = (~texts.str.contains(_PLAIN) | texts.str.contains("  ", literal=True)).arg_true()
    if others.is_empty():
        return found
    return found.scatter(others, [normalise(text) for text in texts.gather(others)])


def cut_into_parts(texts: Spill, passages: pl.DataFrame, count: int, scratch: Scratch) -> Iterator[pl.DataFrame]:
    """Yield the passages of each part as a table, one part after another.

    Args:
        texts: `title` and `text` of all passages; removed once they are cut.
        passages: those that are kept: `place` (the row of `texts`), `dataset`, `id`, `high`, `low` (halves of the hash)
            and `part`.
        count: how many parts there are.
        scratch: for files that each hold the texts of some parts.
    """
    files = min(count, _FILES)
    rows = passages.drop("number", strict=False).with_row_index("number")
    file_of = (rows["part"].to_numpy().astype(np.int64) * files // count).astype(np.uint32)
    spills = [Spill(scratch, f"part-{number}") for number in range(files)]
    for numbers, frame in _walk(texts, rows):
        named = frame.with_columns(number=pl.Series(numbers), file=pl.Series(file_of[numbers]))
        for (number,), some in named.partition_by("file", as_dict=True, include_key=False).items():
            assert isinstance(number, int)
            spills[number].append(some)
    texts.remove()
    for number, spill in enumerate(spills):
        found = pl.concat([pl.DataFrame(schema=_TEXTS), *spill.frames()])
        spill.remove()
        of = rows[found["number"]]
        ready = of.select(
            "part",
            pl.col("dataset").cast(pl.String),
            doc_id="id",
            title=found["title"],
            text=found["text"],
            text_hash=to_hex(of["high"].to_numpy(), of["low"].to_numpy()),
        ).sort("part", *schemas.PASSAGES.key)
        del found, of
        first, last = (-(-part * count // files) for part in (number, number + 1))
        bounds = np.searchsorted(ready["part"].to_numpy(), np.arange(first, last + 1))
        for start, end in pairwise(bounds):
            yield ready[int(start) : int(end)].select(*schemas.PASSAGES.columns)


def _walk(texts: Spill, passages: pl.DataFrame) -> Iterator[tuple[npt.NDArray[np.uint32], pl.DataFrame]]:
    """Yield numbers of passages with their titles and texts, in the order of the file."""
    ordered = passages.select("number", "place").sort("place")
    number, place = ordered["number"].to_numpy(), ordered["place"].to_numpy()
    start = 0
    for frame in texts.frames():
        low, high = np.searchsorted(place, [start, start + frame.height])
        if low < high:
            yield number[low:high], frame[place[low:high] - start]
        start += frame.height
