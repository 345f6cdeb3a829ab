"""Read the parts of a corpus with queries: passages, queries, and rows that name their passages by id.

The layouts are BEIR's (corpus, queries and qrels) and that of Tevatron's version 3 (rows with the ids of positives and
negatives, and a corpus beside them).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.data.layouts.fields import (
    NEGATIVE_IDS,
    POSITIVE_IDS,
    QUERY,
    QUERY_ID,
    QUERY_TEXT,
    FieldNames,
    Unread,
)
from tasks.data.layouts.values import identifier, required_text
from tasks.data.reading.objects import parsed
from tasks.data.reading.passages import PassageReader
from tasks.data.reading.records import Given, Judgement, Passage, Query
from tasks.lines import Problem, UnusableError, kind_of

_NAMES = FieldNames()
Objects = Iterator[tuple[str, dict[str, object]] | Problem]


@dataclass(frozen=True, slots=True)
class Reference:
    """A query with the ids of its positives and negatives. Its problems are ids that cannot be used."""

    query: Query
    positives: list[str]
    negatives: list[str]
    problems: list[Problem]

    def judgements(self) -> Iterator[Judgement]:
        """Yield each positive as a judgement with grade 1."""
        return (Judgement(self.query.where, self.query.query_id, doc_id, 1) for doc_id in self.positives)

    def given(self) -> Iterator[Given]:
        """Yield each negative as a given candidate, in the row's order."""
        where, query_id = self.query.where, self.query.query_id
        return (Given(where, query_id, doc_id, rank) for rank, doc_id in enumerate(self.negatives, start=1))


def read_corpus(objects: Objects, name: str, names: FieldNames = _NAMES) -> Iterator[Passage | Problem]:
    """Read the objects of the file `name` as passages: `{"_id": "d1", "title": "…", "text": "…"}`.

    The last items are problems that count the fields with content that nobody read.
    """
    reader = PassageReader(names)

    def passage(where: str, found: dict[str, object]) -> Passage:
        key = reader.keys(found).doc_id
        identifier(found.get(key), key or names.doc_id or "_id")
        return reader.passage(where, found, "")

    yield from parsed(objects, passage)
    yield from reader.unread.problems(name)


def read_queries(objects: Objects, name: str, names: FieldNames = _NAMES) -> Iterator[Query | Problem]:
    """Read the objects of the file `name` as queries: `{"_id": "q1", "text": "…"}`.

    The last items are problems that count the fields with content that nobody read.
    """
    unread = Unread()

    def query(where: str, found: dict[str, object]) -> Query:
        id_key, text_key = query_keys(found, names).values()
        kept = _query(where, found, id_key, text_key)
        unread.add(found, [key for key in found if key not in (id_key, text_key)])
        return kept

    yield from parsed(objects, query)
    yield from unread.problems(name)


def read_references(objects: Objects, name: str, names: FieldNames = _NAMES) -> Iterator[Reference | Problem]:
    """Read the objects of the file `name` as queries with ids of passages.

    An object is `{"query_id": "q1", "query_text": "…", "positive_document_ids": ["d1"], "negative_document_ids": []}`.
    """
    unread = Unread()

    def reference(where: str, found: dict[str, object]) -> Reference:
        id_key, text_key = query_keys(found, names).values()
        query = _query(where, found, id_key, text_key)
        sides, problems = reference_keys(found, names), list[Problem]()
        positives, negatives = (_ids(where, found, keys, problems) for keys in sides)
        if not positives:
            raise UnusableError("no_positive", "the row names no positive")
        unread.add(found, [key for key in found if key not in (id_key, text_key, *sides[0], *sides[1])])
        return Reference(query, positives, negatives, problems)

    yield from parsed(objects, reference)
    yield from unread.problems(name)


def query_keys(found: Mapping[str, object], names: FieldNames = _NAMES) -> dict[str, str]:
    """Return the keys of a query's id and text by their role; the first known ones where there are none."""
    known = ("_id", *QUERY_ID), (*QUERY_TEXT, *QUERY)
    return {"query_id": _key(found, names.query_id, known[0]), "query": _key(found, names.query, known[1])}


def reference_keys(found: Mapping[str, object], names: FieldNames = _NAMES) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys of a row that hold ids of positives, and of negatives."""
    sides = (names.positive, POSITIVE_IDS), (names.negative, NEGATIVE_IDS)
    wanted = [((given,) if isinstance(given, str) else given) or known for given, known in sides]
    positives, negatives = (tuple(key for key in keys if key in found) for keys in wanted)
    return positives, negatives


def _query(where: str, found: Mapping[str, object], id_key: str, text_key: str) -> Query:
    query_id = identifier(found.get(id_key), id_key)
    return Query(where, query_id, required_text(found.get(text_key), text_key, "no_query"))


def _key(found: Mapping[str, object], given: str | None, known: Sequence[str]) -> str:
    return given or next((key for key in known if key in found), known[0])


def _ids(where: str, found: Mapping[str, object], keys: Sequence[str], problems: list[Problem]) -> list[str]:
    ids: dict[str, None] = {}
    for key in keys:
        values = found[key] or []
        if not isinstance(values, list):
            raise UnusableError("wrong_type", f"{key} is {kind_of(values)}, expected a list of ids")
        for number, value in enumerate(values, start=1):
            try:
                ids[identifier(value, key)] = None
            except UnusableError as error:
                problems.append(Problem(where, error.reason, f"{key} {number}: {error.detail}"))
    return list(ids)
