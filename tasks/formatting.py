"""Format numbers and tables for pages that people read: shares, differences, Markdown tables."""

import re
from collections.abc import Sequence

# Characters that HTML does not allow or does not show: control characters, lone surrogates, non-characters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


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


def duration(seconds: float | None) -> str:
    """Format a duration in seconds for people.

    >>> duration(0.04), duration(7.21), duration(75), duration(4020)
    ('<0.1 s', '7.2 s', '1 min 15 s', '1 h 7 min')
    """
    if seconds is None:
        return "–"
    if seconds < 0.1:  # noqa: PLR2004 - shorter times need no digits
        return "<0.1 s"
    if round(seconds, 1) < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 - an hour


def printable(text: str) -> str:
    """Replace characters that HTML does not allow; a template escapes all others."""
    return _UNPRINTABLE.sub("\ufffd", text)


def clip(text: str, length: int) -> str:
    """Cut a long text after a word and mark the cut.

    >>> clip("one two three", 8), clip("one", 8)
    ('one two […]', 'one')
    """
    if len(text) <= length:
        return text
    end = text.rfind(" ", length // 2, length + 1)
    return text[: end if end > 0 else length].rstrip() + " […]"
