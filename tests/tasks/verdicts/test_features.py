"""Joining features and the scores of tiers."""

import polars as pl
import pytest

from tasks.schemas import FEATURES
from tasks.verdicts.features import join_scores
from tests.tasks.verdicts.fitting.pairs import make_pairs
from tests.tasks.verdicts.judged import verdicts


def features() -> pl.DataFrame:
    pairs = make_pairs(queries=1, per_query=3).select(*FEATURES.columns)
    return pairs.with_columns(query_id=pl.lit("q1"), doc_id=pl.Series(["a", "b", "c"]))


def test_a_pair_has_one_score_column_per_tier_and_null_where_it_was_not_asked_or_not_read() -> None:
    said = pl.concat(
        [
            verdicts([("q1", "a", "relevant", 0.9), ("q1", "b", "unparsed", None)], "weak"),
            verdicts([("q1", "c", "relevant", 0.7), ("q9", "a", "relevant", 0.7)], "strong"),
            verdicts([("q1", "a", "relevant", 0.7)], "similarity"),
        ]
    )
    wide = join_scores(features(), said, ["weak", "strong"])
    assert wide.columns == [*FEATURES.columns, "score_weak", "score_strong"]
    assert wide["score_weak"].to_list() == [0.9, None, None]
    assert wide["score_strong"].to_list() == [None, None, 0.7]


def test_a_score_that_is_not_a_number_counts_as_not_read() -> None:
    said = verdicts([("q1", "a", "relevant", float("nan"))], "weak")
    assert join_scores(features(), said, ["weak"])["score_weak"].to_list() == [None, None, None]


def test_without_an_encoder_the_cosines_are_null() -> None:
    wide = join_scores(features().select("dataset", "query_id", "doc_id"), verdicts([], "weak"), ["weak"])
    assert dict(wide.schema) == {**FEATURES.columns, "score_weak": pl.Float64}
    assert wide["to_query"].null_count() == 3


def test_a_pair_that_one_tier_judged_twice_is_refused() -> None:
    said = verdicts([("q1", "a", "relevant", 0.9), ("q1", "a", "relevant", 0.9)], "weak")
    with pytest.raises(ValueError, match="verdicts of tier 'weak': one row per"):
        join_scores(features(), said, ["weak"])
    with pytest.raises(ValueError, match="features: one row per"):
        join_scores(pl.concat([features()] * 2), verdicts([], "weak"), [])
