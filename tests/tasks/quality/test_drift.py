"""Alarms: how often a false one is raised, how surely a real change is seen, and what is never compared."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tasks.quality import drift as drift_module
from tasks.quality.drift import (
    DriftConfig,
    Mix,
    Night,
    design_effect,
    find_drift,
    mix_p,
    pool,
    stability_index,
)
from tasks.quality.gold_answers import Answers, paired_p
from tasks.schemas import VERDICT_STATES
from tests.tasks.records import mutable_records
from tests.tasks.settings import settings_of

CONFIG = DriftConfig(permutations=999)
USUAL = (0.1, 0.8, 0.08, 0.02)
Rng = np.random.Generator


def answers(right: Sequence[bool], judge: str = "judge", items: str = "gold") -> Night:
    return Night(gold={"llm": Answers(judge, items, tuple(bool(x) for x in right))})


def mix(counts: Sequence[int], effect: float = 1.0, tier: str = "cascade", judge: str = "judge") -> Night:
    return Night(mix={tier: Mix(judge, dict(zip(VERDICT_STATES, map(int, counts), strict=True)), effect)})


def noisy_answers(rng: Rng, chances: np.ndarray) -> Night:
    return answers(rng.random(len(chances)) < chances)


def clustered(rng: Rng, shares: Sequence[float], queries: int, alike: float = 4.0) -> Night:
    """Six pairs per query, whose mix is the query's own: Dirichlet about `shares`; the smaller `alike`, the more so."""
    own = rng.dirichlet(np.array(shares) * alike, queries)
    counts = np.array([rng.multinomial(6, share) for share in own])
    rows = [
        ("d", f"q{q}", s)
        for q, row in enumerate(counts)
        for s, n in zip(VERDICT_STATES, row, strict=True)
        for _ in range(n)
    ]
    frame = pl.DataFrame(rows, schema=["dataset", "query_id", "state"], orient="row")
    return mix(counts.sum(axis=0), design_effect(frame))


def test_a_judge_that_did_not_change_raises_hardly_any_alarm_though_it_is_noisy() -> None:
    rng = np.random.default_rng(1)
    chances = rng.choice([0.05, 0.6, 0.98], 150, p=[0.1, 0.2, 0.7])
    alarms = 0
    for _ in range(300):
        nights = [noisy_answers(rng, chances) for _ in range(6)]
        alarms += bool(find_drift(CONFIG, nights[-1], nights[:-1]))
    assert alarms <= 7  # 1% of 300, and chance


def test_a_judge_that_lost_a_sixth_of_its_right_answers_raises_an_alarm_with_figures_and_advice() -> None:
    rng = np.random.default_rng(2)
    chances = rng.choice([0.05, 0.6, 0.98], 200, p=[0.1, 0.2, 0.7])
    worse = np.where(rng.random(200) < 0.2, 0.1, chances)
    found = [
        find_drift(CONFIG, noisy_answers(rng, worse), [noisy_answers(rng, chances) for _ in range(5)])
        for _ in range(100)
    ]
    assert sum(map(bool, found)) >= 95
    alarm = next(alarms for alarms in found if alarms)[0]
    assert (alarm.kind, alarm.tier) == ("gold", "llm")
    assert alarm.effect < -0.05
    assert "right tonight" in alarm.message
    assert "pin a dated one" in alarm.advice


def test_an_unchanged_deterministic_judge_is_silent_and_a_changed_one_is_seen_at_once() -> None:
    right = [True] * 40 + [False] * 10
    same = [answers(right)] * 3
    assert find_drift(CONFIG, answers(right), same) == []
    changed = [False] * 6 + [True] * 34 + [False] * 10
    assert {alarm.kind for alarm in find_drift(CONFIG, answers(changed), same)} == {"gold", "churn"}


