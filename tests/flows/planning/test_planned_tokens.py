"""What judging will cost, estimated before a run: compared with what the run then uses, token for token."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.config.curation import CurationConfig
from flows.curation.lookup import look_at
from flows.curation.prepare import prepare
from flows.curation.records import Curation, draft_curation
from flows.curation.workspace import Workspace
from flows.method.curate import curate_method
from flows.planning import expected_calls
from infra.engines.chat_tokens import ChatTokenizer
from infra.models import resolve
from infra.stages.runner import Failure, PartSpec, Runner
from infra.storage.artifacts import Manifest
from infra.storage.store import Store
from tests.flows.ahead import configure, make_plan, make_workspace
from tests.flows.animals import ANIMALS, PLACES, tier, write_source
from tests.flows.fakes import FakeAnswer, InProcess, OverlapLLM

LISTWISE = {"protocol": "listwise", "per_call": 4}


class CountingLLM(OverlapLLM):
    """Answers as the fakes do, and counts tokens as the real engine does: by the model's own tokenizer."""

    facts: Mapping[str, float] = {"engine_seconds": 2.0}

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer = ChatTokenizer(folder)
        self.prompt_tokens = self.output_tokens = 0

    def answer(self, requests: Sequence[Any]) -> Sequence[FakeAnswer]:
        answers = [self._of(request) for request in requests]
        self.prompt_tokens += sum(answer.prompt_tokens for answer in answers)
        self.output_tokens += sum(answer.output_tokens for answer in answers)
        return answers

    def _of(self, request: Any) -> FakeAnswer:
        content = request.chat[-1]["content"]
        self.asked.append(content)
        tokens = self.tokenizer.count(request.chat)
        if request.schema is None:
            return replace(self.answer_to(content), prompt_tokens=tokens)
        text = json.dumps({"verdicts": dict.fromkeys(request.ids, "worse")})
        written = len(self.tokenizer._tokenizer(text)["input_ids"]) + 1
        return FakeAnswer(text, {}, "stop", prompt_tokens=tokens, output_tokens=written)


class Stopping(InProcess):
    """Fails at one stage, so that what follows is not computed."""

    def __init__(self, store: Store, scratch: Path, stop_at: str) -> None:
        super().__init__(store, scratch)
        self.stop_at = stop_at

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        if name == self.stop_at:
            return {spec.number: Failure("stopped") for spec in specs}
        return super().run_stage(name, specs, finished)


@pytest.fixture(scope="module")
def cache() -> Path:
    """A user's cache with the tiny language model in it."""
    folder = Path(os.environ["RENEG_TEST_CACHE"])
    resolve.resolve("tiny:llm", folder)
    return folder


def run(workspace: Workspace, config: CurationConfig, cache: Path, executor: InProcess | None = None) -> CountingLLM:
    """Run the method; returns the judge with what it was asked."""
    engine = CountingLLM(resolve.resolve("tiny:llm", cache).path)
    scratch = Path(workspace.settings.home) / "scratch"
    curation = Curation("animals-draft", config, draft_curation(workspace, config).source)
    setup = prepare(workspace, curation)
    named = [replace(t, engine=t.engine.model_copy(update={"model": "counting"})) for t in setup.tiers]
    executor = executor or InProcess(workspace.store, scratch, {"counting": engine})
    curate_method(Runner(workspace.store, executor), replace(setup, tiers=tuple(named)))
    return engine


