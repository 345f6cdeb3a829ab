"""How shares, differences and Markdown tables are written."""

import pytest

from tasks.formatting import markdown_table, percent


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0%"), (0.0001, "<0.1%"), (0.031, "3.1%"), (0.5, "50%"), (0.9999, ">99.9%"), (1.0, "100%")],
)
def test_a_share_is_never_rounded_to_none_or_all(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_a_cell_cannot_break_its_table() -> None:
    table = markdown_table(["name"], [["a|b\nc <script>"]])
    assert table.splitlines()[-1] == r"| a\|b c &lt;script> |"
