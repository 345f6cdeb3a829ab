"""Read judgements and runs: qrels in the forms of BEIR, MTEB and TREC, and TREC runs.

A header names the columns, in any order and with others beside them. Without one, three columns are query, passage and
grade, four are TREC's (the second is not read), and six are a run's.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.data.layouts.fields import DOC_ID, QUERY_ID, RELEVANCE, FieldNames
from tasks.data.layouts.values import INT32, identifier, number_of
from tasks.data.reading.objects import parsed
from tasks.data.reading.records import Given, Judgement
from tasks.lines import Problem, ReadLimits, UnusableError, read_lines

_LIMITS = ReadLimits()
_NAMES = FieldNames()
_TREC_COLUMNS = 4
_QUERY_NAMES = (*QUERY_ID, "query", "topic", "topic_id")
_DOC_NAMES = ("corpus-id", "corpus_id", "docid", "doc_id", "document_id", "docno", "pid", "passage_id", "doc", "did")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_EXPECTED = "query-id, corpus-id and score, TREC's four columns, or a header that names the columns"


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where query, passage and grade stand in a line. grade: None where there is no such column. comma: separates."""

    query: int
    document: int
    grade: int | None
    comma: bool


def read_qrels(
    path: Path, name: str, limits: ReadLimits = _LIMITS, names: FieldNames = _NAMES
) -> Iterator[Judgement | Problem]:
    """Read the lines of a qrels file. Each has the grade 1 if no column holds grades.

    Args:
        path: of the file.
        name: of it in problems.
        limits: what is over them becomes a problem.
        names: the names of the columns, where they are not the known ones.
    """
    lines = read_lines(path, name, limits)
    columns: _Columns | None = None

    def judgement(where: str, line: str) -> Judgement:
        return _judgement(where, _cells(line, columns is not None and columns.comma), columns)

    for item in lines:
        if columns is None and not isinstance(item, Problem):
            header = _header(item[1], names)
            columns = header or _headerless(item[1])
            if header:
                continue
        yield from parsed(iter([item]), judgement)


def judgements_of(
    objects: Iterator[tuple[str, dict[str, object]] | Problem], names: FieldNames = _NAMES
) -> Iterator[Judgement | Problem]:
    """Read objects with the columns of qrels as their keys, as parquet and JSON lines hold them."""

    def judgement(where: str, found: dict[str, object]) -> Judgement:
        columns = _named(tuple(found), names)
        if columns is None:
            raise UnusableError("wrong_type", f"it has {', '.join(found)[:200]}, expected {_EXPECTED}")
        return _judgement(where, tuple(found.values()), columns)

    return parsed(objects, judgement)


def read_run(path: Path, name: str, limits: ReadLimits = _LIMITS) -> Iterator[Given | Problem]:
    """Read the lines `query Q0 passage rank score tag` of a TREC run as given candidates."""
    return parsed(read_lines(path, name, limits), _given)


def _given(where: str, line: str) -> Given:
    match _cells(line, comma=False):
        case [query, _, document, place, score, _]:
            pass
        case [query, _, document, place, score]:  # a tag is missing
            pass
        case cells:
            raise UnusableError(
                "wrong_type", f"{len(cells)} columns, expected a run's: query Q0 passage rank score tag"
            )
    rank, value = _number(place), _number(score)
    if rank is None or not rank.is_integer() or value is None:
        raise UnusableError("wrong_type", f"rank {place[:40]!r} and score {score[:40]!r} are not both numbers")
    return Given(where, identifier(query, "query"), identifier(document, "passage"), int(rank), value)


def _header(line: str, names: FieldNames) -> _Columns | None:
    """Read the columns' names; None where the line is no header."""
    comma = "\t" not in line and line.count(",") > 1
    return _named(_cells(line, comma), names, comma=comma)


def _named(cells: Sequence[str], names: FieldNames, *, comma: bool = False) -> _Columns | None:
    lowered = [cell.strip().lower() for cell in cells]

    def place(given: str | None, known: Sequence[str]) -> int | None:
        wanted = [given.lower()] if given else known
        return next((lowered.index(name) for name in wanted if name in lowered), None)

    document = place(names.doc_id, [name for name in (*_DOC_NAMES, *DOC_ID) if name not in ("id", "_id")])
    query, grade = place(names.query_id, _QUERY_NAMES), place(names.relevance, RELEVANCE)
    return None if query is None or document is None else _Columns(query, document, grade, comma)


def _headerless(line: str) -> _Columns | None:
    """Tell TREC's columns from others by the first line; None where they are not known."""
    comma = "\t" not in line and line.count(",") > 1
    cells = _cells(line, comma)
    counted = len(cells) == _TREC_COLUMNS and _number(cells[3]) is not None
    second, third = (cells[1].upper(), cells[2]) if counted else ("", "")
    is_trec = counted and (second == "Q0" or _number(second) is not None or _number(third) is None)
    if is_trec:
        return _Columns(0, 2, 3, comma)
    return _Columns(0, 1, 2, comma) if len(cells) > 2 else None  # noqa: PLR2004 - the last of three


def _cells(line: str, comma: bool) -> list[str]:
    """Split a line at tabs, else at commas where the file has these, else at blanks; quotes around a cell are removed.

    A cell that only begins with a quotation mark is taken as it is: TREC's tools do not quote.
    """
    if "\t" not in line and comma:
        return next(csv.reader([line]))
    cells = line.split("\t") if "\t" in line else line.split()
    return [cell[1:-1].replace('""', '"') if _QUOTED.fullmatch(cell) else cell for cell in cells]


def _judgement(where: str, cells: Sequence[object], columns: _Columns | None) -> Judgement:
    if columns is None or max(columns.query, columns.document, columns.grade or 0) >= len(cells):
        raise UnusableError("wrong_type", f"{len(cells)} columns, expected {_EXPECTED}")
    query_id = identifier(cells[columns.query], "query-id")
    doc_id = identifier(cells[columns.document], "corpus-id")
    if columns.grade is None:
        return Judgement(where, query_id, doc_id, 1)
    said = cells[columns.grade]
    score = _number(said) if isinstance(said, str) else number_of(said)
    if score is None or not score.is_integer() or abs(score) >= INT32:
        raise UnusableError("wrong_type", f"score {str(said).strip()[:40]!r} is no whole number")
    return Judgement(where, query_id, doc_id, int(score))


def _number(text: str) -> float | None:
    try:
        return number_of(float(text))
    except ValueError:
        return None
