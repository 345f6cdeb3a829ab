"""The plots of the report: bins, ticks and marks."""

from typing import Any
from xml.etree import ElementTree

import pytest

from tasks.report import plots
from tasks.report import plots as plots_module
from tests.tasks.records import mutable_records


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


def drawn(svg: str) -> list[str]:
    """Each element of a plot: its name, the values of its attributes, and its text in quotes."""
    return [
        " ".join([item.tag, *item.attrib.values(), *([f'"{item.text}"'] if item.text else [])])
        for item in ElementTree.fromstring(svg).iter()
    ]


def test_a_histogram_has_a_bar_for_each_bin_that_holds_something() -> None:
    svg = plots.histogram(plots.bin_values([-0.5, 0, 0, 0.3], -1, 1, 3), label="of x", x_title="x", y_title="queries")
    assert drawn(svg) == [
        "svg 0 0 440 230 img of x",
        "line 44 192 428 192 axis",
        "line 44 131.33 428 131.33 grid",
        "line 44 70.67 428 70.67 grid",
        "line 44 10 428 10 grid",
        'text 38 196 end "0"',
        'text 38 135.33 end "1"',
        'text 38 74.67 end "2"',
        'text 38 14 end "3"',
        'text 11 101 middle axis-title rotate(-90 11 101.0) "queries"',
        "g fill-accent",
        'title "−1 to −0.333333: 1"',
        "rect 44.8 131.33 126.4 60.67 1.5",
        "g fill-accent",
        'title "−0.333333 to 0.333333: 3"',
        "rect 172.8 10 126.4 182 1.5",
        "line 44 192 428 192 axis",
        'text 44 207 middle "−1"',
        'text 140 207 middle "−0.5"',
        'text 236 207 middle "0"',
        'text 332 207 middle "0.5"',
        'text 422 207 middle "1"',
        'text 236 225 middle axis-title "x"',
    ]


def test_counts_have_a_bar_centred_on_each_number_and_no_number_over_an_empty_one() -> None:
    svg = plots.counts({0: 3, 2: 1, 4: 2}, label="of x", x_title="x", y_title="queries", cut=(1, "cut"))
    assert drawn(svg) == [
        "svg 0 0 440 300 img of x",
        "line 44 262 428 262 axis",
        "line 44 187.33 428 187.33 grid",
        "line 44 112.67 428 112.67 grid",
        "line 44 38 428 38 grid",
        'text 38 266 end "0"',
        'text 38 191.33 end "1"',
        'text 38 116.67 end "2"',
        'text 38 42 end "3"',
        'text 11 150 middle axis-title rotate(-90 11 150.0) "queries"',
        "g fill-none",
        'title "3 with 0"',
        "rect 50.14 38 64.51 224 1.5",
        'text 82.4 34 middle value "3"',
        'text 82.4 277 middle "0"',
        "g fill-accent",
        'title "0 with 1"',
        "rect 126.94 262 64.51 0 1.5",
        'text 159.2 277 middle "1"',
        "g fill-cut",
        'title "1 with 2"',
        "rect 203.74 187.33 64.51 74.67 1.5",
        'text 236 183.33 middle value "1"',
        'text 236 277 middle "2"',
        "g fill-cut",
        'title "0 with 3"',
        "rect 280.54 262 64.51 0 1.5",
        'text 312.8 277 middle "3"',
        "g fill-cut",
        'title "2 with 4"',
        "rect 357.34 112.67 64.51 149.33 1.5",
        'text 389.6 108.67 middle value "2"',
        'text 389.6 277 middle "4"',
        'text 236 295 middle axis-title "x"',
        "line 197.6 10 197.6 262 cut",
        'text 202.6 18 start name halo "cut"',
    ]


def test_ridges_are_drawn_above_each_other_each_to_its_own_height() -> None:
    svg = plots.ridges(
        [
            ("relevant", "found", plots.bin_values([0.2, 0.9, 0.8], 0, 1, 2)),
            ("unsure", "open", plots.bin_values([], 0, 1, 2)),
        ],
        label="of x",
        x_title="score",
    )
    assert drawn(svg) == [
        "svg 0 0 330 170 img of x",
        "line 6 64 324 64 axis",
        "g fill-relevant",
        'title "found, 0 to 0.5: 1"',
        "rect 6.6 43 157.8 21 1.5",
        "g fill-relevant",
        'title "found, 0.5 to 1: 2"',
        "rect 165.6 22 157.8 42 1.5",
        "rect 6 6 9 9 2 fill-relevant",
        'text 20 14 start name "found  3"',
        "line 6 130 324 130 axis",
        "rect 6 72 9 9 2 fill-unsure",
        'text 20 80 start name "open  0"',
        "line 6 132 324 132 axis",
        'text 12 147 middle "0"',
        'text 69.6 147 middle "0.2"',
        'text 133.2 147 middle "0.4"',
        'text 196.8 147 middle "0.6"',
        'text 260.4 147 middle "0.8"',
        'text 318 147 middle "1"',
        'text 165 165 middle axis-title "score"',
    ]


