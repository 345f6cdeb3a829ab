"""Which pairs go on to the next tier."""

import polars as pl
import pytest

from tasks.verdicts.escalate import AdmitConfig, EscalateConfig, admit, escalate
from tests.tasks.verdicts.judged import FOUR, Judged, candidates, escalated_docs, said_by_people, verdicts


def test_by_default_the_llm_sees_what_similarity_left_open_or_called_relevant() -> None:
    assert escalated_docs(EscalateConfig(), FOUR) == ["high", "middle", "broken"]
    assert escalated_docs(EscalateConfig(states=("unsure",)), FOUR) == ["middle", "broken"]


def test_scores_of_no_known_scale_exclude_nothing_and_go_in_their_order() -> None:
    config = EscalateConfig(lower=0.6, upper=0.9, calibrated=False)
    assert escalated_docs(config, FOUR) == ["high", "low", "middle", "broken"]
    assert escalated_docs(config.model_copy(update={"max_pairs": 2}), FOUR) == ["high", "broken"]


def test_a_row_too_large_for_the_budget_does_not_keep_smaller_ones_from_it() -> None:
    rows: list[Judged] = [
        (q, f"{q}-{n:02}".replace("-", ""), "relevant", score)
        for q, size, score in (("q1", 25, 0.9), ("q2", 5, 0.8), ("q3", 5, 0.7))
        for n in range(size)
    ]
    asked = escalated_docs(EscalateConfig(unit="row", max_pairs=20), rows)
    assert sorted({doc[:2] for doc in asked}) == ["q2", "q3"]
    assert len(asked) == 10


def test_the_budget_of_a_query_grows_only_where_certain_negatives_lack() -> None:
    rich: list[Judged] = [("q1", f"a{n}", "unsure", s) for n, s in enumerate((0.9, 0.5, 0.4, 0.05, 0.04))]
    poor: list[Judged] = [("q2", f"b{n}", "unsure", s) for n, s in enumerate((0.9, 0.8, 0.7, 0.6, 0.05))]
    per_query = {"start": 1, "most": 3, "enough": 2, "below": 0.1}
    config = EscalateConfig.model_validate({"per_query": per_query, "states": ["unsure"], "lower": 0.2, "upper": 1})
    assert escalated_docs(config, rich) == ["a0"]  # two certain negatives are enough
    assert escalated_docs(config, poor) == ["b0", "b4"]  # one lacks: the least likely is asked about too
    assert escalated_docs(config, poor[:4]) == ["b0", "b2", "b3"]  # two lack
    capped = EscalateConfig.model_validate({"per_query": per_query | {"enough": 9}})
    assert escalated_docs(capped, poor) == ["b0", "b3", "b4"]
    assert escalated_docs(config.model_copy(update={"max_pairs": 1}), poor) == ["b0"]


def test_a_budget_per_query_counts_questions_not_copies_and_does_not_go_with_rows() -> None:
    rows: list[Judged] = [("q", "a", "unsure", 0.5), ("q", "a-copy", "unsure", 0.5), ("q", "b", "unsure", 0.4)]
    config = EscalateConfig.model_validate({"per_query": {"start": 1, "most": 1, "enough": 1}})
    assert escalated_docs(config, rows) == ["a", "a-copy"]
    with pytest.raises(ValueError, match="per_query counts pairs and does not go with unit: row"):
        EscalateConfig.model_validate({"per_query": {"start": 1, "most": 1}, "unit": "row"})
    with pytest.raises(ValueError, match="most=1 must not be below start=2"):
        EscalateConfig.model_validate({"per_query": {"start": 2, "most": 1}})
    with pytest.raises(ValueError, match=r"per_query\.enough: a number expected"):
        escalated_docs(EscalateConfig.model_validate({"per_query": {"start": 1, "most": 1}}), rows)


def test_a_band_widens_what_the_llm_sees_and_its_bounds_belong_to_it() -> None:
    assert escalated_docs(EscalateConfig(lower=0.6, upper=0.95), FOUR) == ["high", "middle", "broken"]


