"""Count the scores of one query part: by tier and state, by query, and which pairs a plot of two judges can draw."""

import polars as pl

from tasks.summaries import DOTS, RELEVANT_BY_QUERY
from tasks.texts import SEPARATOR, hash_text
from tasks.verdicts.pairs import PAIR

BINS = 25
MOST_DOTS = 4_000  # of a plot; each takes 75 bytes of the page
_QUERY = PAIR[:2]


def count_scores(tier: str, verdicts: pl.DataFrame) -> pl.DataFrame:
    """Count the verdicts of a tier by state and bin of the score: SCORES."""
    place = (pl.col("score").fill_nan(None) * BINS + 1e-9).floor().clip(0, BINS - 1).cast(pl.Int8)
    counted = verdicts.group_by("state", bin=place).agg(pairs=pl.len().cast(pl.Int64))
    return counted.select(tier=pl.lit(tier), state="state", bin="bin", pairs="pairs").sort("state", "bin")


def count_relevant(decisions: pl.DataFrame, candidates: pl.DataFrame) -> pl.DataFrame:
    """Count the queries by dataset, candidates, relevant ones and different texts among these: RELEVANT_BY_QUERY."""
    relevant = pl.col("state") == "relevant"
    texts = decisions.filter(relevant).select(PAIR).join(candidates.select(*PAIR, "text_hash"), on=PAIR, how="left")
    found = texts.group_by(_QUERY).agg(texts=pl.col("text_hash").n_unique())
    queries = decisions.group_by(_QUERY).agg(pairs=pl.len(), relevant=relevant.sum())
    counted = queries.join(found, on=_QUERY, how="left").with_columns(pl.col("texts").fill_null(0))
    by = ["dataset", "pairs", "relevant", "texts"]
    rows = counted.group_by(by).agg(queries=pl.len()).sort(by)
    return rows.select(pl.col(name).cast(dtype) for name, dtype in RELEVANT_BY_QUERY.columns.items())


def place_dots(similarity: pl.DataFrame, last: pl.DataFrame, decisions: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return the pairs that a plot of similarity and the last tier can draw, as DOTS, and how many both scored.

    These are the pairs with the smallest hashes of their ids, so a dot is drawn whatever comes in other parts, until
    there are too many.
    """
    both = (
        similarity.select(*PAIR, x=pl.col("score").fill_nan(None))
        .join(last.select(*PAIR, y=pl.col("score").fill_nan(None)), on=PAIR)
        .join(decisions.select(*PAIR, "state"), on=PAIR)
        .drop_nulls(["x", "y"])
    )
    hashes = [int(hash_text(SEPARATOR.join(key))[:16], 16) for key in both.select(PAIR).iter_rows()]
    dots = both.with_columns(pl.Series("hash", hashes, pl.UInt64)).select(*DOTS.columns)
    return fewest_dots(dots), both.height


def fewest_dots(dots: pl.DataFrame) -> pl.DataFrame:
    """Keep the dots with the smallest hashes, in their order."""
    return dots.sort("hash", "x", "y").head(MOST_DOTS)
