"""The columns that a combiner's regression reads, computed from the wide frame."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import polars as pl

from tasks.verdicts.fitting.folds import Floats

CENTRED = "_centred"  # the end of the names of columns that are centred within the query
_QUERY = ["dataset", "query_id"]
_LEAST_COSINE = 0.1  # a positive further from its query than this says nothing about scale
_MOST_RATIO = 3.0
_WORDS = ("missed_words", "shared_triples")
_READ = ("to_query", "to_positive", "to_positives", "positive_to_query", "positives", "rank", *_WORDS)
_TO_CENTRE = ("to_query", "to_positive")


def similarity_columns(wide: pl.DataFrame) -> pl.DataFrame:
    """Compute the columns of the features, without any tier: one row per row of `wide`, null where not known.

    Columns of `wide` beside dataset and query_id may be absent.

    - `to_query`, `to_positive` (the largest), `to_positives` (the mean): cosines of the candidate.
    - `relative`: `to_query` divided by the positive's own cosine to the query.
    - `to_query_centred`, `to_positive_centred`: minus the mean over the candidates of the query.
    - `positives`: log of the number of positives; `to_positive_by_positives`: times `to_positive`. The largest of
      several cosines is larger by chance alone, and the two say by how much.
    - `rank`: log of the rank.
    - `missed_words`, `shared_triples`: see `tasks.mining.wording`.
    """
    wide = wide.select(
        *_QUERY,
        *((pl.col(name) if name in wide.columns else pl.lit(None)).cast(pl.Float64).alias(name) for name in _READ),
    )
    own = pl.col("positive_to_query").clip(_LEAST_COSINE)
    count = pl.col("positives").clip(1).log()
    columns = [
        pl.col("to_query"),
        pl.col("to_positive"),
        pl.col("to_positives"),
        (pl.col("to_query") / own).clip(-_MOST_RATIO, _MOST_RATIO).alias("relative"),
        *((pl.col(name) - pl.col(name).mean().over(_QUERY)).alias(name + CENTRED) for name in _TO_CENTRE),
        count.alias("positives"),
        (count * pl.col("to_positive")).alias("to_positive_by_positives"),
        pl.col("rank").clip(1).log().alias("rank"),
        *map(pl.col, _WORDS),
    ]
    return wide.select(columns).select(pl.all().fill_nan(None))


def tier_columns(wide: pl.DataFrame, log_odds: Mapping[str, Floats], centred: Collection[str]) -> pl.DataFrame:
    """Return the log-odds of each tier, and those of some also minus their mean over the query's pairs.

    Args:
        wide: the frame whose rows these are.
        log_odds: logit P by tier, shape (rows,); NaN where the tier gave no score.
        centred: the tiers that have a centred column too.
    """
    columns = pl.DataFrame({tier: pl.Series(values, nan_to_null=True) for tier, values in log_odds.items()})
    names = [tier for tier in log_odds if tier in centred]
    if not names:
        return columns
    both = pl.concat([wide.select(_QUERY), columns], how="horizontal")
    return both.select(*log_odds, *((pl.col(n) - pl.col(n).mean().over(_QUERY)).alias(n + CENTRED) for n in names))


def matrix(columns: pl.DataFrame, names: Sequence[str]) -> Floats:
    """Return the named columns as a matrix, shape (rows, names); NaN where null."""
    return np.column_stack([np.empty((columns.height, 0)), *(columns[name].to_numpy() for name in names)])