def test_nothing_to_escalate_is_an_empty_table() -> None:
    assert escalated_docs(EscalateConfig(), FOUR[2:3]) == []
    assert escalated_docs(EscalateConfig(), []) == []


@pytest.mark.parametrize("unit", ["pair", "row"])
def test_no_judge_is_asked_about_what_people_called_irrelevant_even_with_whole_rows(unit: str) -> None:
    config = EscalateConfig.model_validate({"states": ["relevant", "unsure"], "unit": unit, "max_share": 0.5})
    rows = [*FOUR, ("q1", "other", "not_relevant", 0.1)]
    known = said_by_people(rows, "middle", "broken")
    found = escalate(config, candidates=known, verdicts=verdicts(rows))["escalated"]["doc_id"].to_list()
    assert found == ([] if unit == "row" else ["high"])
    whole = config.model_copy(update={"max_share": 1.0})
    found = escalate(whole, candidates=known, verdicts=verdicts(rows))["escalated"]["doc_id"].to_list()
    assert set(found) == ({"high", "low", "other"} if unit == "row" else {"high"})


def test_a_budget_goes_to_the_unparsed_and_then_to_the_highest_scores() -> None:
    rows: list[Judged] = [*FOUR, ("q3", "second", "unsure", 0.5), ("q3", "third", "unsure", 0.4)]
    config = EscalateConfig(states=("unsure",))
    for most, docs in ((1, ["broken"]), (3, ["middle", "broken", "second"]), (0, [])):
        assert escalated_docs(config.model_copy(update={"max_pairs": most}), rows) == docs


def test_a_share_is_of_all_candidates_and_the_smaller_budget_wins() -> None:
    rows: list[Judged] = [("q", f"{n:03}", "unsure", n / 1000) for n in range(100)]
    assert len(escalated_docs(EscalateConfig(max_share=0.29), rows)) == 29
    assert len(escalated_docs(EscalateConfig(max_share=0.29, max_pairs=10), rows)) == 10


def test_ties_at_the_budget_are_cut_by_hash_whatever_the_order_of_the_rows() -> None:
    rows: list[Judged] = [("q", "b", "unsure", 0.5), ("q", "a", "unsure", 0.5), ("q", "c", "unsure", 0.5)]
    assert escalated_docs(EscalateConfig(max_pairs=2), rows) == ["a", "b"]
    assert escalated_docs(EscalateConfig(max_pairs=2), rows[::-1]) == ["a", "b"]


def test_copies_of_one_text_go_along_and_cost_nothing() -> None:
    rows: list[Judged] = [("q", "a", "unsure", 0.5), ("q", "a-copy", "unsure", 0.5), ("q", "b", "unsure", 0.4)]
    assert escalated_docs(EscalateConfig(max_pairs=1), rows) == ["a", "a-copy"]


def test_a_row_goes_whole_where_any_of_it_is_open() -> None:
    rows: list[Judged] = [
        ("q1", "a", "relevant", 0.9),
        ("q1", "b", "not_relevant", 0.1),
        ("q2", "c", "not_relevant", 0.2),
    ]
    config = EscalateConfig(states=("relevant", "unsure"), unit="row")
    found = escalate(config, candidates=candidates(rows), verdicts=verdicts(rows))["escalated"]
    assert found["doc_id"].to_list() == ["a", "b"]


def test_a_budget_takes_whole_rows_or_none_of_them() -> None:
    rows: list[Judged] = [
        ("q1", "a", "relevant", 0.8), ("q1", "b", "not_relevant", 0.1),
        ("q2", "c", "relevant", 0.9), ("q3", "d", "relevant", 0.7),
    ]  # fmt: skip
    config = EscalateConfig(states=("relevant",), unit="row", max_pairs=2)
    found = escalate(config, candidates=candidates(rows), verdicts=verdicts(rows))["escalated"]
    assert found["doc_id"].to_list() == ["c", "d"]


