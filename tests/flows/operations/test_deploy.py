"""Deployments on a real Prefect server: what stands there after one `reneg deploy`, and after two."""

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.config.load import parse_config
from flows.config.prices import load_prices
from flows.config.section import ConfigError
from flows.curation.records import read_config
from flows.operations.deploy import HEARTBEAT_AUTOMATION, deploy
from infra.prefect_api.automations import ensure_automation
from infra.settings import Settings
from infra.storage.store import Store
from tests.infra.prefect_calls import ask, embedded

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("deploy")
    with embedded(folder) as url:
        yield Settings(folder, str(folder / "store"), folder / "cache", prefect_api_url=url, ray_address=None)


def config(**nightly: Any) -> Any:
    return parse_config({"name": "mine", "source": {"path": "/rows.jsonl"}, "nightly": nightly or None}, "test")


def listed(what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask("POST", f"/{what}/filter", {})
    return found


def test_deploying_twice_changes_what_is_there_and_adds_nothing(settings: Settings) -> None:
    first = deploy(settings, [config(cron="30 2 * * *", timezone="Europe/Berlin", overlap="refuse")])
    nightly = next(one for one in first if one.name == "nightly/mine")
    assert (nightly.schedule, nightly.overlap) == ("30 2 * * * Europe/Berlin", "refused")
    deploy(settings, [config(cron="0 4 * * *", timezone="UTC")])
    deployments = listed("deployments")
    assert len(deployments) == len(first)
    (there,) = [d for d in deployments if d["tags"] == ["reneg", "mine"] and d["schedules"]]
    assert [(s["schedule"]["cron"], s["schedule"]["timezone"]) for s in there["schedules"]] == [("0 4 * * *", "UTC")]
    assert there["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert there["global_concurrency_limit"]["limit"] == 1
    automations = [a["name"] for a in listed("automations")]
    assert automations.count(HEARTBEAT_AUTOMATION) == 1


def test_a_configuration_without_a_schedule_loses_the_one_it_had(settings: Settings) -> None:
    deploy(settings, [config(cron="30 2 * * *")])
    deploy(settings, [config()])
    assert [d["schedules"] for d in listed("deployments") if d["name"] == "mine"] == [[], []]


def schedules_of_gc(settings: Settings) -> list[tuple[str, str]]:
    (gc,) = [d for d in listed("deployments") if d["name"] == "any" and d["entrypoint"].endswith(".gc")]
    assert gc["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    return sorted((s["schedule"]["cron"], s["schedule"]["timezone"]) for s in gc["schedules"])


def test_gc_runs_by_itself_whenever_any_deployed_configuration_says(settings: Settings) -> None:
    deploy(settings, [config()])
    assert schedules_of_gc(settings) == [("0 12 * * 0", "UTC")]
    other = {"name": "other", "source": {"path": "/rows.jsonl"}}
    deploy(settings, [parse_config({**other, "retention": {"cron": "0 5 1 * *"}}, "test")])
    assert schedules_of_gc(settings) == [("0 12 * * 0", "UTC"), ("0 5 1 * *", "UTC")]
    never = [parse_config({**other, "name": name, "retention": {"cron": None}}, "test") for name in ("other", "mine")]
    deploy(settings, never)
    assert schedules_of_gc(settings) == []


def test_the_forms_explain_their_parameters(settings: Settings) -> None:
    deploy(settings, [config()])
    schemas = {
        d["entrypoint"].rsplit(".", 1)[-1]: json.dumps(d["parameter_openapi_schema"]) for d in listed("deployments")
    }
    assert "as in the task run's name: judge-llm" in schemas["rerun_part"]
    for name in ("curation", "stage", "part", "downstream"):
        assert f'"{name}"' in schemas["rerun_part"]
    assert "that `reneg deploy` put into the store" in schemas["nightly"]


def test_a_configuration_is_in_the_store_for_workers_elsewhere_with_its_prices(
    settings: Settings, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("{currency: EUR, hours: {cpu: 0.3}}")
    deploy(settings, [config().model_copy(update={"prices": str(prices)})])
    prices.unlink()
    known = load_prices(read_config(Store(settings.store), "mine"))
    assert (known.currency, known.hours) == ("EUR", {"cpu": 0.3})
    with pytest.raises(ConfigError, match=r"prices: .*prices.yaml cannot be read"):
        deploy(settings, [config().model_copy(update={"prices": str(prices)})])


def test_a_run_whose_heartbeats_stop_is_crashed_by_the_automation_and_its_slot_is_free(settings: Settings) -> None:
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.states import Pending, Running

    from flows.operations.deploy import _dead_runs

    deploy(settings, [config()])
    with get_client(sync_client=True) as client:
        ensure_automation(client, _dead_runs(timedelta(seconds=10)))
        try:
            deployment = client.read_deployment_by_name("nightly/mine")
            run = client.create_flow_run_from_deployment(deployment.id)
            for state in (Pending(), Running()):
                client.set_flow_run_state(run.id, state, force=False)
            assert slots(deployment.id) == 1
            beat(str(run.id))  # and then its machine died
            wait_until(lambda: crashed(client, UUID(str(run.id))), 240)
            assert slots(deployment.id) == 0
        finally:
            ensure_automation(client, _dead_runs())


def beat(run: str) -> None:
    """Tell of a heartbeat; Prefect's own client, once it spoke to another server, would go on telling that one."""
    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "related": [{"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.reneg"}],
    }
    ask("POST", "/events", [event])


def crashed(client: Any, run: Any) -> bool:
    state = client.read_flow_run(run).state
    return bool(state is not None and state.is_crashed() and "no heartbeat" in str(state.message))


def slots(deployment: Any) -> int:
    found = ask("GET", f"/deployments/{deployment}")
    return int(found["global_concurrency_limit"]["active_slots"])


def wait_until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)