def test_answers_that_flip_both_ways_alike_are_seen_though_as_many_are_right() -> None:
    """60 of 100 answers flip, 30 each way: the accuracy stays where it was."""
    right = [True] * 50 + [False] * 50
    flipped = [False] * 30 + [True] * 20 + [True] * 30 + [False] * 20
    (alarm,) = find_drift(CONFIG, answers(flipped), [answers(right)] * 2)
    assert (alarm.kind, alarm.tier, alarm.before, alarm.tonight) == ("churn", "llm", 0.0, 0.6)
    assert alarm.p < 1e-6
    assert "60% of 100 answers are other than usual tonight, 0% in the 2 nights before" in alarm.message
    assert "pin a dated one" in alarm.advice


def test_a_judge_that_always_flips_some_answers_raises_an_alarm_only_where_it_flips_many_more() -> None:
    rng = np.random.default_rng(7)
    usual = rng.random(200) < 0.7
    nights = [answers(usual ^ (rng.random(200) < 0.08)) for _ in range(6)]
    assert find_drift(CONFIG, nights[-1], nights[:-1]) == []
    half = answers(usual ^ (rng.random(200) < 0.3))
    assert "churn" in {alarm.kind for alarm in find_drift(CONFIG, half, nights[:-1])}


def test_many_pairs_of_few_queries_that_flip_together_are_no_proof_of_drift() -> None:
    """Forty pairs of two queries flip: two flips by chance, or drift. Taken as forty single ones they are an alarm."""
    right, tonight = [True] * 100, [False] * 40 + [True] * 60
    queries = (20, 20, *[1] * 60)

    def night(answered: Sequence[bool], grouped: tuple[int, ...]) -> Night:
        return Night(gold={"llm": Answers("judge", "gold", tuple(answered), queries=grouped)})

    assert find_drift(CONFIG, night(tonight, queries), [night(right, queries)] * 3) == []
    assert find_drift(CONFIG, night(tonight, ()), [night(right, ())] * 3)


def test_a_change_that_is_sure_but_small_is_no_alarm() -> None:
    rng = np.random.default_rng(3)
    right = rng.random(5000) < 0.9
    slightly = right.copy()
    slightly[np.flatnonzero(right)[:60]] = False
    assert paired_p(np.array([right, right]), slightly) < 1e-6
    assert find_drift(CONFIG, answers(slightly), [answers(right)] * 2) == []
    assert find_drift(CONFIG.model_copy(update={"min_accuracy_change": 0.01}), answers(slightly), [answers(right)] * 2)
    big = (np.array(USUAL) * 1_000_000).astype(int)
    shifted = big + np.array([9000, -9000, 0, 0])
    assert mix_p(mix(big).mix["cascade"], mix(shifted).mix["cascade"], VERDICT_STATES, 99, 0) < 1e-6
    assert find_drift(CONFIG, mix(shifted), [mix(big)] * 2) == []


def test_new_data_of_the_usual_mix_raises_hardly_any_alarm_though_pairs_of_a_query_resemble_each_other() -> None:
    rng = np.random.default_rng(4)
    alarms = naive = 0
    for _ in range(300):
        nights = [clustered(rng, USUAL, 40) for _ in range(5)]
        alarms += bool(find_drift(CONFIG, nights[-1], nights[:-1]))
        independent = [mix(list(night.mix["cascade"].states.values())) for night in nights]
        naive += bool(find_drift(CONFIG, independent[-1], independent[:-1]))
    assert alarms <= 9
    assert naive > alarms


def test_twice_as_many_false_negatives_among_the_new_pairs_raise_an_alarm() -> None:
    rng = np.random.default_rng(5)
    found = [
        find_drift(
            CONFIG, clustered(rng, (0.25, 0.65, 0.08, 0.02), 150), [clustered(rng, USUAL, 150) for _ in range(4)]
        )
        for _ in range(60)
    ]
    assert sum(map(bool, found)) >= 57
    assert {alarm.kind for alarms in found for alarm in alarms} == {"mix", "false_negatives"}
    assert "new pairs" in found[0][0].message