def test_a_later_tier_is_asked_only_about_what_the_tier_before_left_open() -> None:
    rows: list[Judged] = [("q1", "a", "unsure", 0.5), ("q1", "b", "unsure", 0.5), ("q2", "c", "unparsed", None)]
    weak = verdicts([("q1", "a", "unsure", 0.5), ("q2", "c", "unparsed", None)], "weak")
    found = escalate(EscalateConfig(), candidates=candidates(rows), verdicts=weak)["escalated"]
    assert sorted(found["doc_id"]) == ["a", "c"]


def test_equal_scores_of_several_queries_are_taken_in_the_order_of_their_hashes() -> None:
    rows: list[Judged] = [(q, f"{q}-doc", "unsure", 0.5) for q in ("q3", "q1", "q2")]
    assert escalated_docs(EscalateConfig(max_pairs=2), rows) == ["q1-doc", "q2-doc"]
    config = EscalateConfig(unit="row", max_pairs=2)
    assert escalated_docs(config, rows) == ["q1-doc", "q2-doc"]


def test_the_same_query_with_other_positives_is_another_question() -> None:
    rows: list[Judged] = [("q", "a", "unsure", 0.5), ("q", "b", "unsure", 0.5), ("q", "c", "unsure", 0.5)]
    asked = candidates(rows).with_columns(positives_hash=pl.Series(["pos-2", "pos-1", "pos-3"]))
    for unit in ("pair", "row"):
        config = EscalateConfig.model_validate({"unit": unit, "max_pairs": 2})
        found = escalate(config, candidates=asked, verdicts=verdicts(rows))["escalated"]
        assert found["doc_id"].to_list() == ["a", "b"]


def test_a_row_that_fills_the_budget_exactly_goes() -> None:
    rows: list[Judged] = [("q1", "a", "relevant", 0.8), ("q1", "b", "not_relevant", 0.1)]
    config = EscalateConfig(states=("relevant",), unit="row")
    assert escalated_docs(config.model_copy(update={"max_pairs": 2}), rows) == ["a", "b"]
    assert escalated_docs(config.model_copy(update={"max_pairs": 1}), rows) == []


def test_a_row_with_an_unparsed_pair_comes_before_rows_with_higher_scores() -> None:
    rows: list[Judged] = [("q1", "a", "unsure", 0.9), ("q2", "b", "unparsed", None)]
    assert escalated_docs(EscalateConfig(unit="row", max_pairs=1), rows) == ["b"]


def test_skipped_datasets_are_left_out_by_their_whole_name() -> None:
    rows = pl.concat([candidates(FOUR).with_columns(dataset=pl.lit(name)) for name in ("d", "d2", "data/d")])
    admitted = admit(AdmitConfig(skip=("d",)), candidates=rows)["admitted"]
    assert admitted["dataset"].unique().sort().to_list() == ["d2", "data/d"]


def test_a_band_up_to_one_asks_the_same_pairs_as_before_relevant_pairs_went_on_by_default() -> None:
    rows: list[Judged] = [
        ("q", f"{n:03}", "relevant" if n >= 80 else "unsure" if n >= 60 else "not_relevant", n / 100)
        for n in range(101)
    ]
    band = {"lower": 0.6, "upper": 1.0, "max_pairs": 30}  # as in the demo
    before = EscalateConfig.model_validate({**band, "states": ["unsure"]})
    assert escalated_docs(EscalateConfig.model_validate(band), rows) == escalated_docs(before, rows)
    assert len(escalated_docs(before, rows)) == 30


def test_a_target_demands_something_and_goes_with_no_budget() -> None:
    config = EscalateConfig.model_validate({"target": {"recall": 0.95}, "unit": "pair"})
    assert config.target is not None
    assert config.target.confidence == 0.95
    with pytest.raises(ValueError, match="target: give recall, precision, or both"):
        EscalateConfig.model_validate({"target": {}})
    for clash in ({"max_pairs": 5}, {"lower": 0.1, "upper": 0.9}, {"unit": "row"}, {"max_share": 0.5}):
        with pytest.raises(ValueError, match=f"does not go with {next(iter(clash))}"):
            EscalateConfig.model_validate({"target": {"recall": 0.95}, **clash})
