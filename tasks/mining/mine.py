"""Mine hard negatives: merge the hits, mask what cannot be a negative, apply the margins, pick the negatives.

Parameters have the names and meaning of those of `mine_hard_negatives` in sentence-transformers, with two differences.
Margins limit what is picked, but not the pool: a candidate whose score is close to a positive may be a false negative,
so the judges must see it. And the rank window is applied before the filters, not after them.

Passages that people called irrelevant are in the pool at any rank. They are no false negatives, so the filters that
guard against those do not apply to them.
"""

from typing import Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks import schemas
from tasks.mining.encode import dot_pairs, vectors_of
from tasks.mining.masks import SameId, find_repeats, hash_queries, mask, split_masked
from tasks.mining.search import merge_hits, rank_by_score
from tasks.schemas import BY_PEOPLE
from tasks.texts import combine_hashes

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_HASHES = ["text_hash", "shown_hash", "guard_hash"]

FEW_NEGATIVES = "few_negatives"
NO_NEGATIVES = "no_negatives"
NO_POSITIVES = "no_positives"
UNKNOWN_QUERY = "unknown_query"


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
        if self.range_max > self.depth:
            raise ValueError(f"range_max={self.range_max} exceeds depth={self.depth}; search deeper or lower range_max")
        return self


class AdoptConfig(BaseModel):
    """How many of the given negatives of a row are used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_negatives: int | None = Field(None, ge=1, description="the first so many; without it all of them")


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
) -> dict[str, pl.DataFrame]:
    """Mine hard negatives for the training queries that have no usable given ones.

    `hits` are the hits of these queries in all parts of the corpus. The embeddings may hold more texts than needed; the
    scores of the positives are computed from them, as a positive below the depth of the search has no hit. `irrelevant`
    are pairs that people called irrelevant.

    Returns:
        candidates: the pool: ranks range_min + 1 to range_max after masking, whether or not a filter excludes them; and
            what people called irrelevant, the nearest, up to as many as the pool holds.
        negatives: the picked ones, ranked from 1.
        reserve: those that could have been picked and were not, ranked from 1 in the order of the pick.
        rejects: what is masked (`tasks.mining.masks`) but for the positives; queries with few or no negatives, or
            without a positive.

    Raises:
        ValueError: there are hits of several retrievers, or a query or positive without embedding.
    """
    wanted = without_given(queries=queries, given=given, positives=positives)
    hits = hits.join(wanted, on=_QUERY, how="semi")
    positives = positives.join(wanted, on=_QUERY, how="semi")
    labelled, unlabelled = _with_positives(wanted, positives)

    known = irrelevant.join(labelled, on=_QUERY, how="semi")
    vectors = {"query_embeddings": query_embeddings, "passage_embeddings": passage_embeddings}
    ranked = merge_hits(hits=hits, positives=positives, depth=config.depth)
    merged = add_known(hits=ranked, irrelevant=known, queries=wanted, labelled=labelled, **vectors)
    kept, masked = split_masked("mine", mask(merged, positives=positives, same_id=config.mask_same_id))
    candidates = _pool(config, kept).join(labelled, on=_QUERY).select(*schemas.CANDIDATES.columns)

    scores = score_pairs(queries=labelled, pairs=positives, of="positives", **vectors)
    passing = apply_margins(config, candidates=candidates, positive_scores=scores)
    negatives, reserve = pick(config, candidates=passing)
    counted = _count_short("mine", config.num_negatives, labelled, candidates, negatives)
    return {
        "candidates": candidates.sort(schemas.CANDIDATES.key),
        "negatives": negatives.sort(schemas.NEGATIVES.key),
        "reserve": reserve.sort(schemas.NEGATIVES.key),
        "rejects": _rejects(
            masked, _reject("mine", unlabelled, NO_POSITIVES, pl.lit("nothing to mine against")), counted
        ),
    }


def without_given(*, queries: pl.DataFrame, given: pl.DataFrame, positives: pl.DataFrame) -> pl.DataFrame:
    """Return the training queries that have no given negative, or none that can be a negative.

    Of a query with two different texts left beside its positives, one at least is not its own text. So only the texts
    of queries with a single one are hashed.
    """
    train = queries.filter(pl.col("split") == "train")
    guard = [*_QUERY, "guard_hash"]
    left = given.select(guard).unique().join(positives, on=guard, how="anti")
    several = left.filter(left.select(_QUERY).is_duplicated())
    single = left.join(several, on=_QUERY, how="anti")
    asked = hash_queries(train.join(single, on=_QUERY, how="semi"))
    others = single.join(asked, left_on=guard, right_on=[*_QUERY, "query_guard"], how="anti")
    usable = pl.concat([several.select(_QUERY), others.select(_QUERY)])
    return train.join(usable, on=_QUERY, how="anti", maintain_order="left")


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
    columns = list(schemas.HITS.columns)
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
    return _split_at(config.num_negatives, ordered)


def adopt(
    config: AdoptConfig,
    *,
    given: pl.DataFrame,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    irrelevant: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Use the given negatives of training rows: all become candidates, in their order and without filters.

    What people called irrelevant comes after them. Masked are a query's own text, copies of its positives, and copies
    of its candidates. A query for which no given negative is left is not in the tables: it is mined.

    Returns:
        candidates: all given negatives, with retriever "given", and their score if the input has one.
        negatives: all of them, or the first `num_negatives` of each query.
        reserve: the others, ranked from 1.
        rejects: what is masked; queries without positive, given negatives of an unknown query, queries with too few
            negatives.
    """
    train = queries.filter(pl.col("split") == "train").join(given, on=_QUERY, how="semi")
    usable, masked = _usable_given(train, given, positives, irrelevant)
    labelled, unlabelled = _with_positives(train, positives)
    candidates = (
        usable.join(labelled, on=_QUERY)
        .sort(*_QUERY, "rank", "doc_id")
        .with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY))
        .select(*schemas.CANDIDATES.columns)
    )
    ordered = candidates.sort(*_QUERY, "rank")
    negatives, reserve = _split_at(config.num_negatives or max(ordered.height, 1), ordered)
    adopted = labelled.join(candidates, on=_QUERY, how="semi")
    return {
        "candidates": candidates.sort(schemas.CANDIDATES.key),
        "negatives": negatives.sort(schemas.NEGATIVES.key),
        "reserve": reserve.sort(schemas.NEGATIVES.key),
        "rejects": _rejects(
            masked,
            _reject("adopt", unlabelled, NO_POSITIVES, pl.lit("its negatives are left out")),
            _reject(
                "adopt", given.join(queries, on=_QUERY, how="anti"), UNKNOWN_QUERY, pl.lit("not in queries"), key=_PAIR
            ),
            _count_short("adopt", config.num_negatives or 1, adopted, candidates, negatives),
        ),
    }


