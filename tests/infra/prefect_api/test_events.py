"""Events: sent where a server is set, and never a reason to fail."""

import os
import subprocess
import sys

import prefect.events
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from infra.prefect_api.events import emit, resource

PROGRAM = """
import sys
from infra.prefect_api.events import emit, resource
print(emit("reneg.promoted", resource("nq"), {"text": "x"}), "prefect" in sys.modules)
"""


def run(**variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_API")} | variables
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=True
    ).stdout.strip()


def test_without_a_server_nothing_is_sent_and_none_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run() == "False False"
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert emit("reneg.promoted", resource("nq"), {"text": "x"}) is False


@pytest.mark.slow
def test_a_server_that_does_not_answer_fails_nothing() -> None:
    assert run(PREFECT_API_URL="http://127.0.0.1:9/api") == "True True"


def test_an_event_is_about_the_releases_of_a_dataset_of_ours() -> None:
    assert resource("nq") == {"prefect.resource.id": "reneg.dataset.nq", "prefect.resource.name": "nq"}


@pytest.mark.parametrize(("answer", "sent"), [("an event", True), (None, False), (OSError("away"), False)])
def test_an_event_is_handed_to_prefect_and_its_trouble_is_nobodys(
    monkeypatch: pytest.MonkeyPatch, answer: object, sent: bool
) -> None:
    emitted: list[tuple[object, ...]] = []

    def emit_event(event: str, *, resource: dict[str, str], payload: dict[str, str]) -> object:
        emitted.append((event, resource, payload))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(prefect.events, "emit_event", emit_event)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert emit("reneg.promoted", resource("nq"), {"text": "x"}) is sent
    assert emitted == [("reneg.promoted", resource("nq"), {"text": "x"})]


def test_with_prefect_at_hand_and_no_address_nothing_is_sent() -> None:
    with temporary_settings({PREFECT_API_URL: ""}):
        assert emit("reneg.promoted", resource("nq"), {}) is False
