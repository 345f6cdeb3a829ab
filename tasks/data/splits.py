"""Decide which queries are held out, so that no question is trained on in one wording and tested in another.

Queries that say the same, say nearly the same or share a positive form a cluster, and a cluster is on one side. The
hash of one member's text decides which, so a query without relatives stays where it is when other rows are added.
Where few clusters hold most queries, the hashes may hold out all or none of them: then clusters change sides, until the
share of held-out queries is near the one that was asked for.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.data.near_duplicates import near_pairs, nearest_of, sketch

Relation = Literal["query", "near_duplicate", "positive"]

TRAIN, DEV, TEST = "train", "dev", "test"
_DIGITS = 13  # leading hexadecimal digits of a hash that a float represents exactly
_SMALLEST, _EIGHTH = 10, 8  # queries that a cluster may always have; of a small set, one eighth of them
_CHANCE = 2.0  # standard deviations by which the hashes of single queries seldom miss the share
_MISSED = 0.5  # the part of the share by which clusters may miss it in any case
_QUARTER = 4  # a cluster of more than one in four queries is not held out because there is no other
_LINKS = {"left": pl.Int64, "right": pl.Int64}


@dataclass(frozen=True)
class SplitRules:
    """How queries are held out.

    holdout, dev: shares of the queries in the splits `test` and `dev`, of those whose split is not given.
    by: what makes two queries relatives.
    similarity: estimated Jaccard similarity from which two queries say nearly the same (0 to 1).
    cluster_share: the largest share of the queries in one cluster. A link that would join more is not followed, nor is
        a positive that more queries share; links between queries that say the same always are, and ten queries (of
        fewer than 80, an eighth of them) may always be joined.
    leave_out_near: whether a training query is left out if it says the same, or nearly, as a query of a given split.
    """

    holdout: float = 0.0
    dev: float = 0.0
    by: frozenset[Relation] = frozenset({"query", "near_duplicate", "positive"})
    similarity: float = 0.8
    cluster_share: float = 0.02
    leave_out_near: bool = True


@dataclass(frozen=True)
class Splits:
    """The split of each query, and what people should know of it.

    queries: `query`, `split` (train, dev or test) and `near`: of a training query to be left out, the id of the query
        of a given split that says the same or nearly the same; else null.
    notes: `reason` and `detail` (a sentence); each reason at most once.
    """

    queries: pl.DataFrame
    notes: pl.DataFrame


def assign_splits(rules: SplitRules, *, queries: pl.DataFrame, positives: pl.DataFrame) -> Splits:
    """Assign a split to each query.

    Args:
        rules: what is held out, and how.
        queries: `query` (a number), `id`, `text`, `text_hash`, and `given` (`dev` or `test` if the source says so; or
            null). More columns are ignored.
        positives: `query`, `passage`: pairs of numbers; a passage has one number per text.

    Returns:
        One row per row of `queries`, in their order.
    """
    frame = queries.select("query", "id", "text", "text_hash", pl.col("given").cast(pl.String))
    split = frame["given"].fill_null(TRAIN)
    free = frame.filter(pl.col("given").is_null())
    given = frame.filter(pl.col("given").is_not_null())
    notes: list[tuple[str, str]] = []
    if rules.holdout + rules.dev > 0 and free.height:
        place, cluster, notes = _places(rules, free, positives)
        chosen = _near_the_shares(rules, place, cluster)
        notes += [_note_missing(name, share, free.height) for name, share in _shares(rules) if name not in chosen]
        placed = free.select("query", placed=pl.Series(chosen, dtype=pl.String))
        found = frame.join(placed, on="query", how="left", maintain_order="left")
        split = found.select(pl.coalesce("given", "placed")).to_series()
    near = pl.Series("near", [None] * frame.height, dtype=pl.String)
    if given.height:
        train = frame.filter(split == TRAIN)
        near = _near_given(rules, frame, train, given)
        notes += _note_shared(positives, train["query"], given["query"])
    said = pl.DataFrame(notes, schema={"reason": pl.String, "detail": pl.String}, orient="row")
    return Splits(pl.DataFrame({"query": frame["query"], "split": split, "near": near}), said)


def place_of(text_hash: pl.Series) -> npt.NDArray[np.float64]:
    """Return a number from 0 to 1 for each hash: where a query without relatives falls."""
    digits = text_hash.str.head(_DIGITS).str.to_integer(base=16)
    return np.asarray(digits.to_numpy() / 16**_DIGITS, dtype=np.float64)


def _shares(rules: SplitRules) -> list[tuple[str, float]]:
    return [(name, share) for name, share in ((TEST, rules.holdout), (DEV, rules.dev)) if share > 0]


def _near_the_shares(
    rules: SplitRules, place: npt.NDArray[np.float64], cluster: npt.NDArray[np.int64]
) -> npt.NDArray[np.object_]:
    """Return the split of each query: by its place, and where that misses a share by far, clusters change sides.

    Queries without relatives keep the split of their place. Clusters are taken in the order of their places, so those
    change sides that are near the border.
    """
    chosen = np.where(place < rules.holdout, TEST, np.where(place < rules.holdout + rules.dev, DEV, TRAIN))
    chosen = chosen.astype(np.object_)
    if not any(_misses((chosen == name).sum(), share, len(place)) for name, share in _shares(rules)):
        return chosen
    firsts, at, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    split = np.full(len(firsts), TRAIN, dtype=np.object_)
    split[at] = chosen  # all members of a cluster have one place
    split[sizes > 1] = TRAIN
    where = np.empty(len(firsts))
    where[at] = place
    waiting = [int(number) for number in np.argsort(where, kind="stable") if sizes[number] > 1]
    for name, share in _shares(rules):
        lacking = share * len(place) - sizes[split == name].sum()
        for number in waiting:
            if sizes[number] / 2 <= lacking:  # nearer to the share with it than without it
                split[number] = name
                lacking -= sizes[number]
        smallest = min(waiting, key=lambda number: int(sizes[number]), default=None)
        if smallest is not None and name not in split and sizes[smallest] * _QUARTER <= len(place):
            split[smallest] = name  # too many, but better than none
        waiting = [number for number in waiting if split[number] == TRAIN]
    return split[at]


def _misses(found: int, share: float, count: int) -> bool:
    """Tell whether a split is empty, or further from its share than the hashes of single queries would be."""
    allowed = max(_CHANCE * np.sqrt(share * (1 - share) * count), _MISSED * share * count)
    return found == 0 or bool(abs(found - share * count) > allowed)


def _places(
    rules: SplitRules, queries: pl.DataFrame, positives: pl.DataFrame
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], list[tuple[str, str]]]:
    """Return the place and the cluster of each query.

    A place is that of the member of the cluster which comes first by the end of its hash.

    The end of a hash says nothing about its beginning, so large clusters are held out as often as small ones.
    """
    ordered = queries.with_row_index("row").sort(pl.col("text_hash").str.tail(_DIGITS), "text_hash", "query")
    least = max(2, min(_SMALLEST, ordered.height // _EIGHTH))
    clusters = _Clusters(ordered.height, max(least, int(rules.cluster_share * ordered.height)))
    refused: dict[str, int] = {}
    clusters.join(_chains(ordered["text_hash"]), bounded=False)
    sketches = sketch(ordered["text"]) if rules.by & {"query", "near_duplicate"} else None
    if sketches is not None and "query" in rules.by:
        clusters.join(_chains(sketches["same"]), bounded=False)
    if sketches is not None and "near_duplicate" in rules.by:
        refused["links of near-duplicates"] = clusters.join(near_pairs(sketches, rules.similarity))
    if "positive" in rules.by:
        rows = ordered.select("query").with_row_index("at")
        pairs = positives.select("query", "passage").unique().join(rows, on="query").sort("passage", "at")
        popular = pl.len().over("passage") > clusters.most
        many, few = pairs.filter(popular), pairs.filter(~popular)
        refused["links by shared positives"] = many.height - many["passage"].n_unique()
        refused["links by shared positives"] += clusters.join(_chains(few["passage"], few["at"]))
    place, cluster, firsts = np.empty(ordered.height), np.empty(ordered.height, dtype=np.int64), clusters.firsts()
    place[ordered["row"].to_numpy()] = place_of(ordered["text_hash"])[firsts]
    cluster[ordered["row"].to_numpy()] = firsts
    return place, cluster, _note_refused(refused, clusters.most)


class _Clusters:
    """Clusters of rows. Each is named after its first row."""

    def __init__(self, rows: int, most: int) -> None:
        self.most = most
        self._parent = list(range(rows))
        self._size = [1] * rows

    def join(self, links: pl.DataFrame, *, bounded: bool = True) -> int:
        """Join the rows of each link; returns how many links were not followed, as the cluster would be too large."""
        refused = 0
        for left, right in links.iter_rows():
            a, b = sorted((self._first(left), self._first(right)))
            if a == b:
                continue
            if bounded and self._size[a] + self._size[b] > self.most:
                refused += 1
                continue
            self._parent[b] = a
            self._size[a] += self._size[b]
        return refused

    def firsts(self) -> npt.NDArray[np.int64]:
        """Return the first row of each row's cluster."""
        return np.array([self._first(row) for row in range(len(self._parent))], dtype=np.int64)

    def _first(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row


def _chains(keys: pl.Series, rows: pl.Series | None = None) -> pl.DataFrame:
    """Link each row with the row before it that has the same key."""
    at = pl.int_range(pl.len(), dtype=pl.Int64) if rows is None else rows.cast(pl.Int64)
    before = keys.to_frame("key").select("key", right=at).with_columns(left=pl.col("right").shift(1).over("key"))
    return before.drop_nulls("left").select(pl.col(name).cast(dtype) for name, dtype in _LINKS.items()).sort("right")


def _near_given(rules: SplitRules, frame: pl.DataFrame, train: pl.DataFrame, given: pl.DataFrame) -> pl.Series:
    """Name, for each training query that must be left out, the query of a given split that is near it."""
    if not rules.leave_out_near or not rules.by & {"query", "near_duplicate"}:
        return pl.Series("near", [None] * frame.height, dtype=pl.String)
    similarity = rules.similarity if "near_duplicate" in rules.by else 2.0
    rows = nearest_of(sketch(train["text"]), sketch(given["text"]), similarity)
    named = train.select("query", near=given["id"].gather(rows.cast(pl.UInt32)))
    return frame.select("query").join(named, on="query", how="left", maintain_order="left")["near"]


def _note_shared(positives: pl.DataFrame, train: pl.Series, given: pl.Series) -> list[tuple[str, str]]:
    """Count the positives that training queries share with queries of a given split. That is usual, and no fault."""
    sides = [positives.filter(pl.col("query").is_in(side.implode()))["passage"].unique() for side in (train, given)]
    shared = sides[0].is_in(sides[1].implode()).sum()
    if not shared:
        return []
    says = f"{shared} passages are positives of training queries and of held-out queries; nothing is left out for it"
    return [("positive_shared_with_held_out", says)]


def _note_missing(name: str, share: float, count: int) -> tuple[str, str]:
    setting = "ingest.holdout" if name == TEST else "ingest.dev"
    says = (
        f"{setting} is {share:g}, and of {count} queries none is in the split {name}: there are too few, or too many "
        f"of them are relatives (ingest.holdout_by). Raise {setting}, or name the queries yourself, with qrels"
    )
    return f"no_{name}_query", says


def _note_refused(refused: dict[str, int], most: int) -> list[tuple[str, str]]:
    counted = [f"{count} {name}" for name, count in refused.items() if count]
    if not counted:
        return []
    says = (
        f"a cluster has at most {most} queries (ingest.holdout_cluster), so {' and '.join(counted)} were not followed: "
        "some of these queries may be held out while their relatives are trained on"
    )
    return [("holdout_link_not_followed", says)]
