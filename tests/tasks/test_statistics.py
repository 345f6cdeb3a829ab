"""Intervals hold their textbook values, and what all estimates share."""

import pytest

from tasks import statistics as statistics_module
from tasks.statistics import Interval, check_lengths, quantile_of_t, wilson
from tests.tasks.records import mutable_records


def test_wilsons_interval_holds_its_textbook_values() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_few_groups_widen_an_interval_and_fewer_than_five_no_further() -> None:
    assert quantile_of_t(float("inf")) == pytest.approx(1.95996, abs=1e-5)
    assert quantile_of_t(21) == pytest.approx(2.08596, abs=1e-5)
    assert quantile_of_t(2) == quantile_of_t(5) == pytest.approx(2.77645, abs=1e-5)
    assert quantile_of_t(float("inf"), 0.5) == pytest.approx(0.67449, abs=1e-5)


def test_columns_of_different_lengths_are_refused() -> None:
    check_lengths("kappa", [1], [2])
    with pytest.raises(ValueError, match=r"kappa: columns of equal length expected, got lengths \[1, 2\]"):
        check_lengths("kappa", [1], [1, 2])


def test_an_interval_is_rounded_for_json() -> None:
    assert Interval(0.123456, None, 1.0).rounded() == {"value": 0.1235, "low": None, "high": 1.0}
    assert Interval(0.123456, 0.1, 1.0).rounded(2) == {"value": 0.12, "low": 0.1, "high": 1.0}


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(statistics_module) == set()
