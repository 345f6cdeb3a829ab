"""Checks of the given labels: each positive is asked about against the others, and doubts are marked, never edited."""

import polars as pl
import pytest

from tasks import schemas
from tasks.prompts.prompt import join_texts
from tasks.texts import hash_guard, hash_passage, hash_shown, hash_text
from tasks.verdicts import checks as checks_module
from tasks.verdicts.checks import CheckConfig, put_positives, read_checks
from tests.tasks.records import mutable_records
from tests.tasks.settings import settings_of


def rows(schema: schemas.Schema, *values: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(list(values), schema=schema.columns, orient="row")


def positive(query: str, number: int, doc: str = "") -> tuple[object, ...]:
    text = f"text {number}"
    hashes = (hash_passage("", text), hash_shown("", text), hash_guard("", text))
    return ("d", query, doc or f"p{number}", *hashes, "source")


QUERIES = rows(
    schemas.QUERIES,
    *[("d", name, f"query {name}", hash_text(f"query {name}"), split)
      for name, split in (("q1", "train"), ("q2", "train"), ("q3", "test"))],
)  # fmt: skip
PASSAGES = rows(
    schemas.PASSAGES,
    *[("d", f"p{n}", "", f"text {n}", hash_passage("", f"text {n}")) for n in range(4)],
    ("d", "copy", "", "text 0", hash_passage("", "text 0")),
)
POSITIVES = rows(
    schemas.POSITIVES,
    positive("q1", 0), positive("q1", 0, "copy"), positive("q1", 1), positive("q2", 2), positive("q3", 3),
)  # fmt: skip


def put(**settings: object) -> dict[str, pl.DataFrame]:
    return put_positives(CheckConfig(positives=True, **settings), queries=QUERIES, positives=POSITIVES)  # type: ignore[arg-type]


def test_each_positive_of_a_training_query_is_asked_about_against_the_other_ones() -> None:
    made = put()
    for name, schema in (
        ("asked", schemas.CANDIDATES), ("queries", schemas.QUERIES), ("positives", schemas.POSITIVES),
        ("checked", schemas.CHECKED),
    ):  # fmt: skip
        assert dict(made[name].schema) == schema.columns
        assert not made[name].select(schema.key).is_duplicated().any()
    joined = join_texts(made["asked"], queries=made["queries"], passages=PASSAGES, positives=made["positives"])
    shown = sorted(zip(joined["query"], joined["passage"], joined["positives"].to_list(), strict=True))
    assert shown == [
        ("query q1", "text 0", ["text 1"]),  # the copy of text 0 is neither asked about nor shown
        ("query q1", "text 1", ["text 0"]),
        ("query q2", "text 2", []),
    ]


def test_queries_with_one_positive_are_left_out_where_a_prompt_needs_one() -> None:
    made = put(alone=False)
    assert made["checked"]["query_id"].to_list() == ["q1", "q1"]
    assert made["queries"].height == made["asked"].height == 2


def test_a_sample_of_the_queries_is_drawn_by_their_hash_and_a_larger_one_holds_a_smaller() -> None:
    queries = rows(schemas.QUERIES, *[("d", f"q{n}", f"t{n}", hash_text(f"t{n}"), "train") for n in range(400)])
    positives = rows(schemas.POSITIVES, *[positive(f"q{n}", n) for n in range(400)])
    drawn = [
        set(put_positives(CheckConfig(sample=share), queries=queries, positives=positives)["checked"]["query_id"])
        for share in (0.1, 0.5, 1.0)
    ]
    assert drawn[0] < drawn[1] < drawn[2]
    assert 20 < len(drawn[0]) < 60
    assert len(drawn[2]) == 400


def answers(made: dict[str, pl.DataFrame], states: dict[str, str]) -> pl.DataFrame:
    names = made["checked"].rename({"asked_id": "asked"})
    return rows(
        schemas.VERDICTS,
        *[("d", asked, doc, "llm", "j", states[doc], 0.5, None, None, f"c{doc}", 1)
          for asked, doc in names.select("asked", "doc_id").rows()],
    )  # fmt: skip


def decisions(query: str, *states: str) -> list[tuple[object, ...]]:
    return [("d", query, f"n{n}", "cascade", "j", state, 0.5, None, None, None, 1) for n, state in enumerate(states)]


def test_a_positive_that_the_judge_finds_not_relevant_is_unsure_and_its_query_has_no_clear_answer() -> None:
    made = put()
    first = next(doc for doc in made["checked"]["doc_id"] if doc in ("p0", "copy"))
    said = answers(made, {first: "relevant", "p1": "not_relevant", "p2": "not_relevant"})
    decided = rows(schemas.VERDICTS, *decisions("q1", "not_relevant"), *decisions("q2", "not_relevant"))
    found = read_checks(
        CheckConfig(positives=True, queries=True),
        checked=made["checked"],
        verdicts=said,
        asked=made["asked"],
        decisions=decided,
    )
    states = {(q, doc): state for q, doc, state in found["decisions"].select("query_id", "doc_id", "state").rows()}
    assert states == {("q1", first): "relevant", ("q1", "p1"): "unsure", ("q2", "p2"): "unsure"}
    assert set(found["decisions"]["tier"]) == {"cascade"}
    assert found["verdicts"].filter(pl.col("doc_id") == "p2")["state"].to_list() == ["not_relevant"]
    assert set(found["candidates"]["retriever"]) == {"positive"}
    assert (
        found["candidates"].select("query_id", "doc_id").rows() == found["verdicts"].select("query_id", "doc_id").rows()
    )
    assert found["queries"].rows() == [("d", "q2", "unsure", "no positive found relevant", 1, 0, 1, 0)]


@pytest.mark.parametrize(("relevant", "unclear"), [(3, True), (2, False)])
def test_a_query_with_too_many_relevant_candidates_has_no_clear_answer(relevant: int, unclear: bool) -> None:
    made = put()
    said = answers(made, dict.fromkeys(made["checked"]["doc_id"], "unparsed"))
    states = ["relevant"] * relevant + ["not_relevant"] * (4 - relevant)
    given = {
        "checked": made["checked"],
        "verdicts": said,
        "asked": made["asked"],
        "decisions": rows(schemas.VERDICTS, *decisions("q1", *states)),
    }
    found = read_checks(CheckConfig(queries=True), **given)["queries"]
    assert found["reason"].to_list() == (["many candidates relevant"] if unclear else [])
    assert dict(found.schema) == schemas.QUERY_CHECKS.columns
    assert read_checks(CheckConfig(), **given)["queries"].is_empty()


def test_nothing_to_check_is_no_error() -> None:
    made = put_positives(CheckConfig(), queries=QUERIES.clear(), positives=POSITIVES)
    assert made["asked"].is_empty()
    found = read_checks(
        CheckConfig(queries=True),
        checked=made["checked"],
        verdicts=schemas.VERDICTS.empty(),
        asked=schemas.CANDIDATES.empty(),
        decisions=schemas.VERDICTS.empty(),
    )
    assert all(frame.is_empty() for frame in found.values())


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(CheckConfig) == {
        "positives": False,
        "queries": False,
        "sample": (1.0, ">0", "<=1"),
        "relevant_share": (0.5, ">=0", "<=1"),
        "tier": None,
        "alone": True,
    }


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(checks_module) == set()
