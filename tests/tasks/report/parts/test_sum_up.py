"""A query part summed up: tables of the right form, and examples shortlisted by the hashes of their ids."""

import polars as pl

from tasks import schemas, summaries
from tasks.report.parts.sum_up import EditsConfig, SumUpConfig, sum_calls, sum_up_edits, sum_up_verdicts
from tasks.texts import hash_text
from tests.tasks.report.tables import empty_tables, rows, toy_tables
from tests.tasks.settings import settings_of

FORMS = {
    "tallies": summaries.TALLIES,
    "scores": summaries.SCORES,
    "relevant": summaries.RELEVANT_BY_QUERY,
    "errors": summaries.ERRORS_BY_QUERY,
    "dots": summaries.DOTS,
    "call_sums": summaries.CALL_SUMS,
}


def sum_up(tables: dict[str, pl.DataFrame], *tiers: str) -> dict[str, pl.DataFrame]:
    names = ("queries", "candidates", "similarity", "llm_verdicts", "decisions", "calls", "lengths")
    return sum_up_verdicts(
        SumUpConfig(tiers=tiers), windows=schemas.WINDOWS.empty(), **{name: tables[name] for name in names}
    )


def test_a_part_has_all_tables_also_where_nothing_was_judged_and_without_a_tier() -> None:
    for tables in (toy_tables(), empty_tables()):
        for tiers in (("llm",), ()):
            made = sum_up(tables, *tiers)
            assert {name: dict(frame.schema) for name, frame in made.items()} == {
                name: schema.columns for name, schema in FORMS.items()
            }


def test_the_figures_of_a_part_are_counted() -> None:
    made = sum_up(toy_tables(), "llm")
    counted = {(subject, of, kind): count for subject, of, kind, count in made["tallies"].iter_rows()}
    assert (counted["queries", "train", ""], counted["queries", "test", ""]) == (2, 1)
    assert (counted["candidates", "", ""], counted["asked", "", ""], counted["dotted", "", ""]) == (4, 2, 1)
    assert made["dots"].select("x", "y", "state").rows() == [(0.4, 0.95, "relevant")]
    assert made["scores"]["tier"].unique(maintain_order=True).to_list() == ["similarity", "llm", "cascade"]
    assert made["relevant"].rows() == [("toy", 2, 0, 0, 1), ("toy", 2, 1, 1, 1)]


def test_calls_are_added_up_by_judge() -> None:
    calls = rows(schemas.CALLS, *((f"c{n}", f"judge/{n % 3}", None, "{}", "stop", 10 + n, n, None) for n in range(7)))
    assert sum_calls(calls).rows() == [("judge/0", 3, 39, 9), ("judge/1", 2, 25, 5), ("judge/2", 2, 27, 7)]


def test_queries_with_a_relabelled_passage_are_shortlisted_by_the_hashes_of_their_ids() -> None:
    edits = rows(
        schemas.EDITS,
        *[("toy", f"q{n}", doc, "pool", "positive", "judge", "relevant", 0.9) for n in range(6) for doc in ("a", "b")],
        ("toy", "removed", "d", "negative", "removed", "judge", "relevant", 0.9),
    )
    made = sum_up_edits(EditsConfig(examples=4), edits=edits)
    wanted = sorted((f"q{n}" for n in range(6)), key=lambda query: hash_text(f"toy/{query}"))[:4]
    assert made["shortlist"].rows() == [("toy", query) for query in wanted]
    assert dict(made["shortlist"].schema) == summaries.CHOSEN.columns
    assert sum_up_edits(EditsConfig(examples=0), edits=edits)["shortlist"].is_empty()


def test_defaults_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(SumUpConfig) == {"tiers": ("llm",), "reads": None}
    assert settings_of(EditsConfig) == {"examples": (6, ">=0")}
