"""Passages under the names that trainers and corpora use."""

from typing import Any

import pytest

from tasks.data.layouts.fields import FieldNames
from tasks.data.reading.passages import PassageReader, listed
from tasks.data.reading.records import Passage
from tasks.lines import UnusableError
from tasks.texts import hash_passage


@pytest.mark.parametrize(
    ("value", "passage"),
    [
        ({"docid": "d1", "title": "T", "text": "x"}, ("d1", "T", "x")),
        ({"_id": "d1", "contents": "x"}, ("d1", "", "x")),
        ({"id": 3, "title": "T", "body": "x"}, ("3", "T", "x")),
        ({"pid": 3.0, "content": "x"}, ("3", "", "x")),
        ({"passage_id": "p", "title": "T", "text": "", "passage": "x"}, ("p", "T", "x")),
        ({"docid": "", "text": "x"}, (hash_passage("", "x"), "", "x")),
        ({"docid": None, "title": "T", "text": "x"}, (hash_passage("T", "x"), "T", "x")),
        ({"text": "x"}, (hash_passage("", "x"), "", "x")),
        ("x", (hash_passage("", "x"), "", "x")),
    ],
)
def test_a_passage_has_its_id_or_the_hash_of_its_texts(value: object, passage: tuple[str, str, str]) -> None:
    assert PassageReader().passage("a:1", value, "pos") == Passage("a:1", *passage)


def test_a_passage_keeps_the_score_that_stands_in_it() -> None:
    assert PassageReader().passage("a:1", {"text": "x", "score": 0.5}, "pos").score == 0.5


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"docid": "d1", "title": "T", "abstract": "x", "url": "u"}, "no_text: passage d1 has no text, but keys that"),
        ({"docid": "d1", "title": "", "text": " "}, "empty_text: passage d1 has neither title nor text"),
        ({"docid": "d1", "text": ["x"]}, "wrong_type: text is a list, expected a string"),
        (3, "wrong_type: the passage is a number, expected a string or an object"),
        (None, "wrong_type: the passage is null, expected a string or an object"),
        ("", "empty_text: text is empty"),
    ],
)
def test_a_passage_that_cannot_be_used_is_refused(value: object, says: str) -> None:
    with pytest.raises(UnusableError, match=says):
        PassageReader().passage("a:1", value, "pos")


def test_keys_that_nobody_reads_are_counted_and_those_of_the_settings_are_read() -> None:
    reader = PassageReader(FieldNames(doc_id="key", text="abstract"))
    value: dict[str, Any] = {"key": "k", "abstract": "x", "text": "other", "url": "u"}
    assert reader.passage("a:1", value, "pos") == Passage("a:1", "k", "", "x")
    assert dict(reader.unread.keys) == {"pos.text": 1, "pos.url": 1}


def test_a_second_text_is_counted_as_unread() -> None:
    reader = PassageReader()
    assert reader.passage("a:1", {"_id": "d", "text": "x", "contents": "y"}, "").text == "x"
    assert dict(reader.unread.keys) == {"contents": 1}


def test_one_passage_is_a_list_of_one_and_columns_are_turned_into_objects() -> None:
    assert listed("x", "pos") == ["x"]
    assert listed({"text": "x"}, "pos") == [{"text": "x"}]
    assert listed({"id": ["a", "b"], "text": ["x", "y"]}, "pos") == [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]
    assert listed({"id": ["a"], "text": ["x", "y"]}, "pos") == [{"id": ["a"], "text": ["x", "y"]}]
    assert listed({"id": [], "text": []}, "pos") == listed(None, "pos") == []
    with pytest.raises(UnusableError, match="pos is a number, expected a list"):
        listed(3, "pos")
