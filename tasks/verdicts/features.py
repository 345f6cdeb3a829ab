"""Join what is known of each pair: the features that no judge gave, and the score of each tier, one row per pair."""

from collections.abc import Sequence

import polars as pl

from tasks.schemas import FEATURES
from tasks.verdicts.pairs import PAIR, check_unique

SIMILARITY = "similarity"
COMBINED = "combined"  # the tier of P(relevant) by a calibration


def score_column(tier: str) -> str:
    """Name the column of the wide frame that holds a tier's scores."""
    return f"score_{tier}"


def join_scores(features: pl.DataFrame, verdicts: pl.DataFrame, tiers: Sequence[str]) -> pl.DataFrame:
    """Join features and scores: the wide frame, which a combiner reads.

    Args:
        features: FEATURES, all candidates of each query. Columns beside the key may be absent or null, as where judges
            come from files and there is no encoder.
        verdicts: VERDICTS of any tiers. Those of tiers that are not named, and of other pairs, are ignored.
        tiers: the tiers other than similarity, in the order asked.

    Returns:
        One row per row of `features`, in its order: the columns of FEATURES, and `score_<tier>` (Float64) for each
        tier. A score is null where the tier was not asked or could not be read.

    Raises:
        ValueError: a pair comes twice, in the features or in one tier.
    """
    check_unique(features, "features")
    wide = features.select(
        (pl.col(name) if name in features.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in FEATURES.columns.items()
    )
    for tier in tiers:
        found = verdicts.filter(pl.col("tier") == tier)
        check_unique(found, f"verdicts of tier {tier!r}")
        scores = found.select(*PAIR, pl.col("score").fill_nan(None).alias(score_column(tier)))
        wide = wide.join(scores, on=PAIR, how="left", maintain_order="left")
    return wide
