"""Mine hard negatives: merge the hits, mask the positives, apply the margins, pick the negatives.

Parameters have the names and meaning of those of `mine_hard_negatives` in sentence-transformers, with two differences.
Margins limit what is picked, but not the pool: a candidate whose score is close to a positive may be a false negative,
so the judges must see it. And the rank window is applied before the filters, not after them.
"""

from typing import Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks import schemas
from tasks.mining.encode import dot_pairs, vectors_of
from tasks.mining.search import rank_by_score
from tasks.texts import combine_hashes

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]

SAME_TEXT_AS_POSITIVE = "same_text_as_positive"
SAME_TEXT_AS_CANDIDATE = "same_text_as_candidate"
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
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Mine hard negatives for the training queries that have no given ones.

    `hits` are the hits of these queries in all parts of the corpus. The embeddings may hold more texts than needed; the
    scores of the positives are computed from them, as a positive below the depth of the search has no hit.

    Returns:
        candidates: the pool: ranks range_min + 1 to range_max after masking, whether or not a filter excludes them.
        negatives: the picked ones, ranked from 1.
        rejects: copies of positives and candidates; queries with few or no negatives, or without a positive.

    Raises:
        ValueError: there are hits of several retrievers, or a query or positive without embedding.
    """
    wanted = queries.filter(pl.col("split") == "train").join(given, on=_QUERY, how="anti")
    hits = hits.join(wanted, on=_QUERY, how="semi")
    positives = positives.join(wanted, on=_QUERY, how="semi")

    merged = merge_hits(config, hits=hits)
    kept, duplicates = mask_positives(hits=merged, positives=positives)
    pool = kept.filter(pl.col("rank") > config.range_min, pl.col("rank") <= config.range_max)
    labelled, unlabelled = _with_positives(wanted, positives)
    candidates = pool.join(labelled, on=_QUERY).select(*schemas.CANDIDATES.columns)

    scores = score_positives(
        queries=labelled, positives=positives, query_embeddings=query_embeddings, passage_embeddings=passage_embeddings
    )
    passing = apply_margins(config, candidates=candidates, positive_scores=scores)
    negatives = pick(config, candidates=passing)
    counted = _count_short("mine", config.num_negatives, labelled, candidates, negatives)
    return {
        "candidates": candidates.sort(schemas.CANDIDATES.key),
        "negatives": negatives.sort(schemas.NEGATIVES.key),
        "rejects": _rejects(
            duplicates, _reject("mine", unlabelled, NO_POSITIVES, pl.lit("nothing to mine against")), counted
        ),
    }


def merge_hits(config: MineConfig, *, hits: pl.DataFrame) -> pl.DataFrame:
    """Merge the hits of each query in all parts of the corpus into its top `depth`, and rank them again.

    Raises:
        ValueError: there are hits of several retrievers, whose scores cannot be compared.
    """
    retrievers = sorted(set(hits["retriever"]))
    if len(retrievers) > 1:
        raise ValueError(f"mine reads the hits of one retriever, got {retrievers}; mine them one by one")
    return hits.pipe(rank_by_score).filter(pl.col("rank") <= config.depth)


def mask_positives(*, hits: pl.DataFrame, positives: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Remove positives, by doc_id and by text, and repeated texts, and rank the rest again.

    Returns:
        The hits that stay, and rejects for the copies. A positive found under its own id is not a reject.
    """
    others = hits.join(positives, on=_PAIR, how="anti")
    same_text = [*_QUERY, "text_hash"]
    copies = others.join(positives, on=same_text, how="semi")
    others = others.join(positives, on=same_text, how="anti").sort(*_QUERY, "rank")
    first = pl.col("doc_id").first().over(same_text)
    doubles = others.filter(pl.col("doc_id") != first)
    duplicates = _rejects(
        _reject("mine", copies, SAME_TEXT_AS_POSITIVE, pl.format("text {}", "text_hash"), key=_PAIR),
        _reject("mine", doubles, SAME_TEXT_AS_CANDIDATE, pl.format("text {}", "text_hash"), key=_PAIR),
    )
    return others.filter(pl.col("doc_id") == first).pipe(rank_by_score), duplicates


