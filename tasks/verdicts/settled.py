"""Put what a guarantee settled into the decisions, beside the verdicts of its oracle."""

import polars as pl

from tasks.schemas import SOURCE_JUDGE, VERDICTS
from tasks.verdicts.pairs import PAIR, check_unique

_SAID = ("judge", "state", "score", "grade", "preference", "call_id", "attempt")


def assure(decisions: pl.DataFrame, settled: pl.DataFrame, oracle: pl.DataFrame) -> pl.DataFrame:
    """Replace the decisions on pairs of a guarantee: by the oracle's verdict where it was asked, else by `settled`.

    A guarantee is about the oracle's own verdicts, so they are not fused with those of other tiers. What people called
    irrelevant stays as it is, and so do pairs that the guarantee is not about.

    Args:
        decisions: one per candidate.
        settled: verdicts of tier `guarantee`, from the stage `settle`.
        oracle: the verdicts of the oracle.

    Raises:
        ValueError: a pair is settled and was asked about too.
    """
    both = settled.join(oracle, on=PAIR, how="semi").height
    if both:
        raise ValueError(f"settled: pairs that nobody was asked about expected, {both} have a verdict of the oracle")
    said = pl.concat([settled.select(*VERDICTS.columns), oracle.select(*VERDICTS.columns)])
    check_unique(said, "settled and llm_verdicts")
    renamed = {name: f"_{name}" for name in _SAID}
    joined = decisions.join(said.select(*PAIR, *_SAID).rename(renamed), on=PAIR, how="left")
    replaced = pl.col("_state").is_not_null() & (pl.col("judge") != SOURCE_JUDGE)
    columns = [pl.when(replaced).then(f"_{name}").otherwise(name).alias(name) for name in _SAID]
    return joined.with_columns(columns).select(*VERDICTS.columns).sort(VERDICTS.key)
