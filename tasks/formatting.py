"""How figures and tables are written in pages for people: shares, differences, Markdown tables."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out as a Markdown table; what would break a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def percent(share: float) -> str:
    """Show a share; small ones with a decimal, and never 0% or 100% for what is not.

    >>> percent(0.0312), percent(0.57), percent(0.9999)
    ('3.1%', '57%', '>99.9%')
    """
    if 0 < share < 0.0005:  # noqa: PLR2004 - would be shown as 0.0%
        return "<0.1%"
    if 0.9995 <= share < 1:  # noqa: PLR2004 - would be shown as 100%
        return ">99.9%"
    return f"{share:.1%}" if 0 < share < 0.1 or 0.99 < share < 1 else f"{share:.0%}"  # noqa: PLR2004 - where a decimal tells


def signed(value: float) -> str:
    """Show a difference with its sign, three decimals.

    >>> signed(-0.0312), signed(0.0)
    ('−0.031', '0.000')
    """
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text.replace("-", "−")
