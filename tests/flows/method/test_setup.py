"""A curation made ready: how a judge is named, what it is shown, which datasets are left out."""

from dataclasses import replace
from typing import Any

import pytest

from flows.config.engines import TierConfig
from flows.method.setup import Outcome, Setup, Tier, WaitingForLabels
from flows.stages import SEARCH, TRAIN
from infra.engines.specs import OpenAISpec, SentenceTransformersSpec, VLLMSpec
from infra.provenance import declared
from infra.storage.artifacts import Directory, Table
from tasks.prompts.prompt import load_definition, prompt_digest
from tasks.texts import hash_text
from tests.flows.settings import config

PINNED = VLLMSpec(model="", digest="abc")


def tier(engine: Any = PINNED, model: str = "qwen", policies: Any = None, **changes: Any) -> Tier:
    settings = config(tiers=[changes], policies=policies or {})
    return Tier.of(TierConfig.model_validate(changes), settings, engine, model)


def setup(**changes: Any) -> Setup:
    settings = config(**changes)
    return Setup(
        config=settings,
        source=None,
        base_model=None,
        encoder=SentenceTransformersSpec(model="", digest="hash-encoder"),
        tiers=tuple(Tier.of(one, settings, PINNED, "qwen") for one in settings.tiers),
        encoder_key="",
        base_model_key="",
        base_model_path="",
        page={},
    )


def test_a_judge_is_named_after_its_model_its_engine_and_what_it_is_shown() -> None:
    judge = tier().judge
    model, _, engine = judge.engine.partition(":")
    assert (model, len(engine)) == ("qwen", 12)
    assert judge.judge.startswith(f"{judge.engine}/")
    assert len(judge.judge.rpartition("/")[2]) == 12
    assert (judge.tier, tier(name="strong").judge.tier) == ("llm", "strong")


def test_the_digests_of_what_a_judge_is_shown_stand_beside_it() -> None:
    policies = {"nq": {"definition": "It answers."}, "fever": {"skip": True, "definition": "It proves the claim."}}
    shown = tier(policies=policies).shown
    assert shown == {
        "prompts": {"yes_no": prompt_digest("yes_no")},
        "definitions": {name: hash_text(load_definition(name)) for name in ("It answers.", "default")},
    }
    assert set(tier(policies=policies).judge.policies) == {"nq"}


def test_another_engine_is_another_judge_and_another_definition_asks_the_same_engine_otherwise() -> None:
    usual, other = tier().judge, tier(engine=VLLMSpec(model="", digest="def")).judge
    assert usual.engine != other.engine
    assert usual.judge != other.judge
    told = tier(judge={"definition": "It names a place."}).judge
    assert told.engine == usual.engine
    assert told.judge != usual.judge


def test_how_fast_an_engine_works_changes_no_judge() -> None:
    hungry = VLLMSpec(model="/elsewhere", digest="abc", gpu_memory_utilization=0.5)
    assert tier(engine=hungry).judge == tier().judge


def test_a_query_lacks_negatives_up_to_the_number_that_is_mined_unless_the_settings_say_another() -> None:
    for said, enough in (({}, 7), ({"enough": 2}, 2)):
        escalate = setup(tiers=[{"escalate": {"per_query": {"start": 1, "most": 3, **said}}}]).escalate(0)
        assert escalate.per_query is not None
        assert escalate.per_query.enough == enough


def test_only_weights_known_by_their_digest_are_pinned() -> None:
    assert tier().is_pinned
    endpoint = tier(engine=OpenAISpec(model="gpt-4o-2024-11-20"), model="gpt-4o-2024-11-20")
    assert not endpoint.is_pinned


def test_the_datasets_that_are_skipped_are_listed_in_order() -> None:
    policies = {"nq": {"skip": True}, "fever": {"skip": True}, "arguana": {"definition": "It argues against."}}
    made = setup(policies=policies, tiers=[{"name": "first"}, {"name": "second"}])
    assert made.skipped == ("fever", "nq")
    assert made.tier_names == ("first", "second")
    assert replace(made, tiers=()).tier_names == ()


def test_waiting_keeps_the_sheet_that_is_to_be_filled_in() -> None:
    sheet = Directory("sheet", {"sheet.csv": "objects/ab/abc"})
    waiting = WaitingForLabels("3 of 12 pairs are labelled", sheet)
    assert (str(waiting), waiting.sheet) == ("3 of 12 pairs are labelled", sheet)
    assert WaitingForLabels("nothing is drawn").sheet is None


def test_a_curation_that_trains_nothing_leaves_no_scores_and_no_models() -> None:
    nothing = Table("nothing")
    left = Outcome(Directory("page"), Directory("sheet"), {}, {}, nothing, nothing)
    assert (left.scores, dict(left.models)) == (Table("scores"), {})


def test_the_key_of_a_stage_without_an_engine_covers_the_software_only_if_the_settings_say_so() -> None:
    assert setup().software(SEARCH) == {}
    for word in ("recompute_local", "recompute_all"):
        assert setup(software=word).software(SEARCH) == {"software": declared(("faiss", "numpy"), "cpu")}
        assert setup(software=word).software(TRAIN, "cuda")["software"]["processor"] == "cuda"


def test_a_tier_with_a_guarantee_judges_in_two_stages_and_must_be_the_last() -> None:
    target = {"name": "strong", "escalate": {"target": {"recall": 0.9, "of": "strong"}}}
    made = setup(tiers=[{"name": "weak"}, target])
    assert [tier.stages for tier in made.tiers] == [("judge-weak",), ("judge-strong-audit", "judge-strong")]
    assert (made.guaranteed.tier, made.guaranteed.target.recall) == ("strong", 0.9)
    with pytest.raises(ValueError, match=r"tier llm: escalate\.target expected, got none"):
        _ = setup(tiers=[{}]).guaranteed
