"""A command beside a Ray node: it is refused without a head, outlives a restart of the head, and ends as it is told."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.cluster import with_ray
from tests.conftest import require
from tests.infra.ray_start import (
    HEAD,
    RAY_EXTRAS,
    check,
    environment,
    free_ports,
    kill_all,
    on_loopback,
    running,
    wait_until,
)  # fmt: skip
from tests.infra.test_containers import services

SERVES = """
import os, signal, sys, time
def end(*_):
    print("told to end", flush=True)
    time.sleep(1)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
print("serving", "PREFECT_API_AUTH_STRING" in os.environ, flush=True)
while True:
    time.sleep(0.1)
"""
JOINS = """
import os, ray
ray.init(address=os.environ["RAY_ADDRESS"], _node_ip_address="127.0.0.3", logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))
"""


@pytest.fixture
def folders() -> Iterator[list[Path]]:
    """Short folders for the files of three Rays."""
    with tempfile.TemporaryDirectory(prefix="wr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = [Path(folder, name) for name in ("a", "b", "n")]
        for path in made:
            path.mkdir()
        yield made


def await_line(log: Path, line: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while line not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


# On a busy machine the first attempts to join may fail, so the node is started up to five times.
DRAINED = """
log="$1"; shift
for attempt in 1 2 3 4 5; do
    "$@" >"$log" 2>&1 &
    until grep -q "Ray runtime started" "$log" || ! kill -0 $!; do sleep 0.3; done
    kill -0 $! && break
done 2>/dev/null
drain
kill -0 $! 2>/dev/null && echo "still running"
wait $!
"""
IN_A_CONTAINER = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
CONTAINED = not subprocess.run([*IN_A_CONTAINER, "true"], capture_output=True, check=False).returncode


def drained_worker(folder: Path, log: Path, ports: dict[int, int]) -> subprocess.CompletedProcess[str]:
    """Start a Ray worker as compose.yaml does, under a shell as KubeRay does, and stop it by `drain`.

    `drain` signals every `ray start` that it sees, so it runs where it sees only this one.
    """
    command = on_loopback(services()["ray-worker"]["command"], "127.0.0.4", ports | {8080: free_ports()[8080]})
    command = ["--num-cpus=1" if word.startswith("--num-cpus=") else word for word in command]
    return subprocess.run(
        [*IN_A_CONTAINER, "/bin/sh", "-c", DRAINED, "sh", str(log), *command],
        env=environment(folder), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_command_outlives_a_restart_of_the_head_with_a_node_that_joins_again_and_ends_as_it_is_told(
    folders: list[Path], tmp_path: Path
) -> None:
    require(RAY_EXTRAS)
    ports, head = free_ports(), services()["ray-head"]
    start = on_loopback(head["command"], HEAD, ports)
    variables = environment(
        folders[2], RAY_ADDRESS=f"{HEAD}:{ports[6379]}", PREFECT_API_AUTH_STRING="a:b",
        WITH_RAY_OPTIONS=f"--node-ip-address=127.0.0.3 --metrics-export-port={free_ports()[8080]}",
    )  # fmt: skip
    known, log = ["with-ray", "--check"], tmp_path / "log"
    assert "does not listen" in check(known, variables).stderr
    with running(start, environment(folders[0]), tmp_path / "head"), ThreadPoolExecutor(1) as beside:
        wait_until(on_loopback(head["healthcheck"]["test"][1:], HEAD, ports), environment(folders[0]))
        drained = beside.submit(drained_worker, folders[1], tmp_path / "worker", ports) if CONTAINED else None
        refused = check(known, variables | {"RAY_AUTH_TOKEN": "f" * 32})
        assert refused.returncode == 1, "a probe without the right token must not succeed"
        with running(["with-ray", sys.executable, "-c", SERVES], variables, log) as process:
            await_line(log, "serving True", 180)  # on a busy machine the first attempts to join may fail
            assert check(known, variables).returncode == 0
            if drained is not None:
                assert drained.result().stdout == "", "drain did not wait for the end of the node"
                assert "Local node finished draining" in (tmp_path / "worker").read_text()
            kill_all(str(folders[0]))
            lost = check(known, variables)
            assert (lost.returncode != 0, process.poll()) == (True, None)  # on a busy machine it may not answer in time
            with running(start, environment(folders[1]), tmp_path / "head2"):
                wait_until(known, variables)
                assert "the Ray node ended with" in log.read_text()
                joined = check([sys.executable, "-c", JOINS], variables)
                assert joined.stdout.split() == ["2"], joined.stderr
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 7
                assert "told to end" in log.read_text()
                assert "does not know a node" in check(known, variables).stderr


@pytest.mark.parametrize(
    ("arguments", "address", "told"),
    [
        (["true"], "", "RAY_ADDRESS: the head as host:port expected, for example ray-head:6379"),
        (["true"], "ray-head", "for example ray-head:6379; got ray-head"),
        ([], "ray-head:6379", "a command expected"),
    ],
)
def test_a_missing_address_or_command_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], address: str, told: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert with_ray.main(arguments) == 2
    assert told in capsys.readouterr().err


class Ray:
    """Stands in for the program `ray`: a node that ends after some seconds, with an exit code."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, code: int = 0) -> None:
        program = folder / "ray"
        program.write_text(
            f'#!/bin/sh\necho "$@" >>{folder}/started\nenv >{folder}/new; mv {folder}/new {folder}/env\n'
            f"sleep {seconds}; exit {code}\n"
        )
        program.chmod(0o755)
        self._folder = folder
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        monkeypatch.setattr(with_ray, "listens", lambda address: True)
        monkeypatch.setattr(with_ray, "_is_known", lambda address: (folder / "env").exists())
        monkeypatch.setattr(with_ray, "_AGAIN_SECONDS", 0.2)
        monkeypatch.setattr(with_ray, "_HEAD_SECONDS", 0.05)
        monkeypatch.setattr(with_ray, "_LOOK_SECONDS", 0.05)

    def starts(self) -> list[str]:
        return (self._folder / "started").read_text().splitlines()


