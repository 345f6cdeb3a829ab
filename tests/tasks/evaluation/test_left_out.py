"""What is left out of a query's ranking: the passage that is the query itself, and no other."""

from typing import Any

import polars as pl
import pytest

from tasks.evaluation.left_out import choose_left_out, find_same, find_same_ids
from tests.tasks.training.test_evaluate import passages_of, qrels_of, queries_of


def _chosen(
    queries: list[tuple[str, str]], passages: list[tuple[str, str]], *labels: tuple[str, str], **how: Any
) -> list[tuple[str, str]]:
    asked = queries_of(*(("toy", id_, text, "test") for id_, text in queries))
    found = find_same(asked, passages_of(*(("toy", id_, text) for id_, text in passages)))
    relevant = qrels_of(*(("toy", *pair, 1) for pair in labels))
    chosen = choose_left_out(found, relevant, **{"same_id": "auto", "same_text": False, **how})
    return chosen.select("query_id", "doc_id").sort(pl.all()).rows()


ARGUMENTS = [("arg-1", "we should ban cars"), ("arg-2", "we should not")]
OTHER_TEXTS = [("arg-1", "cars are loud and dirty things"), ("arg-2", "a ban would help nobody"), ("arg-3", "else")]
NUMBERED = [("1", "boundary layers"), ("2", "heat flow")]


def test_an_equal_id_is_left_out_as_in_beir_though_the_texts_differ() -> None:
    """Before, only a passage of near the same text was, so that the others took the first rank."""
    assert _chosen(ARGUMENTS, OTHER_TEXTS) == [("arg-1", "arg-1"), ("arg-2", "arg-2")]


def test_equal_numbers_of_different_texts_are_chance() -> None:
    assert _chosen(NUMBERED, [("1", "supersonic wings"), ("2", "jets")]) == []


def test_equal_numbers_are_names_where_most_are_of_near_the_same_text() -> None:
    passages = [("1", "boundary layers"), ("2", "a wing at rest"), ("3", "boundary layers")]
    assert _chosen(NUMBERED, passages) == [("1", "1"), ("2", "2")]


@pytest.mark.parametrize(("same_id", "left"), [(True, [("1", "1"), ("2", "2")]), (False, [])])
def test_a_setting_decides_alone(same_id: bool, left: list[tuple[str, str]]) -> None:
    assert _chosen(NUMBERED, [("1", "wings"), ("2", "heat flow")], same_id=same_id) == left


def test_a_label_keeps_a_passage_unless_every_equal_id_is_to_go_as_in_beir() -> None:
    labelled = ("arg-1", "arg-1")
    assert _chosen(ARGUMENTS, OTHER_TEXTS, labelled) == [("arg-2", "arg-2")]
    assert _chosen(ARGUMENTS, OTHER_TEXTS, labelled, same_id=True) == [("arg-1", "arg-1"), ("arg-2", "arg-2")]


def test_the_querys_own_text_under_another_id_goes_where_that_is_wanted() -> None:
    passages = [("x", "We should ban  cars"), ("y", "else")]
    assert _chosen(ARGUMENTS, passages) == []
    assert _chosen(ARGUMENTS, passages, same_text=True) == [("arg-1", "x")]
    assert _chosen(ARGUMENTS, passages, ("arg-1", "x"), same_text=True) == []


def test_equal_ids_alone_are_found_without_hashing_the_corpus() -> None:
    asked = queries_of(*(("toy", id_, text, "test") for id_, text in NUMBERED))
    passages = passages_of(("toy", "1", "boundary layers"), ("toy", "2", "jets"), ("other", "1", "else"))
    found = find_same_ids(asked, passages)
    assert found.select("dataset", "query_id", "doc_id", "reason").rows() == [
        ("toy", "1", "1", "same_id_as_query"),
        ("toy", "2", "2", "same_id_as_query"),
    ]
    assert [detail.split(" text ")[0] for detail in found["detail"]] == ["near the same", "another"]
