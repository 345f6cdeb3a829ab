"""Commands that look and compute nothing: plan, list, status, explain."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.config.section import ConfigError
from flows.curation.records import open_curation, record_failure
from flows.method.setup import CurationFailed, WaitingForLabels
from tests.flows.animals import tier
from tests.flows.cli.conftest import Shell
from tests.flows.fakes import InProcess
from tests.flows.nightly import ENDPOINT, sources

FAR = [{**tier(), "engine": ENDPOINT}]  # whose tokens are guessed: no tokenizer is loaded


def test_an_empty_store_says_how_to_begin(shell: Shell) -> None:
    said = shell.run("list")
    assert (
        f"no curation in {shell.nights.settings.store} yet; start one with `reneg curate CONFIG.yaml`"
        in said.replace("\n", " ").replace("  ", " ")
    )
    assert shell.json("list") == []


def test_curations_are_listed_with_how_they_ended(finished: Shell) -> None:
    (row,) = finished.json("list")
    assert (row["curation"], row["executions"]) == ("animals-000001", 1)
    assert row["last"]["parts"]["reused"] == 0
    open_curation(finished.nights.workspace, finished.nights.config(sources(finished.nights.folder / "more", 4)[0]))
    assert [row["last"] is None for row in finished.json("list")] == [False, True]
    assert "unfinished" in finished.run("list")


def test_a_finished_curation_says_so_stage_by_stage(finished: Shell) -> None:
    rows = finished.json("status", "animals-000001")
    assert rows[0] == {
        "stage": "ingest", "parts": 1, "reused": 1, "computed": 0, "failed": 0, "blocked": 0,
        "rows": rows[0]["rows"], "seconds": rows[0]["seconds"],
    }  # fmt: skip
    assert finished.run("status", "animals-000001").splitlines()[-1] == "finished"
    with pytest.raises(ConfigError, match="no curation 'nonsense'"):
        finished.run("status", "nonsense")


@dataclass(frozen=True)
class Spec:
    """What `record_failure` reads of a part."""

    name: str
    number: int


def test_an_unfinished_curation_names_its_first_open_stage_and_the_failures_that_still_hold(shell: Shell) -> None:
    nights = shell.nights
    workspace = nights.workspace
    curation = open_curation(workspace, nights.config(sources(nights.folder, 5)[0]))
    store: Any = workspace.store
    record_failure(store, curation.id, Spec("ingest-00000", 0), "[no] such column")  # type: ignore[arg-type]
    record_failure(store, curation.id, Spec("ingest-00009", 9), "a part that is none")  # type: ignore[arg-type]
    said = shell.run("status", curation.id)
    assert "unfinished: ingest, 1 of 1 parts to compute" in said
    assert "ingest part 0: [no] such column" in said
    assert "reneg rerun animals-000001 --stage ingest --part 0 --downstream" in said
    assert "a part that is none" not in said
    assert shell.json("status", curation.id)[0]["failed"] == 1


def test_a_curation_that_waits_for_people_says_how_many_labels_are_wanted(shell: Shell) -> None:
    nights = shell.nights
    with pytest.raises(WaitingForLabels) as waiting:
        nights.curate(sources(nights.folder, 8)[0], sample={"size": 12, "wait_for": 0.5})
    assert str(waiting.value) in shell.run("status", "animals-000001")


def test_a_plan_of_what_is_finished_computes_nothing(shell: Shell) -> None:
    nights = shell.nights
    config = nights.written(sources(nights.folder, 5)[0], tiers=FAR)
    planned = shell.json("plan", config)
    assert [row["stage"] for row in planned["stages"]] == ["ingest"]
    assert (planned["tiers"][0]["tier"], planned["tiers"][0]["basis"]) == ("llm", "estimated")
    assert "Work begins at ingest; the stages after it depend on its result." in shell.run("plan", config)
    shell.run("curate", config)
    assert "Nothing to compute: every part is finished." in shell.run("plan", config)


def test_a_plan_of_a_curation_that_waits_says_that_people_are_next(shell: Shell) -> None:
    nights = shell.nights
    config = nights.written(sources(nights.folder, 8)[0], sample={"size": 12, "wait_for": 0.5}, tiers=FAR)
    with pytest.raises(WaitingForLabels):
        shell.run("curate", config)
    assert "people must label enough of the sample" in shell.run("plan", config)


def test_a_plan_without_judges_has_no_costs(shell: Shell) -> None:
    config = shell.nights.written(sources(shell.nights.folder, 5)[0], tiers=[])
    assert "what judging will cost" not in shell.run("plan", config)


def test_a_part_is_explained_in_words_and_for_scripts(finished: Shell) -> None:
    found = finished.json("explain", "animals-000001", "mine", 1)
    assert (found["stage"], found["part"], found["finished"]) == ("mine", 1, True)
    said = finished.run("explain", "animals-000001", "mine", 1).splitlines()
    assert said[0] == "mine part 1 of animals-000001 was computed:"
    assert said[1:] == [f"  {reason}" for reason in found["reasons"]]


def test_a_failed_run_is_told_by_status(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nights = shell.nights
    compute_part = InProcess.run_stage

    def fail(self: InProcess, name: str, specs: Any, finished: Any) -> Any:
        from infra.stages.runner import Failure

        if name == "mine":
            return {spec.number: Failure("no such index") for spec in specs}
        return compute_part(self, name, specs, finished)

    monkeypatch.setattr(InProcess, "run_stage", fail)
    with pytest.raises(CurationFailed, match="mine part 0, 1: no such index"):
        shell.run("curate", nights.written(sources(nights.folder, 8)[0]))
    assert "unfinished: mine, 2 of 2 parts to compute" in shell.run("status", "animals-000001")