@pytest.fixture
def own_signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_the_exit_code_is_the_commands_and_the_node_knows_neither_prefect_nor_the_webhook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = Ray(tmp_path, monkeypatch, 30)
    for name in ("PREFECT_API_AUTH_STRING", "RENEG_WEBHOOK", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "planted")
    assert with_ray.main(["sh", "-c", "exit 5"]) == 5
    assert with_ray.main(["sh", "-c", "kill -9 $$"]) == 137
    assert with_ray.main(["/nowhere/at/all"]) == 127
    (first, *_) = ray.starts()
    assert first.startswith("start --block --address=127.0.0.1:1 --num-cpus=0 --num-gpus=0 --labels=reneg.machine=")
    assert first.endswith("--metrics-export-port=8080")
    given = (tmp_path / "env").read_text()
    assert "AWS_SECRET_ACCESS_KEY=planted" in given
    assert "PREFECT_API_AUTH_STRING" not in given
    assert "RENEG_WEBHOOK" not in given


@pytest.mark.usefixtures("own_signals")
def test_a_node_that_ends_is_started_again_and_one_that_the_head_forgets_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ray = Ray(tmp_path, monkeypatch, 0.3, 3)
    assert with_ray.main(["sleep", "2"]) == 0
    assert len(ray.starts()) > 2
    assert "the Ray node ended with 3; starting another" in capfd.readouterr().err
    (tmp_path / "started").unlink()
    ray = Ray(tmp_path, monkeypatch, 30)
    answers = iter([True, True, False, True, False, False])
    monkeypatch.setattr(with_ray, "_is_known", lambda address: next(answers, True))
    assert with_ray.main(["sleep", "2"]) == 0
    assert len(ray.starts()) == 2  # one answer alone ended nothing
    told = capfd.readouterr().err
    assert told.count("the head does not know the Ray node any more") == 1
    assert "the Ray node ended with -9; starting another" in told


@pytest.mark.usefixtures("own_signals")
def test_a_node_that_cannot_be_started_ends_it_before_the_command_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ray = Ray(tmp_path, monkeypatch, 0.1, 1)
    monkeypatch.setattr(with_ray, "_is_known", lambda address: False)
    assert with_ray.main(["touch", str(tmp_path / "begun")]) == 1
    assert len(ray.starts()) == 3
    assert not (tmp_path / "begun").exists()
    assert "no Ray node could be started here: the head at 127.0.0.1:1 does not know a node" in capfd.readouterr().err


def test_without_the_program_ray_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert with_ray.main(["true"]) == 127
    assert "`ray` is not in PATH" in capsys.readouterr().err


def test_a_machines_name_is_a_label_that_ray_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, label in {"reneg-5d9f-x2x": "reneg-5d9f-x2x", "_a b!": "a-b", "x" * 70: "x" * 63, "--": "here"}.items():
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        assert with_ray._machine() == label
