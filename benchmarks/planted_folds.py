"""Deal the queries of `benchmarks.planted` into folds of equal size, queries that share relevant passages together.

A passage can be of one fold only, so the labels between folds are lost: they should be few. The turns of a conversation
stay together. First the groups that share most are joined, up to the size of a fold; then equal groups of two folds are
exchanged as long as that lowers the number of shared passages between the folds. On Cranfield one component holds 161
of 225 queries: there some labels are lost.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

FOLDS = 5
SEED = 20  # of the deal: the order in which equal groups are dealt, and the fold of what nobody looks for

Links = npt.NDArray[np.float64]


def deal(query_ids: pl.Series, relevant: pl.DataFrame, seed: int = SEED) -> pl.DataFrame:
    """Deal queries into folds: query_id, group (the conversation, or the query itself), fold.

    relevant: query_id and doc_id of the relevant pairs.
    """
    named = pl.DataFrame({"query_id": query_ids}).with_columns(group=pl.col("query_id").str.split("<::>").list.first())
    groups = named.group_by("group").len().sort("group")
    sizes = groups["len"].to_numpy().astype(np.int64)
    links = _links(named, groups["group"].to_list(), relevant)
    limit = -(-query_ids.len() // FOLDS)
    folds = _exchange(_place(_join(links, sizes, limit), links, sizes, seed), links, sizes)
    fold_of = dict(zip(groups["group"].to_list(), folds.tolist(), strict=True))
    return named.with_columns(fold=pl.col("group").replace_strict(fold_of, return_dtype=pl.Int64)).sort("query_id")


def settle(passages: pl.DataFrame, relevant: pl.DataFrame, groups: pl.DataFrame, seed: int = SEED) -> pl.DataFrame:
    """Give each passage a fold: doc_id, fold. The one of most queries that look for it; if none does, one by chance.

    passages: doc_id and copy; passages with the same `copy` have the same fold. groups: query_id and fold.
    """
    asked = relevant.select("query_id", "doc_id").join(groups.select("query_id", "fold"), on="query_id")
    wanted = asked.join(passages, on="doc_id").group_by("copy", "fold").len()
    best = wanted.sort("copy", "len", "fold", descending=[False, True, False]).unique("copy", keep="first")
    others = passages.select("copy").unique().join(best, on="copy", how="anti").sort("copy")
    chance = np.random.default_rng(seed).permutation(others.height) % FOLDS
    homes = pl.concat([best.select("copy", "fold"), others.with_columns(fold=pl.Series(chance, dtype=pl.Int64))])
    return passages.join(homes, on="copy").select("doc_id", "fold").sort("doc_id")


def _links(named: pl.DataFrame, groups: Sequence[str], relevant: pl.DataFrame) -> Links:
    """Return how many passages each two groups share, shape (groups, groups)."""
    place = {name: number for number, name in enumerate(groups)}
    own = relevant.select("query_id", "doc_id").join(named, on="query_id").select("group", "doc_id").unique()
    pairs = own.join(own, on="doc_id", suffix="_other").group_by("group", "group_other").len()
    found = np.zeros((len(groups), len(groups)))
    for one, other, count in pairs.iter_rows():
        if one != other:
            found[place[one], place[other]] = count
    return found


def _join(links: Links, sizes: npt.NDArray[np.int64], limit: int) -> list[list[int]]:
    """Join the two clusters with the most links for their size, as long as both fit into a fold."""
    clusters = [[number] for number in range(len(sizes))]
    between, held = links.copy(), sizes.astype(np.float64)
    while True:
        shares = between / np.minimum.outer(held, held)
        shares[np.add.outer(held, held) > limit] = 0
        one, other = np.unravel_index(int(shares.argmax()), shares.shape)
        if shares[one, other] <= 0:
            return [sorted(cluster) for cluster in clusters if cluster]
        clusters[one] += clusters[other]
        clusters[other] = []
        held[one] += held[other]
        between[one] += between[other]
        between[:, one] += between[:, other]
        between[other], between[:, other], between[one, one] = 0, 0, 0


def _place(clusters: list[list[int]], links: Links, sizes: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Give each cluster a fold, the largest first: the fold with room that it shares most with, else the smallest."""
    rng, limit = np.random.default_rng(seed), -(-int(sizes.sum()) // FOLDS)
    order = sorted(rng.permutation(len(clusters)).tolist(), key=lambda one: -int(sizes[clusters[one]].sum()))
    folds, held = np.full(len(sizes), -1), np.zeros(FOLDS, dtype=np.int64)
    for number in order:
        cluster = clusters[number]
        size = int(sizes[cluster].sum())
        shared = [float(links[np.ix_(cluster, folds == fold)].sum()) for fold in range(FOLDS)]
        has_room = [bool(held[fold] + size <= limit) for fold in range(FOLDS)]
        best = max(range(FOLDS), key=lambda fold: (has_room[fold], has_room[fold] and shared[fold], -held[fold]))
        folds[cluster] = best
        held[best] += size
    return folds


def _exchange(folds: npt.NDArray[np.int64], links: Links, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Exchange two groups of equal size as long as that lowers the links between folds, the best exchange first."""
    folds = folds.copy()
    same_size = np.equal.outer(sizes, sizes)
    while True:
        to_fold = links @ np.eye(FOLDS)[folds]  # (groups, folds)
        there = to_fold[:, folds]  # there[i, j]: links of i into the fold of j
        gains = there - to_fold[np.arange(len(sizes)), folds][:, None]
        total = gains + gains.T - 2 * links
        total[~same_size | np.equal.outer(folds, folds)] = 0
        one, other = np.unravel_index(int(total.argmax()), total.shape)
        if total[one, other] <= 0:
            return folds
        folds[one], folds[other] = folds[other], folds[one]
