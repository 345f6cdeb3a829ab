"""How shares, differences and Markdown tables are written."""

import pytest

from tasks.formatting import markdown_table, percent, printable, signed


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0%"), (0.0001, "<0.1%"), (0.031, "3.1%"), (0.5, "50%"), (0.9999, ">99.9%"), (1.0, "100%")],
)
def test_a_share_is_never_rounded_to_none_or_all(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_a_cell_cannot_break_its_table() -> None:
    table = markdown_table(["name"], [["a|b\nc <script>"]])
    assert table.splitlines()[-1] == r"| a\|b c &lt;script> |"


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.00049, "<0.1%"), (0.0005, "0.1%"), (0.0994, "9.9%"), (0.1, "10%"), (0.99, "99%"), (0.991, "99.1%"),
        (0.9994, "99.9%"), (0.9995, ">99.9%"), (0.555, "56%"),
    ],
)  # fmt: skip
def test_a_decimal_is_shown_where_it_tells_something(share: float, shown: str) -> None:
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0312, "+0.031"), (-0.0312, "−0.031"), (0.0004, "0.000"), (-0.0004, "0.000"), (1.0, "+1.000")],
)
def test_a_difference_has_its_sign_and_nothing_has_none(value: float, shown: str) -> None:
    assert signed(value) == shown


def test_a_table_has_its_header_a_rule_and_its_rows() -> None:
    assert markdown_table(["a", "b"], [["1", "2 \\ 3"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 \\\\ 3 |"


def test_what_html_does_not_allow_is_replaced() -> None:
    assert printable("a\x00b\ud800c\uffffd <&>") == "a\ufffdb\ufffdc\ufffdd <&>"
