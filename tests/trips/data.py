"""Made-up training data of every awkward kind, for tests that draw it at random."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from hypothesis import settings
from hypothesis import strategies as st

from tasks import schemas
from tasks.data.layouts.values import name_of
from tasks.texts import clean, combine_hashes, hash_passage, hash_text, show_passage

# What tests of this folder share: few examples, the same ones each time, no limit on the time of one example.
quick = settings(max_examples=20, deadline=None, derandomize=True)

AWKWARD = (
    'say "so"', '"', '"open', "it's", "a\tb", "two\nlines", "a\r\nb", "a,b;c", "back\\slash", "\u2028sep\u2029", "\x85",
    "null", "NaN", "1e5", "007", "-1", "{}", "[1]", "#x", "=1+1", "a/b", "../a", "query-id", "corpus-id\tx", "é",
    "e\u0301", "İstanbul", "ﬁne", "straße", "日本語", "🙂", "\u200b", "\ufeffbom", "\u202eabc", "A  b", "a b", "A B ",
    "a", "A", "x" * 300,
)  # fmt: skip
_LETTERS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
RAW = st.sampled_from(AWKWARD) | _LETTERS
TEXTS = RAW.map(clean).filter(bool)
IDS = RAW.map(lambda text: name_of(text, "id")).filter(bool)
SCORES = st.floats(-1e6, 1e6, allow_nan=False, width=32) | st.just(0.1)


@dataclass(frozen=True)
class Doc:
    """A passage."""

    doc_id: str
    title: str
    text: str

    @property
    def shown(self) -> str:
        return show_passage(self.title, self.text)

    @property
    def text_hash(self) -> str:
        return hash_passage(self.title, self.text)


@dataclass(frozen=True)
class Made:
    """A training row."""

    dataset: str
    query_id: str
    query: str
    positives: Sequence[Doc]
    negatives: Sequence[Doc]

    @property
    def docs(self) -> list[Doc]:
        return [*self.positives, *self.negatives]


@st.composite
def rows_made(draw: st.DrawFn, most: int = 5) -> list[Made]:
    """Draw rows as treatments leave them: ids are unique within a dataset, each with one text; texts may be equal."""
    datasets = draw(st.lists(st.sampled_from(["d", "nq", "./data/nq", "日本"]), min_size=1, max_size=2, unique=True))
    rows = []
    for dataset in datasets:
        ids = draw(st.lists(IDS, min_size=2, max_size=8, unique=True))
        docs = [Doc(doc_id, *draw(_titled())) for doc_id in ids]
        for query_id in draw(st.lists(IDS, min_size=1, max_size=most, unique=True)):
            mixed = draw(st.permutations(docs))
            positives = draw(st.integers(1, len(mixed)))
            negatives = draw(st.integers(positives, len(mixed)))
            sides = (mixed[:positives], mixed[positives:negatives])
            rows.append(Made(dataset, query_id, draw(TEXTS), *sides))
    return sorted(rows, key=lambda row: (row.dataset, row.query_id))


@st.composite
def _titled(draw: st.DrawFn) -> tuple[str, str]:
    title, text = draw(st.just("") | TEXTS), draw(TEXTS | st.just(""))
    return (title, text) if title or text else ("", draw(TEXTS))


Scores = dict[tuple[str, str, str], float]


@st.composite
def scored_rows(draw: st.DrawFn) -> tuple[list[Made], Scores, dict[tuple[str, str, str], str]]:
    """Draw rows with a teacher's scores of some pairs, and with a prompt and a type of some rows."""
    rows = draw(rows_made())
    pairs = [(row.dataset, row.query_id, doc.doc_id) for row in rows for doc in row.docs]
    names = [(row.dataset, row.query_id, name) for row in rows for name in ("prompt", "type")]
    score = draw(st.lists(SCORES | st.none(), min_size=len(pairs), max_size=len(pairs)))
    text = draw(st.lists(TEXTS | st.none(), min_size=len(names), max_size=len(names)))
    scores = {pair: value for pair, value in zip(pairs, score, strict=True) if value is not None}
    return rows, scores, {name: value for name, value in zip(names, text, strict=True) if value is not None}


def tables_of(rows: Sequence[Made]) -> dict[str, pl.DataFrame]:
    """Give rows as the tables that an export reads."""
    docs = {(row.dataset, doc.doc_id): doc for row in rows for doc in row.docs}
    content: Mapping[str, tuple[list[tuple[Any, ...]], schemas.Schema]] = {
        "instances": (
            [
                (row.dataset, row.query_id, [d.doc_id for d in row.positives], [d.doc_id for d in row.negatives],
                 "default", combine_hashes([hash_text(row.query), *(d.text_hash for d in row.docs)]))
                for row in rows
            ],
            schemas.INSTANCES,
        ),
        "queries": ([(r.dataset, r.query_id, r.query, hash_text(r.query), "train") for r in rows], schemas.QUERIES),
        "passages": (
            [(dataset, d.doc_id, d.title, d.text, d.text_hash) for (dataset, _), d in docs.items()], schemas.PASSAGES
        ),
    }  # fmt: skip
    return {name: pl.DataFrame(data, schema=schema.columns, orient="row") for name, (data, schema) in content.items()}


def evidence_of(scores: Scores, extras: Mapping[tuple[str, str, str], str]) -> dict[str, pl.DataFrame]:
    """Give scores and further fields as the tables that an export reads."""
    content = (("teacher", scores, schemas.TEACHER), ("extras", extras, schemas.EXTRAS))
    return {
        name: pl.DataFrame([(*key, value) for key, value in found.items()], schema=schema.columns, orient="row")
        for name, found, schema in content
    }
