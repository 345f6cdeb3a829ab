"""The cascade: which pairs go on to the next tier, and what the tiers say together."""

import math
from collections.abc import Sequence

import polars as pl
import pytest
from pydantic import ValidationError

from tasks.judging.cascade import (
    AdmitConfig,
    CompleteConfig,
    DecideConfig,
    EscalateConfig,
    IncompleteError,
    admit,
    check_complete,
    complete,
    decide,
    escalate,
)
from tasks.schemas import CANDIDATES, VERDICTS
from tests.tasks.settings import settings_of

Judged = tuple[str, str, str, float | None]  # query, doc, state, score


def candidates(rows: Sequence[Judged]) -> pl.DataFrame:
    """One candidate per row; the text of a doc is its id up to a dash, so "a" and "a-copy" are one text."""
    return pl.DataFrame(
        [("d", q, doc, doc.split("-")[0], f"hash-{q}", f"pos-{q}", "dense", 1, 0.5) for q, doc, _, _ in rows],
        schema=CANDIDATES.columns,
        orient="row",
    )


def verdicts(rows: Sequence[Judged], tier: str = "similarity") -> pl.DataFrame:
    call_id = None if tier == "similarity" else "call"
    return pl.DataFrame(
        [("d", q, doc, tier, f"{tier}-judge", state, score, None, None, call_id, 1) for q, doc, state, score in rows],
        schema=VERDICTS.columns,
        orient="row",
    )


FOUR: list[Judged] = [
    ("q1", "high", "relevant", 0.95),
    ("q1", "middle", "unsure", 0.6),
    ("q1", "low", "not_relevant", 0.05),
    ("q2", "broken", "unparsed", None),
]


def escalated_docs(config: EscalateConfig, rows: Sequence[Judged]) -> list[list[str]]:
    parts = escalate(config, candidates=candidates(rows), verdicts=verdicts(rows))["escalated"]
    assert all(dict(part.schema) == CANDIDATES.columns for part in parts)
    return [part["doc_id"].to_list() for part in parts]


def decided(
    config: DecideConfig, rows: Sequence[Judged], llm: Sequence[Judged] = ()
) -> dict[str, tuple[str, float | None]]:
    frame = decide(config, candidates=candidates(rows), verdicts=verdicts(rows), llm_verdicts=verdicts(llm, "llm"))
    decisions = frame["decisions"]
    assert dict(decisions.schema) == VERDICTS.columns
    assert decisions.height == len(rows)
    return {doc: (state, score) for doc, state, score in decisions.select("doc_id", "state", "score").iter_rows()}


def test_by_default_the_llm_sees_what_similarity_left_open() -> None:
    assert escalated_docs(EscalateConfig(), FOUR) == [["middle", "broken"]]


def test_a_band_widens_what_the_llm_sees_and_its_bounds_belong_to_it() -> None:
    assert escalated_docs(EscalateConfig(lower=0.6, upper=0.95), FOUR) == [["high", "middle", "broken"]]


def test_nothing_to_escalate_is_one_empty_part() -> None:
    assert escalated_docs(EscalateConfig(), FOUR[:1]) == [[]]
    assert escalated_docs(EscalateConfig(), []) == [[]]


def test_a_budget_goes_to_the_unparsed_and_then_to_the_highest_scores() -> None:
    rows: list[Judged] = [*FOUR, ("q3", "second", "unsure", 0.5), ("q3", "third", "unsure", 0.4)]
    assert escalated_docs(EscalateConfig(max_pairs=1), rows) == [["broken"]]
    assert escalated_docs(EscalateConfig(max_pairs=3), rows) == [["middle", "broken", "second"]]
    assert escalated_docs(EscalateConfig(max_pairs=0), rows) == [[]]


def test_a_share_is_of_all_candidates_and_the_smaller_budget_wins() -> None:
    rows: list[Judged] = [("q", f"{n:03}", "unsure", n / 1000) for n in range(100)]
    assert len(escalated_docs(EscalateConfig(max_share=0.29), rows)[0]) == 29
    assert len(escalated_docs(EscalateConfig(max_share=0.29, max_pairs=10), rows)[0]) == 10


