"""Why a part is computed rather than reused, in words a person can act on."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import stages
from flows.cli import inspect_commands
from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation.explain import Explanation, explain
from flows.curation.lookup import look_at
from flows.curation.prepare import prepare
from flows.curation.records import Curation, open_curation, record_failure
from flows.curation.workspace import Workspace
from flows.method.curate import curate_method
from infra.settings import Settings
from infra.stages.runner import PartSpec, Runner
from infra.storage.store import Store
from tests.flows.animals import tier, write_source
from tests.flows.fakes import InProcess


def make_workspace(tmp_path: Path) -> Workspace:
    store = str(tmp_path / "store")
    settings = Settings(tmp_path / "home", store, tmp_path / "cache", prefect_api_url=None, ray_address=None)
    return Workspace(settings, Store.open(store))


def record(workspace: Workspace, source: Path, **changes: Any) -> Curation:
    config = {
        "name": "animals",
        "source": {"path": str(source)},
        "ingest": {"query_parts": 1, "known_split": "known"},
        "mine": {"range_max": 6, "num_negatives": 3},
        "tiers": [tier()],
        "treatments": ["default"],
        "train": None,
        **changes,
    }
    return open_curation(workspace, parse_config(config, "test"))


def finish(workspace: Workspace, curation: Curation, scratch: Path) -> None:
    """Compute a curation with fake engines; the keys are those that the real ones have."""
    run = Runner(workspace.store, InProcess(workspace.store, scratch))
    curate_method(run, prepare(workspace, curation))
    assert {r.name: r.failed for r in run.runs if r.failed} == {}


@pytest.fixture(scope="module")
def monday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in which animals-000001 is finished, and its source."""
    folder = tmp_path_factory.mktemp("monday")
    workspace = make_workspace(folder)
    finish(workspace, record(workspace, write_source(folder / "source", queries=6)), folder / "scratch")
    return folder


@pytest.fixture
def workspace(monday: Path, tmp_path: Path) -> Workspace:
    """A copy of Monday's store, to go on with."""
    shutil.copytree(monday / "store", tmp_path / "store")
    return make_workspace(tmp_path)


def ask(workspace: Workspace, curation: Curation, stage: str, part: int = 0) -> Explanation:
    return explain(workspace, curation.id, stage, part)


