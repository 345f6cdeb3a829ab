"""A night as users live it: cron fires, one part fails, and three ways to repair that part and nothing else.

A real Prefect server and worker (`reneg serve`), a Ray cluster of a head and two nodes, an S3 server, all on loopback.
Only the judge's endpoint is ours: it drops the connection for one query of each configuration until it is mended.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.animals import tier, write_rows, write_source
from tests.flows.nightly import fill
from tests.infra.misbehaving import MisbehavingServer, answer_by_hash
from tests.system.stage_set import StageSet, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KEY = {"OPENAI_API_KEY": "sk-a-key-of-the-test"}
BROKEN = {"nightly-run": "lynx", "by-deployment": "heron", "by-command": "beaver"}


class Endpoint:
    """A judge that is away for one animal of each model, until told otherwise."""

    def __init__(self) -> None:
        self.away = dict(BROKEN)

    def __call__(self, body: Mapping[str, Any]) -> tuple[str, Mapping[str, float]]:
        animal = self.away.get(body["model"])
        if animal is not None and f"where does the {animal} live" in body["messages"][-1]["content"]:
            raise ConnectionResetError("away")
        return answer_by_hash(body)


@pytest.fixture(scope="module")
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture(scope="module")
def server(endpoint: Endpoint) -> Iterator[MisbehavingServer]:
    with MisbehavingServer(reply=endpoint) as server:
        yield server


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StageSet]:
    with StageSet(tmp_path_factory.mktemp("stage"), nodes=2, cpus=2, environment=KEY) as stage:
        yield stage


def write_config(folder: Path, name: str, url: str, **changes: Any) -> Path:
    engine = {"kind": "openai", "model": name, "base_url": url, "max_retries": 0, "timeout": 10}
    config = {
        "name": name,
        "source": {"path": str(folder / "source")},
        "ingest": {"query_parts": 5, "passage_parts": 2, "known_split": "known"},
        "encoder": {"model": "tiny:encoder", "max_seq_length": 64},
        "mine": {"range_max": 6, "num_negatives": 3},
        "tiers": [{**tier(), "engine": engine}],
        "treatments": ["default", "relabel"],
        "train": None,
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def failed(stage: StageSet, server: MisbehavingServer, endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    """Three curations, each with one part failed; the first by its nightly schedule."""
    write_source(stage.folder / "source")
    schedule = {"cron": "* * * * *", "timezone": "UTC", "overlap": "refuse"}  # due at the next full minute
    nightly = write_config(stage.folder, "nightly-run", server.url, nightly=schedule)
    others = [write_config(stage.folder, name, server.url) for name in BROKEN if name != "nightly-run"]
    stage.reneg("deploy", str(nightly), *map(str, others))
    ids = {"by-deployment": stage.api.start("curate/by-deployment")}
    fired = wait_until(
        lambda: [r for r in stage.api.runs(deployment="nightly-run") if r["state_type"] in ("RUNNING", "FAILED")],
        "the night was fired by its schedule",
        300,
    )
    stage.api.unschedule("nightly/nightly-run")
    assert fired[0]["auto_scheduled"]
    ids["nightly-run"] = fired[0]["id"]
    second = stage.api.wait(stage.api.start("nightly/nightly-run"))
    assert (second["state_type"], second["run_count"]) == ("CANCELLED", 0)  # two nights at once are refused
    stage.api.wait(ids["by-deployment"])
    ids["by-command"] = stage.api.start("curate/by-command")  # takes over what the others computed before judging
    runs = {name: stage.api.wait(id_) for name, id_ in ids.items()}
    endpoint.away.clear()
    return runs


def parts(stage: StageSet, id_: str, state: str, attempt: int | None = None) -> list[str]:
    """Names of the task runs in a state, of one attempt or all; the server learns of them a little later."""
    runs = [r for r in stage.api.task_runs(id_) if attempt in (None, r["flow_run_run_count"])]
    return sorted(r["name"] for r in runs if r["state_name"] == state)


def failed_part(stage: StageSet, run: Mapping[str, Any]) -> str:
    found: list[str] = wait_until(lambda: parts(stage, run["id"], "Failed"), "the failed part is recorded", 120)
    assert len(found) == 1
    return found[0]


def downstream(names: list[str], failed: str) -> None:
    """What was computed is the part itself, and nothing that it was made from or that stands beside it."""
    assert failed in names
    upstream = ("ingest", "encode", "search", "mine", "judge_similarity", "escalate")
    assert not [n for n in names if n.startswith(upstream)]
    assert [n for n in names if n.startswith("judge-")] == [failed]
    for stage in ("decide-", "agree-", "complete-", "treat-relabel-", "export-relabel-", "report-"):
        assert [n for n in names if n.startswith(stage)], f"{stage} was not computed"


def test_the_siblings_of_a_failed_part_finish_and_the_flow_run_reports_the_failure(
    stage: StageSet, failed: dict[str, dict[str, Any]]
) -> None:
    for name, run in failed.items():
        part = failed_part(stage, run)
        message = run["state"]["message"]
        assert run["state_type"] == "FAILED"
        number = int(part.rsplit("-", 1)[1])
        assert f"reneg rerun {name}-000001 --stage judge-llm --part {number} --downstream" in message
        wait_until(lambda run=run: not stage.api.open(run["id"]), "every task run has ended", 120)
        judged = [n for n in parts(stage, run["id"], "Completed") if n.startswith("judge-llm")]
        assert len(judged) >= 4
        assert part not in judged
        assert run["name"] == f"{name}-000001"
        assert {"reneg", name} <= set(run["tags"])
    assert failed["nightly-run"]["auto_scheduled"]


def test_retry_of_the_flow_run_computes_that_part_and_what_lies_downstream(
    stage: StageSet, failed: dict[str, dict[str, Any]]
) -> None:
    run = failed["nightly-run"]
    part = failed_part(stage, run)
    first = parts(stage, run["id"], "Completed")
    stage.api.retry(run["id"])
    wait_until(lambda: stage.api.run(run["id"])["run_count"] > 1, "the worker took the retry up", 300)
    again = stage.api.wait(run["id"])
    assert again["state_type"] == "COMPLETED", again["state"]["message"]
    wait_until(lambda: "report-00000" in parts(stage, run["id"], "Completed", 2), "the history is in", 120)
    computed, cached = (parts(stage, run["id"], state, 2) for state in ("Completed", "Cached"))
    downstream(computed, part)
    assert set(first) <= set(cached) | set(computed)
    assert not set(cached) & set(computed)


def test_the_rerun_part_deployment_computes_one_part_and_a_retry_takes_it_up(
    stage: StageSet, failed: dict[str, dict[str, Any]]
) -> None:
    run = failed["by-deployment"]
    part = failed_part(stage, run)
    target = {
        "curation": "by-deployment-000001", "stage": "judge-llm", "part": int(part.rsplit("-", 1)[1]),
        "downstream": False,
    }  # fmt: skip
    alone = stage.api.wait(stage.api.start("rerun-part/any", {"target": target}))
    assert alone["state_type"] == "COMPLETED", alone["state"]["message"]
    wait_until(lambda: parts(stage, alone["id"], "Completed"), "the task run's end is recorded", 120)
    assert [(r["name"], r["state_name"]) for r in stage.api.task_runs(alone["id"])] == [(part, "Completed")]
    stage.api.retry(run["id"])
    wait_until(lambda: stage.api.run(run["id"])["run_count"] > 1, "the worker took the retry up", 300)
    again = stage.api.wait(run["id"])
    assert again["state_type"] == "COMPLETED", again["state"]["message"]
    wait_until(lambda: "report-00000" in parts(stage, run["id"], "Completed", 2), "the history is in", 120)
    assert part in parts(stage, run["id"], "Cached", 2)
    assert not [n for n in parts(stage, run["id"], "Completed", 2) if n.startswith("judge-")]


def test_the_command_computes_that_part_and_what_lies_downstream(
    stage: StageSet, failed: dict[str, dict[str, Any]]
) -> None:
    part = failed_part(stage, failed["by-command"])
    known = {r["id"] for r in stage.api.runs()}
    command = ("rerun", "by-command-000001", "--stage", "judge-llm", "--part", part.rsplit("-", 1)[1])
    record = json.loads(stage.reneg(*command, "--downstream", "--json").splitlines()[-1])
    (run,) = [r for r in stage.api.runs() if r["id"] not in known and r["name"] == "by-command-000001"]
    wait_until(lambda: "report-00000" in parts(stage, run["id"], "Completed"), "the history is in", 120)
    computed = parts(stage, run["id"], "Completed")
    downstream(computed, part)
    assert record["parts"]["computed"] == len(computed)
    assert record["parts"]["reused"] == len(parts(stage, run["id"], "Cached"))


def test_a_night_without_change_computes_nothing(stage: StageSet, failed: dict[str, dict[str, Any]]) -> None:
    run = stage.api.wait(stage.api.start("nightly/nightly-run"))
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "NoChange")
    assert stage.api.task_runs(run["id"]) == []


def test_validate_retrain_and_prune_are_flow_runs_of_their_deployments(
    stage: StageSet, server: MisbehavingServer
) -> None:
    write_rows(stage.folder / "rows", ("news", "wiki"))
    config = write_config(
        stage.folder,
        "further",
        server.url,
        source={"path": str(stage.folder / "rows" / "rows.jsonl")},
        ingest={"holdout": 0.3},
        train={"steps": 2, "batch_size": 4, "num_negatives": 2, "max_seq_length": 32},
        evaluate={"max_seq_length": 32},
        sample={"size": 24},
    )
    done = json.loads(stage.reneg("curate", str(config), "--json").splitlines()[-1])
    curation = done["curation"]
    sheet = stage.home / "curations" / curation / "sample" / "sheet.csv"
    labels = ["relevant" if row % 2 else "not_relevant" for row in range(24)]
    filled = fill(sheet, labels, stage.folder / "filled.csv")
    stage.reneg("labels", "import", curation, str(filled), "--annotator", "ana")

    wanted = {
        "validate": {"reading": {"min_labels": 5}},
        "retrain": {"training": {"seeds": 1, "treatments": ["default", "relabel"]}},
        "prune": {"trial": {"seeds": 1, "treatment": "default"}},
    }
    ids = {
        flow: stage.api.start(f"{flow}/any", {"curation": {"curation": curation, **parameters}})
        for flow, parameters in wanted.items()
    }
    runs = {flow: stage.api.wait(id_) for flow, id_ in ids.items()}
    for flow, run in runs.items():
        assert run["state_type"] == "COMPLETED", f"{flow}: {run['state']['message']}"
        assert run["state"]["message"].startswith(f"{curation}: {flow} finished; ")
    assert computed(stage, ids["validate"], "validate-") == ["validate-00000"]
    # The curation itself trained both treatments with the first seed.
    assert computed(stage, ids["retrain"], "compare-") == ["compare-00000"]
    assert computed(stage, ids["retrain"], "train-") == []
    assert computed(stage, ids["prune"], "train-") == ["train-without-news_s42-00000", "train-without-wiki_s42-00000"]


def computed(stage: StageSet, id_: str, prefix: str) -> list[str]:
    """Name the parts of a stage that a flow run computed, once its history is in."""
    wait_until(lambda: not stage.api.open(id_) and stage.api.task_runs(id_), "the history is in", 120)
    return [name for name in stage.api.computed(id_) if name.startswith(prefix)]
