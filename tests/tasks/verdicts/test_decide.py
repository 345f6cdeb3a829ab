"""What the tiers say together."""

import math

import polars as pl
import pytest

from tasks.schemas import VERDICTS
from tasks.verdicts.decide import DecideConfig, decide
from tasks.verdicts.escalate import EscalateConfig, escalate
from tests.tasks.verdicts.judged import FOUR, Judged, candidates, decided, two_tiers, verdicts

BY_SIMILARITY = DecideConfig(similarity_decides=True)


def test_a_candidate_without_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="a verdict for each of 4 candidates expected, 3 came"):
        decide(DecideConfig(), candidates=candidates(FOUR), verdicts=verdicts(FOUR[:3]), llm_verdicts=VERDICTS.empty())
    with pytest.raises(ValueError, match="2 share theirs"):
        escalate(EscalateConfig(), candidates=candidates(FOUR), verdicts=verdicts([*FOUR, FOUR[0]]))


def test_without_an_llm_the_similarity_verdicts_stand_where_the_settings_name_its_thresholds() -> None:
    assert decided(BY_SIMILARITY, FOUR) == {
        "high": ("relevant", pytest.approx(0.95)),
        "middle": ("unsure", pytest.approx(0.6)),
        "low": ("not_relevant", pytest.approx(0.05)),
        "broken": ("unparsed", None),
    }


def test_the_fusion_adds_logits_and_its_own_thresholds_name_the_state() -> None:
    llm: list[Judged] = [("q1", "middle", "not_relevant", 0.4)]
    config = DecideConfig(weights={"similarity": 2.0, "llm": 0.5}, bias=-0.1, relevant_from=0.6, not_relevant_below=0.4)
    logit = 2.0 * math.log(0.6 / 0.4) + 0.5 * math.log(0.4 / 0.6) - 0.1
    expected = 1 / (1 + math.exp(-logit))
    assert decided(config, FOUR, llm)["middle"] == ("relevant", pytest.approx(expected))


def test_what_was_not_asked_is_scored_as_if_the_llm_knew_nothing_so_that_one_scale_orders_the_pool() -> None:
    llm: list[Judged] = [("q1", "middle", "unsure", 0.5)]
    config = DecideConfig(weights={"similarity": 2}, bias=-1)
    scores = {doc: score for doc, (_, score) in decided(config, FOUR, llm).items()}
    assert scores["low"] == pytest.approx(1 / (1 + math.exp(-(2 * math.log(0.05 / 0.95) - 1))))
    assert scores["low"] < scores["middle"] < scores["high"]  # type: ignore[operator]


def test_a_certain_answer_is_a_finite_score() -> None:
    rows: list[Judged] = [("q", "a", "unsure", 1.0), ("q", "b", "unsure", 0.0)]
    llm: list[Judged] = [("q", "a", "not_relevant", 0.0), ("q", "b", "relevant", 1.0)]
    assert [score for _, score in decided(BY_SIMILARITY, rows, llm).values()] == pytest.approx([0.5, 0.5])


def test_in_mode_last_the_llm_decides_where_it_was_asked_as_in_the_paper() -> None:
    llm: list[Judged] = [("q1", "middle", "not_relevant", 0.1), ("q1", "high", "relevant", 0.7)]
    assert decided(DecideConfig(mode="last", similarity_decides=True), FOUR, llm) == {
        "high": ("relevant", 0.7),
        "middle": ("not_relevant", 0.1),
        "low": ("not_relevant", 0.05),
        "broken": ("unparsed", None),
    }


@pytest.mark.parametrize("mode", ["fusion", "last"])
def test_paper_7_1_an_unparsed_answer_stays_unparsed_however_sure_similarity_was(mode: str) -> None:
    llm: list[Judged] = [("q1", "high", "unparsed", None)]
    assert decided(DecideConfig(mode=mode), FOUR, llm)["high"] == ("unparsed", None)


def test_where_only_the_llm_could_answer_its_verdict_stands() -> None:
    llm: list[Judged] = [("q2", "broken", "relevant", 0.8)]
    assert decided(DecideConfig(bias=-5, similarity_decides=True), FOUR, llm)["broken"] == ("relevant", 0.8)


def test_what_the_budget_left_out_of_the_band_is_unsure() -> None:
    llm: list[Judged] = [("q1", "middle", "relevant", 0.9)]
    states = {doc: state for doc, (state, _) in decided(DecideConfig(lower=0.05, upper=0.95), FOUR, llm).items()}
    assert states == {"high": "unsure", "middle": "relevant", "low": "unsure", "broken": "unparsed"}


