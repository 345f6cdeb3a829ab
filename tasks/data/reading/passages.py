"""Read passages: strings, objects under the names that trainers and corpora use, lists of them, and lists by column."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.data.layouts.fields import (
    DOC_ID,
    INNER_LABELS,
    INNER_SCORES,
    TEXT,
    TITLE,
    FieldNames,
    Unread,
)
from tasks.data.layouts.values import has_content, name_of, number_of, optional_text, required_text
from tasks.data.reading.records import Passage
from tasks.lines import UnusableError, kind_of
from tasks.texts import hash_passage

_NO_NAMES = FieldNames()


@dataclass(frozen=True, slots=True)
class PassageKeys:
    """Which keys of a passage hold what; empty where nothing does. The first text with content is taken."""

    doc_id: str
    title: str
    texts: tuple[str, ...]
    score: str
    label: str
    unread: tuple[str, ...]

    @classmethod
    def of(cls, keys: tuple[str, ...], names: FieldNames = _NO_NAMES) -> "PassageKeys":
        """Find the keys: those of the settings, else the commonest that is there."""

        def first(wanted: str | None, known: tuple[str, ...]) -> str:
            return next((key for key in ((wanted,) if wanted else known) if key in keys), "")

        doc_id, title = first(names.doc_id, DOC_ID), first(names.title, TITLE)
        texts = tuple(key for key in ((names.text,) if names.text else TEXT) if key in keys and key != doc_id)
        score, label = first(None, INNER_SCORES), first(None, INNER_LABELS)
        read = {doc_id, title, *texts, score, label}
        return cls(doc_id, title, texts, score, label, tuple(key for key in keys if key not in read))

    def recognised(self) -> dict[str, str]:
        """Return the keys of id, title and text by their role."""
        roles = {"doc_id": self.doc_id, "title": self.title, "text": ", ".join(self.texts[:1])}
        return {role: key for role, key in roles.items() if key}


class PassageReader:
    """Reads the passages of one file and counts the keys of theirs that nobody reads.

    names: the settings' names of id, title and text.
    """

    def __init__(self, names: FieldNames = _NO_NAMES, unread: Unread | None = None) -> None:
        """Begin a file."""
        self.names = names
        self.unread = Unread() if unread is None else unread
        self._known: dict[tuple[str, ...], PassageKeys] = {}

    def keys(self, value: Mapping[str, object]) -> PassageKeys:
        """Return which keys of a passage hold what."""
        order = tuple(value)
        found = self._known.get(order)
        if found is None:
            found = self._known[order] = PassageKeys.of(order, self.names)
        return found

    def passage(self, where: str, value: object, above: str, kind: Literal["any", "object"] = "any") -> Passage:
        """Read a string or an object as a passage. One without an id is named by the hash of its texts.

        Args:
            where: `file:line` of the passage.
            value: of the input.
            above: the field that it stands in; empty for a line of a corpus.
            kind: `object` where a string may be an id.

        Raises:
            UnusableError: `empty_text`, `no_text` or `wrong_type`.
        """
        if isinstance(value, str) and kind == "any":
            text = required_text(value, "text", "empty_text")
            return Passage(where, hash_passage("", text), "", text)
        if not isinstance(value, dict):
            wanted = "a string or an object" if kind == "any" else "an object"
            raise UnusableError("wrong_type", f"the passage is {kind_of(value)}, expected {wanted}")
        keys = self.keys(value)
        doc_id = name_of(value.get(keys.doc_id), keys.doc_id) if keys.doc_id else ""
        title = optional_text(value.get(keys.title), keys.title) if keys.title else ""
        text = self._text(value, keys)
        self._count(value, keys, f"{above}." if above else "")
        if not text:
            self._refuse_unread(value, keys, doc_id)
        if not title and not text:
            raise UnusableError("empty_text", f"passage {doc_id or '(without an id)'} has neither title nor text")
        score = number_of(value.get(keys.score)) if keys.score else None
        return Passage(where, doc_id or hash_passage(title, text), title, text, score)

    def label(self, value: object) -> object:
        """Return the label that an object carries itself; None where it has none."""
        return value.get(self.keys(value).label) if isinstance(value, dict) else None

    def _text(self, value: Mapping[str, object], keys: PassageKeys) -> str:
        return next((text for key in keys.texts if (text := optional_text(value.get(key), key))), "")

    def _count(self, value: Mapping[str, object], keys: PassageKeys, above: str) -> None:
        if keys.unread:
            self.unread.add(value, keys.unread, above)
        if len(keys.texts) > 1:
            full = [key for key in keys.texts if has_content(value.get(key))]
            self.unread.add(value, full[1:], above)

    def _refuse_unread(self, value: Mapping[str, object], keys: PassageKeys, doc_id: str) -> None:
        """Refuse a passage whose text may stand under a name that nobody reads."""
        if keys.texts:
            return
        unread = [key for key in keys.unread if has_content(value.get(key))]
        if unread:
            said = ", ".join(unread)[:200]
            raise UnusableError(
                "no_text",
                f"passage {doc_id or '(without an id)'} has no text, but keys that are not read: {said}. Set "
                "ingest.fields.text",
            )


def listed(value: object, name: str) -> list[object]:
    """Return passages as a list: a string or an object is a list of one, lists by column become objects.

    >>> listed({"docid": [1, 2], "text": ["a", "b"]}, "positive_passages")
    [{'docid': 1, 'text': 'a'}, {'docid': 2, 'text': 'b'}]

    Raises:
        UnusableError: `wrong_type` for anything else.
    """
    if value is None:
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return list(_transposed(value))
    raise UnusableError("wrong_type", f"{name} is {kind_of(value)}, expected a list")


def _transposed(value: dict[str, object]) -> Iterator[object]:
    columns = {key: column for key, column in value.items() if isinstance(column, list)}
    if len(columns) < len(value) or len({len(column) for column in columns.values()}) != 1:
        yield value
        return
    yield from (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
