"""Read input files line by line: Tevatron and RLHN rows, FlagEmbedding rows, BEIR folders.

A reader yields records, and a `Problem` for everything that it cannot use. It looks at one line at a time. Duplicates
and conflicts between lines are found by `tasks.data.ingest`.
"""

import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from tasks.texts import clean, hash_passage, hash_text

Format = Literal["tevatron", "flagembedding", "beir"]
_SPACE = re.compile(r"[\t\r\n]")
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_INT32 = 2**31
_QRELS_COLUMNS = 3
_Value = TypeVar("_Value")
_Record = TypeVar("_Record")
_SIGNS: tuple[tuple[Format, frozenset[str]], ...] = (
    ("tevatron", frozenset({"positive_passages", "negative_passages"})),
    ("flagembedding", frozenset({"pos", "neg"})),
)


class IngestError(ValueError):
    """The input as a whole cannot be used."""


class UnusableError(ValueError):
    """A field of one line cannot be used. The reader turns it into a `Problem`."""

    def __init__(self, reason: str, detail: str) -> None:
        """Store the reason (a constant in snake case) and the detail (a sentence for people)."""
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of the input that is left out or changed: one row of `rejects`.

    `key` is `file:line`, or `dataset/id` for a record made of several lines.
    """

    key: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage. Its texts are cleaned but not yet cut to the longest length."""

    where: str
    doc_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a BEIR folder."""

    where: str
    query_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """One line of a qrels file."""

    where: str
    query_id: str
    doc_id: str
    relevance: int


@dataclass(frozen=True, slots=True)
class Row:
    """A training row: a query with its positives and negatives.

    scores: of the negatives, in their order. problems: one for each passage of the row that is left out.
    """

    where: str
    dataset: str | None
    query_id: str
    query: str
    positives: list[Passage]
    negatives: list[Passage]
    scores: list[float | None]
    problems: list[Problem]


def identifier(value: object, name: str) -> str:
    """Read an id, a string or an integer. Line breaks and tabs become spaces.

    Raises:
        UnusableError: `no_id` where there is none, `wrong_type` for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise UnusableError("wrong_type", f"{name} is {_kind(value)}, expected a string")
    found = _SPACE.sub(" ", clean(value or ""))
    if not found:
        raise UnusableError("no_id", f"{name} is missing or empty")
    return found


def required_text(value: object, name: str, missing: str) -> str:
    """Read a required text.

    Raises:
        UnusableError: the reason given as `missing` where there is none; `empty_text` or `wrong_type`.
    """
    if value is None:
        raise UnusableError(missing, f"{name} is missing")
    found = _optional_text(value, name)
    if not found:
        raise UnusableError("empty_text", f"{name} is empty")
    return found


def read_lines(path: Path, name: str) -> Iterator[tuple[str, str] | Problem]:
    """Yield `(file:line, text)` for each line of a plain or gzipped UTF-8 file. Blank lines and a BOM are skipped."""
    number = 0
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        stream: Iterable[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw
        try:
            for number, line in enumerate(stream, start=1):
                data = line.removeprefix(_BOM) if number == 1 else line
                if data.strip():
                    yield _decode(data, f"{name}:{number}")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield Problem(f"{name}:{number + 1}", "broken_gzip", f"the rest of the file cannot be unpacked: {error}")
    if number == 0:
        yield Problem(f"{name}:1", "empty_file", "the file holds no line")


def _decode(data: bytes, where: str) -> tuple[str, str] | Problem:
    try:
        return where, data.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        return Problem(where, "not_utf8", f"byte 0x{data[error.start]:02x} at position {error.start + 1} is not UTF-8")


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, object]] | Problem]:
    """Yield `(file:line, object)` for the JSON object of each line."""
    return _parsed(read_lines(path, path.name), _object)


