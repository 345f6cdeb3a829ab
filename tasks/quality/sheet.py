"""Read a labelled sheet (`sheet.csv` or JSON lines) and check each row. Each row is a label, blank, or a reject.

A row names its pair by the ids of the sheet and must have the same texts. If one column was sorted alone, or a text was
changed, the label is for something else. A row of JSON lines may also have texts and no ids.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from tasks.lines import ReadLimits
from tasks.quality.sample import as_given
from tasks.schemas import HUMAN, LABELS, REJECTS
from tasks.texts import clean, hash_passage, hash_text

STAGE = "labels"
_IDS = ("dataset", "query_id", "doc_id")
_DELIMITERS = ",;\t"
_LONGEST_LINE = ReadLimits().line_bytes  # characters of a row of JSON lines
_SHOWN = 80  # characters of a wrong value that a reject shows
_REMEDY = "save the sheet as CSV in UTF-8 (in Excel: `CSV UTF-8`), with its first line as it was"

Pair = tuple[str, str, str]


class SheetError(ValueError):
    """The file cannot be read as a sheet."""


@dataclass(frozen=True)
class Shown:
    """The hashes and texts of a pair, as on its sheet."""

    query_hash: str
    text_hash: str
    query: str
    passage: str


@dataclass(frozen=True)
class Origin:
    """Where labels come from: the curation of the sheet, and who labelled it and when, if the rows do not say so."""

    curation: str
    annotator: str
    at: str


@dataclass
class Checked:
    """The labels of a file, its number of blank and of repeated rows, and its rejects."""

    labels: pl.DataFrame = field(default_factory=HUMAN.empty)
    blank: int = 0
    repeated: int = 0
    rejects: pl.DataFrame = field(default_factory=REJECTS.empty)


class _Reject(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_rows(data: bytes) -> list[Mapping[str, Any]]:
    """Read the rows of a sheet: CSV with commas, semicolons or tabs, or JSON lines. An invalid row is `{}`.

    Raises:
        SheetError: it is not UTF-8, its first line does not name the columns, or a machine made the labels.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SheetError(f"UTF-8 expected, byte {error.start} is not UTF-8; {_REMEDY}") from error
    if text.lstrip().startswith("{"):
        rows = [_object(line) for line in text.split("\n") if line.strip()]
        _refuse_machine({name for row in rows for name in row})
        return rows
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a passage may be longer than the default limit
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    _refuse_machine(reader.fieldnames or ())
    missing = [name for name in (*_IDS, "query", "passage", "label") if name not in (reader.fieldnames or ())]
    if missing:
        raise SheetError(f"the columns {', '.join(missing)} are missing from the first line; {_REMEDY}")
    return [_whole(row) for row in reader if any(row.values())]


def _refuse_machine(names: Collection[str]) -> None:
    """Refuse labels that a machine made: they must never count as labels of people."""
    if "made_by" in names:
        raise SheetError(
            "these are labels of a machine (column made_by), and only labels of people are imported; name the file in "
            "imported.path to use them as verdicts, or in gold.path to compare the judges with them"
        )


def _object(line: str) -> Mapping[str, Any]:
    if len(line) > _LONGEST_LINE:
        return {}
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _whole(row: Mapping[Any, Any]) -> Mapping[str, Any]:
    """Remove the apostrophes that the sheet added. A row with too few or too many cells becomes `{}`."""
    if None in row or None in row.values():
        return {}
    return {name: as_given(cell) for name, cell in row.items()}


def check(rows: list[Mapping[str, Any]], shown: Mapping[Pair, Shown], origin: Origin) -> Checked:
    """Check each row against the pairs as they were shown.

    If one person gave the same texts different labels, all of these rows are rejected, as it is not clear which one is
    meant.
    """
    found: dict[tuple[str, str, str], list[tuple[str, dict[str, str]]]] = {}
    rejects: list[tuple[str, str, str, str]] = []
    blank = 0
    for number, row in enumerate(rows, start=1):
        key = f"row {number}"
        try:
            label = _read(row, shown, origin)
        except _Reject as reject:
            rejects.append((STAGE, key, reject.reason, str(reject)))
            continue
        if label is None:
            blank += 1
            continue
        found.setdefault((label["query_hash"], label["text_hash"], label["annotator"]), []).append((key, label))
    kept, repeated = [], 0
    for entries in found.values():
        if len({label["label"] for _, label in entries}) == 1:
            kept.append(entries[0][1])
            repeated += len(entries) - 1
            continue
        said = ", ".join(f"{key}: {label['label']}" for key, label in entries)
        detail = f"the same texts have different labels ({said})"
        rejects += [(STAGE, key, "contradiction", detail) for key, _ in entries]
    kept.sort(key=lambda label: (label["query_hash"], label["text_hash"], label["annotator"]))
    return Checked(
        labels=pl.DataFrame(kept, schema=HUMAN.columns),
        blank=blank,
        repeated=repeated,
        rejects=pl.DataFrame(rejects, schema=REJECTS.columns, orient="row"),
    )