@pytest.mark.parametrize("counts", [(1, 50, 0, 0), (0, 51, 0, 0), (3, 47, 1, 0), (0, 0, 0, 51)])
def test_tiny_and_empty_counts_are_compared_without_complaint(counts: Sequence[int]) -> None:
    alarms = find_drift(CONFIG, mix(counts), [mix((2, 60, 1, 0))] * 2)
    assert bool(alarms) == (counts[3] == 51)


def test_sparse_cells_are_sampled_and_agree_with_fisher() -> None:
    from scipy.stats import fisher_exact

    before, tonight = mix((1, 59, 0, 0)).mix["cascade"], mix((7, 53, 0, 0)).mix["cascade"]
    sampled = mix_p(before, tonight, VERDICT_STATES, 20_000, 0)
    assert sampled == pytest.approx(fisher_exact([[1, 59], [7, 53]]).pvalue, abs=0.03)


def test_what_cannot_be_compared_is_not() -> None:
    right, wrong = answers([True] * 60), answers([False] * 60)
    assert find_drift(CONFIG, wrong, [right]) == []  # one night is no history
    other_judge = answers([True] * 60, judge="other")
    other_items = answers([True] * 60, items="other")
    assert find_drift(CONFIG, wrong, [other_judge, other_items, right]) == []
    assert find_drift(CONFIG, Night(), []) == []
    few, usual = mix((40, 0, 0, 0)), mix((0, 100, 0, 0))
    assert find_drift(CONFIG, few, [usual] * 3) == []  # fewer new pairs than min_pairs
    assert find_drift(CONFIG, mix((100, 0, 0, 0), judge="other"), [usual] * 3) == []
    assert find_drift(CONFIG, mix((100, 0, 0, 0)), [usual] * 3)


def test_many_tests_share_the_chance_of_a_false_alarm() -> None:
    before, tonight = Mix("j", {"relevant": 10, "not_relevant": 90}), Mix("j", {"relevant": 22, "not_relevant": 78})
    p = mix_p(before, tonight, VERDICT_STATES, 99, 0)
    config = CONFIG.model_copy(update={"alpha": p * 1.5, "min_psi": 0.0, "min_nights": 1})
    assert find_drift(config, Night(mix={"llm": tonight}), [Night(mix={"llm": before})])
    tiers = ("a", "b", "c")
    nights = [Night(mix=dict.fromkeys(tiers, m)) for m in (tonight, before)]
    assert find_drift(config, nights[0], nights[1:]) == []


def test_the_design_effect_is_one_for_independent_pairs_and_the_cluster_size_for_copies() -> None:
    rng = np.random.default_rng(6)
    alone = [("d", f"q{n // 5}", s) for n, s in enumerate(rng.choice(VERDICT_STATES[:2], 4000))]
    copies = [("d", f"q{n}", s) for n, s in enumerate(rng.choice(VERDICT_STATES[:2], 800)) for _ in range(5)]
    schema = ["dataset", "query_id", "state"]
    assert design_effect(pl.DataFrame(alone, schema=schema, orient="row")) == pytest.approx(1, abs=0.15)
    assert design_effect(pl.DataFrame(copies, schema=schema, orient="row")) == pytest.approx(5, abs=0.2)
    assert design_effect(pl.DataFrame([("d", "q", "relevant")] * 7, schema=schema, orient="row")) == 7


def test_the_stability_index_does_not_depend_on_sizes() -> None:
    small, large = {"relevant": 10, "not_relevant": 90}, {"relevant": 30_000, "not_relevant": 70_000}
    same = {"relevant": 10_000, "not_relevant": 90_000}
    assert stability_index(small, large) == pytest.approx(stability_index(same, large), rel=0.1)
    assert stability_index(same, same) == 0


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(DriftConfig) == {
        "min_nights": (2, ">=1"),
        "window": (30, ">=1"),
        "alpha": (0.01, ">0", "<1"),
        "min_accuracy_change": (0.03, ">=0", "<=1"),
        "min_churn_change": (0.05, ">=0", "<=1"),
        "min_psi": (0.1, ">=0"),
        "min_rate_change": (0.03, ">=0", "<=1"),
        "min_pairs": (50, ">=1"),
        "permutations": (9999, ">=99"),
        "seed": 0,
    }