def _object(where: str, text: str) -> tuple[str, dict[str, object]]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise UnusableError("broken_json", f"{error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise UnusableError("broken_json", str(error)) from error
    if not isinstance(found, dict):
        raise UnusableError("wrong_type", f"the line holds {_kind(found)}, expected an object")
    return where, found


def _parsed(
    items: Iterator[tuple[str, _Value] | Problem], parse: Callable[[str, _Value], _Record]
) -> Iterator[_Record | Problem]:
    """Parse the value of each line. A line that `parse` cannot use becomes a problem."""
    for item in items:
        if isinstance(item, Problem):
            yield item
            continue
        try:
            yield parse(*item)
        except UnusableError as error:
            yield Problem(item[0], error.reason, error.detail)


def row_files(source: Path) -> list[Path]:
    """List the files of training rows: `*.jsonl` and `*.jsonl.gz` in name order, or the only file there is."""
    files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    rows = [path for path in files if path.name.endswith((".jsonl", ".jsonl.gz"))]
    return rows or (files if len(files) == 1 else [])


def detect(source: Path) -> Format:
    """Detect the format from the files of the folder, or from the keys of the first row that fits one.

    Raises:
        IngestError: no file and no row fits a known format.
    """
    if find_file(source, "corpus.jsonl") and find_file(source, "queries.jsonl"):
        return "beir"
    files, first = row_files(source), ""
    for path in files:
        for item in read_objects(path):
            if isinstance(item, Problem):
                first = first or f"; {item.key}: {item.reason} ({item.detail})"
                continue
            for form, signs in _SIGNS:
                if signs & item[1].keys():
                    return form
            first = first or f"; {item[0]} has {', '.join(sorted(item[1])) or 'no keys'}"
    raise IngestError(
        f"ingest: no row of a known format in {len(files)} file(s){first}. Expected JSONL rows with query_id, query, "
        "positive_passages, negative_passages (tevatron) or query, pos, neg (flagembedding), or a folder with "
        "corpus.jsonl, queries.jsonl and qrels/ (beir)"
    )


def read_rows(path: Path, form: Format) -> Iterator[Row | Problem]:
    """Read a file of Tevatron or FlagEmbedding rows. A passage that cannot be used is left out; its row is kept."""
    return _parsed(read_objects(path), _tevatron_row if form == "tevatron" else _flag_row)


def _tevatron_row(where: str, found: dict[str, object]) -> Row:
    """Read `{"query_id": "q1", "query": "…", "positive_passages": [{"docid", "title", "text"}], …, "subset": "nq"}`."""
    problems: list[Problem] = []
    query_id = identifier(found.get("query_id"), "query_id")
    query = required_text(found.get("query"), "query", "no_query")
    dataset = _SPACE.sub(" ", _optional_text(found.get("subset"), "subset")) or None
    positives = _positives(_passages(where, found, "positive_passages", problems), problems)
    negatives = [passage for passage in _passages(where, found, "negative_passages", problems) if passage]
    return Row(where, dataset, query_id, query, positives, negatives, [None] * len(negatives), problems)


def _flag_row(where: str, found: dict[str, object]) -> Row:
    """Read `{"query": "…", "pos": ["…"], "neg": ["…"], "neg_scores": [1.5]}`; ids are the hashes of the texts."""
    problems: list[Problem] = []
    query = required_text(found.get("query"), "query", "no_query")
    positives = _positives(_passages(where, found, "pos", problems), problems)
    passages = _passages(where, found, "neg", problems)
    scores = _scores(where, found.get("neg_scores"), len(passages), problems)
    kept = [(passage, score) for passage, score in zip(passages, scores, strict=True) if passage]
    negatives = [passage for passage, _ in kept]
    return Row(where, None, hash_text(query), query, positives, negatives, [score for _, score in kept], problems)


def _positives(passages: list[Passage | None], problems: list[Problem]) -> list[Passage]:
    kept = [passage for passage in passages if passage]
    if not kept:
        why = f" ({problems[0].detail})" if problems else ""
        raise UnusableError("no_positive", f"the row has no usable positive{why}")
    return kept


def _passages(where: str, found: dict[str, object], name: str, problems: list[Problem]) -> list[Passage | None]:
    """Read a list of passages. An unusable one becomes None, and a problem is added."""
    values = found.get(name)
    if values is None:
        return []
    if not isinstance(values, list):
        raise UnusableError("wrong_type", f"{name} is {_kind(values)}, expected a list")
    passages: list[Passage | None] = []
    for number, value in enumerate(values, start=1):
        try:
            passages.append(_passage(where, value, structured=name.endswith("_passages")))
        except UnusableError as error:
            passages.append(None)
            problems.append(Problem(where, error.reason, f"{name} {number}: {error.detail}"))
    return passages


def _passage(where: str, value: object, *, structured: bool) -> Passage:
    if not structured:
        text = required_text(value, "text", "empty_text")
        return Passage(where, hash_passage("", text), "", text)
    if not isinstance(value, dict):
        raise UnusableError("wrong_type", f"the passage is {_kind(value)}, expected an object")
    return _titled(where, identifier(value.get("docid"), "docid"), value)


def _titled(where: str, doc_id: str, value: dict[str, object]) -> Passage:
    """Read title and text, of which one may be missing."""
    title = _optional_text(value.get("title"), "title")
    text = _optional_text(value.get("text"), "text")
    if not title and not text:
        raise UnusableError("empty_text", f"passage {doc_id} has neither title nor text")
    return Passage(where, doc_id, title, text)


def _scores(where: str, values: object, count: int, problems: list[Problem]) -> list[float | None]:
    """Read the scores of the negatives. A list that does not fit is reported and left out; the row is kept."""
    nothing: list[float | None] = [None] * count
    if values is None:
        return nothing
    if not isinstance(values, list) or len(values) != count:
        size = f"{len(values)} values" if isinstance(values, list) else _kind(values)
        problems.append(Problem(where, "bad_scores", f"neg_scores holds {size} for {count} negatives; left out"))
        return nothing
    if not all(value is None or _is_score(value) for value in values):
        problems.append(Problem(where, "bad_scores", "neg_scores holds what is no finite number; left out"))
        return nothing
    return [None if value is None else float(value) for value in values]


def _is_score(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < _INT32


def find_file(folder: Path, name: str) -> Path | None:
    """Find a file under its name or with `.gz` appended; None if neither exists."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def qrels_file(source: Path, split: str) -> Path:
    """Find `qrels/<split>.tsv`.

    Raises:
        IngestError: it does not exist; the message names the splits that exist.
    """
    path = find_file(source / "qrels", f"{split}.tsv")
    if path is None:
        there = sorted(item.name.removesuffix(".gz") for item in (source / "qrels").glob("*.tsv*"))
        names = ", ".join(name.removesuffix(".tsv") for name in there) or "none"
        raise IngestError(
            f"ingest: qrels/{split}.tsv not found; splits there are: {names}. Set train_split and test_split"
        )
    return path


def read_corpus(path: Path) -> Iterator[Passage | Problem]:
    """Read `{"_id": "d1", "title": "…", "text": "…"}` lines."""
    return _parsed(read_objects(path), lambda where, found: _titled(where, identifier(found.get("_id"), "_id"), found))


def read_queries(path: Path) -> Iterator[Query | Problem]:
    """Read `{"_id": "q1", "text": "…"}` lines."""
    return _parsed(read_objects(path), _query)


def _query(where: str, found: dict[str, object]) -> Query:
    return Query(where, identifier(found.get("_id"), "_id"), required_text(found.get("text"), "text", "no_query"))


def read_qrels(path: Path) -> Iterator[Judgement | Problem]:
    """Read `query-id<TAB>corpus-id<TAB>score` lines. The header may be missing."""
    name = f"{path.parent.name}/{path.name}"
    lines = read_lines(path, name)
    return _parsed((line for line in lines if not _is_header(line, f"{name}:1")), _judgement)


def _is_header(line: tuple[str, str] | Problem, first: str) -> bool:
    return not isinstance(line, Problem) and line[0] == first and line[1].split()[:2] == ["query-id", "corpus-id"]


def _judgement(where: str, line: str) -> Judgement:
    fields = line.split("\t") if "\t" in line else line.split()
    if len(fields) != _QRELS_COLUMNS:
        raise UnusableError("wrong_type", f"{len(fields)} columns, expected query-id, corpus-id and score")
    query_id, doc_id = identifier(fields[0], "query-id"), identifier(fields[1], "corpus-id")
    try:
        score = float(fields[2])
    except ValueError:
        score = math.nan
    if not score.is_integer() or abs(score) >= _INT32:
        raise UnusableError("wrong_type", f"score {fields[2].strip()[:40]!r} is no whole number")
    return Judgement(where, query_id, doc_id, int(score))


def _optional_text(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnusableError("wrong_type", f"{name} is {_kind(value)}, expected a string")
    return clean(value)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return names.get(type(value), "null")