def _usable_given(
    train: pl.DataFrame, given: pl.DataFrame, positives: pl.DataFrame, irrelevant: pl.DataFrame | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the given negatives that can be negatives, and what people called irrelevant; and rejects for the rest.

    A query whose given negatives are all masked is left out.
    """
    columns = [*_PAIR, *_HASHES, "retriever", "rank", "score"]
    rows = given.join(train, on=_QUERY, how="semi").with_columns(retriever=pl.lit("given")).select(columns)
    if irrelevant is not None:
        said = irrelevant.join(rows, on=_QUERY, how="semi")
        copies = said.select(*_QUERY, "guard_hash", _said=pl.lit(True)).unique()
        rows = rows.join(copies, on=[*_QUERY, "guard_hash"], how="left", maintain_order="left")
        rows = rows.with_columns(retriever=pl.when("_said").then(pl.lit(BY_PEOPLE)).otherwise("retriever"))
        last = rows.group_by(_QUERY).agg(last=pl.col("rank").max())
        place = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY)
        added = said.join(rows, on=_PAIR, how="anti").sort(_PAIR).join(last, on=_QUERY, maintain_order="left")
        added = added.with_columns(retriever=pl.lit(BY_PEOPLE), rank=place + pl.col("last"), score=pl.lit(None))
        rows = pl.concat([rows.select(columns), added.select(columns)], how="vertical_relaxed")
    ordered = find_repeats(rows.sort(*_QUERY, "rank", "doc_id"), train)
    kept, masked = split_masked("adopt", mask(ordered, positives=positives))
    still = kept.join(given, on=_PAIR, how="semi")
    return kept.join(still, on=_QUERY, how="semi", maintain_order="left"), masked


def _split_at(count: int, ordered: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split candidates into the first `count` of each query, ranked in candidate order, and the rest in this order."""
    place = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY)
    placed = ordered.with_columns(place=place)
    rest = placed.filter(pl.col("place") > count).with_columns(rank=pl.col("place") - count)
    return _rank_negatives(placed.filter(pl.col("place") <= count)), rest.select(*schemas.NEGATIVES.columns)


def _with_positives(queries: pl.DataFrame, positives: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the queries with the hashes of query and positives, and the queries without any positive."""
    hashes = positives.group_by(_QUERY).agg(pl.col("text_hash").sort())
    combined = pl.Series("positives_hash", [combine_hashes(texts) for texts in hashes["text_hash"]], dtype=pl.String)
    labelled = queries.select(*_QUERY, query_hash="text_hash").join(hashes.select(*_QUERY, combined), on=_QUERY)
    return labelled, queries.join(hashes, on=_QUERY, how="anti")


def _rank_negatives(picked: pl.DataFrame) -> pl.DataFrame:
    """Rank picked candidates from 1 in their order, with the columns of the schema."""
    rank = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY)
    return picked.sort(*_QUERY, "rank").with_columns(rank=rank).select(*schemas.NEGATIVES.columns)


def _count_short(
    stage: str, wanted: int, queries: pl.DataFrame, candidates: pl.DataFrame, negatives: pl.DataFrame
) -> pl.DataFrame:
    """Return rejects for queries with fewer negatives than wanted. The queries stay in the tables."""
    pool = candidates.group_by(_QUERY).agg(pool=pl.len())
    picked = negatives.group_by(_QUERY).agg(picked=pl.len())
    counts = queries.select(_QUERY).join(pool, on=_QUERY, how="left").join(picked, on=_QUERY, how="left")
    short = counts.with_columns(pl.col("pool", "picked").fill_null(0)).filter(pl.col("picked") < wanted)
    detail = pl.format(f"{{}} of {wanted}, from a pool of {{}}", "picked", "pool")
    return _rejects(
        _reject(stage, short.filter(pl.col("picked") > 0), FEW_NEGATIVES, detail),
        _reject(stage, short.filter(pl.col("picked") == 0), NO_NEGATIVES, detail),
    )


def _reject(stage: str, rows: pl.DataFrame, reason: str, detail: pl.Expr, key: list[str] | None = None) -> pl.DataFrame:
    """Make one reject per row. Its key is the values of the key columns, joined with slashes."""
    return rows.select(
        stage=pl.lit(stage), key=pl.concat_str(key or _QUERY, separator="/"), reason=pl.lit(reason), detail=detail
    )


def _rejects(*frames: pl.DataFrame) -> pl.DataFrame:
    """Return all rejects in one table, sorted."""
    return pl.concat([schemas.REJECTS.empty(), *frames]).sort("reason", "key", "detail")
