"""Which key of a row holds what."""

import pytest

from tasks.data.layouts.fields import FieldNames, Layout, Unread, layout_of
from tasks.lines import Problem


def _layout(keys: str, **names: str | tuple[str, ...]) -> Layout:
    return layout_of(keys.split(), FieldNames.model_validate(names))


@pytest.mark.parametrize(
    ("keys", "form", "recognised"),
    [
        (
            "query_id query positive_passages negative_passages subset",
            "tevatron",
            "query:query query_id:query_id dataset:subset positive:positive_passages negative:negative_passages",
        ),
        (
            "query pos neg pos_scores neg_scores prompt type",
            "flagembedding",
            "query:query positive:pos negative:neg positive_scores:pos_scores negative_scores:neg_scores "
            "extras:prompt,type",
        ),
        (
            "question answers positive_ctxs negative_ctxs hard_negative_ctxs dataset",
            "dpr",
            "query:question dataset:dataset positive:positive_ctxs negative:hard_negative_ctxs,negative_ctxs",
        ),
        ("anchor positive", "sentence-transformers", "query:anchor positive:positive"),
        ("question answer", "sentence-transformers", "query:question positive:answer"),
        ("query response id", "sentence-transformers", "query:query query_id:id positive:response"),
        (
            "anchor positive negative_10 negative_2 negative",
            "sentence-transformers",
            "query:anchor positive:positive negative:negative,negative_2,negative_10",
        ),
        ("sentence1 sentence2 label", "sentence-transformers", "query:sentence1 positive:sentence2 labels:label"),
        ("sentence_0 sentence_1", "sentence-transformers", "query:sentence_0 positive:sentence_1"),
        ("sentence_1 sentence_2", "sentence-transformers", "query:sentence_1 positive:sentence_2"),
        ("sent0 sent1 hard_neg", "sentence-transformers", "query:sent0 positive:sent1 negative:hard_neg"),
        ("query docs labels", "sentence-transformers", "query:query documents:docs labels:labels"),
        (
            "query passages query_id",
            "sentence-transformers",
            "query:query query_id:query_id documents:passages",
        ),
    ],
)
def test_the_layouts_of_trainers_are_known(keys: str, form: str, recognised: str) -> None:
    found = _layout(keys)
    wanted = dict(item.split(":") for item in recognised.split())
    assert found.form == form
    assert {role: key.replace(", ", ",") for role, key in found.recognised().items()} == wanted
    assert found.is_usable


def test_names_of_the_settings_replace_the_known_ones() -> None:
    found = _layout("query frage good bad id", query="frage", positive="good", negative=("bad", "worse"))
    assert (found.query, found.positives, found.negatives) == ("frage", ("good",), ("bad",))
    assert found.unread == ("query",)


def test_a_key_that_the_settings_give_a_role_has_no_other_one() -> None:
    found = _layout("question answer context", positive="context", dataset="answer")
    assert (found.positives, found.dataset, found.unread) == (("context",), "answer", ())
    assert _layout("query answer score", labels="none").labels == ""


def test_keys_of_no_role_are_unread() -> None:
    found = _layout("query pos neg url lang")
    assert found.unread == ("url", "lang")
    assert not _layout("title body").is_usable


def test_what_nobody_reads_is_one_problem_for_each_key_with_content() -> None:
    unread = Unread()
    for row in ({"url": "a", "lang": None}, {"url": ""}, {"url": "b", "more": [1]}):
        unread.add(row, ["url", "lang", "more"], "pos.")
    assert list(unread.problems("a.jsonl")) == [
        Problem("a.jsonl", "unread_field", "pos.url is not read; it has content 2 time(s). See ingest.fields"),
        Problem("a.jsonl", "unread_field", "pos.more is not read; it has content 1 time(s). See ingest.fields"),
    ]


@pytest.mark.parametrize(
    "names",
    [{"query": "a", "positive": "a"}, {"positive": "a", "negative": ["b", "a"]}, {"positive": "a", "labels": "a"}],
)
def test_one_field_for_two_roles_is_refused(names: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"'a' is named as .* and as .*; a field of a row has one role"):
        FieldNames.model_validate(names)
    FieldNames(labels="none", negative="none")
