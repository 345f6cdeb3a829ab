"""Format numbers and tables for pages that people read: shares, differences, Markdown tables."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a Markdown table. Characters that would break a cell are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def percent(share: float) -> str:
    """Format a share as a percentage. Near 0% and 100% it has a decimal, and only 0 and 1 are shown as 0% and 100%.

    >>> percent(0.0312), percent(0.57), percent(0.9999)
    ('3.1%', '57%', '>99.9%')
    """
    if 0 < share < 0.0005:  # noqa: PLR2004 - would be shown as 0.0%
        return "<0.1%"
    if 0.9995 <= share < 1:  # noqa: PLR2004 - would be shown as 100%
        return ">99.9%"
    return f"{share:.1%}" if 0 < share < 0.1 or 0.99 < share < 1 else f"{share:.0%}"  # noqa: PLR2004 - where a decimal is needed


def signed(value: float) -> str:
    """Format a difference with its sign and three decimals.

    >>> signed(-0.0312), signed(0.0)
    ('−0.031', '0.000')
    """
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text.replace("-", "−")