def _read(row: Mapping[str, Any], shown: Mapping[Pair, Shown], origin: Origin) -> dict[str, str] | None:
    """Return the label of one row; None where it is blank."""
    if not row:
        raise _Reject("broken_row", "a row with the columns of the first line expected, or one JSON object a line")
    cells = {name: _cell(row, name) for name in (*_IDS, "query", "passage", "title", "label", "annotator", "comment")}
    if not cells["label"]:
        return None
    label = re.sub(r"[\s-]+", "_", cells["label"].lower())
    if label not in LABELS:
        raise _Reject("unknown_label", f"{', '.join(LABELS)} expected, {cells['label'][:_SHOWN]!r} came")
    annotator = cells["annotator"] or origin.annotator
    if not annotator:
        raise _Reject("no_annotator", "nobody is named; give --annotator NAME")
    query_hash, text_hash = _hashes(cells, shown)
    return {
        "query_hash": query_hash,
        "text_hash": text_hash,
        "annotator": annotator,
        "label": label,
        "at": _time(_cell(row, "at"), origin.at),
        "curation": origin.curation,
        "comment": cells["comment"],
    }


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _Reject("wrong_type", f"{name}: a string expected, {type(value).__name__} came")
    return clean(str(value))


def _hashes(cells: Mapping[str, str], shown: Mapping[Pair, Shown]) -> tuple[str, str]:
    """Return the hashes of query and passage of a row: by its ids, if its texts fit, or else by its own texts."""
    pair = (cells["dataset"], cells["query_id"], cells["doc_id"])
    if not any(pair):
        if not (cells["query"] and cells["passage"]):
            raise _Reject("no_pair", "dataset, query_id and doc_id expected, or query and passage")
        return hash_text(cells["query"]), hash_passage(cells["title"], cells["passage"])
    found = shown.get(pair)
    if found is None:
        raise _Reject(
            "unknown_pair",
            f"{'/'.join(pair)} is on no sheet of this curation; leave the ids as they are (a spreadsheet may have "
            "turned them into numbers)",
        )
    for name, expected in (("query", found.query), ("passage", found.passage)):
        if cells[name] and _plain(cells[name]) != _plain(expected):
            raise _Reject("other_text", f"{'/'.join(pair)}: {name} is not the text that this row showed")
    return found.query_hash, found.text_hash


def _plain(text: str) -> str:
    """Remove what spreadsheets change: normalise letters and spaces, and drop leading apostrophes."""
    return " ".join(unicodedata.normalize("NFC", clean(text)).split()).lstrip("'")


def _time(given: str, otherwise: str) -> str:
    if not given:
        return otherwise
    try:
        return in_utc(datetime.fromisoformat(given))
    except (ValueError, OverflowError) as error:
        raise _Reject("wrong_time", f"at: ISO 8601 expected, {given[:_SHOWN]!r} came") from error


def in_utc(time: datetime) -> str:
    """Format a time as in labels: ISO 8601 in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def shown_on(sheet: bytes, pairs: pl.DataFrame) -> Iterator[tuple[Pair, Shown]]:
    """Yield the pairs of an unlabelled sheet with their texts and hashes.

    Args:
        sheet: the bytes of `sheet.csv`.
        pairs: candidates with their hashes, at least those on the sheet.
    """
    hashes = {
        tuple(ids): (query, text) for *ids, query, text in pairs.select(*_IDS, "query_hash", "text_hash").iter_rows()
    }
    for row in read_rows(sheet):
        pair = (row["dataset"], row["query_id"], row["doc_id"])
        if pair in hashes:
            yield pair, Shown(*hashes[pair], row["query"], row["passage"])
