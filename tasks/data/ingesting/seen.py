"""Find again what was read before, among millions of passages, in 20 bytes for each."""

import numpy as np
import numpy.typing as npt
import polars as pl

_SEEDS = (1, 2)  # two hashes of 64 bits
_Keys = npt.NDArray[np.uint64]
_Places = npt.NDArray[np.int64]


def keys_of(frame: pl.DataFrame) -> pl.DataFrame:
    """Return two hashes of each row, over all its columns. They hold in this process only."""
    whole = pl.struct(pl.all())
    return frame.select(first=whole.hash(_SEEDS[0]), second=whole.hash(_SEEDS[1]))


class Seen:
    """The place of each key. Keys are in sorted runs, of which each is at least twice as long as the next one."""

    def __init__(self) -> None:
        self._runs: list[tuple[_Keys, _Keys, npt.NDArray[np.uint32]]] = []

    def find(self, keys: pl.DataFrame) -> _Places:
        """Return the place of each key, or -1 if it is new."""
        first, second = keys["first"].to_numpy(), keys["second"].to_numpy()
        found = np.full(first.size, -1, dtype=np.int64)
        for firsts, seconds, places in self._runs:
            at = np.minimum(np.searchsorted(firsts, first), firsts.size - 1)
            same = (firsts[at] == first) & (seconds[at] == second)
            found[same] = places[at[same]]
        return found

    def add(self, keys: pl.DataFrame, places: npt.NDArray[np.uint32]) -> None:
        """Add keys that are new."""
        if not keys.height:
            return
        self._runs.append(_sorted(keys["first"].to_numpy(), keys["second"].to_numpy(), places))
        while len(self._runs) > 1 and self._runs[-2][0].size < 2 * self._runs[-1][0].size:
            last, before = self._runs.pop(), self._runs.pop()
            first, second, place = (np.concatenate([before[n], last[n]]) for n in range(3))
            self._runs.append(_sorted(first, second, place))


def _sorted(first: _Keys, second: _Keys, places: npt.NDArray[np.uint32]) -> tuple[_Keys, _Keys, npt.NDArray[np.uint32]]:
    order = np.argsort(first, kind="stable")
    return first[order], second[order], places[order]