def test_a_decision_names_who_decided_and_which_call_it_rests_on() -> None:
    llm = verdicts([("q1", "middle", "relevant", 0.9), ("other", "part", "relevant", 0.9)], "llm")
    for mode, judge in (("fusion", "similarity-judge+llm-judge"), ("last", "llm-judge")):
        config = DecideConfig(mode=mode, similarity_decides=True)
        frame = decide(config, candidates=candidates(FOUR), verdicts=verdicts(FOUR), llm_verdicts=llm)["decisions"]
        assert frame.filter(doc_id="middle").select("tier", "judge", "call_id").rows() == [("cascade", judge, "call")]
        assert frame.filter(doc_id="low").select("judge", "call_id").rows() == [("similarity-judge", None)]


def test_two_llm_verdicts_on_one_pair_are_refused() -> None:
    llm = verdicts([("q1", "middle", "relevant", 0.9)] * 2, "llm")
    with pytest.raises(ValueError, match="llm_verdicts: one row per"):
        decide(DecideConfig(), candidates=candidates(FOUR), verdicts=verdicts(FOUR), llm_verdicts=llm)


def test_the_last_tier_that_was_asked_decides_and_an_earlier_one_where_it_was_not() -> None:
    llm = two_tiers(
        [("q1", "middle", "unsure", 0.5), ("q1", "high", "relevant", 0.9)], [("q1", "middle", "relevant", 0.8)]
    )
    frame = decide(
        DecideConfig(mode="last", tiers=("weak", "strong")),
        candidates=candidates(FOUR),
        verdicts=verdicts(FOUR),
        llm_verdicts=llm,
    )["decisions"]
    states = dict(frame.select("doc_id", "state").iter_rows())
    assert (states["middle"], states["high"]) == ("relevant", "relevant")


def test_a_tier_that_could_not_be_read_leaves_the_pair_unparsed_whatever_an_earlier_one_said() -> None:
    llm = two_tiers([("q1", "middle", "unsure", 0.5)], [("q1", "middle", "unparsed", None)])
    for mode in ("last", "fusion"):
        frame = decide(
            DecideConfig(mode=mode, tiers=("weak", "strong")),
            candidates=candidates(FOUR),
            verdicts=verdicts(FOUR),
            llm_verdicts=llm,
        )["decisions"]
        assert frame.filter(pl.col("doc_id") == "middle").select("state", "score").row(0) == ("unparsed", None)


def test_a_tier_that_reads_what_an_earlier_one_could_not_counts_alone_beside_similarity() -> None:
    llm = two_tiers([("q1", "middle", "unparsed", None)], [("q1", "middle", "relevant", 0.8)])
    config = DecideConfig(tiers=("weak", "strong"), weights={"similarity": 1.0, "weak": 5.0})
    frame = decide(config, candidates=candidates(FOUR), verdicts=verdicts(FOUR), llm_verdicts=llm)["decisions"]
    logit = math.log(0.6 / 0.4) + math.log(0.8 / 0.2)
    found = frame.filter(pl.col("doc_id") == "middle")["score"].item()
    assert found == pytest.approx(1 / (1 + math.exp(-logit)))


def test_a_tier_that_nobody_named_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the tiers \['llm'\] expected, \['weak'\] came"):
        decide(
            DecideConfig(),
            candidates=candidates(FOUR),
            verdicts=verdicts(FOUR),
            llm_verdicts=verdicts([("q1", "middle", "unsure", 0.5)], "weak"),
        )


def test_an_empty_part_is_decided_to_an_empty_table() -> None:
    assert decided(DecideConfig(), []) == {}


def test_scores_at_the_thresholds_are_relevant_and_unsure() -> None:
    rows: list[Judged] = [("q", "a", "unsure", 0.5), ("q", "b", "unsure", 0.5)]
    llm: list[Judged] = [("q", "a", "unsure", 0.75), ("q", "b", "unsure", 0.25)]
    scores = [score for _, score in decided(BY_SIMILARITY, rows, llm).values()]
    config = DecideConfig(similarity_decides=True, relevant_from=scores[0], not_relevant_below=scores[1])
    assert [state for state, _ in decided(config, rows, llm).values()] == ["relevant", "unsure"]


def test_two_calibrated_judges_at_30_percent_are_62_percent_where_10_percent_are_relevant() -> None:
    rows: list[Judged] = [("q", "both", "unsure", 0.5), ("q", "one", "unsure", 0.5), ("q", "none", "unsure", 0.5)]
    llm = two_tiers(
        [("q", "both", "unsure", 0.3), ("q", "one", "unsure", 0.3)],
        [("q", "both", "unsure", 0.3)],
    )
    config = DecideConfig(tiers=("weak", "strong"), prevalence=0.1)
    frame = decide(config, candidates=candidates(rows), verdicts=verdicts(rows), llm_verdicts=llm)["decisions"]
    scores = dict(frame.select("doc_id", "score").iter_rows())
    odds = (0.3 / 0.7) ** 2 / (0.1 / 0.9)  # of two independent witnesses, by Bayes' rule: the prior counts once
    assert scores["both"] == pytest.approx(odds / (1 + odds)) == pytest.approx(0.623, abs=0.001)
    assert scores["one"] == pytest.approx(0.3)  # a single calibrated judge is believed as it is
    assert scores["none"] is None


