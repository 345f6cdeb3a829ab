"""Hash texts, clean them, and join title and text.

Two texts count as the same where their hashes are equal, whatever their ids.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

SEPARATOR = "\x1f"  # the unit separator: titles and texts never contain it after ingest


def hash_text(text: str) -> str:
    """Hash a query's text (32 hexadecimal digits of SHA-256)."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def hash_passage(title: str, text: str) -> str:
    """Hash the title and text of a passage (32 hexadecimal digits)."""
    return hash_text(title + SEPARATOR + text)


def normalise(text: str) -> str:
    """Return a text without the differences that say nothing: Unicode form, case, and the number of spaces.

    >>> normalise("How  do I boil an EGG?")
    'how do i boil an egg?'
    """
    if text.isascii() and "  " not in text and not _has_other_spaces(text):
        return text.lower().strip()
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _has_other_spaces(text: str) -> bool:
    """Tell whether an ASCII text has white space other than the space. Looking for each takes a tenth of a regex."""
    return (
        "\n" in text
        or "\t" in text
        or "\r" in text
        or "\v" in text
        or "\f" in text
        or "\x1c" in text
        or "\x1d" in text
        or "\x1e" in text
        or "\x1f" in text
    )


def hash_shown(title: str, text: str) -> str:
    """Hash a passage as it is shown: equal where title and text are cut differently (32 hexadecimal digits)."""
    return hash_text(show_passage(title, text).strip())  # a title without text is shown with a space after it


def hash_guard(title: str, text: str) -> str:
    """Hash the normalised form of a passage as it is shown: equal also where case and spaces differ."""
    return hash_text(normalise(show_passage(title, text)))


def combine_hashes(hashes: Iterable[str]) -> str:
    """Hash several hashes in the given order. Sort them first where the order has no meaning."""
    return hash_text(SEPARATOR.join(hashes))


def part_of(text_hash: str, parts: int) -> int:
    """Return the part (0 to `parts` - 1) of a query or passage. It depends on its text alone."""
    return int(text_hash, 16) % parts


def show_passage(title: str, text: str) -> str:
    """Join title and text, the form in which encoder, judge, trainer and people read a passage."""
    return f"{title} {text}" if title else text


# All control characters except tab and line ends; and lone surrogates, which polars cannot store.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """Replace control characters except tabs and line ends by spaces, and strip the ends. Nothing else changes."""
    return (text if text.isprintable() else _CONTROL.sub(" ", text)).strip()