def score_positives(
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> pl.DataFrame:
    """Score each positive against its query (`query_hash` in `queries`), exactly as the search scores a hit."""
    pairs = positives.join(queries.select(*_QUERY, "query_hash"), on=_QUERY).sort(_PAIR)
    left, left_rows = vectors_of(query_embeddings, pairs["query_hash"], of="queries")
    right, right_rows = vectors_of(passage_embeddings, pairs["text_hash"], of="positives")
    return pairs.select(*_PAIR, dot_pairs(left, right, left_rows, right_rows))


def apply_margins(config: MineConfig, *, candidates: pl.DataFrame, positive_scores: pl.DataFrame) -> pl.DataFrame:
    """Keep the candidates that may be picked as negatives.

    The threshold of the relative margin is positive - |positive| * margin, which is below the positive for scores of
    both signs. (positive * (1 - margin) is above a negative score: sentence-transformers issue 3819.)
    """
    of_query = pl.col("score").min() if config.margin_reference == "min" else pl.col("score").max()
    reference = positive_scores.group_by(_QUERY).agg(of_query.alias("reference"))
    score, positive = pl.col("score"), pl.col("reference")
    rules = [pl.lit(True)]
    if config.absolute_margin is not None:
        rules.append(score <= positive - config.absolute_margin)
    if config.relative_margin is not None:
        rules.append(score <= positive - positive.abs() * config.relative_margin)
    if config.max_score is not None:
        rules.append(score <= config.max_score)
    if config.min_score is not None:
        rules.append(score >= config.min_score)
    return candidates.join(reference, on=_QUERY).filter(pl.all_horizontal(rules)).select(candidates.columns)


def pick(config: MineConfig, *, candidates: pl.DataFrame) -> pl.DataFrame:
    """Pick up to `num_negatives` per query, the nearest or a seeded sample, and rank them from 1 in candidate order.

    The sample is chosen by a hash of seed, query and text, so other rows of the table make no difference.
    """
    if config.sampling_strategy == "random":
        pairs = candidates.select("query_hash", "text_hash").iter_rows()
        order = pl.Series("order", [combine_hashes([str(config.seed), *pair]) for pair in pairs], dtype=pl.String)
    else:
        order = candidates["rank"].alias("order")
    drawn = (
        candidates.with_columns(order)
        .sort(*_QUERY, "order", "doc_id")
        .group_by(_QUERY, maintain_order=True)
        .head(config.num_negatives)
    )
    return _rank_negatives(drawn)


def adopt(
    config: AdoptConfig, *, given: pl.DataFrame, queries: pl.DataFrame, positives: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Use the given negatives of training rows: all become candidates, in their order and without filters.

    Returns:
        candidates: all given negatives, with retriever "given", and their score if the input has one.
        negatives: all of them, or the first `num_negatives` of each query.
        rejects: queries without positive, given negatives of an unknown query, queries with too few negatives.
    """
    train = queries.filter(pl.col("split") == "train").join(given, on=_QUERY, how="semi")
    labelled, unlabelled = _with_positives(train, positives)
    candidates = (
        given.join(labelled, on=_QUERY)
        .sort(*_QUERY, "rank", "doc_id")
        .with_columns(retriever=pl.lit("given"), rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY))
        .select(*schemas.CANDIDATES.columns)
    )
    limit = config.num_negatives or max(given.height, 1)
    negatives = _rank_negatives(candidates.filter(pl.col("rank") <= limit))
    wanted = config.num_negatives or 1
    return {
        "candidates": candidates.sort(schemas.CANDIDATES.key),
        "negatives": negatives.sort(schemas.NEGATIVES.key),
        "rejects": _rejects(
            _reject("adopt", unlabelled, NO_POSITIVES, pl.lit("its negatives are left out")),
            _reject(
                "adopt", given.join(queries, on=_QUERY, how="anti"), UNKNOWN_QUERY, pl.lit("not in queries"), key=_PAIR
            ),
            _count_short("adopt", wanted, labelled, candidates, negatives),
        ),
    }


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
