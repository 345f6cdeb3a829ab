"""Notifications on a real Prefect server: what arrives at a webhook, what is registered, and where its address is."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, tags
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.flow_engine import run_flow
from pydantic import SecretStr, ValidationError

from flows.config.curation import NotifyConfig
from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.operations.notifications import NotifyError, register_notifications
from flows.results.promotion import Release, rollback
from infra.prefect_api.events import emit, resource
from infra.storage.store import Store
from tests.flows.releases import Line
from tests.infra.prefect_calls import embedded

SECRET = "planted-in-the-webhook"


@dataclass
class Receiver:
    """A webhook on loopback that keeps what it is sent."""

    url: str
    received: list[dict[str, Any]] = field(default_factory=list)

    def wait(self, seconds: float = 180.0, **wanted: str) -> dict[str, Any]:
        """Wait for a message with these values."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (message := self.find(**wanted)) is not None:
                return message
            time.sleep(0.1)
        pytest.fail(f"{wanted} did not arrive within {seconds} s; {self.received} did")

    def find(self, **wanted: str) -> dict[str, Any] | None:
        """Return the first message with these values that came."""
        came = list(self.received)
        return next((one for one in came if all(one.get(key) == value for key, value in wanted.items())), None)

    def tell(self, event: str, dataset: str, figures: dict[str, Any], **wanted: str) -> dict[str, Any]:
        """Emit an event, again every few seconds, until a message with these values came.

        The server takes a new automation up a moment after it was made, and passes over what came before.
        """
        for _ in range(40):
            assert emit(event, resource(dataset), figures)
            until = time.monotonic() + 5
            while time.monotonic() < until:
                if (message := self.find(**wanted)) is not None:
                    return message
                time.sleep(0.1)
        pytest.fail(f"{wanted} did not arrive; {self.received} did")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.received.append({"path": self.path, "type": self.headers["Content-Type"], **json.loads(body)})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    kept = Receiver(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kept
    server.shutdown()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncPrefectClient]:
    with embedded(tmp_path_factory.mktemp("home")), get_client(sync_client=True) as connected:
        yield connected


def by_env(client: SyncPrefectClient, receiver: Receiver, name: str, **more: Any) -> list[str]:
    config = NotifyConfig.model_validate({"webhook_env": "HOOK", **more})
    return register_notifications(client, name, config, {"HOOK": f"{receiver.url}/{name}-{SECRET}"})


@flow(name="nightly", persist_result=False)
def failing() -> None:
    raise ValueError('2 parts failed: "judge-llm" 3, \\ and {{ this }}')


def run_deployed(client: SyncPrefectClient, name: str, tagged: tuple[str, ...] = ("reneg",)) -> str:
    """Run a flow as a worker does: the flow run belongs to a deployment of that name."""
    deployment = client.create_deployment(client.create_flow(failing), name, tags=list(tagged))
    run = client.create_flow_run_from_deployment(deployment)
    with pytest.raises(ValueError, match="parts failed"):
        run_flow(failing, flow_run=run)
    return run.name


@pytest.mark.slow
def test_a_failed_flow_run_of_a_deployment_calls_the_webhook_with_its_message_and_a_link(
    client: SyncPrefectClient, receiver: Receiver
) -> None:
    by_env(client, receiver, "nq", ui_url="https://prefect.example/")
    name = run_deployed(client, "nq")
    arrived = receiver.wait(flow_run=name)
    assert arrived["path"] == f"/nq-{SECRET}"
    assert arrived["type"] == "application/json"
    assert (arrived["event"], arrived["dataset"], arrived["state"]) == ("reneg.failed", "nq", "Failed")
    assert '2 parts failed: "judge-llm" 3, \\ and {{ this }}' in arrived["message"]
    assert arrived["link"].startswith("https://prefect.example/runs/flow-run/")
    assert arrived["text"].startswith(f"{name} failed: ")


@pytest.mark.slow
def test_only_runs_of_ones_own_and_of_shared_deployments_are_told_of(
    client: SyncPrefectClient, receiver: Receiver
) -> None:
    by_env(client, receiver, "mine", on=["failed"])
    others = [run_deployed(client, "other"), run_deployed(client, "mine", tagged=())]
    with tags("reneg"), pytest.raises(ValueError, match="parts failed"):
        failing()  # in somebody's terminal
    told = [run_deployed(client, name) for name in ("mine", "any")]
    for name in told:
        receiver.wait(path=f"/mine-{SECRET}", flow_run=name)
    ours = [message["flow_run"] for message in receiver.received if message["path"] == f"/mine-{SECRET}"]
    assert sorted(ours) == sorted(told)
    assert not set(others) & set(ours)