def test_an_alarm_of_the_mix_has_the_figures_of_both_sides_and_what_changed_most() -> None:
    from scipy.stats import chi2_contingency

    before, tonight = [mix((50, 400, 40, 10)), mix((60, 390, 30, 20))], mix((120, 340, 30, 10))
    rate, alarm = find_drift(CONFIG, tonight, before)  # the surest first
    pooled = (110, 790, 70, 30)
    p = chi2_contingency([pooled, (120, 340, 30, 10)]).pvalue
    psi = stability_index(dict(zip(VERDICT_STATES, pooled, strict=True)), tonight.mix["cascade"].states)
    assert (alarm.kind, alarm.tier, alarm.before, alarm.tonight) == ("mix", "cascade", 0.11, 0.24)
    assert (alarm.effect, alarm.p) == (pytest.approx(psi), pytest.approx(p))
    assert alarm.message == (
        "verdicts of cascade: another mix over 500 new pairs than over 1,000 of 2 nights before "
        f"(relevant 11% → 24%; PSI {psi:.2f}, p = {p:.2g})"
    )
    assert (rate.kind, rate.before, rate.tonight, rate.effect) == ("false_negatives", 0.11, 0.24, pytest.approx(0.13))
    assert rate.p == pytest.approx(chi2_contingency([(110, 890), (120, 380)], correction=False).pvalue)
    assert rate.message.startswith("false negatives: 24.0% of 500 new pairs, 11.0% of 1,000 before (p = ")
    assert "Label the sample sheet" in rate.advice
    assert alarm.as_json()["message"] == alarm.message


def test_an_alarm_of_the_gold_set_has_the_mean_of_the_nights_before() -> None:
    before = [answers([True] * 90 + [False] * 10), answers([True] * 80 + [False] * 20)]
    tonight = answers([True] * 40 + [False] * 60)
    (alarm,) = (found for found in find_drift(CONFIG, tonight, before) if found.kind == "gold")
    assert (alarm.before, alarm.tonight, alarm.effect) == pytest.approx((0.85, 0.4, -0.45))
    assert alarm.message.startswith("gold set, llm: 40% of 100 right tonight, 85% over the 2 nights before (p = ")


def test_only_as_many_nights_as_the_window_holds_are_looked_back_at() -> None:
    usual, other = mix((100, 900, 0, 0)), mix((300, 700, 0, 0))
    assert find_drift(CONFIG.model_copy(update={"window": 2}), other, [usual] * 3 + [other] * 2) == []
    assert find_drift(CONFIG.model_copy(update={"window": 3}), other, [usual] * 3 + [other] * 2)


def test_changes_of_exactly_the_least_size_count() -> None:
    right = [True] * 900 + [False] * 100
    fewer = [False] * 30 + right[30:]
    assert find_drift(CONFIG, answers(fewer), [answers(right)] * 2)
    assert not find_drift(CONFIG, answers([False] * 29 + right[29:]), [answers(right)] * 2)
    config = CONFIG.model_copy(update={"min_psi": 9.0})
    many = [mix((100_000, 900_000, 0, 0))] * 2
    assert [a.kind for a in find_drift(config, mix((130_000, 870_000, 0, 0)), many)] == ["false_negatives"]
    assert find_drift(config, mix((129_000, 871_000, 0, 0)), many) == []


