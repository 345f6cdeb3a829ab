"""Hashes of texts: what a row *is*, whatever its id. The one place that decides what counts as the same text."""

import hashlib
import re
from collections.abc import Iterable

_SEPARATOR = "\x1f"  # the unit separator: titles and texts never contain it after ingest


def hash_text(text: str) -> str:
    """Hash a query's text (32 hexadecimal digits of SHA-256)."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def hash_passage(title: str, text: str) -> str:
    """Hash what the judge and the trainer see of a passage: title and text."""
    return hash_text(title + _SEPARATOR + text)


def combine_hashes(hashes: Iterable[str]) -> str:
    """Hash several hashes in the given order; sort first where the order means nothing."""
    return hash_text(_SEPARATOR.join(hashes))


def part_of(text_hash: str, parts: int) -> int:
    """Name the part that a query or a passage belongs to: by its text, so that it stays there whatever comes beside."""
    return int(text_hash, 16) % parts


def show_passage(title: str, text: str) -> str:
    """Join title and text as every reader of a passage sees it: encoder, judge, trainer and person."""
    return f"{title} {text}" if title else text


# Control characters but tab and line ends, and halves of surrogate pairs, which no table can hold.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """Replace control characters (not tabs and line ends) by spaces and strip; the rest stays as it is."""
    return (text if text.isprintable() else _CONTROL.sub(" ", text)).strip()