@pytest.mark.slow
def test_a_promotion_a_hold_and_a_rollback_arrive_with_their_figures(
    client: SyncPrefectClient, receiver: Receiver, tmp_path: Path
) -> None:
    by_env(client, receiver, "nq")
    line = Line(str(tmp_path / "store"), tmp_path / "home")
    first = line.night(1, "one")
    assert isinstance(first, Release)
    arrived = receiver.wait(event="reneg.promoted")
    assert arrived["dataset"] == "nq"
    assert arrived["text"] == "nq: release 1 (nq-000001) promoted: no comparison of models is required"
    assert (arrived["figures"]["number"], arrived["figures"]["prefix"]) == (1, "published/nq/000001")
    assert {check["name"] for check in arrived["figures"]["checks"]} >= {"score", "relevant", "size", "drift"}
    line.night(2, "two")
    line.night(3, "three", instances=1)
    assert "1 instances after 100" in receiver.wait(event="reneg.held")["text"]
    rollback(Store(line.url), "nq")
    assert "back to release 1" in receiver.wait(event="reneg.rolled-back")["text"]


@pytest.mark.slow
def test_an_alarm_of_drift_arrives_and_another_datasets_does_not(client: SyncPrefectClient, receiver: Receiver) -> None:
    by_env(client, receiver, "drifting", on=["drift"])
    assert emit("reneg.drift", resource("unwatched"), {"text": "not for us"})
    assert emit("reneg.promoted", resource("drifting"), {"text": "not asked for"})
    arrived = receiver.tell("reneg.drift", "drifting", {"text": 'κ fell to "0.4"'}, path=f"/drifting-{SECRET}")
    assert arrived["text"] == 'κ fell to "0.4"'
    assert emit("reneg.drift", resource("drifting"), {"alarms": ["no sentence"]})
    assert receiver.wait(text="drifting: reneg.drift")["figures"] == {"alarms": ["no sentence"]}
    assert not [message for message in receiver.received if str(message["text"]).startswith("not ")]


@pytest.mark.slow
def test_registering_again_changes_what_is_there_and_leaving_the_section_out_removes_it(
    client: SyncPrefectClient, receiver: Receiver
) -> None:
    def ours() -> list[str]:
        return sorted(a.name for a in client.read_automations() if "again" in a.name)

    for _ in range(2):
        assert sorted(by_env(client, receiver, "again")) == ours()
    assert ours() == ["reneg: again failed", "reneg: releases and drift of again"]
    by_env(client, receiver, "again", on=["failed"])
    assert ours() == ["reneg: again failed"]
    assert register_notifications(client, "again", None) == []
    assert ours() == []
    assert "reneg-again" not in {document.name for document in client.read_block_documents()}


@pytest.mark.slow
def test_the_address_is_in_the_block_only(client: SyncPrefectClient, receiver: Receiver) -> None:
    by_env(client, receiver, "secretive")
    automations = [automation.model_dump_json() for automation in client.read_automations()]
    shown = [document.model_dump_json() for document in client.read_block_documents(include_secrets=False)]
    assert not [text for text in (*automations, *shown) if SECRET in text]
    assert SECRET in str(Webhook.load("reneg-secretive").url.get_secret_value())  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_block_that_people_made_is_used_as_it_is(client: SyncPrefectClient, receiver: Receiver) -> None:
    Webhook(url=SecretStr(f"{receiver.url}/own")).save("own-hook", overwrite=True)
    CustomWebhookNotificationBlock(
        name="chat", url=f"{receiver.url}/chat", json_data={"subject": "{{subject}}", "body": "{{body}}"}
    ).save("chat", overwrite=True)
    for name, block in (("hooked", "webhook/own-hook"), ("chatty", "custom-webhook/chat")):
        register_notifications(client, name, NotifyConfig(block=block))
    assert receiver.tell("reneg.drift", "hooked", {"text": "hooked drifts"}, path="/own")["text"] == "hooked drifts"
    assert receiver.tell("reneg.drift", "chatty", {"text": "chatty drifts"}, path="/chat")["body"] == "chatty drifts"


@pytest.mark.slow
def test_what_cannot_notify_is_refused_with_the_remedy(client: SyncPrefectClient) -> None:
    Secret(value="x").save("no-notifier", overwrite=True)
    for config, said in (
        (NotifyConfig(block="webhook/nowhere"), "make it there"),
        (NotifyConfig(block="secret/no-notifier"), "neither a webhook nor a notification block"),
        (NotifyConfig(webhook_env="UNSET"), "it is not set; export it where `reneg deploy` runs"),
    ):
        with pytest.raises(NotifyError, match=said):
            register_notifications(client, "nq", config, {})


def test_one_way_to_tell_is_demanded_and_a_url_is_not_a_variables_name() -> None:
    for wrong in ({}, {"block": "webhook/a", "webhook_env": "A"}, {"webhook_env": "https://hooks.example/x"}):
        with pytest.raises(ValidationError):
            NotifyConfig.model_validate(wrong)
    settings = {"name": "nq", "source": {"path": "rows.jsonl"}, "notify": {"on": ["never"]}}
    with pytest.raises(ConfigError, match=r"notify\.on"):
        parse_config(settings, "test")
