"""Settle which text an id stands for: the first that a kept row gives it. What names another text is left out.

Only rows that name an id with several texts are looked at one by one; there are few of them.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.data.ingesting.seen import keys_of

Numbers = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]


def first_of(frame: pl.DataFrame, *by: str) -> Numbers:
    """Return for each row the number of the first row with the same values in `by`.

    The rows are compared by two hashes of 64 bits.
    """
    keys = keys_of(frame.select(by))
    one, two = keys["first"].to_numpy(), keys["second"].to_numpy()
    order = np.argsort(one, kind="stable")
    same = one[order[1:]] == one[order[:-1]]
    if (same & (two[order[1:]] != two[order[:-1]])).any():
        order = np.lexsort((two, one))
        same = (one[order[1:]] == one[order[:-1]]) & (two[order[1:]] == two[order[:-1]])
    begins = np.flatnonzero(np.concatenate([np.ones(min(1, order.size), dtype=np.bool_), ~same]))
    first: Numbers = np.empty(order.size, dtype=np.uint32)
    first[order] = np.repeat(order[begins], np.diff(begins, append=order.size))
    return first


def is_other(texts: pl.DataFrame, first: Numbers) -> Flags:
    """Tell for each row whether its hash differs from that of the row which `first` names."""
    high, low = texts["high"].to_numpy(), texts["low"].to_numpy()
    other: Flags = (high != high[first]) | (low != low[first])
    return other


@dataclass
class Settled:
    """Rows and references that are left out, and why.

    rows: that are left out. pairs: numbers of references that are left out.
    unanswered: rows whose positives are all left out; they are among `rows`.
    queries: (row, row whose query has the id). passages: (reference, reference whose passage has the id).
    """

    rows: set[int] = field(default_factory=set)
    pairs: set[int] = field(default_factory=set)
    unanswered: list[int] = field(default_factory=list)
    queries: list[tuple[int, int]] = field(default_factory=list)
    passages: list[tuple[int, int]] = field(default_factory=list)


def settle(queries: pl.DataFrame, pairs: pl.DataFrame, passages: pl.DataFrame) -> Settled:
    """Go through the rows that name an id with several texts, in reading order.

    Args:
        queries: one row per training row: `dataset`, `id`, `high`, `low`.
        pairs: references in the order of the rows, a row's positives first: `row`, `place` (row of `passages`),
            `positive`.
        passages: `dataset`, `id`, `high`, `low`.
    """
    query_id, passage_id = first_of(queries, "dataset", "id"), first_of(passages, "dataset", "id")
    several = _with_several_texts(queries, query_id)
    unsure = _with_several_texts(passages, passage_id)[pairs["place"].to_numpy()]
    row, positive = pairs["row"].to_numpy(), pairs["positive"].to_numpy()
    firm = np.bincount(row[positive & ~unsure], minlength=queries.height)
    touched = several.copy()
    touched[row[unsure]] = True
    walk = _Walk(queries, passages, query_id, passage_id, pairs["place"].to_numpy())
    at = np.flatnonzero(unsure)
    starts = np.searchsorted(row[at], np.arange(queries.height + 1)) if at.size else None
    for number in np.flatnonzero(touched).tolist():
        named = [] if starts is None else at[starts[number] : starts[number + 1]].tolist()
        positives = [pair for pair in named if positive[pair]]
        walk.row(number, bool(several[number]), positives, named[len(positives) :], int(firm[number]))
    return walk.settled


def _with_several_texts(texts: pl.DataFrame, first: Numbers) -> Flags:
    flags = np.zeros(texts.height, dtype=np.bool_)
    flags[first[is_other(texts, first)]] = True
    return flags[first]


class _Walk:
    """Remembers who has each id so far, while rows are taken one after another."""

    def __init__(
        self, queries: pl.DataFrame, passages: pl.DataFrame, query_id: Numbers, passage_id: Numbers, place: Numbers
    ) -> None:
        self.settled = Settled()
        self._query_id, self._passage_id, self._place = query_id, passage_id, place
        self._queries = queries["high"].to_numpy(), queries["low"].to_numpy()
        self._passages = passages["high"].to_numpy(), passages["low"].to_numpy()
        self._query_of: dict[int, int] = {}  # first row of the id → row whose text it stands for
        self._passage_of: dict[int, int] = {}  # first place of the id → reference whose text it stands for

    def row(self, number: int, several: bool, positives: list[int], negatives: list[int], firm: int) -> None:
        """Keep a row or leave it out. `firm`: its positives whose ids have one text."""
        mine = int(self._query_id[number])
        owner = self._query_of.get(mine, number)
        if several and not _equal(self._queries, owner, number):
            self.settled.rows.add(number)
            self.settled.queries.append((number, owner))
            return
        if not firm + sum([self._claim(pair) for pair in positives]) and positives:
            self.settled.rows.add(number)
            self.settled.unanswered.append(number)
            return
        if several:
            self._query_of[mine] = owner
        for pair in negatives:
            self._claim(pair)

    def _claim(self, pair: int) -> bool:
        """Tell whether a reference has the text that its id stands for; the first one decides what that is."""
        owner = self._passage_of.setdefault(int(self._passage_id[self._place[pair]]), pair)
        if _equal(self._passages, int(self._place[owner]), int(self._place[pair])):
            return True
        self.settled.pairs.add(pair)
        self.settled.passages.append((pair, owner))
        return False


def _equal(hashes: tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]], left: int, right: int) -> bool:
    return bool(hashes[0][left] == hashes[0][right] and hashes[1][left] == hashes[1][right])
