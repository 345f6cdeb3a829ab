"""The figures of a curation, each counted once, and the sentences made of them."""

from dataclasses import asdict, replace
from typing import Any

import polars as pl
import pytest

from tasks import schemas
from tasks.clustered import share_of_groups
from tasks.formatting import percent
from tasks.report import summary as summary_module
from tasks.report.summary import Figures, conclude, count_figures, say_people, say_rerankers, share_interval
from tasks.statistics import NOT_DEFINED
from tasks.training.evaluate import Comparison
from tests.tasks.records import mutable_records
from tests.tasks.report.tables import empty_tables, figure_tables, rows, sums_of, toy_tables


def test_a_dropped_query_is_counted_and_said() -> None:
    edits = rows(schemas.EDITS, ("toy", "q1", "d2", "pool", "dropped", "judge", "relevant", 0.9))
    figures = count_figures(**figure_tables(toy_tables() | {"edits": edits}))
    assert (figures.found, figures.dropped) == (0, 1)
    assert conclude(figures, [])[-1] == "1 query was dropped whole, having too many false negatives to be clear."


def figures(**changes: Any) -> Figures:
    return replace(count_figures(**figure_tables(toy_tables())), **changes)


def comparison(**changes: Any) -> Comparison:
    found = Comparison("all", "nDCG@10", 40, 0.5, 0.53, 0.03, 0.01, 0.05, 0.004, 20, 15, 5)
    return replace(found, **changes)


def test_every_figure_of_the_toy_curation_is_counted() -> None:
    found = figures()
    assert asdict(found) | {"means": None} == {
        "queries": 3,
        "training_queries": 2,
        "test_queries": 1,
        "dev_queries": 0,
        "passages": 4,
        "candidates": 4,
        "states": {"relevant": 1, "not_relevant": 1, "unsure": 1, "unparsed": 1},
        "queries_with_relevant": 1,
        "found": 1,
        "removed": 0,
        "dropped": 0,
        "known": 2,
        "known_found": 1,
        "llm_pairs": 2,
        "llm_calls": 2,
        "prompt_tokens": 150,
        "output_tokens": 2,
        "rejected": 2,
        "seconds": 75.04,
        "evaluated_queries": 1,
        "means": None,
        "pair": ("default", "relabel"),
        "imported": 0,
        "labelled": 0,
        "share_interval": share_interval(sums_of(toy_tables()).relevant),
        "known_recall": (0.5, 0.1, 0.9),
        "known_precision": (1.0, 0.2, 1.0),
    }
    assert (found.relevant, found.share, found.known_recall.value, found.llm_share) == (1, 0.25, 0.5, 0.5)
    assert (found.mean("relabel"), found.mean("relabel", "RR@10"), found.mean("remove")) == (0.75, 0.75, None)


def test_the_interval_of_the_share_is_clustered_by_query_and_everything_without_pairs() -> None:
    pairs = [(f"q{query}", f"d{n}", query < 5) for query in range(20) for n in range(10)]
    states = ["relevant" if relevant else "not_relevant" for *_, relevant in pairs]
    verdicts = [("toy", query, doc, "cascade", "j", state, 0.5, None, None, None, 1)
                for (query, doc, _), state in zip(pairs, states, strict=True)]  # fmt: skip
    counted = sums_of(empty_tables() | {"decisions": rows(schemas.VERDICTS, *verdicts)}).relevant
    assert counted["queries"].to_list() == [15, 5]
    low, high = share_interval(counted)
    assert (low, high) == pytest.approx(share_of_groups([10] * 5 + [0] * 15, [10] * 20)[1:], abs=0.02)
    assert high - low > 2 * 0.12  # over 200 single pairs it would be 0.12 wide
    assert share_interval(counted.clear()) == (0.0, 1.0)


def test_without_anything_there_is_no_share() -> None:
    nothing = count_figures(**figure_tables(empty_tables()))
    assert (nothing.share, nothing.known_recall.value, nothing.llm_share, nothing.known) == (None, None, None, 0)
    assert conclude(nothing, []) == [
        "Nothing was judged: there are no candidates.",
        "How many were missed was not measured: no false negatives are known beforehand. "
        "Label the sample sheet to learn precision and recall.",
        "No language model was asked: similarity alone decided.",
        "Retraining was not evaluated, so whether the new labels help a model is not known.",
    ]


def test_a_query_scored_with_several_seeds_counts_once_in_the_mean() -> None:
    tables = figure_tables(toy_tables())
    scored = [("base", "toy", "nDCG@10", q, value, seed) for q, value, seed in
              (("q1", 0.0, 1), ("q1", 0.2, 2), ("q1", 0.4, 3), ("q2", 1.0, 1))]  # fmt: skip
    tables["scores"] = rows(schemas.SCORES, *scored)
    found = count_figures(**tables)
    assert found.mean("base") == pytest.approx((0.2 + 1.0) / 2)
    assert found.evaluated_queries == 2


