"""The plots of the report: bins, ticks and marks."""

import pytest

from tasks.report import plots


def test_every_value_falls_into_one_bin_the_last_one_closed() -> None:
    assert [bar.count for bar in plots.bin_values([0.0, 0.25, 0.5, 0.75, 1.0], 0, 1, 4)] == [1, 1, 1, 2]


def test_the_bin_in_the_middle_of_an_odd_number_holds_zero() -> None:
    bars = plots.bin_values([0.0, 0.0, -0.5], -1, 1, 5)
    assert [bar.count for bar in bars] == [0, 1, 2, 0, 0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0, [0]),
        (-0.05, 0.05, [-0.04, -0.02, 0, 0.02, 0.04]),
        (0, 61, [0, 20, 40, 60]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert plots.ticks(low, high) == pytest.approx(expected)


def test_the_cut_is_drawn_between_the_last_number_kept_and_the_first_dropped() -> None:
    svg = plots.counts({0: 5, 9: 1}, label="l", x_title="x", y_title="y", cut=(7, "more than 7: dropped"))
    assert svg.count('class="fill-cut"') == 2
    assert "more than 7: dropped" in svg
