"""Automations on a real Prefect server: written where they differ, and only there."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from infra.prefect_api.automations import ensure_automation
from tests.infra.prefect_calls import ask, embedded

pytestmark = pytest.mark.slow
EVENTS = {f"a.{number}" for number in range(20)}  # a set: its order as JSON changes from process to process


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncPrefectClient]:
    with embedded(tmp_path_factory.mktemp("automations")), get_client(sync_client=True) as client:
        yield client


def automation(name: str, seconds: int = 60) -> AutomationCore:
    trigger = EventTrigger(expect=EVENTS, posture=Posture.Proactive, threshold=1, within=timedelta(seconds=seconds))
    return AutomationCore(name=name, trigger=trigger, actions=[DoNothing()])


def listed(name: str) -> list[dict[str, Any]]:
    return [one for one in ask("POST", "/automations/filter", {}) if one["name"] == name]


def test_an_automation_that_did_not_change_is_not_written(client: SyncPrefectClient) -> None:
    ensure_automation(client, automation("same"))
    (first,) = listed("same")
    ensure_automation(client, automation("same"))
    assert listed("same") == [first]  # its time of update too


def test_one_that_changed_is_written_and_keeps_its_id(client: SyncPrefectClient) -> None:
    ensure_automation(client, automation("changed"))
    (first,) = listed("changed")
    ensure_automation(client, automation("changed", seconds=90))
    (second,) = listed("changed")
    assert (second["id"], second["trigger"]["within"]) == (first["id"], 90.0)


def test_others_of_the_same_name_are_deleted(client: SyncPrefectClient) -> None:
    for _ in range(3):
        client.create_automation(automation("many"))
    ensure_automation(client, automation("many"))
    assert len(listed("many")) == 1