def test_ties_at_the_budget_are_cut_by_hash_whatever_the_order_of_the_rows() -> None:
    rows: list[Judged] = [("q", "b", "unsure", 0.5), ("q", "a", "unsure", 0.5), ("q", "c", "unsure", 0.5)]
    assert escalated_docs(EscalateConfig(max_pairs=2), rows) == [["a", "b"]]
    assert escalated_docs(EscalateConfig(max_pairs=2), rows[::-1]) == [["a", "b"]]


def test_copies_of_one_text_go_along_and_cost_nothing() -> None:
    rows: list[Judged] = [("q", "a", "unsure", 0.5), ("q", "a-copy", "unsure", 0.5), ("q", "b", "unsure", 0.4)]
    assert escalated_docs(EscalateConfig(max_pairs=1), rows) == [["a", "a-copy"]]


def test_parts_are_full_and_no_query_is_cut_in_two() -> None:
    rows: list[Judged] = [
        (q, f"{q}{n}", "unsure", 0.5) for q, size in (("q1", 2), ("q2", 3), ("q3", 1)) for n in range(size)
    ]
    assert escalated_docs(EscalateConfig(pairs_per_part=4), rows) == [["q10", "q11"], ["q20", "q21", "q22", "q30"]]
    assert escalated_docs(EscalateConfig(pairs_per_part=1), rows) == [["q10", "q11"], ["q20", "q21", "q22"], ["q30"]]


def test_a_candidate_without_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="a verdict for each of 4 candidates expected, 3 came"):
        decide(DecideConfig(), candidates=candidates(FOUR), verdicts=verdicts(FOUR[:3]), llm_verdicts=VERDICTS.empty())
    with pytest.raises(ValueError, match="2 share theirs"):
        escalate(EscalateConfig(), candidates=candidates(FOUR), verdicts=verdicts([*FOUR, FOUR[0]]))


