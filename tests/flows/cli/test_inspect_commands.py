"""Commands that look and compute nothing: plan, list, status, explain."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flows import stages
from flows.config.section import ConfigError
from flows.curation.records import open_curation, record_failure
from flows.method.setup import CurationFailed, TooManyRejected, WaitingForLabels
from tests.flows.animals import tier
from tests.flows.cli.conftest import Shell
from tests.flows.fakes import InProcess
from tests.flows.method.test_losses import write_rows
from tests.flows.nightly import ENDPOINT, sources

FAR = [{**tier(), "engine": ENDPOINT}]  # whose tokens are guessed: no tokenizer is loaded


def test_an_empty_store_says_how_to_begin(shell: Shell) -> None:
    said = shell.run("list")
    assert (
        f"no curation in {shell.nights.settings.store} yet; start one with `reneg curate CONFIG.yaml`"
        in said.replace("\n", " ").replace("  ", " ")
    )
    assert shell.json("list") == []


def test_the_judges_that_are_ready_to_use_are_listed_with_what_they_need(shell: Shell) -> None:
    said = shell.run("judges")
    assert "weak-cpu: ettin-reranker 68M" in said
    assert "licence: Apache-2.0" in said
    assert shell.json("judges")["strong-gpu"]["tier"]["engine"]["template"] == "qwen3"


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
        "read_bytes": rows[0]["read_bytes"], "peak_gib": rows[0]["peak_gib"],
    }  # fmt: skip
    assert rows[0]["read_bytes"] > 0 and rows[0]["peak_gib"] > 0
    assert finished.run("status", "animals-000001").splitlines()[-1] == "finished"
    with pytest.raises(ConfigError, match="no curation 'nonsense'"):
        finished.run("status", "nonsense")


def test_a_curation_that_an_earlier_version_finished_says_what_to_do(
    finished: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "INGEST", replace(stages.INGEST, version=stages.INGEST.version + 1))
    wanted = "an earlier version of Reneg finished it.* Run `reneg curate` with its configuration again"
    said = " ".join(finished.run("status", "animals-000001").split())
    assert "unfinished: ingest, 1 of 1 parts to compute" in said
    assert re.search(wanted, said)
    out = str(finished.nights.folder / "out")
    for command in (
        ["stats"],
        ["export", "--format", "verdicts", "--out", out],
        ["export", "--format", "trec", "--out", out],
        ["promote"],
    ):
        with pytest.raises(ConfigError, match=wanted):
            finished.run(command[0], "animals-000001", *command[1:])
    with pytest.raises(ConfigError, match="`reneg curate`, also where an earlier version of Reneg finished it"):
        finished.run("treat", "animals-000001")


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
    assert "reneg curate FILE" not in said
    assert shell.json("status", curation.id)[0]["failed"] == 1
    record_failure(store, curation.id, Spec("ingest-00000", 0), "set `seed: null` in the tier's `engine`")  # type: ignore[arg-type]
    assert "run `reneg curate FILE`: `reneg rerun` keeps" in shell.run("status", curation.id)


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
    said = shell.run("plan", config)
    assert "what judging will cost" not in said
    assert "similarity judges alone (the configuration has no tiers)" in said


def test_a_part_is_explained_in_words_and_for_scripts(finished: Shell) -> None:
    found = finished.json("explain", "animals-000001", "mine", 1)
    assert (found["stage"], found["part"], found["finished"]) == ("mine", 1, True)
    said = finished.run("explain", "animals-000001", "mine", 1).splitlines()
    assert said[0] == "mine part 1 of animals-000001 was computed:"
    assert found["computed_by"][0].startswith("computed by numpy ")
    assert said[1:] == [f"  {line}" for line in (*found["reasons"], *found["computed_by"])]


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


def test_stats_shows_what_the_data_looks_like(finished: Shell) -> None:
    said = finished.run("stats", "animals-000001")
    assert "data: animals" in said
    assert "negatives of a training query" in said
    record = finished.json("stats", "animals-000001")
    assert record["data"]["datasets"][0]["dataset"] == "animals"
    assert record["rejects"]["lost"] == 0
    page = finished.nights.settings.home / "curations" / "animals-000001" / "summary.json"
    assert json.loads(page.read_text(encoding="utf-8"))["data"] == record["data"]


def test_status_and_plan_say_why_a_run_stops_after_ingest(shell: Shell, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "bad", 2, 2)
    path = shell.nights.written(source, ingest={}, tiers=[], train=None, promote=None)
    with pytest.raises(TooManyRejected, match="2 of 4 rows"):
        shell.run("curate", path)
    for command in (("status", "animals-000001"), ("plan", path), ("stats", "animals-000001")):
        assert "ingest left out 2 of 4 rows: broken_json 2" in shell.run(*command)
    path = shell.nights.written(source, ingest={"max_rejected": 0.5}, tiers=[], train=None, promote=None)
    assert shell.run("curate", path).splitlines()[-1] == (
        "ingest left out 2 of 4 rows: broken_json 2 (see report.html)"
    )
    with pytest.raises(TooManyRejected, match="nothing may be lost"):
        shell.run("curate", path, "--strict")