def test_an_interval_has_whiskers_where_it_has_bounds_and_a_colour_where_it_is_clear() -> None:
    svg = plots.intervals(
        [
            plots.Interval("A", "up", 0.1, 0.05, 0.15, is_clear=True),
            plots.Interval("B", "open", -0.05, None, None, is_clear=False),
            plots.Interval("C", "down", -0.05, -0.06, -0.04, is_clear=True),
        ],
        label="of x",
        x_title="difference",
    )
    assert drawn(svg) == [
        "svg 0 0 440 182 img of x",
        "line 93.81 4 93.81 144 grid",
        "line 220 4 220 144 grid",
        "line 346.19 4 346.19 144 grid",
        "line 220 2 220 144 zero",
        "g interval relevant",
        'title "A: up"',
        "line 283.1 34 409.29 34 whisker",
        "line 283.1 30 283.1 38 whisker",
        "line 409.29 30 409.29 38 whisker",
        "circle 346.19 34 5",
        'text 8 20 start name halo "A"',
        'text 432 20 end value halo "up"',
        "g interval neutral",
        'title "B: open"',
        "circle 156.9 80 5",
        'text 8 66 start name halo "B"',
        'text 432 66 end value halo "open"',
        "g interval unsure",
        'title "C: down"',
        "line 144.29 126 169.52 126 whisker",
        "line 144.29 122 144.29 130 whisker",
        "line 169.52 122 169.52 130 whisker",
        "circle 156.9 126 5",
        'text 8 112 start name halo "C"',
        'text 432 112 end value halo "down"',
        "line 8 144 432 144 axis",
        'text 93.81 159 middle "−0.1"',
        'text 220 159 middle "0"',
        'text 346.19 159 middle "+0.1"',
        'text 220 177 middle axis-title "difference"',
    ]


def test_each_kind_of_point_has_a_shape_of_its_own() -> None:
    svg = plots.scatter(
        [plots.Dot(0.2, 0.7, "relevant"), plots.Dot(0.5, 0.5, "unsure"), plots.Dot(1, 0, "unparsed")],
        label="of x",
        x_title="x",
        y_title="y",
    )
    assert drawn(svg) == [
        "svg 0 0 440 300 img of x",
        "line 44 262 428 262 axis",
        "line 44 211.6 428 211.6 grid",
        "line 44 161.2 428 161.2 grid",
        "line 44 110.8 428 110.8 grid",
        "line 44 60.4 428 60.4 grid",
        "line 44 10 428 10 grid",
        'text 38 266 end "0"',
        'text 38 215.6 end "0.2"',
        'text 38 165.2 end "0.4"',
        'text 38 114.8 end "0.6"',
        'text 38 64.4 end "0.8"',
        'text 38 14 end "1"',
        'text 11 136 middle axis-title rotate(-90 11 136.0) "y"',
        "line 44 262 428 262 axis",
        'text 44 277 middle "0"',
        'text 120.8 277 middle "0.2"',
        'text 197.6 277 middle "0.4"',
        'text 274.4 277 middle "0.6"',
        'text 351.2 277 middle "0.8"',
        'text 422 277 middle "1"',
        'text 236 295 middle axis-title "x"',
        "path M116.8 85.6a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z dot fill-relevant",
        "path M236.0 131.40L240.40 139.40H231.60z dot fill-unsure",
        "path M425.0 259.00h6v6h-6z dot fill-unparsed",
    ]


def test_a_histogram_of_nothing_is_its_axes() -> None:
    svg = plots.histogram([], label="of x", x_title="x", y_title="queries")
    assert drawn(svg) == [
        "svg 0 0 440 230 img of x",
        "line 44 192 428 192 axis",
        "line 44 10 428 10 grid",
        'text 38 196 end "0"',
        'text 38 14 end "1"',
        'text 11 101 middle axis-title rotate(-90 11 101.0) "queries"',
        "line 44 192 428 192 axis",
        'text 44 207 middle "0"',
        'text 120.8 207 middle "0.2"',
        'text 197.6 207 middle "0.4"',
        'text 274.4 207 middle "0.6"',
        'text 351.2 207 middle "0.8"',
        'text 422 207 middle "1"',
        'text 236 225 middle axis-title "x"',
    ]


def test_many_numbers_have_every_second_one_named_and_a_cut_far_to_the_right_is_named_on_its_left() -> None:
    svg = plots.counts({0: 1, 16: 1}, label="of x", x_title="x", y_title="queries", cut=(12, "cut"))
    items = drawn(svg)
    assert [item.split()[-1] for item in items if " 277 " in item] == [f'"{n}"' for n in range(0, 17, 2)]
    assert items[-2:] == ["line 337.65 10 337.65 262 cut", 'text 332.65 18 end name halo "cut"']
    left = plots.counts({0: 1}, label="of x", x_title="x", y_title="queries", cut=(16, "cut"))
    assert drawn(left)[-1] == 'text 401.67 18 end name halo "cut"'


def test_all_text_is_escaped() -> None:
    hostile = '<script>&"'
    svg = plots.ridges([("relevant", hostile, plots.bin_values([0.5], 0, 1, 1))], label=hostile, x_title=hostile)
    assert "<script" not in svg
    assert ElementTree.fromstring(svg).get("aria-label") == hostile


def test_a_value_outside_the_bins_counts_in_the_outermost_one() -> None:
    assert [(bar.low, bar.high, bar.count) for bar in plots.bin_values([-3, 0.29999999999999999, 7], 0, 1, 10)][
        ::3
    ] == [
        (0.0, 0.1, 1),
        (pytest.approx(0.3), 0.4, 1),
        (pytest.approx(0.6), pytest.approx(0.7), 0),
        (0.9, 1.0, 1),
    ]


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [(0, 10, 10, range(11)), (0, 100, 5, range(0, 101, 20)), (0, 1e6, 4, (0, 5e5, 1e6)), (2, 1, 5, [2])],
)
def test_ticks_are_about_as_many_as_asked_for(low: float, high: float, about: int, expected: Any) -> None:
    assert plots.ticks(low, high, about) == list(expected)


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(plots_module) == set()
