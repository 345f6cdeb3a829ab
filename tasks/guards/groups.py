"""Join near duplicates to groups, and count them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.guards.config import NearConfig
from tasks.guards.duplicates import scatter
from tasks.guards.tables import GROUPS, count_figures

CORPUS = "corpus"
_SHOWN = 5

Rows = npt.NDArray[np.int64]


def group_duplicates(config: NearConfig, *, links: pl.DataFrame) -> dict[str, Any]:
    """Join texts that are linked, directly or through others, to groups.

    This stage sees the whole corpus, but only as pairs of numbers: 16 bytes for each pair of near duplicates.

    Returns:
        groups: for each shard (that of a text's number), a table of GROUPS.
        figures: `texts` with a near duplicate, `groups`, `removable` (all texts of a group but one), `largest` (texts
            of the largest group). The examples are the largest groups, by their number.
    """
    numbers = np.unique(np.concatenate([links["left"].to_numpy(), links["right"].to_numpy()]))
    left, right = (np.searchsorted(numbers, links[side].to_numpy()) for side in ("left", "right"))
    root = join_rows(len(numbers), left, right)
    members = pl.DataFrame({"text": numbers, "group": numbers[root]}, schema=GROUPS.columns)
    sizes = members.group_by("group").len("texts").sort("texts", "group", descending=[True, False])
    counts = {
        "texts": members.height,
        "groups": sizes.height,
        "removable": members.height - sizes.height,
        "largest": int(sizes["texts"][0]) if sizes.height else 0,
    }
    largest = [(str(group), float(texts)) for group, texts in sizes.head(_SHOWN).iter_rows()]
    return {
        "groups": scatter(members, pl.col("text") % config.shards, list(GROUPS.columns)),
        "figures": count_figures(CORPUS, counts, largest),
    }


def join_rows(count: int, left: Rows, right: Rows) -> Rows:
    """Return for each of `count` rows the smallest row that it is linked to, directly or through others."""
    root = np.arange(count, dtype=np.int64)
    while True:
        low = np.minimum(root[left], root[right])
        joined = root.copy()
        np.minimum.at(joined, root[left], low)
        np.minimum.at(joined, root[right], low)
        joined = _shortened(joined)
        if np.array_equal(joined, root):
            return root
        root = joined


def _shortened(root: Rows) -> Rows:
    """Let every row point to the end of its chain."""
    while not np.array_equal(further := root[root], root):
        root = further
    return root
