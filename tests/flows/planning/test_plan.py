"""What judging will cost: budgets, speed, answers and notes. test_planned_tokens.py compares tokens with a real run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.config.curation import BudgetConfig, SourceConfig
from flows.config.engines import VLLMConfig
from flows.curation.lookup import look
from flows.planning.plan import (
    Experience,
    TierPlan,
    _on_length,
    compare_with_budget,
    learn,
    plan_tiers,
    show_amount,
)
from infra.engines.specs import OpenAISpec
from infra.stages.part_keys import semantic
from infra.storage.artifacts import Manifest
from tasks.data.demo_corpus import HarvestConfig
from tasks.judging.calls import Call, Question
from tasks.verdicts.checks import CheckConfig
from tests.flows.ahead import Place, configure, make_plan, make_workspace
from tests.flows.animals import tier, write_source

LISTWISE = {"protocol": "listwise", "per_call": 4}


def test_what_is_guessed_or_has_no_price_is_said(tmp_path: Path) -> None:
    workspace, source = make_workspace(tmp_path, tmp_path / "empty"), write_source(tmp_path / "source")
    unknown = {**tier("unknown"), "engine": {"kind": "openai", "model": "mine-2025"}}
    priced = {
        **tier("priced", {"protocol": "listwise", "reasoning": True}),
        "engine": {"kind": "openai", "model": "gpt-4o-mini-2024-07-18"},
    }
    absent, unpriced, paid = make_plan(workspace, configure(source, tier("absent"), unknown, priced)).tiers
    assert any("tokens estimated from characters (4 per token): the model is not" in note for note in absent.notes)
    assert "hours: unknown until a first part has run" in absent.notes
    assert unpriced.money is None
    assert "money: no price for mine-2025 in flows/config/prices.yaml" in unpriced.notes
    assert paid.prompt_tokens is not None
    assert paid.calls is not None
    assert paid.output_tokens == 1024 * paid.calls
    assert paid.money == pytest.approx((paid.prompt_tokens * 0.15 + paid.output_tokens * 0.60) / 1e6)


def test_a_source_that_is_not_harvested_yet_is_known_later(tmp_path: Path) -> None:
    harvest = SourceConfig(harvest=HarvestConfig(modules=("numpy",), passages=50))
    config = configure(tmp_path).model_copy(update={"source": harvest})
    (planned,) = make_plan(make_workspace(tmp_path, tmp_path / "empty"), config).tiers
    assert planned == TierPlan(
        "llm", "unknown", notes=("known after the first stage has run: nothing is harvested yet",)
    )


def test_a_limit_that_cannot_be_compared_is_not_called_enough() -> None:
    lines = compare_with_budget(BudgetConfig(money=5.0), [TierPlan("llm", "exact", money=None)])
    assert list(lines) == ["budget.money: 5 cannot be compared while a tier's money are unknown"]


def test_a_budget_is_compared_limit_by_limit_and_what_is_just_enough_is_enough() -> None:
    tiers = [
        TierPlan("a", "exact", prompt_tokens=900, output_tokens=100, hours=1.5, money=2.0),
        TierPlan("b", "exact", prompt_tokens=1000, output_tokens=None, hours=0.5, money=1.0),
    ]
    assert list(compare_with_budget(BudgetConfig(tokens=2000, money=3.0, hours=2.0), tiers)) == [
        "budget.tokens: 2,000 are enough for 2,000",
        "budget.money: 3 are enough for 3",
        "budget.hours: 2 are enough for 2",
    ]
    assert list(compare_with_budget(BudgetConfig(tokens=1999, hours=1.0), tiers)) == [
        "budget.tokens: 1,999 are used up after about 100% of 2,000; the run would stop there and can be continued",
        "budget.hours: 1 are used up after about 50% of 2; the run would stop there and can be continued",
    ]
    bounded = [replace(tiers[0], basis="at most"), tiers[1]]
    assert list(compare_with_budget(BudgetConfig(tokens=2000), bounded)) == [
        "budget.tokens: 2,000 are enough for at most 2,000"
    ]
    unknown = [tiers[0], replace(tiers[1], money=None, prompt_tokens=None)]
    assert list(compare_with_budget(BudgetConfig(money=1.0, tokens=1000), unknown)) == [
        "budget.tokens: 1,000 cannot be compared while a tier's tokens are unknown",
        "budget.money: 1 are used up after about 50% of 2; the run would stop there and can be continued",
    ]
    assert list(compare_with_budget(BudgetConfig(), tiers)) == []
    free = TierPlan("a", "exact", calls=9, known=9, prompt_tokens=0, output_tokens=0, hours=0.0, money=0.0)
    assert list(compare_with_budget(BudgetConfig(tokens=2000, money=3.0, hours=2.0), [free])) == []


def test_amounts_from_a_hundred_on_have_no_decimals() -> None:
    assert [show_amount(amount) for amount in (100.4, 99.96, 0.0, 12345.6)] == ["100", "100", "0", "12,346"]
    assert show_amount(99.4) == "99.4"


def test_hours_are_those_of_the_tokens_or_of_a_cross_encoders_calls() -> None:
    assert Experience(tokens_per_second=10.0, calls_per_second=1.0).hours(5, 36_000) == 1.0
    assert Experience(tokens_per_second=10.0, calls_per_second=2.0).hours(7200, 0) == 1.0
    assert Experience(calls_per_second=2.0).hours(7200, 10) is None
    assert Experience().hours(1, 0) is None


def judged_part(tier: Any, engine: Any = None, **facts: Any) -> Manifest:
    ingredients = {"engine": engine or semantic(tier.engine), "config": semantic(tier.judge)}
    stats = {"facts": {"calls": 10, "prompt_tokens": 900, "output_tokens": 100, "engine_seconds": 4.0, **facts}}
    return Manifest("judge", 1, 0, "k", 0, ingredients=ingredients, tables={}, directories={}, stats=stats)


def test_the_speed_is_that_of_timed_parts_of_the_same_engine(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (one,) = place.setup().tiers
    (listwise,) = place.setup(tiers=[tier(judge=LISTWISE)]).tiers
    assert learn(one, []) == Experience()
    parts = [
        judged_part(one),
        judged_part(one, calls=20),
        judged_part(one, engine_seconds=0),
        judged_part(one, {"x": 1}),
    ]
    assert learn(one, parts) == Experience(2, 2000 / 8.0, 30 / 8.0, 400 / 50)
    # Another protocol of the same engine: its speed counts, the length of its answers does not.
    assert learn(listwise, parts) == Experience(2, 2000 / 8.0, 30 / 8.0, None)
    older = judged_part(one, {**semantic(one.engine), "software": {"vllm": "0.31.0"}})
    assert learn(one, [*parts, older]).parts == 3  # another release is about as fast
    scoring = judged_part(one, prompt_tokens=0, output_tokens=0)
    assert learn(one, [scoring]) == Experience(1, None, 10 / 4.0, 0.0)


def planned(place: Place, **changes: Any) -> TierPlan:
    setup = place.setup(**changes)
    (plan,) = plan_tiers(place.workspace, setup, look(place.store, setup)[1]).tiers
    return plan


def test_answers_are_as_long_as_their_protocol_makes_them(tmp_path: Path) -> None:
    place = Place(tmp_path)
    one = planned(place)
    assert (one.basis, one.pairs, one.calls, one.known, one.output_tokens) == ("estimated", 54, 54, 0, 54)
    assert (one.hours, one.money) == (None, 0.0)
    assert "calls: unreadable answers are asked for again, 2 times at most; not counted here" in one.notes
    patient = planned(place, tiers=[tier(judge={"max_attempts": 1})])
    assert not any(note.startswith("calls:") for note in patient.notes)
    listwise = planned(place, tiers=[tier(judge=LISTWISE)])
    assert listwise.calls == 18  # six passages of a query are asked about four and two at a time
    assert listwise.output_tokens is not None
    assert 5 * 18 < listwise.output_tokens < 60 * 18
    assert "output tokens: a verdict for each passage and no more" in listwise.notes
    snippet = planned(place, tiers=[tier(judge={"protocol": "snippet", "max_output_tokens": 50})])
    assert snippet.output_tokens == 50 * (snippet.calls or 0)
    assert "output tokens: at most, max_output_tokens=50 a call; none was measured yet" in snippet.notes
    voting = planned(place, tiers=[tier(judge={"votes": 3})])
    assert "calls: all 3 votes are counted; an early majority needs fewer" in voting.notes


def test_money_for_hours_is_unknown_while_the_hours_are(tmp_path: Path) -> None:
    place = Place(tmp_path)
    gpu = {**tier(), "engine": {"device": "cuda"}}
    priced = planned(place, tiers=[gpu], prices={"hours": {"cuda": 2.0}})
    assert (priced.money, priced.hours) == (None, None)
    assert "money: unknown, as the hours are" in priced.notes


def test_a_finished_tier_is_planned_with_nothing_left_to_pay(tmp_path: Path) -> None:
    place = Place(tmp_path).run()
    done = planned(place)
    assert (done.basis, done.pairs, done.prompt_tokens, done.output_tokens) == ("finished", 54, 0, 0)
    assert (done.hours, done.money) == (0.0, 0.0)
    assert done.known == done.calls


def test_prompts_that_do_not_fit_beside_their_answer_are_counted() -> None:
    question = Question("yes_no", "", "q", "p", "query", (), (), ())
    call = Call("1", ({"role": "user", "content": "x"},), question, {"": "a"}, 1, max_tokens=2)
    engine = VLLMConfig(max_model_len=128)
    assert _on_length(engine, [126, 127, 500], [call] * 3) == (
        "prompts: 2 of a sample of 3 exceed max_model_len=128: asked in smaller pieces"
    )
    assert _on_length(engine, [126], [call]) == ""
    assert _on_length(OpenAISpec(model="m"), [500], [call]) == ""


def test_the_check_of_the_positives_is_planned_beside_the_tiers(tmp_path: Path) -> None:
    """Nine of the twelve queries are for training, with a positive each."""
    source = write_source(tmp_path / "source")
    config = configure(source, tier()).model_copy(update={"check": CheckConfig(positives=True)})
    plan = make_plan(make_workspace(tmp_path, tmp_path / "empty"), config)
    check = plan.tiers[-1]
    assert (check.tier, check.basis, check.pairs, check.calls, check.known) == ("check-llm", "exact", 9, 9, 0)
    assert check.prompt_tokens is not None
    assert check.prompt_tokens > 9 * 50


def test_a_reranker_of_the_pool_is_planned_before_the_judges(tmp_path: Path) -> None:
    workspace, source = make_workspace(tmp_path, tmp_path / "empty"), write_source(tmp_path / "source")
    rescore = {"engine": {"kind": "cross_encoder", "model": "tiny:cross_encoder"}}
    mined = configure(source, rescore=rescore)
    planned, judge = make_plan(workspace, mined).tiers
    assert (planned.tier, planned.basis, planned.prompt_tokens, judge.tier) == ("rescore", "estimated", 0, "llm")
    assert planned.pairs == planned.calls == 9 * (6 + 1)
    assert planned.known == 0
    assert "pairs: assumed: 6 for each query to be mined, drawn at random, and its positives" in planned.notes
    assert "hours: unknown until a first part has run" in planned.notes
    nothing = make_plan(workspace, configure(tmp_path / "nowhere", rescore=rescore).model_copy(
        update={"source": SourceConfig(harvest=HarvestConfig(modules=("numpy",), passages=50))}))  # fmt: skip
    assert nothing.tiers[0].notes == ("known after the first stage has run: nothing is harvested yet",)


def test_a_plan_says_how_many_pairs_of_held_out_queries_there_can_be(tmp_path: Path) -> None:
    workspace, source = make_workspace(tmp_path, tmp_path / "empty"), write_source(tmp_path / "source")
    trained = {"train": {}, "train_on": ["default"], "evaluate": {"pool": {"depth": 10}}}
    settings = configure(source, tier("weak"), tier("strong", max_pairs=50), **trained)
    weak, strong = (plan.notes for plan in make_plan(workspace, settings).tiers)
    said = "evaluate.pool: not counted above, at most {} pairs (3 test queries, the first 10 of 2 models); they are"
    assert sum(note.startswith(said.format(60)) for note in weak) == 1
    assert sum(note.startswith(said.format(50)) for note in strong) == 1
    (plain,) = make_plan(workspace, configure(source, tier("llm"), evaluate={"pool": {"depth": 10}})).tiers
    assert not any("evaluate.pool" in note for note in plain.notes)  # nothing is trained
    reranker = {**trained, "train": None, "train_reranker": {"model": "tiny:cross_encoder"}}
    (alone,) = make_plan(workspace, configure(source, tier("llm"), **reranker)).tiers
    assert any("the first 10 of 1 models" in note for note in alone.notes)  # rerankers rank what the untrained finds
