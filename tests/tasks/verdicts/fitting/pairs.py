"""Synthetic labelled pairs for the tests of combiners and calibrations: the true P of each pair is known."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from tasks.schemas import FEATURES
from tasks.verdicts.fitting.folds import expit


def make_pairs(
    queries: int = 60, per_query: int = 20, seed: int = 0, datasets: Sequence[str] = ("d",), shift: float = 0.0
) -> pl.DataFrame:
    """Make a wide frame with the columns `relevant` and `truth` (the P by which `relevant` was drawn).

    A query has 1, 3 or 5 positives. `z` decides relevance; each cosine to a positive is `z` with noise of its own, so
    the largest of several is larger by chance. `score_weak` tells z with noise, `score_strong` tells the label with
    some errors. Datasets differ by `shift` in their log-odds.
    """
    rng = np.random.default_rng(seed)
    pairs = queries * per_query
    query = np.repeat(np.arange(queries), per_query)
    positives = np.array([1, 3, 5])[query % 3]
    z, place = rng.normal(size=pairs), query % len(datasets)
    truth = expit(1.5 * z - 0.5 + shift * place)
    relevant = rng.random(pairs) < truth
    cosines = 0.4 + 0.1 * z[:, None] + 0.1 * rng.normal(size=(pairs, 5))
    used = np.where(np.arange(5) < positives[:, None], cosines, np.nan)
    names = [f"q{n}" for n in query]
    frame = pl.DataFrame(
        {
            "dataset": np.array(datasets)[place],
            "query_id": names,
            "doc_id": [f"d{n}" for n in range(pairs)],
            "query_hash": names,
            "text_hash": [f"d{n}" for n in range(pairs)],
            "to_query": 0.3 + 0.05 * z + 0.05 * rng.normal(size=pairs),
            "to_positive": np.nanmax(used, axis=1),
            "to_positives": np.nanmean(used, axis=1),
            "positive_to_query": 0.5,
            "positives": positives,
            "rank": np.tile(np.arange(1, per_query + 1), queries),
            "missed_words": None,
            "shared_triples": None,
        },
    ).cast({name: dtype for name, dtype in FEATURES.columns.items()})
    return frame.with_columns(
        score_weak=expit(1.5 * z + 0.5 * rng.normal(size=pairs)),
        score_strong=expit(np.where(relevant, 2.0, -2.0) + rng.normal(size=pairs)),
        relevant=pl.Series(relevant),
        truth=pl.Series(truth),
    )


def labels_of(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.select("dataset", "query_id", "doc_id", "relevant")
