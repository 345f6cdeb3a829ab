"""Which field of an input object holds what: the names that are known, and those that the settings give.

The trainers of retrieval models name the same things differently. Here each role (query, positive, …) has its names,
the commonest first; `ingest.fields` replaces them where a source uses another one.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.data.layouts.values import has_content
from tasks.lines import Problem

RowFormat = Literal["tevatron", "flagembedding", "sentence-transformers", "dpr"]
CorpusFormat = Literal["beir", "tevatron-ids"]
Format = RowFormat | CorpusFormat

QUERY = ("query", "anchor", "question", "query_text", "sentence1", "sentence_0", "sentence_1", "sent0", "text1")
QUERY_ID = ("query_id", "query-id", "qid", "_id", "id")
POSITIVE = (
    "positive_passages",
    "pos",
    "positive_ctxs",
    "positive",
    "positives",
    "positive_passage",
    "answer",
    "response",
    "sentence2",
    "sentence_1",
    "sentence_2",
    "sent1",
    "text2",
    "passage",
    "document",
    "doc",
    "context",
)
NEGATIVE = (
    "negative_passages",
    "neg",
    "hard_negative_ctxs",
    "negative_ctxs",
    "negative",
    "negatives",
    "negative_passage",
    "hard_negative",
    "hard_negatives",
    "hard_neg",
)
DOCUMENTS = ("docs", "documents", "passages", "candidates", "contexts", "ctxs")
LABELS = ("labels", "label", "relevances", "relevance", "is_selected", "scores", "score")
DATASET = ("subset", "dataset", "source")
DOC_ID = ("docid", "doc_id", "_id", "id", "pid", "passage_id", "document_id", "corpus_id", "corpus-id")
TITLE = ("title",)
TEXT = ("text", "contents", "content", "body", "passage", "passage_text", "document")
POSITIVE_SCORES = ("pos_scores", "positive_scores")
NEGATIVE_SCORES = ("neg_scores", "negative_scores")
SCORES = ("scores", "score", "labels", "label")  # of the positive and then the negatives of one row
INNER_LABELS = ("label", "labels", "relevance", "is_selected", "is_positive", "grade")
INNER_SCORES = ("score",)
EXTRAS = ("prompt", "type", "query_instruction_for_retrieval", "passage_instruction_for_retrieval")
QUERY_TEXT = ("text", "query", "query_text", "question", "contents", "content", "body")  # in a file of queries
POSITIVE_IDS = ("positive_document_ids", "positive_docids", "positive_doc_ids", "positive_ids", "pos_ids")
NEGATIVE_IDS = ("negative_document_ids", "negative_docids", "negative_doc_ids", "negative_ids", "neg_ids")
RELEVANCE = ("relevance", "label", "grade", "rel", "judgment", "judgement", "score")

NOWHERE = "none"  # the name of a role that no field has, where a known name would be taken for it
_EXCLUSIVE = ("query", "positive", "negative", "documents", "labels")  # roles that one field cannot have together

_NUMBERED = {
    "positive": re.compile(r"pos(?:itive)?_?(\d+)"),
    "negative": re.compile(r"(?:hard_)?neg(?:ative)?_?(\d+)"),
}
_SIGNS: tuple[tuple[RowFormat, frozenset[str]], ...] = (
    ("tevatron", frozenset({"positive_passages", "negative_passages"})),
    ("dpr", frozenset({"positive_ctxs", "negative_ctxs", "hard_negative_ctxs"})),
    ("flagembedding", frozenset({"pos", "neg"})),
)


class FieldNames(BaseModel):
    """Names of the fields that hold something under a name of their own. A role without a name has the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: str | None = Field(None, description="the query's text")
    query_id: str | None = Field(None, description="the query's id; without one its text's hash stands for it")
    positive: str | tuple[str, ...] | None = Field(None, description="relevant passages: one name or several")
    negative: str | tuple[str, ...] | None = Field(None, description="irrelevant passages: one name or several")
    dataset: str | None = Field(None, description="the name of the dataset that a row is from")
    documents: str | None = Field(None, description="passages that `labels` tell apart")
    labels: str | None = Field(None, description="the labels of `documents`, or of the only passage of a row")
    positive_scores: str | None = Field(None, description="a teacher's scores of the positives")
    negative_scores: str | None = Field(None, description="a teacher's scores of the negatives")
    doc_id: str | None = Field(None, description="a passage's id, in rows, corpora and qrels")
    title: str | None = Field(None, description="a passage's title")
    text: str | None = Field(None, description="a passage's text")
    relevance: str | None = Field(None, description="the grade in qrels")

    @model_validator(mode="after")
    def _one_role_for_each(self) -> "FieldNames":
        roles: dict[str, str] = {}
        for role in _EXCLUSIVE:
            value = getattr(self, role)
            for name in (value,) if isinstance(value, str) else value or ():
                if name != NOWHERE and roles.setdefault(name, role) != role:
                    said = f"{name!r} is named as {roles[name]} and as {role}; a field of a row has one role"
                    raise ValueError(f"{said}. Name another field for one of them")
        return self


