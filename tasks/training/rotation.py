"""Say which texts each place of each batch holds: rows in a random order that is new in each epoch, all batches full.

As in the paper's trainer (Tevatron), a row has one positive per epoch, the next in turn from a start that depends on
seed and row. Its negatives are a window of a shuffled list that moves on by its own width in each epoch. Unlike there,
a negative never stands twice in a row: a row with too few has empty places.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt

from tasks.training.train_config import TrainConfig
from tasks.training.training_rows import Row

EMPTY = -1  # the number of the text in an empty place


@dataclass(frozen=True)
class Place:
    """What one place of a batch holds, by numbers; the lists have the same lengths in every batch."""

    query: int
    positives: tuple[int, ...]
    negatives: tuple[int, ...]

    @property
    def numbers(self) -> list[int]:
        """The label of the row: query, positives, negatives."""
        return [self.query, *self.positives, *self.negatives]


class Rotation:
    """The places of a training, numbered from 0: `steps` batches of `batch_size` places, one batch after the other."""

    def __init__(self, rows: Sequence[Row], config: TrainConfig) -> None:
        """Find the lengths: as many columns as the longest row has texts, and as the settings allow."""
        self._rows = rows
        self._seed = config.seed
        self._places = config.steps * config.batch_size
        longest = max((len(row.positives) for row in rows), default=0)
        self.positives = min(config.positive_columns, longest)
        self.negatives = min(config.num_negatives, max((len(row.negatives) for row in rows), default=0))
        self._order = lru_cache(maxsize=2)(self._shuffled)  # places of two epochs stand in one batch

    def __len__(self) -> int:
        """Count the places."""
        return self._places

    def place(self, number: int) -> Place:
        """Return what a place holds."""
        epoch, position = divmod(number, len(self._rows))
        index = int(self._order(epoch)[position])
        row = self._rows[index]
        start = int(np.random.default_rng([self._seed, index]).integers(len(row.positives)))
        positives = _window(row.positives, start + epoch * self.positives, self.positives)
        return Place(row.query, positives, self._negatives_of(row, index, epoch))

    def _negatives_of(self, row: Row, index: int, epoch: int) -> tuple[int, ...]:
        order = np.random.default_rng([self._seed, index, 1]).permutation(len(row.negatives))
        return _window([row.negatives[place] for place in order], epoch * self.negatives, self.negatives)

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self._seed, epoch, 2]).permutation(len(self._rows))


def _window(numbers: Sequence[int], start: int, width: int) -> tuple[int, ...]:
    """Return `width` numbers from `start` on, going round at the end; none twice, the rest empty.

    >>> _window([7, 8, 9], 2, 2), _window([7, 8, 9], 1, 5)
    ((9, 7), (8, 9, 7, -1, -1))
    """
    there = min(len(numbers), width)
    found = (numbers[(start + step) % len(numbers)] for step in range(there))
    return (*islice(found, there), *[EMPTY] * (width - there))