def test_the_conclusions_are_these_sentences() -> None:
    low, high = (percent(end) for end in share_interval(sums_of(toy_tables()).relevant))
    assert conclude(figures(), [comparison(measure="RR@10"), comparison()]) == [
        f"1 of 4 candidates (25%, 95% interval {low} to {high}) were judged to be false negatives; they belong to "
        "1 of 2 training queries, and 1 were relabelled as positives.",
        "Of 2 false negatives known beforehand the cascade found 1: recall 50% (95% interval 10% to 90%). Its "
        "precision is at least 100% (95% interval 20% to 100%): a relevant candidate that nobody knew of counts as an "
        "error. The intervals are by query.",
        "The language model was asked about 2 candidates (50%) in 2 calls and read 150 tokens; "
        "no judge but similarity was asked about the rest.",
        "Training on the relabelled instead of the default data raised nDCG@10 by 0.030 "
        "(+0.010 to +0.050, 95%, 40 held-out queries).",
        "1 candidates have no verdict because the answer could not be read; "
        "they count neither as relevant nor as not relevant.",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"difference": -0.03, "low": -0.05, "high": -0.01}, "data lowered nDCG@10 by 0.030 (−0.050 to −0.010, 95%"),
        (
            {"low": -0.01},
            "No difference in nDCG@10 between training on the relabelled and on the default data could be",
        ),
        ({"low": None, "high": None}, "nDCG@10 differs by +0.030 on 40 held-out queries, on each alike"),
        ({"measure": "RR@10"}, "Nothing is compared in nDCG@10: base, default, relabel was evaluated"),
    ],
)
def test_a_difference_is_said_to_be_shown_only_where_it_is(changes: dict[str, Any], said: str) -> None:
    assert said in conclude(figures(), [comparison(**changes)])[3]


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (("default", "remove_hn"), "Training on the remove_hn instead of the default data raised nDCG@10 by 0.030 ("),
        (("base", "remove"), "Training on the remove data instead of no training at all raised nDCG@10 by 0.030 ("),
    ],
)
def test_other_treatments_than_relabel_are_compared_too(pair: tuple[str, str], said: str) -> None:
    """Before, the report of `train_on: [default, remove_hn]` said that retraining was not evaluated."""
    assert conclude(figures(pair=pair), [comparison()])[3].startswith(said)
    names = {"default": pair[0], "relabel": pair[1]}
    tables = figure_tables(toy_tables())
    scores = tables["scores"].filter(pl.col("model").is_in(list(names)))
    tables["scores"] = scores.with_columns(pl.col("model").replace(names))
    found = count_figures(**tables)
    assert found.pair == pair
    assert set(found.as_dict()["ndcg10"]) == {"default", "relabel"} | set(pair) - {"base"}


def test_only_what_is_left_of_the_candidates_was_left_to_similarity() -> None:
    known = figures(labelled=2, llm_pairs=2)
    assert conclude(known, [])[2] == (
        "2 candidates (50%) are called irrelevant by the source itself, and stay negatives. "
        "The language model was asked about 2 candidates (50%) in 2 calls and read 150 tokens."
    )
    assert conclude(figures(labelled=1, llm_pairs=2), [])[2].endswith(
        "; no judge but similarity was asked about the rest."
    )
    assert conclude(figures(imported=1, llm_pairs=0), [])[2] == (
        "1 candidates (25%) have imported verdicts. No language model was asked: similarity alone decided the rest."
    )


def test_pairs_that_the_source_calls_irrelevant_are_counted() -> None:
    decisions = toy_tables()["decisions"].with_columns(judge=pl.lit("human:source"))
    labelled = count_figures(**figure_tables(toy_tables() | {"decisions": decisions})).labelled
    assert labelled == decisions.height > 0


def test_queries_dropped_whole_are_counted_in_the_last_sentence() -> None:
    assert conclude(figures(dropped=1_200), [])[-1].startswith("1,200 queries were dropped whole")
    assert len(conclude(figures(dropped=0, states={**figures().states, "unparsed": 0}), [])) == 4


def test_two_trained_rerankers_are_compared_in_a_sentence_and_one_alone_is_not() -> None:
    scored = [
        (f"reranker-{name}", "d", "nDCG@10", f"q{number}", value + number / 100, 42)
        for name, value in (("default", 0.5), ("relabel", 0.6), ("base", 0.1))
        for number in range(4)
    ]
    scores = rows(schemas.SCORES, *scored)
    (said,) = say_rerankers(scores)
    assert said.startswith("Of two rerankers of the same candidates, reranker-relabel has nDCG@10 0.615 and ")
    assert "reranker-default 0.515: +0.100" in said
    assert said.endswith("4 held-out queries).")
    assert say_rerankers(scores.filter(pl.col("model") != "reranker-default")) == []
    assert say_rerankers(schemas.SCORES.empty()) == []


def test_people_are_quoted_with_the_figures_that_are_defined() -> None:
    measured = (0.5, 0.2, 0.7, 0.8, 0.6, 0.9, None, None, None)
    assert say_people(rows(schemas.PEOPLE, ("llm", 30, 4, 2, 28, *measured))) == []
    assert say_people(rows(schemas.PEOPLE, ("cascade", 1_030, 4, 2, 28, *measured))) == [
        "People decided 1,030 of the pairs; on 4 of them the judges had said the opposite, "
        "and people were unsure of 2. "
        "The judges’ own decisions, against people’s: kappa 0.50 (0.20 to 0.70), precision 80% (60% to 90%), "
        "95% intervals."
    ]


def test_means_are_rounded_for_the_terminal() -> None:
    assert figures(means={("nDCG@10", "default"): 1 / 3}).as_dict()["ndcg10"] == {"default": 0.333333, "relabel": None}


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(summary_module) == set()


def test_recall_and_precision_on_the_known_ones_reach_the_json_line() -> None:
    said = figures().as_dict()
    assert said["known_recall"] == {"value": 0.5, "low": 0.1, "high": 0.9}
    assert said["known_precision"] == {"value": 1.0, "low": 0.2, "high": 1.0}


def test_where_nothing_was_called_relevant_the_precision_is_not_said() -> None:
    said = conclude(figures(known_precision=NOT_DEFINED), [])[1]
    assert said.endswith("recall 50% (95% interval 10% to 90%).")
