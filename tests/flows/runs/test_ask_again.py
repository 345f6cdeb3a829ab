"""Judges that are asked again after a night of garbage, in one run or in several that are interrupted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.curation.lookup import look_at
from flows.curation.records import load_curation
from flows.method.setup import CurationFailed
from flows.runs.ask_again import close_order, open_order
from flows.runs.execute import execute, execute_again, rerun_job
from infra.storage.artifacts import Table, read_table
from tasks import schemas
from tests.flows.animals import write_source
from tests.flows.fakes import FakeAnswer, OverlapLLM
from tests.flows.nightly import Contrary, Nights


class Interrupted(OverlapLLM):
    """A judge that answers some batches and then fails."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def answer(self, requests: Any) -> Any:
        if not self.left:
            raise ValueError("the endpoint is gone")
        self.left -= 1
        return super().answer(requests)


def verdicts(nights: Nights, curation: str) -> pl.DataFrame:
    _, runs = look_at(nights.workspace, load_curation(nights.workspace.store, curation))
    (judged,) = [run for run in runs if run.name == "judge-llm"]
    pieces = sum((manifest.tables["verdicts"] for manifest in judged.manifests), ())
    return read_table(nights.workspace.store, Table("verdicts", pieces), schemas.VERDICTS).sort("query_id", "doc_id")


@pytest.fixture
def poisoned(tmp_path: Path) -> tuple[Nights, str, pl.DataFrame]:
    """A night in which the judge said the opposite of what it says else; with what it should have said."""
    source = write_source(tmp_path / "source")
    sound = Nights(tmp_path / "sound")
    expected = verdicts(sound, sound.curate(source).curation)
    nights = Nights(tmp_path / "poisoned", judge=Contrary())
    done = nights.curate(source)
    nights.judge = OverlapLLM()
    nights.sleep()
    return nights, done.curation, expected


def again(nights: Nights, curation: str) -> Any:
    workspace = nights.workspace
    return execute_again(workspace, load_curation(workspace.store, curation), nights.compute)


def said(found: pl.DataFrame) -> list[Any]:
    return found.select("query_id", "doc_id", "state", "score").rows()


def test_a_rerun_recalls_the_garbage_and_asking_again_does_not(poisoned: tuple[Nights, str, pl.DataFrame]) -> None:
    nights, curation, expected = poisoned
    garbage = said(verdicts(nights, curation))
    assert garbage != said(expected)
    loaded = load_curation(nights.workspace.store, curation)
    job = rerun_job(nights.workspace, loaded, ("judge-llm", 0), downstream=True)
    execute(nights.workspace, loaded, nights.compute, job)
    assert nights.judge.asked == []
    assert said(verdicts(nights, curation)) == garbage
    result = again(nights, curation)
    assert said(verdicts(nights, curation)) == said(expected)
    assert result.curation == curation
    assert {"judge-llm", "decide"} <= nights.computed
    assert "judge_similarity" not in nights.computed


def test_after_that_the_new_answers_are_recalled_everywhere(poisoned: tuple[Nights, str, pl.DataFrame]) -> None:
    nights, curation, expected = poisoned
    again(nights, curation)
    asked = len(nights.judge.asked)
    loaded = load_curation(nights.workspace.store, curation)
    assert execute(nights.workspace, loaded, nights.compute).computed == 0
    job = rerun_job(nights.workspace, loaded, ("judge-llm", 0), downstream=True)
    execute(nights.workspace, loaded, nights.compute, job)
    assert said(verdicts(nights, curation)) == said(expected)
    assert len(nights.judge.asked) == asked


def test_an_interrupted_run_goes_on_and_asks_nothing_twice(poisoned: tuple[Nights, str, pl.DataFrame]) -> None:
    nights, curation, expected = poisoned
    nights.judge = first = Interrupted(1)
    with pytest.raises(CurationFailed, match="the endpoint is gone"):
        again(nights, curation)
    nights.sleep()
    nights.judge = second = OverlapLLM()
    again(nights, curation)
    assert said(verdicts(nights, curation)) == said(expected)
    unreadable = {text for text in first.asked if first.answer_to(text).text == "Maybe"}
    assert set(first.asked) & set(second.asked) <= unreadable
    assert first.asked
    nights.judge = third = OverlapLLM()
    again(nights, curation)
    assert set(third.asked) == set(first.asked) | set(second.asked)


def test_one_part_can_be_asked_again_alone(poisoned: tuple[Nights, str, pl.DataFrame]) -> None:
    nights, curation, _ = poisoned
    loaded = load_curation(nights.workspace.store, curation)
    job = rerun_job(nights.workspace, loaded, ("judge-llm", 1), downstream=True)
    since = open_order(nights.workspace, curation, ("judge-llm", 1))
    execute(nights.workspace, loaded, nights.compute, replace(job, since=since))
    close_order(nights.workspace.store, curation, since, ("judge-llm", 1))
    manifests = {run.name: run for run in look_at(nights.workspace, loaded)[1]}["judge-llm"].manifests
    assert [m.stats.get("asked_since", 0) for m in manifests] == [0, since, *[0] * (len(manifests) - 2)]
    assert nights.judge.asked


def test_an_order_goes_on_until_it_is_closed_and_two_orders_never_have_the_same_time(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    first = open_order(nights.workspace, "animals-000001")
    nights.sleep()
    assert open_order(nights.workspace, "animals-000001") == first
    assert "going on to ask again" in nights.said[-1]
    close_order(nights.workspace.store, "animals-000001", first)
    later = open_order(nights.workspace, "animals-000001")
    assert later > first
    close_order(nights.workspace.store, "animals-000001", later)
    assert open_order(nights.workspace, "animals-000001", ("judge-llm", 3)) == later + 1


def test_the_garbage_is_another_answer() -> None:
    content = "<known_relevant>otter river</known_relevant><passage>otter river</passage>"
    usual, other = OverlapLLM().answer_to(content), Contrary().answer_to(content)
    assert isinstance(usual, FakeAnswer)
    assert usual.logprobs["Yes"] == other.logprobs["No"]
