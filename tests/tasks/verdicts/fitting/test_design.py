"""The columns of the regression."""

import numpy as np
import polars as pl
import pytest

from tasks.verdicts.fitting.design import matrix, similarity_columns, tier_columns
from tests.tasks.verdicts.fitting.pairs import make_pairs


def two_queries() -> pl.DataFrame:
    pairs = make_pairs(queries=2, per_query=2)
    return pairs.with_columns(
        to_query=pl.Series([0.2, 0.4, 0.6, 0.6]), positive_to_query=pl.Series([0.4, 0.4, 0.01, None])
    )


def test_columns_are_centred_within_the_query_and_relative_to_the_positive() -> None:
    found = similarity_columns(two_queries())
    assert found["to_query_centred"].to_list() == pytest.approx([-0.1, 0.1, 0, 0])
    assert found["relative"].to_list() == [pytest.approx(0.5), pytest.approx(1.0), 3.0, None]  # 0.6 / 0.1 is cut at 3
    assert found["positives"].to_list() == pytest.approx(np.log([1, 1, 3, 3]).tolist())
    assert found["rank"].to_list() == pytest.approx(np.log([1, 2, 1, 2]).tolist())


def test_a_tier_is_centred_over_the_pairs_of_the_query_that_it_answered() -> None:
    said = {"weak": np.array([1.0, np.nan, 2.0, 4.0])}
    found = tier_columns(two_queries(), said, centred=["weak"])
    assert found["weak"].to_list() == [1.0, None, 2.0, 4.0]
    assert found["weak_centred"].to_list() == [0.0, None, -1.0, 1.0]
    assert tier_columns(two_queries(), said, centred=()).columns == ["weak"]


def test_the_matrix_has_the_named_columns_and_nan_for_null() -> None:
    found = matrix(similarity_columns(two_queries()), ["to_query", "relative"])
    assert found.shape == (4, 2) and np.isnan(found[3, 1])
    assert matrix(similarity_columns(two_queries()), []).shape == (4, 0)