@dataclass(frozen=True, slots=True)
class Layout:
    """Which keys of a row hold what. Empty where nothing does.

    unread: keys that nobody reads.
    """

    form: RowFormat
    query: str = ""
    query_id: str = ""
    dataset: str = ""
    positives: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    positive_scores: str = ""
    negative_scores: str = ""
    documents: str = ""
    labels: str = ""
    extras: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether rows of this layout can have a query and a positive."""
        return bool(self.query and (self.positives or self.documents))

    def recognised(self) -> dict[str, str]:
        """Return the keys by their role; several of one role are joined by a comma."""
        roles = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("form", "unread")}
        singular = {"positives": "positive", "negatives": "negative"}
        joined = {singular.get(k, k): ", ".join(v) if isinstance(v, tuple) else v for k, v in roles.items()}
        return {role: keys for role, keys in joined.items() if keys}


def layout_of(keys: Collection[str], names: FieldNames) -> Layout:
    """Say which key of a row holds what.

    >>> layout_of(["anchor", "positive", "negative_2", "negative_1", "url"], FieldNames()).recognised()
    {'query': 'anchor', 'positive': 'positive', 'negative': 'negative_1, negative_2'}
    """
    given = {name: getattr(names, name) for name in FieldNames.model_fields}
    free = [key for key in keys if key not in _taken(given)]

    def first(role: str, known: tuple[str, ...]) -> str:
        wanted = given.get(role)
        found = wanted if wanted in keys else "" if wanted else next((key for key in known if key in free), "")
        if found in free:
            free.remove(found)
        return str(found)

    form = next((form for form, signs in _SIGNS if signs.intersection(keys)), "sentence-transformers")
    query = first("query", QUERY)
    positives = _passage_keys("positive", given["positive"], keys, free)
    negatives = _passage_keys("negative", given["negative"], keys, free)
    documents = "" if positives else first("documents", DOCUMENTS)
    scores = first("positive_scores", POSITIVE_SCORES), first("negative_scores", NEGATIVE_SCORES)
    labels = "" if any(scores) or form != "sentence-transformers" else first("labels", LABELS)
    query_id, dataset = first("query_id", QUERY_ID), first("dataset", DATASET)
    extras = tuple(first("", (name,)) for name in EXTRAS if name in free)
    return Layout(
        form,  # type: ignore[arg-type] # the default is one of its names
        query,
        query_id,
        dataset,
        positives,
        negatives,
        *scores,
        documents,
        labels,
        extras,
        tuple(free),
    )


def named_keys(names: FieldNames) -> set[str]:
    """Return the fields of a row that the settings name."""
    return _taken({name: getattr(names, name) for name in FieldNames.model_fields}) - {NOWHERE}


def _taken(given: Mapping[str, str | tuple[str, ...] | None]) -> set[str]:
    """Return the keys that the settings give a role of a row; no other role takes them."""
    inner = {"doc_id", "title", "text", "relevance"}
    named = [value for role, value in given.items() if role not in inner and value]
    return {name for value in named for name in ([value] if isinstance(value, str) else value)}


def _passage_keys(
    role: Literal["positive", "negative"],
    wanted: str | tuple[str, ...] | None,
    keys: Collection[str],
    free: list[str],
) -> tuple[str, ...]:
    """Return the keys that hold passages: those of the settings, or the first known name and all numbered ones."""
    if wanted:
        named = (wanted,) if isinstance(wanted, str) else wanted
        return tuple(name for name in named if name in keys)
    known = [name for name in (POSITIVE if role == "positive" else NEGATIVE) if name in free]
    numbered = [(int(match[1]), key) for key in free if (match := _NUMBERED[role].fullmatch(key))]
    found = (*(known[:1] if role == "positive" else known), *(key for _, key in sorted(numbered)))
    for key in found:
        free.remove(key)
    return found


@dataclass
class Unread:
    """Counts the keys with content that nobody reads, over the rows of one file."""

    keys: Counter[str] = field(default_factory=Counter)

    def add(self, found: Mapping[str, object], keys: Collection[str], above: str = "") -> None:
        """Count those of `keys` that hold something; `above` names the field that the object stands in."""
        for key in keys:
            if has_content(found.get(key)):
                self.keys[f"{above}{key}"] += 1

    def problems(self, name: str) -> Iterator[Problem]:
        """Yield one problem for each key of the file `name`."""
        for key, count in self.keys.items():
            yield Problem(name, "unread_field", f"{key} is not read; it has content {count} time(s). See ingest.fields")
