"""Find the nearest passages of each query by inner product, for some parts of the queries and some of the corpus.

The corpus goes by part by part, so memory depends on the size of a few parts and on the number of hits. Parts are
compared with the queries together, up to a size. Then less is kept and scored that is among the nearest of one part,
but not of several. Meanwhile the next parts are read. Of the passages only hashes are read, and texts where one has the
id of a query.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import faiss
import numpy as np
import polars as pl

from tasks import schemas
from tasks.mining.dense.approximate import Measured, Sampled, recall_of
from tasks.mining.dense.corpus import Block, Frames, Texts, Waiting, ahead, read_blocks
from tasks.mining.dense.nearest import QUERIES, Groups, Nearest, longest
from tasks.mining.dense.ranking import Hits, Ranked, Ranking
from tasks.mining.encode import Vectors, vectors_of
from tasks.mining.masks import hash_queries, pair_own
from tasks.mining.search import SearchConfig

_HASHES = ["text_hash", "shown_hash", "guard_hash"]
_PAIR = ["row", "doc_id"]
_BYTES = 256 * 2**20  # of the vectors that wait to be compared, of all datasets, at most
_GROWTH = 3  # so many times as much as was compared before waits: the first part at once, while the next ones are read
_AHEAD = 3  # parts that are read meanwhile
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def search(  # noqa: PLR0913 - one keyword per table
    config: SearchConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passages: Texts,
    hashes: Frames,
    passage_embeddings: Frames,
) -> dict[str, Any]:
    """Find the top `depth` passages of its own dataset for each query of split "train" that can be its negatives.

    The passages between them that cannot (see `tasks.mining.masks`) are hits too, so that mining can report them. Ranks
    count all of them, from 1 within the query and these parts of the corpus. Equal scores are ranked by doc_id. A
    dataset without queries or without passages gives no hits.

    Args:
        config: depth, index and threads.
        queries: of one or more parts; `part` is the number of each one's part, 0 without this column.
        positives: of these queries.
        query_embeddings: of these queries.
        passages: one frame for each part of the corpus; a single frame is a part.
        hashes: of these passages (`tasks.mining.hashing`), part by part.
        passage_embeddings: the same parts, in the same order.

    Returns:
        hits: an iterable of (part of the queries, frame), in rising order of the parts.
        facts: of an approximate search, what of the nearest it found (`tasks.mining.dense.approximate.recall_of`).

    Raises:
        ValueError: a query or passage without embedding, or embeddings of different dimensions.
    """
    if "part" not in queries.columns:
        queries = queries.with_columns(part=pl.lit(0, pl.Int32))
    numbers = queries["part"].unique().sort()
    asked = _ask(config, queries, positives, query_embeddings)
    with _workers(config.threads or 1) as work:
        dimension = next((each.dimension for each in asked.values()), 0)
        blocks = read_blocks(hashes, passage_embeddings, passages, frozenset(asked), dimension)
        compared = 0
        for found in ahead((asked[block.dataset].prepare(block) for block in blocks), _AHEAD):
            asked[found.block.dataset].take(found, work)
            waiting = sum(each.waiting for each in asked.values())
            if waiting >= min(_GROWTH * compared, _BYTES):
                for each in asked.values():
                    each.compare(work)
                compared += waiting
        ranked = [each.rank(work) for each in asked.values()]

    def hits() -> Iterator[tuple[int, pl.DataFrame]]:
        for part in numbers.to_list():
            yield part, pl.concat([schemas.HITS.empty(), *(each.hits_of(part) for each in ranked)])

    facts = {} if config.index == "flat" else {"facts": recall_of([each.measured for each in asked.values()])}
    return {"hits": hits(), **facts}


class _Work:
    """Threads that compare queries with texts; BLAS and faiss have a single thread in each."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def each(self, function: Callable[[_Item], _Made], items: Sequence[_Item]) -> list[_Made]:
        """Call a function with each item; returns what it returns, in the order of the items."""
        return list(self._pool.map(function, items))


@contextmanager
def _workers(threads: int) -> Iterator[_Work]:
    from threadpoolctl import threadpool_limits

    pool = ThreadPoolExecutor(threads, "search", initializer=faiss.omp_set_num_threads, initargs=(1,))
    with threadpool_limits(1, "blas"), pool:
        yield _Work(pool)


def _ask(
    config: SearchConfig, queries: pl.DataFrame, positives: pl.DataFrame, query_embeddings: pl.DataFrame
) -> dict[str, "_Asked"]:
    train = queries.filter(pl.col("split") == "train").sort("dataset", "part", "query_id")
    vectors, rows = vectors_of(query_embeddings, train["text_hash"], of="queries")
    made = {}
    for own in train.with_columns(vector=rows).partition_by("dataset", maintain_order=True):
        name = own["dataset"][0]
        labelled = positives.filter(pl.col("dataset") == name)
        made[name] = _Asked(config, own.drop("vector"), labelled, vectors[own["vector"].to_numpy()])
    return made


