"""Cut and rank what is picked as negatives, and say which queries have too few: shared by `mine` and `adopt`."""

import polars as pl

from tasks import schemas
from tasks.texts import combine_hashes

_QUERY = ["dataset", "query_id"]

FEW_NEGATIVES = "few_negatives"
NO_NEGATIVES = "no_negatives"
NO_POSITIVES = "no_positives"
UNKNOWN_QUERY = "unknown_query"


def split_at(count: int, ordered: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split candidates into the first `count` of each query, ranked in candidate order, and the rest in this order."""
    place = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY)
    placed = ordered.with_columns(place=place)
    rest = placed.filter(pl.col("place") > count).with_columns(rank=pl.col("place") - count)
    return _rank_negatives(placed.filter(pl.col("place") <= count)), rest.select(*schemas.NEGATIVES.columns)


def with_positives(queries: pl.DataFrame, positives: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the queries with the hashes of query and positives, and the queries without any positive."""
    hashes = positives.group_by(_QUERY).agg(pl.col("text_hash").sort())
    combined = pl.Series(
        "positives_hash", [combine_hashes(texts) for texts in hashes["text_hash"].to_list()], dtype=pl.String
    )
    labelled = queries.select(*_QUERY, query_hash="text_hash").join(hashes.select(*_QUERY, combined), on=_QUERY)
    return labelled, queries.join(hashes, on=_QUERY, how="anti")


def _rank_negatives(picked: pl.DataFrame) -> pl.DataFrame:
    """Rank picked candidates from 1 in their order, with the columns of the schema."""
    rank = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(_QUERY)
    return picked.sort(*_QUERY, "rank").with_columns(rank=rank).select(*schemas.NEGATIVES.columns)


def count_short(
    stage: str, wanted: int, queries: pl.DataFrame, candidates: pl.DataFrame, negatives: pl.DataFrame
) -> pl.DataFrame:
    """Return rejects for queries with fewer negatives than wanted. The queries stay in the tables."""
    pool = candidates.group_by(_QUERY).agg(pool=pl.len())
    picked = negatives.group_by(_QUERY).agg(picked=pl.len())
    counts = queries.select(_QUERY).join(pool, on=_QUERY, how="left").join(picked, on=_QUERY, how="left")
    short = counts.with_columns(pl.col("pool", "picked").fill_null(0)).filter(pl.col("picked") < wanted)
    detail = pl.format(f"{{}} of {wanted}, from a pool of {{}}", "picked", "pool")
    return join_rejects(
        reject(stage, short.filter(pl.col("picked") > 0), FEW_NEGATIVES, detail),
        reject(stage, short.filter(pl.col("picked") == 0), NO_NEGATIVES, detail),
    )


def reject(stage: str, rows: pl.DataFrame, reason: str, detail: pl.Expr, key: list[str] | None = None) -> pl.DataFrame:
    """Make one reject per row. Its key is the values of the key columns, joined with slashes."""
    return rows.select(
        stage=pl.lit(stage), key=pl.concat_str(key or _QUERY, separator="/"), reason=pl.lit(reason), detail=detail
    )


def join_rejects(*frames: pl.DataFrame) -> pl.DataFrame:
    """Return all rejects in one table, sorted."""
    return pl.concat([schemas.REJECTS.empty(), *frames]).sort("reason", "key", "detail")
