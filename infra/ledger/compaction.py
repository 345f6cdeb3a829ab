"""Sorts new segments into shelves and merges small segments into larger ones, of a shelf and of a size.

The segments of a shelf are in classes of size, each eight times the one below. Where a class holds enough segments,
they are merged with all smaller ones, and the result is in a higher class. So a row is rewritten once for each class,
and news of 1% rewrites little more than itself. A merge decodes a slice of the rows at a time, and holds the bytes of
what it merges and of the result, 128 MB each at most; segments that would become larger stay side by side.

Why nothing is lost stands at the head of `infra.ledger.ledger`.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from infra.ledger import blocks
from infra.ledger.names import NEW, SegmentName, folder_of, is_segment
from infra.ledger.segments import Opened, Segments

_THREADS = 8
_FACTOR = 8  # a class is this many times as large as the one below; so many segments of one class are merged
_SMALLEST = 128 * 1024  # bytes: all below are one class
_MOST = 128 * 2**20  # bytes that are merged at once
_AT_ONCE = 24 * 2**20  # bytes of new segments that are sorted at once; decoded six to eight times as many
_LARGE_FILE = 256 * 1024  # bytes from which a segment that is one parquet file is cut into blocks
_END = 2**64  # after the last place


@dataclass(frozen=True)
class Compaction:
    """Segments merged, the segments they became, and the bytes of these."""

    merged: int
    into: int
    written: int = field(default=0, compare=False)

    def __add__(self, other: "Compaction") -> "Compaction":
        return Compaction(self.merged + other.merged, self.into + other.into, self.written + other.written)


NOTHING = Compaction(0, 0)
Sizes = dict[str, int]  # bytes by key


def compact(segments: Segments, judge: str, min_segments: int, at_once: int) -> Compaction:
    """Sort new segments into shelves if there are `min_segments`, and merge each shelf's where a class holds as many.

    at_once: new segments that are sorted at once, as far as they are small. A class never holds more than eight.
    """
    sizes = segments.store.sizes(folder_of(judge, segments.root))
    shelves: dict[str, Sizes] = {}
    for key in sorted(sizes):
        if is_segment(key):
            shelves.setdefault(key.split("/")[2], {})[key] = sizes[key]
    new = shelves.pop(NEW, {})
    factor = min(max(min_segments, 2), _FACTOR)
    done = NOTHING
    with ThreadPoolExecutor(_THREADS, "ledger") as pool:
        if len(new) >= max(min_segments, 1):
            for chunk in _chunks(new, at_once):
                done += _shelve(segments, judge, chunk, shelves, factor, pool)
    return sum((settle(segments, shelves[shelf], factor) for shelf in sorted(shelves)), done)


def settle(segments: Segments, sizes: Sizes, factor: int = _FACTOR) -> Compaction:
    """Merge the segments of one folder until no class holds `factor` of them; `sizes` is kept up to date."""
    done = NOTHING
    for key in [key for key, size in sizes.items() if size >= _LARGE_FILE and SegmentName.parse(key).rows is None]:
        done += _replace(segments, sizes, [key])
    while chosen := _choose(sizes, factor):
        made = _replace(segments, sizes, chosen)
        done += made
        if made == NOTHING:  # damaged ones among them, or others were faster
            break
    return done


def merge(
    segments: Segments, folder: str, keys: Sequence[str], more: pl.DataFrame | None = None
) -> tuple[Compaction, str]:
    """Write one segment of everything in these and of further rows, then delete these.

    Returns:
        What was done, and the key of the result; "" if nothing could be read.
    """
    opened = [segment for key in keys if (segment := segments.open_whole(key)) is not None]
    if not opened and more is None:
        return NOTHING, ""
    is_one = len(opened) == 1 and more is None
    if is_one and (opened[0].index is not None or len(opened[0].data) < _LARGE_FILE):
        return NOTHING, opened[0].key
    result, size = segments.write_sorted(folder, slices(opened, more, segments.slice_rows))
    for segment in opened:
        if segment.key != result:
            segments.store.delete(segment.key)
    return Compaction(len(opened), 1, size), result


def slices(opened: Sequence[Opened], more: pl.DataFrame | None, rows: int) -> Iterator[pl.DataFrame]:
    """Yield all rows of segments and of a frame, sorted and distinct, with their places, about so many at a time."""
    further = None if more is None else blocks.with_places(more)
    edges = [segment.edges for segment in opened]
    if further is not None:
        edges.append((np.sort(blocks.places_of(further["subjects"].list.first())), 1))
    places = np.concatenate([found for found, _ in edges])
    weights = np.concatenate([np.full(len(found), each) for found, each in edges])
    order = np.argsort(places, kind="stable")
    before = np.cumsum(weights[order]) // rows
    ends = [int(cut) for cut in np.unique(places[order][np.flatnonzero(np.diff(before)) + 1]) if cut]
    for low, high in zip([0, *ends], [*ends, _END], strict=True):
        pieces = [segment.between(low, high) for segment in opened]
        if further is not None:
            pieces.append(blocks.between(further, low, high))
        yield blocks.sort_distinct(pl.concat(pieces))


def size_class(size: int) -> int:
    """Return the class of a segment of so many bytes: 0 below 128 kB, 1 below 1 MB, 2 below 8 MB, and so on.

    >>> [size_class(size) for size in (1, 131_071, 131_072, 1_048_575, 1_048_576)]
    [0, 0, 1, 1, 2]
    """
    number = 0
    while size >= _SMALLEST * _FACTOR**number:
        number += 1
    return number


def _choose(sizes: Mapping[str, int], factor: int) -> list[str]:
    """Choose segments to merge: those of the lowest class that holds `factor`, and all smaller ones."""
    classes: dict[int, list[str]] = {}
    for key in sorted(sizes, key=lambda key: (sizes[key], key)):
        if sizes[key] < _MOST // 2:
            classes.setdefault(size_class(sizes[key]), []).append(key)
    smaller: list[str] = []
    for number in sorted(classes):
        smaller += classes[number]
        if len(classes[number]) >= factor:
            return _within(smaller, sizes)
    return []


def _within(keys: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
    """Return the first keys whose bytes can be merged at once, and at least two."""
    total, chosen = 0, list[str]()
    for key in keys:
        total += sizes[key]
        if total > _MOST and len(chosen) > 1:
            break
        chosen.append(key)
    return chosen


def _replace(segments: Segments, sizes: Sizes, keys: Sequence[str]) -> Compaction:
    """Merge segments of one folder, and note what is there now."""
    made, result = merge(segments, keys[0].rpartition("/")[0], keys)
    if made != NOTHING:
        for key in keys:
            sizes.pop(key)
        sizes[result] = made.written
    return made


def _chunks(new: Mapping[str, int], at_once: int) -> Iterator[list[str]]:
    """Yield new segments in groups that are sorted at once."""
    chunk, total = list[str](), 0
    for key, size in new.items():
        if chunk and (len(chunk) >= at_once or total + size > _AT_ONCE):
            yield chunk
            chunk, total = [], 0
        chunk.append(key)
        total += size
    if chunk:
        yield chunk


def _shelve(
    segments: Segments,
    judge: str,
    new: Sequence[str],
    shelves: dict[str, Sizes],
    factor: int,
    pool: ThreadPoolExecutor,
) -> Compaction:
    """Sort the rows of new segments into their shelves; each shelf's become a segment, or part of a small one."""
    read = {key: rows for key, rows in zip(new, pool.map(segments.read_whole, new), strict=True) if rows is not None}
    if not read:
        return NOTHING
    rows = pl.concat(read.values()).with_columns(_shelf=pl.col("subjects").list.first().str.head(2))

    def put(shelf: str, held: pl.DataFrame) -> Compaction:
        there = shelves[shelf]
        small = [key for key, size in there.items() if size_class(size) == 0]
        joined = small if len(small) + 1 >= factor else []
        made, result = merge(segments, f"{folder_of(judge, segments.root)}/{shelf}", joined, held)
        for key in joined:
            there.pop(key)
        there[result] = made.written
        return made

    pieces = {
        str(shelf): held for (shelf,), held in rows.partition_by("_shelf", as_dict=True, include_key=False).items()
    }
    for shelf in pieces:
        shelves.setdefault(shelf, {})
    done = Compaction(len(read), 0)
    for made in pool.map(put, pieces, pieces.values()):
        done += made
    list(pool.map(segments.store.delete, read))
    return done
