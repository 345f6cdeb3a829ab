"""Events: sent where a server is set, and never a reason to fail."""

import os
import subprocess
import sys

import pytest

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
