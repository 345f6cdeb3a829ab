"""Name pairs of a query and a text by numbers, so that a batch of pairs is looked up in a sorted list.

In the store a pair is two numbers of 64 bits: the beginnings of the hash of dataset and query, and of the passage's
hash. Two pairs with one name are as good as impossible (1e-6 for ten million pairs), and would only mask one pair more.
Within a training queries and texts are numbered from 0, and a pair is one number.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.texts import SEPARATOR, hash_text

Numbers = npt.NDArray[np.int64]
_DIGITS = 16  # hexadecimal digits of 64 bits


def name_query(dataset: str, query_hash: str) -> int:
    """Return the number of 64 bits that names a query of a dataset.

    >>> name_query("a", "0f") == name_query("b", "0f")
    False
    """
    return name_text(hash_text(dataset + SEPARATOR + query_hash))


def name_text(text_hash: str) -> int:
    """Return the number of 64 bits that names a text, the beginning of its hash.

    >>> name_text("00000000000000ff" + 16 * "0")
    255
    """
    return int(text_hash[:_DIGITS], 16)


def with_names(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the columns `query` and `text` (UInt64) to a frame with `dataset`, `query_hash` and `text_hash`."""
    queries = frame.select("dataset", "query_hash").unique()
    named = [name_query(dataset, query_hash) for dataset, query_hash in queries.iter_rows()]
    texts = [name_text(text_hash) for text_hash in frame["text_hash"]]
    return frame.join(
        queries.with_columns(query=pl.Series(named, dtype=pl.UInt64)),
        on=["dataset", "query_hash"],
        how="left",
        maintain_order="left",
    ).with_columns(text=pl.Series(texts, dtype=pl.UInt64))


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query and a text, sorted, each perhaps with a value: 8 or 12 bytes a pair.

    texts: how many texts there are; the key of a pair is `query * texts + text`. values: of each key; None: no values.
    """

    texts: int
    keys: Numbers
    values: npt.NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls, texts: int, queries: npt.ArrayLike, numbers: npt.ArrayLike, values: npt.ArrayLike | None = None
    ) -> "Pairs":
        """Sort the pairs; of equal ones the first counts.

        queries, numbers: the numbers of each pair's query and text. values: of each pair.
        """
        keys = np.asarray(queries, dtype=np.int64) * texts + np.asarray(numbers, dtype=np.int64)
        found, first = np.unique(keys, return_index=True)
        return cls(texts, found, None if values is None else np.asarray(values, dtype=np.float32)[first])

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.keys)

    def holds(self, query: int, text: int) -> bool:
        """Tell whether a pair is there.

        >>> Pairs.of(10, [0, 1], [3, 4]).holds(1, 4), Pairs.of(10, [0, 1], [3, 4]).holds(1, 3)
        (True, False)
        """
        key = query * self.texts + text
        place = int(np.searchsorted(self.keys, key))
        return place < len(self.keys) and int(self.keys[place]) == key
