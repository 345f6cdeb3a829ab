"""Mine hard negatives: merge the hits, mask what cannot be a negative, apply the margins, pick the negatives.

Parameters have the names and meaning of those of `mine_hard_negatives` in sentence-transformers, with two differences.
Margins limit what is picked, but not the pool: a candidate whose score is close to a positive may be a false negative,
so the judges must see it. And the rank window is applied before the filters, not after them.

Passages that people called irrelevant are in the pool at any rank. They are no false negatives, so the filters that
guard against those do not apply to them.

A reranker may score the pool and the positives first (`tasks.mining.rescored`). Margins and the pick then go by its
scores, and the pool keeps the ranks and scores of the retriever.
"""

from dataclasses import dataclass
from typing import Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks import schemas
from tasks.mining.encode import dot_pairs, vectors_of
from tasks.mining.masks import SameId, find_repeats, hash_queries, mask, split_masked
from tasks.mining.picks import NO_POSITIVES, count_short, join_rejects, reject, split_at, with_positives
from tasks.mining.rescored import compare, put_pairs, rank_again
from tasks.mining.search import merge_hits, rank_by_score
from tasks.schemas import BY_PEOPLE, DENSE
from tasks.texts import combine_hashes

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]


class MineConfig(BaseModel):
    """What is in the pool (`depth`, `range_min`, `range_max`), and what is picked from it (all other fields)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    depth: int = Field(
        100, ge=1, description="the search's depth: below it the ranks of merged corpus parts are not exact"
    )
    range_min: int = Field(0, ge=0, description="nearest passages left out of the pool, after the positives are masked")
    range_max: int = Field(25, ge=1, description="last rank of the pool (25: what the paper's judge reads, section 4)")
    relative_margin: float | None = Field(
        None, description="pick only scores up to positive - |positive| * relative_margin; 0.05 is NV-Retriever's 95%"
    )
    absolute_margin: float | None = Field(None, description="pick only scores up to positive - absolute_margin")
    margin_reference: Literal["min", "max"] = Field(
        "min", description="the positive that margins refer to, by score, when there are several"
    )
    max_score: float | None = Field(None, description="pick only scores up to this")
    min_score: float | None = Field(None, description="pick only scores from this on")
    num_negatives: int = Field(7, ge=1, description="negatives per query (7: the paper's training, section 4)")
    sampling_strategy: Literal["top", "random"] = Field("top", description="the nearest ones, or any of those left")
    seed: int = Field(0, description='for sampling_strategy "random"')
    mask_same_id: SameId = Field(
        "auto",
        description="no passage with the id of the query is a negative: `auto` if their texts are near the same, as "
        "where the queries are passages too, `true` whatever the texts, `false` never. The query's own text never is",
        json_schema_extra={"keyed_when_set": True},
    )
    retrievers: tuple[str, ...] = Field(
        (DENSE,),
        min_length=1,
        description="who searches: `dense` with the vectors of `encoder`, `bm25` by words, others with those of "
        "`encoders`; the pool is what any of them found, in an order made from their ranks",
        json_schema_extra={"keyed_when_set": True},
    )
    fusion: Literal["rrf", "round_robin"] = Field(
        "rrf",
        description="how the ranks of several retrievers become one: `rrf`, the sum of 1 / (`rrf_k` + rank), or "
        "`round_robin`, one of each in turn",
        json_schema_extra={"keyed_when_set": True},
    )
    rrf_k: int = Field(
        60,
        ge=0,
        description="the larger, the less the first ranks count (60: Cormack et al. 2009)",
        json_schema_extra={"keyed_when_set": True},
    )

    @property
    def fuses(self) -> bool:
        """Whether the hits are not those of the dense search alone."""
        return self.retrievers != (DENSE,)

    def pool_of(self, depth: int) -> "MineConfig":
        """Return the settings of a pool of the first `depth` ranks; no setting of what is picked is in it."""
        kept = ("depth", "mask_same_id", "retrievers", "fusion", "rrf_k")
        return MineConfig(range_max=depth, num_negatives=1, **{name: getattr(self, name) for name in kept})

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        """Refuse settings with which nothing useful can be mined."""
        if self.relative_margin is not None and not 0 <= self.relative_margin <= 1:
            raise ValueError(
                f"relative_margin must be between 0 and 1, got {self.relative_margin:g}; "
                "0.05 picks negatives up to 95% of the positive's score"
            )
        if self.absolute_margin is not None and not 0 <= self.absolute_margin <= 2:  # noqa: PLR2004 - cosines differ by 2
            raise ValueError(
                f"absolute_margin must be between 0 and 2 (scores are cosines), got {self.absolute_margin:g}"
            )
        low, high = self.min_score, self.max_score
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_score must not exceed max_score, got min_score={low:g} and max_score={high:g}")
        if self.range_min >= self.range_max:
            raise ValueError(f"range_min must be below range_max, got {self.range_min} and {self.range_max}")
        if self.num_negatives > self.range_max - self.range_min:
            raise ValueError(
                f"num_negatives={self.num_negatives} cannot come from a pool of {self.range_max - self.range_min} "
                f"(range_max - range_min); raise range_max or lower num_negatives"
            )
        if len(set(self.retrievers)) < len(self.retrievers):
            raise ValueError(f"retrievers must differ, got {', '.join(self.retrievers)}")
        if self.range_max > self.depth:
            raise ValueError(f"range_max={self.range_max} exceeds depth={self.depth}; search deeper or lower range_max")
        return self


def mine(  # noqa: PLR0913 - one keyword per table
    config: MineConfig,
    *,
    hits: pl.DataFrame,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    given: pl.DataFrame,
    irrelevant: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
    rescored: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Mine hard negatives for the training queries that have no usable given ones.

    `hits` are the hits of these queries in all parts of the corpus. The embeddings may hold more texts than needed; the
    scores of the positives are computed from them, as a positive below the depth of the search has no hit. `irrelevant`
    are pairs that people called irrelevant. Hits of several retrievers come in one order (`tasks.mining.fuse`), which
    is kept; the dense score of those that have none is computed too. `rescored` are the scores of a reranker, for all
    of the pool and for the positives; without them the retriever's own count.

    Returns:
        candidates: the pool: ranks range_min + 1 to range_max after masking, whether or not a filter excludes them; and
            what people called irrelevant, the nearest, up to as many as the pool holds.
        negatives: the picked ones, ranked from 1.
        reserve: those that could have been picked and were not, ranked from 1 in the order of the pick.
        rejects: what is masked (`tasks.mining.masks`) but for the positives; queries with few or no negatives, or
            without a positive; what the reranker gave no score.

    Raises:
        ValueError: a query, positive or fused hit without embedding; a candidate that was not put to the reranker.
    """
    found = find_pool(
        config,
        hits=hits,
        queries=queries,
        positives=positives,
        given=given,
        irrelevant=irrelevant,
        query_embeddings=query_embeddings,
        passage_embeddings=passage_embeddings,
    )
    compared, of_positives, unscored = found.candidates, found.of_positives, schemas.REJECTS.empty()
    if rescored is not None:
        compared, of_positives, unscored = compare(rescored, compared, of_positives)
    passing = apply_margins(config, candidates=compared, positive_scores=of_positives)
    if rescored is not None:
        passing = rank_again(passing)
    negatives, reserve = pick(config, candidates=passing)
    counted = count_short("mine", config.num_negatives, found.labelled, found.candidates, negatives)
    no_positives = reject("mine", found.unlabelled, NO_POSITIVES, pl.lit("nothing to mine against"))
    return {
        "candidates": found.candidates.sort(schemas.CANDIDATES.key),
        "negatives": negatives.sort(schemas.NEGATIVES.key),
        "reserve": reserve.sort(schemas.NEGATIVES.key),
        "rejects": join_rejects(found.masked, no_positives, counted, unscored),
    }