def within_a_tenth(planned: int | None, used: int) -> bool:
    return planned is not None and abs(planned - used) <= used / 10


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with a store in which a curation is finished, and its source."""
    folder = tmp_path_factory.mktemp("judged")
    run(make_workspace(folder, cache), configure(write_source(folder / "source")), cache)
    return folder


@pytest.fixture
def again(judged: Path, tmp_path: Path, cache: Path) -> tuple[Workspace, Path]:
    """A copy of that store to go on with, and the source."""
    shutil.copytree(judged / "store", tmp_path / "store")
    return make_workspace(tmp_path, cache), judged / "source"


@pytest.mark.slow  # the tiny model is built once
@pytest.mark.parametrize("judge", [{}, LISTWISE], ids=["yes_no", "listwise"])
def test_before_anything_has_run_the_source_alone_tells_the_tokens_within_a_tenth(
    judge: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    workspace, config = make_workspace(tmp_path, cache), configure(write_source(tmp_path / "source"), tier(judge=judge))
    (planned,) = make_plan(workspace, config).tiers
    assert (planned.basis, planned.pairs, planned.known, planned.hours) == ("estimated", 54, 0, None)
    engine = run(workspace, config, cache)
    assert within_a_tenth(planned.calls, len(engine.asked))
    assert within_a_tenth(planned.prompt_tokens, engine.prompt_tokens)
    assert within_a_tenth(planned.output_tokens, engine.output_tokens)


@pytest.mark.slow  # the tiny model is built once
def test_escalated_pairs_are_counted_as_they_are_and_a_sample_of_them_is_enough(
    again: tuple[Workspace, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, source = again
    monkeypatch.setattr(expected_calls, "SAMPLE", 8)
    config = configure(source, tier(judge={"definition": "A passage counts if it names a place."}))
    (planned,) = make_plan(workspace, config).tiers
    assert (planned.basis, planned.pairs, planned.calls, planned.known) == ("exact", 54, 54, 0)
    engine = run(workspace, config, cache)
    assert within_a_tenth(planned.prompt_tokens, engine.prompt_tokens)
    assert within_a_tenth(planned.output_tokens, engine.output_tokens)


@pytest.mark.slow  # the tiny model is built once
def test_a_finished_tier_costs_nothing_and_what_the_ledger_holds_is_not_paid_again(
    again: tuple[Workspace, Path], cache: Path
) -> None:
    workspace, source = again
    (planned,) = make_plan(workspace, configure(source)).tiers
    assert (planned.basis, planned.pairs, planned.prompt_tokens, planned.money) == ("finished", 54, 0, 0.0)
    assert planned.known == planned.calls
    moved = configure(source, tier(judge={"relevant_from": 0.9, "not_relevant_below": 0.2}))
    (planned,) = make_plan(workspace, moved).tiers
    engine = run(workspace, moved, cache)
    unread = {content for content in engine.asked if engine.answer_to(content).text == "Maybe"}
    assert planned.basis == "exact"
    assert planned.calls is not None
    assert planned.known is not None
    assert 0 < planned.calls - planned.known <= len(unread)


@pytest.mark.slow  # the tiny model is built once
def test_another_budget_of_pairs_is_applied_without_running_escalate(
    again: tuple[Workspace, Path], cache: Path
) -> None:
    workspace, source = again
    # Once: the fake judge cannot be read now and then, and asking again is not planned for.
    config = configure(source, tier(max_pairs=20, judge={"passage_chars": 60, "max_attempts": 1}))
    (planned,) = make_plan(workspace, config).tiers
    assert (planned.basis, planned.pairs, planned.calls) == ("exact", 20, 40)  # two windows of each passage
    engine = run(workspace, config, cache)
    assert len(engine.asked) == planned.calls
    assert within_a_tenth(planned.prompt_tokens, engine.prompt_tokens)


@pytest.mark.slow  # the tiny model is built once
def test_hours_come_from_earlier_parts_and_the_budget_says_how_far_it_reaches(again: tuple[Workspace, Path]) -> None:
    workspace, source = again
    config = configure(
        source, tier(judge={"definition": "A passage counts if it names a place."}), budget={"tokens": 1000, "hours": 9}
    )
    plan = make_plan(workspace, config)
    (planned,) = plan.tiers
    parts = [
        m
        for r in look_at(workspace, draft_curation(workspace, configure(source)))[1]
        if r.name == "judge-llm"
        for m in r.manifests
    ]
    facts = [m.stats["facts"] for m in parts]
    speed = sum(f["prompt_tokens"] + f["output_tokens"] for f in facts) / (2.0 * len(facts))
    assert planned.prompt_tokens is not None
    assert planned.output_tokens is not None
    tokens = planned.prompt_tokens + planned.output_tokens
    assert planned.hours == pytest.approx(tokens / speed / 3600)
    assert f"about {1000 / tokens:.0%} of {tokens:,}; the run would stop there" in plan.budget[0]
    assert plan.budget[1].startswith("budget.hours: 9 are enough for ")


@pytest.mark.slow  # the tiny model is built once
def test_candidates_that_are_not_judged_yet_bound_what_is_asked(tmp_path: Path, cache: Path) -> None:
    workspace = make_workspace(tmp_path, cache)
    source = write_source(tmp_path / "source")
    run(workspace, configure(source), cache, Stopping(workspace.store, tmp_path / "scratch", "judge_similarity"))
    (planned,) = make_plan(workspace, configure(source)).tiers
    assert (planned.basis, planned.pairs, planned.calls) == ("at most", 54, 54)
    (planned,) = make_plan(workspace, configure(source, tier(max_pairs=10))).tiers
    assert (planned.basis, planned.pairs, planned.calls) == ("at most", 10, 10)
    (planned,) = make_plan(workspace, configure(source, tier(unit="row", max_share=0.5))).tiers
    assert planned.pairs == 24  # four whole rows of six; half of 54 is 27
    first, second = make_plan(workspace, configure(source, tier(max_pairs=10), tier("strong", LISTWISE))).tiers
    assert (second.basis, second.pairs) == ("at most", first.pairs)
    skipped = configure(source, policies={"animals": {"skip": True}})
    assert make_plan(workspace, skipped).tiers[0].pairs == 0


@pytest.mark.slow  # the tiny model is built once
def test_rows_that_carry_negatives_need_no_assumption(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rows = [
        {"query": f"where does the {a} live", "pos": [f"The {a} lives near the {place}." for place in PLACES[:2]],
         "neg": [f"The {a} eats fish {n}." for n in range(4)]}
        for a in ANIMALS[:5]
    ]  # fmt: skip
    (source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configure(source, tier(), tier("three", {"votes": 3}), ingest={})
    planned, voting = make_plan(make_workspace(tmp_path, cache), config).tiers
    assert (planned.basis, planned.pairs, planned.calls) == ("at most", 20, 20)
    assert (voting.pairs, voting.calls) == (20, 60)  # in three orders of the two known relevant texts
    assert any("all 3 votes" in note for note in voting.notes)


@pytest.mark.slow  # the tiny model is built once
def test_a_snippet_judges_second_question_is_counted_with_the_first(again: tuple[Workspace, Path]) -> None:
    workspace, source = again
    (planned,) = make_plan(workspace, configure(source, tier(judge={"protocol": "snippet"}))).tiers
    assert planned.calls == 54 + 9  # each passage once, then one ranking of each query's snippets