def test_another_prompt_is_named_though_the_configuration_is_the_same(
    workspace: Workspace, monday: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.method.setup.prompt_digest", lambda name: "c3d4" * 16)
    found = ask(workspace, record(workspace, monday / "source"), "judge-llm")
    assert (found.finished, found.compared_with) == (False, "part 0 of judge as an earlier run left it")
    (reason,) = found.reasons
    assert re.fullmatch(r"the prompt yes_no changed: [0-9a-f]{4}… → c3d4…", reason)


def test_a_setting_is_named_as_the_configuration_spells_it(workspace: Workspace, monday: Path) -> None:
    shorter = record(workspace, monday / "source", tiers=[tier(judge={"passage_chars": 100})])
    found = ask(workspace, shorter, "judge-llm")
    assert (found.compared_with, found.reasons) == ("animals-000001", ("judge.passage_chars: 900 → 100",))


def test_other_weights_and_another_version_are_told_apart(
    workspace: Workspace, monday: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = {"model": "tiny:llm"}
    other = record(workspace, monday / "source", tiers=[{**tier(), "engine": engine}])
    (reason,) = ask(workspace, other, "judge-llm").reasons
    assert reason.startswith("the model's weights changed: ")
    now = stages.MINE.version
    monkeypatch.setattr(stages, "MINE", replace(stages.MINE, version=now + 1))
    found = ask(workspace, record(workspace, monday / "source"), "mine")
    assert found.reasons == (f"the stage's code version changed: {now} → {now + 1}",)


def test_what_did_not_change_was_reused(workspace: Workspace, monday: Path) -> None:
    shorter = record(workspace, monday / "source", tiers=[tier(judge={"passage_chars": 100})])
    found = ask(workspace, shorter, "mine")
    assert (found.finished, found.reused_from, found.reasons) == (True, "animals-000001", ())
    assert found.headline.endswith("nothing differs; it was reused from curation animals-000001")


def test_what_was_never_there_is_said_to_be_new(workspace: Workspace, monday: Path) -> None:
    found = ask(workspace, record(workspace, monday / "source"), "judge-llm")
    assert found.headline == "judge-llm part 0 of animals-000001 was computed:"
    assert found.reasons == ("nothing like it was computed before: no other judge in the store",)


def test_added_queries_are_followed_to_the_stage_that_read_them(workspace: Workspace, tmp_path: Path) -> None:
    tuesday = record(workspace, write_source(tmp_path / "tuesday", queries=7))
    files = "its input `source` changed: qrels/known.tsv, qrels/train.tsv, queries.jsonl"
    assert ask(workspace, tuesday, "ingest").reasons == (files,)
    finish(workspace, tuesday, tmp_path / "scratch")
    found = ask(workspace, tuesday, "encode_queries")
    assert found.compared_with == "animals-000001"
    assert found.reasons == (f"its input `queries` changed, because part 0 of ingest changed: {files}",)
    assert ask(workspace, tuesday, "judge-llm").reasons == (
        "its input `escalated` changed, because part 0 of escalate-llm changed: its input `candidates` changed "
        "(part 0 of mine); its input `verdicts` changed (part 0 of judge_similarity)",
    )


def test_a_part_that_was_asked_for_again_says_so(workspace: Workspace, monday: Path, tmp_path: Path) -> None:
    first = record(workspace, monday / "source")
    force = frozenset({("mine", 0)})
    run = Runner(workspace.store, InProcess(workspace.store, tmp_path / "scratch"), force=force)
    curate_method(run, prepare(workspace, first))
    assert ask(workspace, first, "mine").reasons == ("`reneg rerun` computed it again (attempt 2)",)


def test_an_unknown_stage_or_part_is_answered_with_the_known_ones(workspace: Workspace, monday: Path) -> None:
    shorter = record(workspace, monday / "source", tiers=[tier(judge={"passage_chars": 100})])
    with pytest.raises(
        ConfigError, match=r"no stage 'judge' so far in animals-000002; known: ingest, .*judge-llm; the stages after"
    ):
        ask(workspace, shorter, "judge")
    with pytest.raises(ConfigError, match="mine has 1 parts, numbered from 0; part 7 is not there"):
        ask(workspace, shorter, "mine", 7)


def test_the_command_prints_the_reasons_and_one_line_of_json(
    workspace: Workspace, monday: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RENEG_STORE", workspace.settings.store)
    monkeypatch.setenv("RENEG_HOME", str(workspace.settings.home))
    inspect_commands.explain(record(workspace, monday / "source").id, "mine", 0, as_json=True)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["stage"], said["finished"], said["failed"]) == ("mine", True, None)
    assert said["reasons"] == ["nothing like it was computed before: no other mine in the store"]


def test_a_part_that_failed_says_why_its_last_attempt_did(
    workspace: Workspace, monday: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RENEG_STORE", workspace.settings.store)
    monkeypatch.setenv("RENEG_HOME", str(workspace.settings.home))
    monkeypatch.setattr("flows.method.setup.prompt_digest", lambda name: "c3d4" * 16)
    curation = record(workspace, monday / "source")
    _, (*_, judged) = look_at(workspace, curation)
    spec = PartSpec(stages.JUDGE, "judge-llm-00000", 0, 0, "key", 0, judged.ingredients[0], {}, {})
    record_failure(workspace.store, curation.id, spec, "EndpointError: [422] extra_forbidden: seed")
    record_failure(workspace.store, curation.id, replace(spec, name="mine-00000"), "a failure of long ago")
    inspect_commands.explain(curation.id, "judge-llm", 0)
    said = capsys.readouterr().out
    assert f"judge-llm part 0 of {curation.id} will be computed" in said
    assert said.splitlines()[-1] == "  its last attempt failed: EndpointError: [422] extra_forbidden: seed"
    assert ask(workspace, curation, "mine").failed is None


def test_a_tier_with_a_guarantee_says_why_pairs_were_asked_about_accepted_or_rejected(tmp_path: Path) -> None:
    workspace, source = make_workspace(tmp_path), write_source(tmp_path / "source")
    target = {"recall": 0.5, "precision": 0.5, "confidence": 0.5, "audit": 16}
    tiers = [{"name": "llm", "escalate": {"target": target}}]
    curation = record(workspace, source, tiers=tiers)
    finish(workspace, curation, tmp_path / "scratch")
    audit, accepted, rejected, asked = explain(workspace, curation.id, "settle-llm", 0).guarantee
    assert audit == "audit sample: 16 of 54 questions, drawn at random from all scores"
    assert re.fullmatch(r"accepted as relevant: \d+(, with scores from 0\.\d+)?", accepted)
    assert re.fullmatch(r"rejected: \d+(, with scores below 0\.\d+)?", rejected)
    counts = [int(re.findall(r": (\d+)", line)[0]) for line in (audit, accepted, rejected, asked)]
    assert sum(counts) == 54
    assert explain(workspace, curation.id, "judge-llm-audit", 0).guarantee[0] == audit
    assert explain(workspace, curation.id, "decide", 0).guarantee == ()