def choose_pool(  # noqa: PLR0913 - one keyword per table
    config: MineConfig,
    *,
    hits: pl.DataFrame,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    given: pl.DataFrame,
    irrelevant: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Choose what is put to a reranker: the pool that `mine` would make of the same tables, and the positives.

    Returns:
        asked: as CANDIDATES, with the retriever's ranks and scores; the rank of a positive is 0.

    Raises:
        ValueError: as `mine`.
    """
    found = find_pool(
        config,
        hits=hits,
        queries=queries,
        positives=positives,
        given=given,
        irrelevant=irrelevant,
        query_embeddings=query_embeddings,
        passage_embeddings=passage_embeddings,
    )
    labelled = positives.join(found.of_positives, on=_PAIR).join(found.labelled, on=_QUERY)
    return {"asked": put_pairs(found.candidates, labelled)}


@dataclass(frozen=True)
class FoundPool:
    """The pool of the queries that are mined, in the retriever's order.

    candidates: CANDIDATES. of_positives: the scores of the positives, by pair. labelled, unlabelled: the queries with
    and without a positive. masked: rejects.
    """

    candidates: pl.DataFrame
    of_positives: pl.DataFrame
    labelled: pl.DataFrame
    unlabelled: pl.DataFrame
    masked: pl.DataFrame


def find_pool(  # noqa: PLR0913 - one keyword per table
    config: MineConfig,
    *,
    hits: pl.DataFrame,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    given: pl.DataFrame,
    irrelevant: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> FoundPool:
    """Merge the hits, mask what cannot be a negative, and cut the pool out of the rest. Arguments: see `mine`."""
    wanted = without_given(queries=queries, given=given, positives=positives)
    hits = hits.join(wanted, on=_QUERY, how="semi")
    positives = positives.join(wanted, on=_QUERY, how="semi")
    labelled, unlabelled = with_positives(wanted, positives)

    known = irrelevant.join(labelled, on=_QUERY, how="semi")
    vectors = {"query_embeddings": query_embeddings, "passage_embeddings": passage_embeddings}
    if config.fuses:
        ranked = fill_scores(hits, labelled, **vectors)
    else:
        ranked = merge_hits(hits=hits, positives=positives, depth=config.depth)
    merged = add_known(hits=ranked, irrelevant=known, queries=wanted, labelled=labelled, **vectors)
    kept, masked = split_masked("mine", mask(merged, positives=positives, same_id=config.mask_same_id))
    candidates = _pool(config, kept).join(labelled, on=_QUERY).select(*schemas.CANDIDATES.columns)

    of_positives = score_pairs(queries=labelled, pairs=positives, of="positives", **vectors)
    return FoundPool(candidates, of_positives, labelled, unlabelled, masked)


def without_given(*, queries: pl.DataFrame, given: pl.DataFrame, positives: pl.DataFrame) -> pl.DataFrame:
    """Return the training queries that have no given negative, or none that can be a negative.

    Of a query with two different texts left beside its positives, one at least is not its own text. So only the texts
    of queries with a single one are hashed.
    """
    train = queries.filter(pl.col("split") == "train")
    if given.is_empty():
        return train
    guard = [*_QUERY, "guard_hash"]
    left = given.select(guard).unique().join(positives, on=guard, how="anti")
    several = left.filter(left.select(_QUERY).is_duplicated())
    single = left.join(several, on=_QUERY, how="anti")
    asked = hash_queries(train.join(single, on=_QUERY, how="semi"))
    others = single.join(asked, left_on=guard, right_on=[*_QUERY, "query_guard"], how="anti")
    usable = pl.concat([several.select(_QUERY), others.select(_QUERY)])
    return train.join(usable, on=_QUERY, how="anti", maintain_order="left")


def fill_scores(
    fused: pl.DataFrame, labelled: pl.DataFrame, *, query_embeddings: pl.DataFrame, passage_embeddings: pl.DataFrame
) -> pl.DataFrame:
    """Return fused hits in their order, each with its dense score: margins compare it with those of the positives."""
    unscored = fused.filter(pl.col("score").is_null()).drop("score")
    scores = score_pairs(
        queries=labelled,
        pairs=unscored,
        of="hits of further retrievers",
        query_embeddings=query_embeddings,
        passage_embeddings=passage_embeddings,
    )
    filled = fused.join(scores, on=_PAIR, how="left", maintain_order="left", suffix="_dense")
    return filled.with_columns(score=pl.coalesce("score", "score_dense")).drop("score_dense").sort(*_QUERY, "rank")


def add_known(
    *,
    hits: pl.DataFrame,
    irrelevant: pl.DataFrame,
    queries: pl.DataFrame,
    labelled: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> pl.DataFrame:
    """Name people as the retriever of what they called irrelevant, and add what of it is no hit, after the hits.

    A copy of such a passage counts as called irrelevant too.
    """
    columns = list(schemas.HITS.columns)
    if irrelevant.is_empty():
        return hits.select(columns).sort(*_QUERY, "rank")
    said = irrelevant.select(*_QUERY, "guard_hash", _said=pl.lit(True)).unique()
    marked = hits.join(said, on=[*_QUERY, "guard_hash"], how="left", maintain_order="left")
    marked = marked.with_columns(retriever=pl.when("_said").then(pl.lit(BY_PEOPLE)).otherwise("retriever"))
    missed = irrelevant.join(hits, on=_PAIR, how="anti")
    scores = score_pairs(
        queries=labelled,
        pairs=missed,
        of="passages that people called irrelevant",
        query_embeddings=query_embeddings,
        passage_embeddings=passage_embeddings,
    )
    ranked = find_repeats(missed.join(scores, on=_PAIR), queries).pipe(rank_by_score)
    last = hits.group_by(_QUERY).agg(last=pl.col("rank").max())
    rank = pl.col("rank") + pl.col("last").fill_null(0)
    added = ranked.join(last, on=_QUERY, how="left").with_columns(retriever=pl.lit(BY_PEOPLE), rank=rank)
    return pl.concat([marked.select(columns), added.select(columns)]).sort(*_QUERY, "rank")


def _pool(config: MineConfig, kept: pl.DataFrame) -> pl.DataFrame:
    """Rank what is not masked, and cut the pool out of it."""
    ranked = kept.sort(*_QUERY, "rank").with_columns(
        rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY),
        known=pl.col("retriever") == BY_PEOPLE,
    )
    inside = (pl.col("rank") > config.range_min) & (pl.col("rank") <= config.range_max)
    nearest = pl.col("known").cum_sum().over(_QUERY) <= config.range_max - config.range_min
    return ranked.filter(inside | (pl.col("known") & nearest))


def score_pairs(
    *,
    queries: pl.DataFrame,
    pairs: pl.DataFrame,
    of: str,
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> pl.DataFrame:
    """Score passages against their queries (`query_hash` in `queries`), exactly as the search scores a hit.

    `of` names the passages in the error that one has no embedding.
    """
    pairs = pairs.join(queries.select(*_QUERY, "query_hash"), on=_QUERY).sort(_PAIR)
    left, left_rows = vectors_of(query_embeddings, pairs["query_hash"], of="queries")
    right, right_rows = vectors_of(passage_embeddings, pairs["text_hash"], of=of)
    return pairs.select(*_PAIR, dot_pairs(left, right, left_rows, right_rows))


def apply_margins(config: MineConfig, *, candidates: pl.DataFrame, positive_scores: pl.DataFrame) -> pl.DataFrame:
    """Keep the candidates that may be picked as negatives.

    Upper bounds guard against false negatives, so they do not apply to what people called irrelevant.

    The threshold of the relative margin is positive - |positive| * margin, which is below the positive for scores of
    both signs. (positive * (1 - margin) is above a negative score: sentence-transformers issue 3819.)
    """
    of_query = pl.col("score").min() if config.margin_reference == "min" else pl.col("score").max()
    reference = positive_scores.group_by(_QUERY).agg(of_query.alias("reference"))
    score, positive = pl.col("score"), pl.col("reference")
    known = pl.col("retriever") == BY_PEOPLE
    rules = [pl.lit(True)]
    if config.absolute_margin is not None:
        rules.append(known | (score <= positive - config.absolute_margin))
    if config.relative_margin is not None:
        rules.append(known | (score <= positive - positive.abs() * config.relative_margin))
    if config.max_score is not None:
        rules.append(known | (score <= config.max_score))
    if config.min_score is not None:
        rules.append(score >= config.min_score)
    return candidates.join(reference, on=_QUERY).filter(pl.all_horizontal(rules)).select(candidates.columns)


def pick(config: MineConfig, *, candidates: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pick up to `num_negatives` per query, the nearest or a seeded sample, and rank them from 1 in candidate order.

    The sample is chosen by a hash of seed, query and text, so other rows of the table make no difference.

    Returns:
        The picked ones, and the rest, which is ranked from 1 in the order in which it would be picked next.
    """
    if config.sampling_strategy == "random":
        pairs = candidates.select("query_hash", "text_hash").iter_rows()
        order = pl.Series("order", [combine_hashes([str(config.seed), *pair]) for pair in pairs], dtype=pl.String)
    else:
        order = candidates["rank"].alias("order")
    ordered = candidates.with_columns(order).sort(*_QUERY, "order", "doc_id")
    return split_at(config.num_negatives, ordered)
