"""Examples of the report: which queries and passages are shown, in which order."""

import polars as pl

from tasks import schemas, summaries
from tasks.report import examples as examples_module
from tasks.report.examples import (
    Example,
    MeasureConfig,
    choose_examples,
    excerpt,
    measure,
    pick_examples,
)
from tasks.report.parts.sum_up import EditsConfig
from tasks.texts import hash_text
from tests.tasks.records import mutable_records
from tests.tasks.report.tables import rows, toy_tables, verdicts

CONFIG = EditsConfig(examples=2)


def test_an_example_shows_positives_then_relabelled_then_unsure_then_kept() -> None:
    tables = toy_tables()
    tables["decisions"] = verdicts(
        "cascade", ("q1", "d2", "relevant", 0.9), ("q1", "d3", "unsure", 0.5), ("q1", "d4", "not_relevant", 0.2)
    )
    (example,) = pick_examples(
        queries=tables["queries"],
        passages=tables["passages"],
        positives=tables["positives"],
        verdicts=pl.concat([tables["llm_verdicts"], tables["decisions"]]),
        edits=tables["edits"],
        known=rows(schemas.KNOWN, ("toy", "q1", "d2")),
        limit=3,
    )
    assert [(p.doc_id, p.fate) for p in example.positives] == [("d1", "positive")]
    assert [(p.doc_id, p.fate, p.picked, p.known) for p in example.candidates] == [
        ("d2", "relabelled", True, True),
        ("d3", "unsure", False, False),
        ("d4", "kept", False, False),
    ]
    assert example.candidates[0].scores == {"cascade": 0.9, "llm": 0.95}


def picked(limit: int = 9, **changes: pl.DataFrame) -> list[Example]:
    tables = toy_tables() | changes
    return pick_examples(
        queries=tables["queries"],
        passages=tables["passages"],
        positives=tables["positives"],
        verdicts=pl.concat([tables["llm_verdicts"], tables["decisions"]]),
        edits=tables["edits"],
        known=schemas.KNOWN.empty(),
        limit=limit,
    )


def test_all_relabelled_are_shown_two_unsure_and_one_that_stays_the_likeliest_first() -> None:
    states = ["relevant"] * 3 + ["unsure"] * 4 + ["not_relevant"] * 3 + ["unparsed"]
    found = [("q1", f"{state}{n}", state, n / 20) for n, state in enumerate(states)]
    edits = rows(
        schemas.EDITS,
        *[("toy", "q1", f"relevant{n}", "pool", "positive", "judge", "relevant", n / 20) for n in range(3)],
    )
    (example,) = picked(decisions=verdicts("cascade", *found), edits=edits)
    assert [(p.doc_id, p.fate) for p in example.candidates] == [
        ("relevant2", "relabelled"), ("relevant1", "relabelled"), ("relevant0", "relabelled"),
        ("unsure6", "unsure"), ("unsure5", "unsure"),
        ("not_relevant9", "kept"),
    ]  # fmt: skip
    assert not any(p.picked or p.known for p in example.candidates)


def test_equal_scores_are_shown_in_the_order_of_their_ids_and_none_comes_last() -> None:
    found = verdicts("cascade", *[("q1", doc, "unsure", score) for doc, score in (("b", 0.5), ("a", 0.5), ("c", None))])
    edits = rows(schemas.EDITS, ("toy", "q1", "x", "pool", "positive", "judge", "relevant", 0.9))
    (example,) = picked(decisions=found, edits=edits)
    assert [p.doc_id for p in example.candidates] == ["a", "b"]
    only = verdicts("cascade", ("q1", "c", "unsure", None), ("q1", "a", "unsure", 0.1))
    assert [p.doc_id for p in picked(decisions=only, edits=edits)[0].candidates] == ["a", "c"]


def test_queries_are_drawn_by_a_hash_of_their_ids_up_to_the_limit() -> None:
    edits = rows(
        schemas.EDITS, *[("toy", f"q{n}", "d2", "pool", "positive", "judge", "relevant", 0.9) for n in range(6)]
    )
    wanted = sorted((f"q{n}" for n in range(6)), key=lambda q: hash_text(f"toy/{q}"))
    assert [example.query_id for example in picked(4, edits=edits)] == wanted[:4]
    removed = edits.with_columns(to=pl.lit("removed"))
    assert picked(edits=removed) == []


def test_the_positives_of_an_example_come_by_id_with_their_texts() -> None:
    positives = rows(schemas.POSITIVES, *[("toy", "q1", *[doc] * 4, "given") for doc in ("d4", "d1", "gone")])
    (example,) = picked(positives=positives)
    assert [(p.doc_id, p.text) for p in example.positives] == [
        ("d1", "boil it in water"), ("d4", "wheat is a grass"), ("gone", ""),
    ]  # fmt: skip
    assert (example.dataset, example.query_id, example.query) == ("toy", "q1", "how to cook rice")


def test_the_chosen_queries_are_the_first_that_the_parts_shortlisted_each_in_its_own_part() -> None:
    names = [(f"q{n}", n % 3) for n in range(9)]
    given = rows(summaries.CHOSEN, *[("toy", query) for query, _ in names]).with_columns(
        part=pl.Series([part for _, part in names], dtype=pl.Int32)
    )
    sent = dict(choose_examples(CONFIG, shortlist=given)["chosen"])
    first = sorted((query for query, _ in names), key=lambda query: hash_text(f"toy/{query}"))[:2]
    assert sorted(query for frame in sent.values() for query in frame["query_id"]) == sorted(first)
    for part, frame in sent.items():
        assert {int(query[1:]) % 3 for query in frame["query_id"]} == {part}
    assert list(choose_examples(CONFIG, shortlist=given.clear())["chosen"]) == []
    assert list(choose_examples(EditsConfig(examples=0), shortlist=given)["chosen"]) == []


def test_the_excerpt_holds_what_belongs_to_the_chosen_queries_and_no_more() -> None:
    tables = toy_tables()
    names = ("queries", "candidates", "positives", "similarity", "llm_verdicts", "decisions", "edits", "passages")
    known = rows(schemas.KNOWN, ("toy", "q1", "d2"), ("toy", "q2", "d1"))
    made = excerpt(
        CONFIG, chosen=rows(summaries.CHOSEN, ("toy", "q1")), known=known, **{name: tables[name] for name in names}
    )
    assert made["texts"]["doc_id"].to_list() == ["d1", "d2", "d3"]
    assert made["verdicts"].select("doc_id", "tier").rows() == [
        ("d2", "cascade"), ("d2", "llm"), ("d2", "similarity"), ("d3", "cascade"), ("d3", "similarity"),
    ]  # fmt: skip
    assert all(frame["query_id"].unique().to_list() == ["q1"] for name, frame in made.items() if name != "texts")
    without = excerpt(CONFIG, chosen=summaries.CHOSEN.empty(), **{name: tables[name] for name in names})
    assert {name: frame.clear().equals(without[name]) for name, frame in made.items()} == dict.fromkeys(made, True)


def test_each_candidate_has_the_length_of_title_and_text_together() -> None:
    tables = toy_tables()
    titled = tables["passages"].with_columns(title=pl.lit("ab"))
    made = measure(MeasureConfig(), candidates=tables["candidates"], passages=titled)["lengths"]
    assert dict(made.schema) == summaries.LENGTHS.columns
    assert made.height == tables["candidates"].height
    assert made.filter(pl.col("doc_id") == "d3")["chars"].to_list() == [2 + len("rice is a grass")] * 2


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(examples_module) == set()