def test_as_many_new_pairs_as_are_needed_are_enough_on_both_sides() -> None:
    few, tonight = mix((0, 25, 0, 0)), mix((30, 20, 0, 0))
    assert find_drift(CONFIG, tonight, [few] * 2)
    assert find_drift(CONFIG, tonight, [mix((0, 24, 0, 0)), few]) == []
    assert find_drift(CONFIG, mix((29, 20, 0, 0)), [few] * 4) == []


def test_nights_without_a_tier_or_without_pairs_are_no_history() -> None:
    usual, tonight = mix((10, 90, 0, 0)), mix((60, 40, 0, 0))
    assert find_drift(CONFIG, tonight, [usual, Night(), mix((0, 0, 0, 0))]) == []
    assert find_drift(CONFIG, tonight, [usual, Night(), usual])
    assert find_drift(CONFIG, answers([]), [answers([])] * 3) == []


def test_the_design_effect_divides_the_statistic_and_the_larger_one_counts() -> None:
    from scipy.stats import chi2, chi2_contingency

    table = [(100, 900), (80, 420)]
    statistic = chi2_contingency(table, correction=False).statistic
    states = VERDICT_STATES[:2]

    def p(effects: tuple[float, float]) -> float:
        before, tonight = (
            Mix("j", dict(zip(states, row, strict=True)), effect) for row, effect in zip(table, effects, strict=True)
        )
        return mix_p(before, tonight, VERDICT_STATES, 99, 0)

    assert p((1.0, 1.0)) == pytest.approx(chi2.sf(statistic, 1))
    assert p((4.0, 1.0)) == pytest.approx(chi2.sf(statistic / 3, 1))  # 1,000 pairs of 4 and 500 of 1
    assert p((1.0, 4.0)) == pytest.approx(chi2.sf(statistic / 4, 1))
    assert p((0.5, 0.5)) == pytest.approx(chi2.sf(statistic, 1))  # never below 1


def test_two_mixes_of_one_state_are_alike_and_a_sampled_p_is_never_zero() -> None:
    one = Mix("j", {"relevant": 5})
    assert mix_p(one, Mix("j", {"relevant": 9}), VERDICT_STATES, 99, 0) == 1.0
    rare = Mix("j", {"relevant": 0, "not_relevant": 40})
    assert mix_p(rare, Mix("j", {"relevant": 4, "not_relevant": 0}), VERDICT_STATES, 99, 0) == pytest.approx(0.01)


def test_the_design_effect_of_a_small_table_is_that_of_rao_and_scott() -> None:
    """Six queries of two pairs, three of them all relevant: pairs of a query are copies, so close to 2."""
    rows = [("d", f"q{n}", "relevant" if n < 3 else "unsure") for n in range(6) for _ in range(2)]
    frame = pl.DataFrame(rows, schema=["dataset", "query_id", "state"], orient="row")
    # by state: six deviations of 1, times 6 / 5 / 12^2, over 0.5 * 0.5 / 12
    assert design_effect(frame) == pytest.approx((6 * 6 / 5 / 144) / (0.25 / 12))
    assert design_effect(frame.with_columns(state=pl.lit("unsure"))) == 1.0
    assert design_effect(frame.head(8)) == 2.0  # four queries are too few to measure it: the worst is taken
    assert design_effect(frame.clear()) == 1.0


def test_the_design_effect_weights_states_by_the_rest_of_the_pairs() -> None:
    counts = [(3, 1, 0), (0, 4, 0), (1, 1, 2), (0, 3, 1), (2, 2, 0), (0, 0, 4)]
    states = VERDICT_STATES[:3]
    rows = [
        ("d", f"q{q}", s) for q, row in enumerate(counts) for s, n in zip(states, row, strict=True) for _ in range(n)
    ]
    table, total = np.array(counts, dtype=float), 24.0
    shares = table.sum(axis=0) / total
    spread = ((table - 4 * shares) ** 2).sum(axis=0) * 6 / 5 / total**2
    effects = spread / (shares * (1 - shares) / total)
    expected = float(((1 - shares) * effects).sum() / 2)
    frame = pl.DataFrame(rows, schema=["dataset", "query_id", "state"], orient="row")
    assert design_effect(frame) == pytest.approx(expected)
    assert expected > 1