def test_what_similarity_alone_ranked_is_unsure_and_has_no_score_unless_similarity_counts() -> None:
    rows: list[Judged] = [("q", "asked", "unsure", 0.9), ("q", "near", "unsure", 0.99), ("q", "far", "unsure", 0.01)]
    llm: list[Judged] = [("q", "asked", "unsure", 0.2)]
    for mode in ("fusion", "last"):
        found = decided(DecideConfig(mode=mode), rows, llm)
        assert (found["near"], found["far"]) == (("unsure", None), ("unsure", None))
        assert found["asked"][1] == pytest.approx(0.2)  # the uncalibrated 0.9 has no say
    assert decided(DecideConfig(weights={"similarity": 1.0}), rows, llm)["near"] == ("unsure", pytest.approx(0.99))


def combined(rows: list[Judged]) -> pl.DataFrame:
    return verdicts(rows, "combined").with_columns(call_id=pl.lit(None, dtype=pl.String))


def test_with_a_calibration_p_after_all_tiers_is_the_score_and_its_thresholds_name_the_state() -> None:
    llm = verdicts([("q1", "middle", "not_relevant", 0.1), ("q2", "broken", "unparsed", None)], "llm")
    said: list[Judged] = [
        ("q1", "high", "unsure", 0.95),
        ("q1", "middle", "unsure", 0.9),
        ("q1", "low", "unsure", 0.3),
        ("q2", "broken", "unparsed", None),
    ]
    config = DecideConfig(relevant_from=0.9, not_relevant_below=0.1)
    frame = decide(
        config, candidates=candidates(FOUR), verdicts=verdicts(FOUR), llm_verdicts=llm, combined=combined(said)
    )["decisions"]
    assert frame.select("doc_id", "state", "score", "judge", "call_id").sort("doc_id").rows() == [
        ("broken", "unparsed", None, "combined-judge", "call"),
        ("high", "relevant", 0.95, "combined-judge", None),
        ("low", "unsure", 0.3, "combined-judge", None),
        ("middle", "relevant", 0.9, "combined-judge", "call"),
    ]
    with pytest.raises(ValueError, match="combined: a row for each of 4 candidates expected, 3 came"):
        decide(
            config, candidates=candidates(FOUR), verdicts=verdicts(FOUR), llm_verdicts=llm, combined=combined(said[:3])
        )


def test_a_pair_that_a_budget_kept_from_the_last_tier_must_itself_be_as_sure_as_the_price() -> None:
    names = ("asked", "weak-only", "sure", "nobody")
    rows: list[Judged] = [("q", name, "unsure", 0.5) for name in names]
    llm = two_tiers(
        [("q", "asked", "unsure", 0.5), ("q", "weak-only", "unsure", 0.5)], [("q", "asked", "relevant", 0.7)]
    )
    p: list[Judged] = [("q", name, "unsure", value) for name, value in zip(names, (0.6, 0.6, 0.9, 0.89), strict=True)]
    tables = {"candidates": candidates(rows), "verdicts": verdicts(rows), "combined": combined(p)}

    def states(tiers: tuple[str, ...], said: pl.DataFrame) -> dict[str, str]:
        config = DecideConfig(tiers=tiers, precision=0.9, relevant_from=0.5, not_relevant_below=0.1)
        return dict(decide(config, **tables, llm_verdicts=said)["decisions"].select("doc_id", "state").iter_rows())

    found = states(("weak", "strong"), llm)
    assert found == {"asked": "relevant", "weak-only": "unsure", "sure": "relevant", "nobody": "unsure"}
    assert set(states((), llm.clear()).values()) == {"relevant"}  # similarity alone: the threshold is its own


def test_a_decision_has_one_price() -> None:
    assert DecideConfig(precision=0.9).price == {"precision": 0.9}
    assert DecideConfig(f1=True).price == {"f1": True}
    assert DecideConfig().price == {}
    with pytest.raises(ValueError, match="one of precision, recall, f1 expected, got precision and f1"):
        DecideConfig(precision=0.9, f1=True)
    with pytest.raises(ValueError, match="recall needs `mode: fusion`"):
        DecideConfig(recall=0.9, mode="last")
