"""Files of rows and corpora for the tests of the readers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.data.layouts.fields import FieldNames, RowFormat
from tasks.data.reading import beir, objects, qrels, rows
from tasks.data.reading.records import Judgement, Passage, Query, Row
from tasks.lines import Problem, ReadLimits

TEVATRON: dict[str, Any] = {
    "query_id": "q1",
    "query": "what is rust?",
    "positive_passages": [{"docid": "d1", "title": "Rust", "text": "An oxide."}],
    "negative_passages": [{"docid": "d2", "title": "", "text": "A language."}],
}
FLAG: dict[str, Any] = {
    "query": "what is rust?",
    "pos": ["An oxide."],
    "neg": ["A language.", "A game."],
    "neg_scores": [0.5, None],
}


def file_of(folder: Path, *lines: object, name: str = "a.jsonl") -> Path:
    """Write texts as they are, and everything else as JSON."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def read(
    path: Path,
    form: RowFormat | None = None,
    *,
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - it cannot be changed
    positive_from: float | None = None,
    **fields: str | tuple[str, ...],
) -> list[Row | Problem]:
    """Read the rows of a file."""
    options = rows.RowOptions(form, FieldNames.model_validate(fields), positive_from, limits)
    return list(rows.read_rows(objects.read_objects(path, limits), path.name, options))


def read_line(folder: Path, *lines: object, **options: Any) -> Row:
    """Read lines that are one row, without any problem beside it."""
    (row,) = read(file_of(folder, *lines), **options)
    assert isinstance(row, Row)
    return row


def read_queries(path: Path) -> list[Query | Problem]:
    return list(beir.read_queries(objects.read_objects(path), path.name))


def read_corpus(path: Path) -> list[Passage | Problem]:
    return list(beir.read_corpus(objects.read_objects(path), path.name))


def read_qrels(path: Path) -> list[Judgement | Problem]:
    return list(qrels.read_qrels(path, path.name))


def keys_of(items: Sequence[object]) -> list[tuple[str, str]]:
    """Return the key and reason of the problems among some items."""
    return [(item.key, item.reason) for item in items if isinstance(item, Problem)]