def test_nights_are_added_up_and_their_design_effects_weighted_by_pairs() -> None:
    pooled = pool([Mix("j", {"relevant": 10}, 1.0), Mix("j", {"relevant": 5, "unsure": 25}, 3.0)])
    assert pooled == Mix("j", {"relevant": 15, "not_relevant": 0, "unsure": 25, "unparsed": 0}, 2.5)
    assert pool([]) == Mix("", dict.fromkeys(VERDICT_STATES, 0), 1.0)


def test_the_stability_index_is_that_of_smoothed_shares() -> None:
    before, tonight = {"relevant": 9, "unsure": 0}, {"relevant": 4, "unsure": 5}
    was, now = np.array([9.5, 0.5]) / 10, np.array([4.5, 5.5]) / 10
    assert stability_index(before, tonight) == pytest.approx(((now - was) * np.log(now / was)).sum())


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(drift_module) == set()


def test_an_expected_count_of_five_is_enough_for_the_chi_square_distribution() -> None:
    from scipy.stats import chi2_contingency

    before, tonight = mix((5, 45, 0, 0)).mix["cascade"], mix((5, 45, 0, 0)).mix["cascade"]
    assert mix_p(before, tonight, VERDICT_STATES, 99, 0) == 1.0
    before, tonight = mix((2, 48, 0, 0)).mix["cascade"], mix((8, 42, 0, 0)).mix["cascade"]
    expected = chi2_contingency([(2, 48), (8, 42)], correction=False).pvalue
    assert mix_p(before, tonight, VERDICT_STATES, 99, 0) == pytest.approx(expected)


def test_a_state_that_came_once_is_compared_too() -> None:
    before, tonight = mix((0, 1000, 0, 0)).mix["cascade"], mix((1, 1, 0, 0)).mix["cascade"]
    assert mix_p(before, tonight, VERDICT_STATES, 99, 0) < 0.1


def test_an_alarm_names_other_software_as_a_possible_cause_and_only_if_its_tier_was_computed_by_it() -> None:
    right = [True] * 40 + [False] * 10
    changed = [False] * 6 + [True] * 34 + [False] * 10
    a, b = frozenset({"vllm 0.31.0"}), frozenset({"vllm 0.31.0", "vllm 0.32.0"})

    def advice(before: dict[str, frozenset[str]], tonight: dict[str, frozenset[str]]) -> str:
        nights = [replace(answers(right), origins=before)] * 3
        found = find_drift(CONFIG, replace(answers(changed), origins=tonight), nights)
        assert {(alarm.kind, alarm.tier) for alarm in found} == {("gold", "llm"), ("churn", "llm")}
        (alarm,) = (alarm for alarm in found if alarm.kind == "gold")
        return alarm.advice

    assert "Since the night before, other software, another processor or another endpoint computed llm:" in advice(
        {"llm": a}, {"llm": b}
    )
    for before, tonight in (({"llm": a}, {"llm": a}), ({}, {"llm": b}), ({"llm": a, "x": a}, {"llm": a, "x": b})):
        assert "Since the night before" not in advice(before, tonight)


def test_an_alarm_about_the_decision_names_every_tier_that_was_computed_by_something_else() -> None:
    a, b = frozenset({"old"}), frozenset({"new"})
    before = replace(mix((2, 300, 1, 0)), origins={"llm": a, "similarity": a, "strong": a})
    tonight = replace(mix((150, 150, 1, 0)), origins={"llm": b, "similarity": b, "strong": a})
    for alarm in find_drift(CONFIG, tonight, [before] * 2):
        assert alarm.tier == "cascade"
        assert "another endpoint computed llm, similarity: it may be the cause." in alarm.advice
