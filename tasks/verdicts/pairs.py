"""Keys, checks and the band of scores, which escalation and decisions have in common."""

from collections.abc import Sequence

import polars as pl

PAIR = ["dataset", "query_id", "doc_id"]
ROW = ["query_hash", "positives_hash"]
QUESTION = [*ROW, "text_hash"]


def check_band(lower: float | None, upper: float | None) -> None:
    """Refuse a band with one bound, or with its bounds in the wrong order."""
    if (lower is None) != (upper is None):
        raise ValueError(f"lower and upper come together or not at all, got lower={lower} and upper={upper}")
    if lower is not None and upper is not None and lower > upper:
        raise ValueError(f"lower={lower} must not exceed upper={upper}")


def check_unique(frame: pl.DataFrame, table: str, key: Sequence[str] = PAIR) -> None:
    """Refuse a table in which a key comes twice."""
    doubled = frame.select(key).is_duplicated().sum()
    if doubled:
        raise ValueError(f"{table}: one row per ({', '.join(key)}) expected, {doubled} share theirs")


def is_in_band(lower: float | None, upper: float | None) -> pl.Expr:
    """Tell whether `score` is in a band, bounds included; never where there is no band or no score."""
    if lower is None or upper is None:
        return pl.lit(False)
    return pl.col("score").is_between(lower, upper).fill_null(False)
