"""The engine of an endpoint against vLLM's own server."""

import contextlib
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import infra.engines.openai_endpoint
from infra.engines.answers import EndpointError
from infra.engines.kinds import build_engine, environment
from infra.engines.specs import OpenAISpec, VLLMSpec
from infra.models.random_models import build_tiny_llm
from tests.conftest import free_port, stop, wait_for_http
from tests.infra.misbehaving import SCHEMA, SECRET, Asked


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setattr(infra.engines.openai_endpoint, "_FIRST_DELAY", 0.01)


@pytest.fixture
def vllm_server(tmp_path: Path) -> Iterator[str]:
    """vLLM's own server with a tiny model; yields its base URL."""
    build_tiny_llm(tmp_path / "model")
    port = free_port()
    variables = environment(VLLMSpec(model=str(tmp_path / "model"), digest="d", threads=2))
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port),
        "--model", str(tmp_path / "model"), "--served-model-name", "tiny", "--dtype", "bfloat16", "--enforce-eager",
        "--max-model-len", "256", "--max-num-seqs", "8", "--structured-outputs-config",
        '{"backend": "xgrammar", "disable_any_whitespace": true}',
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, **variables, "VLLM_CPU_KVCACHE_SPACE": "1"},
        )  # fmt: skip
    try:
        wait_for_http(f"http://127.0.0.1:{port}/health", process, 240)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        stop(process)
        if process.returncode < 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own session: nobody else is in it


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_vllms_own_server_gives_log_probabilities_and_an_answer_by_schema(vllm_server: str) -> None:
    engine = build_engine(OpenAISpec(model="tiny", base_url=vllm_server, timeout=60.0))
    requests = [
        Asked("Is the passage relevant? Answer Yes or No.", top=20),
        Asked("Fill the form.", max_tokens=40, top=0, schema=SCHEMA),
        Asked("word " * 600),
    ]
    first, form, lengthy = engine.answer(requests)
    assert first.finish_reason == "length"
    assert 10 < len(first.logprobs) <= 20
    assert 0 < sum(map(math.exp, first.logprobs.values())) <= 1.0001
    assert first.text == next(iter(first.logprobs))
    assert first.output_tokens == 1
    assert first.fingerprint.startswith("tiny")
    assert form.text in ('{"verdict":"yes"}', '{"verdict":"no"}')
    assert form.finish_reason == "stop"
    assert lengthy.finish_reason == "too_long"
    with pytest.raises(EndpointError, match=r"404.*elsewhere"):
        build_engine(OpenAISpec(model="elsewhere", base_url=vllm_server)).answer(requests[:1])
