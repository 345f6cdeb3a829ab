"""Kill the judge in the middle, then the whole flow, and resume: what was answered is not paid for again."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.animals import tier, write_source
from tests.infra.misbehaving import MisbehavingServer, answer_by_hash
from tests.system.place import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
BATCH = 6


@pytest.fixture(scope="module")
def endpoint() -> Iterator[MisbehavingServer]:
    """An endpoint slow enough to be killed in the middle of a batch."""

    def slowly(body: Any) -> Any:
        time.sleep(0.2)
        return answer_by_hash(body)

    with MisbehavingServer(reply=slowly) as server:
        yield server


def write_config(folder: Path, url: str) -> Path:
    source = write_source(folder / "source")
    engine = {"kind": "openai", "model": "judge-2026-01-01", "base_url": url, "concurrency": 1}
    config = {
        "name": "killed",
        "source": {"path": str(source)},
        "ingest": {"query_parts": 5, "passage_parts": 2, "known_split": "known"},
        "encoder": {"model": "tiny:encoder", "max_seq_length": 64},
        "mine": {"range_max": 6, "num_negatives": 3},
        "tiers": [{**tier(judge={"batch_size": BATCH}), "engine": engine}],
        "treatments": ["default"],
        "train": None,
    }
    path = folder / "killed.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def engine_processes(home: Path) -> list[int]:
    """Processes that hold an engine of the run with this home: Ray names its workers after the actor."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            named = b"EngineActor" in (entry / "cmdline").read_bytes()
            ours = f"RENEG_HOME={home}".encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
        if named and ours:
            found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def paid(server: MisbehavingServer) -> int:
    return sum(server.paid.values())


@dataclass(frozen=True)
class Stopped:
    """A run that its budget stopped, and the one that went on: what was said, what was paid, and how it ended."""

    message: str
    paid: int
    record: dict[str, Any]
    most: int


@pytest.fixture(scope="module")
def stopped(endpoint: MisbehavingServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stopped]:
    """Run with a budget that ends in the middle, then without one; the key stays set for the other runs."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_API_KEY", "sk-a-key-of-the-test")
        folder = tmp_path_factory.mktemp("stopped")
        config = write_config(folder, endpoint.url)
        place = Place(folder / "home", str(folder / "store"))
        settings = yaml.safe_load(config.read_text())
        config.write_text(yaml.safe_dump({**settings, "budget": {"tokens": 1000}}))
        message = place.run("curate", str(config), expect=1)
        at = paid(endpoint)
        config.write_text(yaml.safe_dump(settings))
        record = json.loads(place.run("curate", str(config), "--json").splitlines()[-1])
        yield Stopped(message, at, record, max(endpoint.paid.values()))


def test_a_budget_ends_a_run_with_one_message_and_the_next_run_goes_on(stopped: Stopped) -> None:
    assert "stopped: budget: tokens 1000 used up" in stopped.message
    assert "used:" in stopped.message
    assert "Traceback" not in stopped.message
    assert 0 < stopped.paid < 40
    assert stopped.record["curation"] == "killed-000001"
    assert stopped.most == 1


def test_killing_the_engine_and_then_the_flow_costs_at_most_a_batch_each(
    endpoint: MisbehavingServer, stopped: Stopped, tmp_path: Path
) -> None:
    calls = stopped.record["llm_calls"]
    assert calls >= 40
    endpoint.paid.clear()
    config = write_config(tmp_path, endpoint.url)
    place = Place(tmp_path / "home", str(tmp_path / "store"))
    process = place.start("curate", str(config), "--json")
    wait_until(lambda: paid(endpoint) >= calls // 2, "half of the calls was not reached")
    engines = engine_processes(place.home)
    assert len(engines) == 1
    os.kill(engines[0], signal.SIGKILL)
    wait_until(lambda: paid(endpoint) >= calls * 3 // 4, "the engine was not built again")
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    wait_until(lambda: not engine_processes(place.home), "an engine outlived its flow")

    resumed = json.loads(place.run("curate", str(config), "--json").splitlines()[-1])

    assert calls <= paid(endpoint) <= calls + 2 * BATCH
    same = ("queries", "candidates", "verdicts", "found", "llm_calls")
    assert {name: resumed[name] for name in same} == {name: stopped.record[name] for name in same}
