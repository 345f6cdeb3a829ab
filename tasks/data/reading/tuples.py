"""Read what is particular to sentence-transformers: labels, scores of a whole row, and rows that repeat their query."""

from collections.abc import Iterator

from tasks.data.layouts.values import number_of
from tasks.data.reading.records import Passage, Row
from tasks.lines import Problem, UnusableError


def label_of(value: object, name: str, positive_from: float | None) -> tuple[bool, float | None]:
    """Read a label: whether the passage is a positive, and its score where the label is one.

    >>> label_of(1, "label", None), label_of(0.7, "score", 0.5), label_of(False, "label", None)
    ((True, None), (True, 0.7), (False, None))

    Raises:
        UnusableError: `unclear_label`: it is no number, or neither 0 nor 1 and the settings give no threshold.
    """
    if isinstance(value, bool):
        return value, None
    number = number_of(value)
    if number is None and isinstance(value, str):
        number = _parsed(value)
    if number is None:
        raise UnusableError("unclear_label", f"{name} is {value!r:.40}, expected a number")
    if positive_from is not None:
        return number >= positive_from, None if number.is_integer() else number
    if number not in (0, 1):
        raise UnusableError(
            "unclear_label",
            f"{name} is {number:g}, expected 0 or 1. Set ingest.positive_from to the lowest value of a positive, or "
            f"ingest.fields.labels to none if {name} is no label",
        )
    return number == 1, None


def bare_scores(value: object, positives: int, negatives: int) -> tuple[list[float | None], list[float | None]] | None:
    """Read the scores of a row: of its positives, then of its negatives. None where the value is no such list.

    `mine_hard_negatives(output_scores=True)` writes `[positive, negative_1, …]`.
    """
    if not isinstance(value, list) or len(value) != positives + negatives:
        return None
    scores = [number_of(one) for one in value]
    return None if None in scores else (scores[:positives], scores[positives:])


def merged(rows: Iterator[Row | Problem], most: int) -> Iterator[Row | Problem]:
    """Join rows that follow each other and have the same query, where the query has no id of its own.

    A triplet is a row, so a query with three positives or negatives has three rows. Each passage of a side is kept
    once. At most `most` passages are in one row.
    """
    last: Row | None = None
    seen: set[tuple[bool, str]] = set()
    for item in rows:
        if isinstance(item, Problem):
            yield item
            continue
        if last is not None and _same_query(last, item) and _size(last) + _size(item) <= most:
            _join(last, item, seen)
            continue
        if last is not None:
            yield last
        last, seen = item, {(positive, one.doc_id) for positive, side in _sides(item) for one in side}
    if last is not None:
        yield last


def _same_query(one: Row, other: Row) -> bool:
    unnamed = one.unnamed and other.unnamed
    return unnamed and (one.query, one.dataset, one.extras) == (other.query, other.dataset, other.extras)


def _sides(row: Row) -> tuple[tuple[bool, list[Passage]], tuple[bool, list[Passage]]]:
    return (True, row.positives), (False, row.negatives)


def _size(row: Row) -> int:
    return len(row.positives) + len(row.negatives)


def _join(row: Row, other: Row, seen: set[tuple[bool, str]]) -> None:
    """Add to the lists of a row what another one has and `seen` has not."""
    for (positive, side), (_, more) in zip(_sides(row), _sides(other), strict=True):
        for passage in more:
            if (positive, passage.doc_id) not in seen:
                seen.add((positive, passage.doc_id))
                side.append(passage)
    row.problems.extend(other.problems)
    row.repeats.extend((other.where, *other.repeats))


def _parsed(text: str) -> float | None:
    try:
        return number_of(float(text))
    except ValueError:
        return None