def test_without_an_llm_the_similarity_verdicts_stand() -> None:
    assert decided(DecideConfig(), FOUR) == {
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
    assert [score for _, score in decided(DecideConfig(), rows, llm).values()] == pytest.approx([0.5, 0.5])


def test_in_mode_last_the_llm_decides_where_it_was_asked_as_in_the_paper() -> None:
    llm: list[Judged] = [("q1", "middle", "not_relevant", 0.1), ("q1", "high", "relevant", 0.7)]
    assert decided(DecideConfig(mode="last"), FOUR, llm) == {
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
    assert decided(DecideConfig(bias=-5), FOUR, llm)["broken"] == ("relevant", 0.8)


def test_what_the_budget_left_out_of_the_band_is_unsure() -> None:
    llm: list[Judged] = [("q1", "middle", "relevant", 0.9)]
    states = {doc: state for doc, (state, _) in decided(DecideConfig(lower=0.05, upper=0.95), FOUR, llm).items()}
    assert states == {"high": "unsure", "middle": "relevant", "low": "unsure", "broken": "unparsed"}


def test_a_decision_names_who_decided_and_which_call_it_rests_on() -> None:
    llm = verdicts([("q1", "middle", "relevant", 0.9), ("other", "part", "relevant", 0.9)], "llm")
    for mode, judge in (("fusion", "similarity-judge+llm-judge"), ("last", "llm-judge")):
        frame = decide(DecideConfig(mode=mode), candidates=candidates(FOUR), verdicts=verdicts(FOUR), llm_verdicts=llm)[
            "decisions"
        ]
        assert frame.filter(doc_id="middle").select("tier", "judge", "call_id").rows() == [("cascade", judge, "call")]
        assert frame.filter(doc_id="low").select("judge", "call_id").rows() == [("similarity-judge", None)]


def test_two_llm_verdicts_on_one_pair_are_refused() -> None:
    llm = verdicts([("q1", "middle", "relevant", 0.9)] * 2, "llm")
    with pytest.raises(ValueError, match="llm_verdicts: one row per"):
        decide(DecideConfig(), candidates=candidates(FOUR), verdicts=verdicts(FOUR), llm_verdicts=llm)


def two_tiers(weak: list[Judged], strong: list[Judged]) -> pl.DataFrame:
    return pl.concat([verdicts(weak, "weak"), verdicts(strong, "strong")])


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
    config = DecideConfig(tiers=("weak", "strong"), weights={"weak": 5.0})
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


def test_a_row_goes_whole_where_any_of_it_is_open() -> None:
    rows: list[Judged] = [
        ("q1", "a", "relevant", 0.9),
        ("q1", "b", "not_relevant", 0.1),
        ("q2", "c", "not_relevant", 0.2),
    ]
    config = EscalateConfig(states=("relevant", "unsure"), unit="row")
    parts = escalate(config, candidates=candidates(rows), verdicts=verdicts(rows))["escalated"]
    assert pl.concat(parts)["doc_id"].to_list() == ["a", "b"]


def test_a_budget_takes_whole_rows_or_none_of_them() -> None:
    rows: list[Judged] = [
        ("q1", "a", "relevant", 0.8), ("q1", "b", "not_relevant", 0.1),
        ("q2", "c", "relevant", 0.9), ("q3", "d", "relevant", 0.7),
    ]  # fmt: skip
    config = EscalateConfig(states=("relevant",), unit="row", max_pairs=2)
    parts = escalate(config, candidates=candidates(rows), verdicts=verdicts(rows))["escalated"]
    assert pl.concat(parts)["doc_id"].to_list() == ["c"]


def test_a_later_tier_is_asked_only_about_what_the_tier_before_left_open() -> None:
    rows: list[Judged] = [("q1", "a", "unsure", 0.5), ("q1", "b", "unsure", 0.5), ("q2", "c", "unparsed", None)]
    weak = verdicts([("q1", "a", "unsure", 0.5), ("q2", "c", "unparsed", None)], "weak")
    parts = escalate(EscalateConfig(), candidates=candidates(rows), verdicts=weak)["escalated"]
    assert sorted(pl.concat(parts)["doc_id"]) == ["a", "c"]


def test_an_empty_part_is_decided_to_an_empty_table() -> None:
    assert decided(DecideConfig(), []) == {}


def test_paper_7_1_too_many_unparsed_pairs_stop_the_work_and_say_what_to_do() -> None:
    rows: list[Judged] = [("q", str(n), "unparsed" if n < 12 else "relevant", 0.9) for n in range(40)]
    with pytest.raises(
        IncompleteError, match=r"judgments: 12 of 40 pairs unparsed \(30% > max_unparsed=5%\); read raw"
    ):
        complete(CompleteConfig(), decisions=verdicts(rows))
    passed = complete(CompleteConfig(max_unparsed=0.3), decisions=verdicts(rows))["completeness"]
    assert passed.to_dicts() == [{"pairs": 40, "unparsed": 12}]
    check_complete(verdicts(rows), 0.3)
    check_complete(verdicts([]), 0.0)


@pytest.mark.parametrize("config", [EscalateConfig, DecideConfig])
def test_a_band_needs_both_bounds_in_order(config: type[EscalateConfig] | type[DecideConfig]) -> None:
    with pytest.raises(ValidationError, match="come together"):
        config(lower=0.2)
    with pytest.raises(ValidationError, match="must not exceed"):
        config(lower=0.8, upper=0.2)


def test_a_judge_that_answers_nothing_fails_completeness_however_little_it_was_asked() -> None:
    asked = [("q1", f"asked{n}", "unparsed", None) for n in range(30)]
    rest = [("q1", f"rest{n}", "not_relevant", 0.1) for n in range(970)]
    frame = verdicts([*asked, *rest]).with_columns(
        call_id=pl.when(pl.col("doc_id").str.starts_with("asked")).then(pl.lit("call"))
    )
    with pytest.raises(IncompleteError, match=r"30 of 30 pairs unparsed \(100% > max_unparsed_of_asked=20%\)"):
        complete(CompleteConfig(), decisions=frame)
    assert complete(CompleteConfig(max_unparsed_of_asked=1.0), decisions=frame)["completeness"].height == 1


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(EscalateConfig) == {
        "states": ("unsure",),
        "lower": (None, ">=0", "<=1"),
        "upper": (None, ">=0", "<=1"),
        "unit": "pair",
        "max_share": (1.0, ">=0", "<=1"),
        "max_pairs": (None, ">=0"),
        "pairs_per_part": (256, ">=1"),
    }
    assert settings_of(DecideConfig) == {
        "": "finite",
        "mode": "fusion",
        "weights": {},
        "bias": 0.0,
        "relevant_from": (0.5, ">=0", "<=1"),
        "not_relevant_below": (0.5, ">=0", "<=1"),
        "tiers": ("llm",),
        "lower": (None, ">=0", "<=1"),
        "upper": (None, ">=0", "<=1"),
    }
    assert settings_of(AdmitConfig) == {"skip": ()}
    assert settings_of(CompleteConfig) == {
        "max_unparsed": (0.05, ">=0", "<=1"),
        "max_unparsed_of_asked": (0.2, ">=0", "<=1"),
    }


def test_equal_scores_of_several_queries_are_taken_in_the_order_of_their_hashes() -> None:
    rows: list[Judged] = [(q, f"{q}-doc", "unsure", 0.5) for q in ("q3", "q1", "q2")]
    assert escalated_docs(EscalateConfig(max_pairs=2), rows) == [["q1-doc", "q2-doc"]]
    config = EscalateConfig(unit="row", max_pairs=2)
    assert escalated_docs(config, rows) == [["q1-doc", "q2-doc"]]


def test_the_same_query_with_other_positives_is_another_question() -> None:
    rows: list[Judged] = [("q", "a", "unsure", 0.5), ("q", "b", "unsure", 0.5), ("q", "c", "unsure", 0.5)]
    asked = candidates(rows).with_columns(positives_hash=pl.Series(["pos-2", "pos-1", "pos-3"]))
    for unit in ("pair", "row"):
        config = EscalateConfig.model_validate({"unit": unit, "max_pairs": 2})
        parts = escalate(config, candidates=asked, verdicts=verdicts(rows))["escalated"]
        assert [part["doc_id"].to_list() for part in parts] == [["a", "b"]]


def test_a_row_that_fills_the_budget_exactly_goes() -> None:
    rows: list[Judged] = [("q1", "a", "relevant", 0.8), ("q1", "b", "not_relevant", 0.1)]
    config = EscalateConfig(states=("relevant",), unit="row")
    assert escalated_docs(config.model_copy(update={"max_pairs": 2}), rows) == [["a", "b"]]
    assert escalated_docs(config.model_copy(update={"max_pairs": 1}), rows) == [[]]


def test_a_row_with_an_unparsed_pair_comes_before_rows_with_higher_scores() -> None:
    rows: list[Judged] = [("q1", "a", "unsure", 0.9), ("q2", "b", "unparsed", None)]
    assert escalated_docs(EscalateConfig(unit="row", max_pairs=1), rows) == [["b"]]


def test_twenty_pairs_are_enough_to_hold_a_judge_to_its_own_share() -> None:
    def frame(asked: int) -> pl.DataFrame:
        rows: list[Judged] = [("q", f"{n}", "unparsed" if n < 5 else "relevant", 0.9) for n in range(500)]
        call = pl.when(pl.col("doc_id").cast(pl.Int64) < asked).then(pl.lit("call"))
        return verdicts(rows).with_columns(call_id=call)

    with pytest.raises(IncompleteError, match=r"5 of 20 pairs unparsed \(25% > max_unparsed_of_asked=20%\)"):
        complete(CompleteConfig(), decisions=frame(20))
    complete(CompleteConfig(), decisions=frame(19))
    complete(CompleteConfig(), decisions=frame(25))


def test_a_band_of_one_score_and_equal_thresholds_are_accepted() -> None:
    assert escalated_docs(EscalateConfig(lower=0.95, upper=0.95), FOUR[:3]) == [["high", "middle"]]
    DecideConfig(relevant_from=0.4, not_relevant_below=0.4)
    with pytest.raises(ValidationError, match="must not exceed"):
        DecideConfig(relevant_from=0.4, not_relevant_below=0.41)


def test_scores_at_the_thresholds_are_relevant_and_unsure() -> None:
    rows: list[Judged] = [("q", "a", "unsure", 0.5), ("q", "b", "unsure", 0.5)]
    llm: list[Judged] = [("q", "a", "unsure", 0.75), ("q", "b", "unsure", 0.25)]
    scores = [score for _, score in decided(DecideConfig(), rows, llm).values()]
    config = DecideConfig(relevant_from=scores[0], not_relevant_below=scores[1])
    assert [state for state, _ in decided(config, rows, llm).values()] == ["relevant", "unsure"]


def test_skipped_datasets_are_left_out_by_their_whole_name() -> None:
    rows = pl.concat([candidates(FOUR).with_columns(dataset=pl.lit(name)) for name in ("d", "d2", "data/d")])
    admitted = admit(AdmitConfig(skip=("d",)), candidates=rows)["admitted"]
    assert admitted["dataset"].unique().sort().to_list() == ["d2", "data/d"]