@dataclass(frozen=True)
class _Prepared:
    """A block of the corpus, and the pairs in it that are known by hashes and ids, whatever their scores.

    own: `row` of the query, `doc_id` and `repeats`, where a passage repeats the query or has its id.
    masked: `row`, `doc_id` and `place` where a passage cannot be a negative, whatever is set.
    """

    block: Block
    own: pl.DataFrame
    masked: pl.DataFrame


class _Asked:
    """The training queries of one dataset, and the nearest passages of each, while the corpus goes by."""

    def __init__(self, config: SearchConfig, queries: pl.DataFrame, positives: pl.DataFrame, vectors: Vectors) -> None:
        self._config, self._queries = config, queries.with_row_index("row")
        self._named = hash_queries(queries)
        self._rows = self._queries.select("query_id", "row")
        self._positives = positives.join(self._rows, on="query_id")
        cut = range(0, len(vectors), QUERIES)
        self._nearest = [Nearest(vectors[start : start + QUERIES], config.depth) for start in cut]
        self._own: list[pl.DataFrame] = []
        self._masked: list[pl.DataFrame] = []
        self._passages: list[pl.DataFrame] = []
        self._texts = self._compared = 0
        self._waiting = Waiting()
        self._lists = None if config.index == "flat" else Sampled(config, self._queries["text_hash"], vectors)
        self.dimension = vectors.shape[1]

    @property
    def measured(self) -> Measured:
        """What an approximate search found of the nearest; once all is compared."""
        assert self._lists is not None
        results = [nearest.result() for nearest in self._nearest]
        rows = [found[0] + number * QUERIES for number, found in enumerate(results)]
        return self._lists.measure(np.concatenate(rows), np.concatenate([found[1] for found in results]))

    def prepare(self, block: Block) -> _Prepared:
        """Find the pairs of the block that need no score."""
        passages = block.passages
        own = pair_own(self._named, self._queries, passages, block.read).join(self._rows, on="query_id")
        keys = passages.select("doc_id", *_HASHES)
        copies = (keys.join(self._positives.select("row", on).unique(), on=on) for on in ("doc_id", *_HASHES))
        masked = pl.concat(frame.select(_PAIR) for frame in (own, *copies)).unique()
        masked = masked.join(passages.select("doc_id", "place"), on="doc_id").sort("row")
        return _Prepared(block, own.select(*_PAIR, "repeats"), masked)

    @property
    def waiting(self) -> int:
        """Bytes of the vectors that wait to be compared; in an approximate search its indexes count them."""
        return self._waiting.nbytes

    def take(self, found: _Prepared, work: _Work) -> None:
        """Keep a block until it is compared; in an approximate search, compare when enough texts are there."""
        block, rows = found.block, found.masked["row"].to_numpy().astype(np.int64)
        groups = block.groups[found.masked["place"].to_numpy()]
        for number, nearest in enumerate(self._nearest):
            inside = slice(*np.searchsorted(rows, (number * QUERIES, (number + 1) * QUERIES)))
            nearest.block(rows[inside] - number * QUERIES, groups[inside])
        self._own.append(found.own)
        self._masked.append(found.masked.select(_PAIR))
        self._passages.append(block.passages.select("doc_id", *_HASHES, pl.col("place") + self._texts))
        self._texts += len(block.vectors)
        if self._lists is None:
            self._waiting.add(block)
        elif self._lists.wait(block):
            self._compare_lists(self._lists, work)

    def compare(self, work: _Work) -> None:
        """Compare all queries with the texts that wait, if any do."""
        vectors, groups = self._waiting.take()
        if len(vectors):
            self._compare_all(vectors, groups, work)

    def rank(self, work: _Work) -> Ranked:
        """Rank the passages that were found."""
        self.compare(work)
        if self._lists is not None:
            self._compare_lists(self._lists, work)
        ranking = Ranking.of(self._passages, self._own, self._masked, self._config.depth)

        def rank(number: int) -> Hits:
            rows, texts, scores = self._nearest[number].result()
            return ranking.rank(rows + number * QUERIES, texts, scores)

        return Ranked(self._queries, ranking, Hits.join(work.each(rank, range(len(self._nearest)))))

    def _compare_all(self, vectors: Vectors, groups: Groups, work: _Work) -> None:
        first, length = self._compared, longest(vectors)
        work.each(lambda nearest: nearest.add(vectors, groups, first, length), self._nearest)
        self._compared += len(vectors)

    def _compare_lists(self, lists: Sampled, work: _Work) -> None:
        """Compare the queries with the texts that wait, in lists if there are enough; some queries with all of them."""
        vectors, groups = lists.take()
        if not len(vectors):
            return
        first = self._compared
        lists.exact.add(vectors, groups, first)
        index = lists.build(vectors)
        if index is None:
            self._compare_all(vectors, groups, work)
            return
        work.each(lambda near: near.add_found(vectors, groups, first, lists.find(index, near.queries)), self._nearest)
        self._compared += len(vectors)
