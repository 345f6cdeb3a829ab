"""Runs a command beside a Ray node of its own: a driver needs one on its machine. `docker/with-ray` calls it.

The node joins the cluster at RAY_ADDRESS. It has no CPUs or GPUs, so parts are computed on other nodes. Ray ends a node
whose head is lost after a minute. If another head answers before, the node is ended here. Then another node is started.
The command goes on meanwhile.

    with-ray COMMAND…    SIGTERM and SIGINT go to the command; the exit code is the command's
    with-ray --check     the probe: exit code 0 if the head knows the node of this machine, else 1
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from infra.cluster.ray_cluster import listens

_LABEL = "reneg.machine"
_JOIN_SECONDS = 120.0
_ATTEMPTS = 3  # to join for the first time: on a busy machine Ray gives up after 30 s
_AGAIN_SECONDS = 5.0  # between two attempts to join
_LOOK_SECONDS = 0.5
_STOP_SECONDS = 45.0  # `ray start --block` drains its node for up to 30 s
_ASK_SECONDS = 10.0
_HEAD_SECONDS = 5.0
_LOOKS = 2  # in a row, until a node counts as forgotten
_NOT_FOUND = 127  # as a shell says it
_BY_SIGNAL = 128  # what a shell adds to the signal that ended a command
# What the command may know and the node's Ray workers need not.
_COMMAND_ONLY = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "RENEG_WEBHOOK")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command beside a node, or check the node; returns the exit code."""
    command = list(sys.argv[1:] if arguments is None else arguments)
    address = os.environ.get("RAY_ADDRESS", "")
    if not re.fullmatch(r".+:\d+", address):
        _say(
            "RAY_ADDRESS: the head as host:port expected, for example ray-head:6379" + (address and f"; got {address}")
        )
        return 2
    if command == ["--check"]:
        problem = node_problem(address)
        _say(problem or f"the head at {address} knows this node")
        return 1 if problem else 0
    if not command:
        _say("a command expected, for example `with-ray reneg serve`")
        return 2
    if shutil.which("ray") is None:
        _say("the program `ray` is not in PATH; run this in an environment in which Reneg is installed")
        return _NOT_FOUND
    return _Supervisor(address).run(command)


def node_problem(address: str) -> str:
    """Say why the node of this machine is not part of the cluster at `address`; empty where it is."""
    if not listens(address):
        return f"the head at {address} does not listen"
    try:
        if _is_known(address):
            return ""
    except Exception as error:  # Ray raises a dozen kinds for a head that does not answer or refuses the token
        return f"the head at {address} does not answer ({type(error).__name__}: {str(error)[:200]})"
    return f"the head at {address} does not know a node of this machine ({_machine()})"


def _is_known(address: str) -> bool:
    import ray
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    raylet: Any = ray._raylet
    nodes = raylet.GcsClient(address=address).get_all_node_info(timeout=_ASK_SECONDS).values()
    return any(node.state == GcsNodeInfo.ALIVE and node.labels.get(_LABEL) == _machine() for node in nodes)


class _Supervisor:
    """Keeps a Ray node running as long as a command runs."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._node: subprocess.Popen[bytes] | None = None
        self._command: subprocess.Popen[bytes] | None = None
        self._ending = 0  # the signal that this process got
        self._over = threading.Event()

    def run(self, command: Sequence[str]) -> int:
        """Start a node and, once it has joined, the command; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        try:
            self._start_node()
            if not self._await_node():
                return _BY_SIGNAL + self._ending if self._ending else 1
            try:
                self._command = subprocess.Popen(command)
            except OSError as error:
                _say(f"{command[0]} cannot be run: {error.strerror}")
                return _NOT_FOUND
            if self._ending:  # it came before there was a command
                self._command.send_signal(self._ending)
            threading.Thread(target=self._look, daemon=True, name="head").start()
            return self._watch(self._command)
        finally:
            self._over.set()
            self._stop_node()

    def _watch(self, command: subprocess.Popen[bytes]) -> int:
        started = time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = command.wait(_LOOK_SECONDS)
                return code if code >= 0 else _BY_SIGNAL - code
            ended = self._node is None or self._node.poll() is not None
            if ended and not self._ending and time.monotonic() - started > _AGAIN_SECONDS:
                started = time.monotonic()
                if self._node is not None:
                    _say(f"the Ray node ended with {self._node.returncode}; starting another")
                    self._node = None
                if listens(self._address):
                    self._start_node()

    def _look(self) -> None:
        """End a node that the head has forgotten: the head was restarted, and the node waits for the old one."""
        known, missed = self._node, 0  # the first has joined
        while not self._over.wait(_HEAD_SECONDS):
            node = self._node
            try:
                if not listens(self._address):
                    continue  # a node waits by itself for a head that is away
                is_known = _is_known(self._address)
            except Exception:  # noqa: S112 - of a dozen kinds: the head does not answer now
                continue
            if is_known:
                known, missed = node, 0
            elif node is not None and node is known:
                missed += 1
                if missed == _LOOKS and not self._ending:
                    _say("the head does not know the Ray node any more; ending it")
                    _kill(node)

    def _await_node(self) -> bool:
        """Wait until the head knows the node; False if several ended one after the other, or none joined in time."""
        deadline, attempts = time.monotonic() + _JOIN_SECONDS, 1
        problem = ""
        while not self._ending and time.monotonic() < deadline:
            if self._node is None or self._node.poll() is not None:
                if attempts == _ATTEMPTS:
                    break
                attempts += 1
                _say("the Ray node ended before it joined; starting another")
                self._start_node()
            problem = node_problem(self._address)
            if not problem:
                return True
            time.sleep(_LOOK_SECONDS)
        if not self._ending:
            _say(f"no Ray node could be started here: {problem or 'see above'}")
        return False

    def _start_node(self) -> None:
        command = ["ray", "start", "--block", f"--address={self._address}", "--num-cpus=0", "--num-gpus=0"]
        command += [f"--labels={_LABEL}={_machine()}", "--disable-usage-stats", *_further_options(os.environ)]
        environment = {name: value for name, value in os.environ.items() if name not in _COMMAND_ONLY}
        # A session of its own: a Ctrl-C in the terminal reaches the command first, and the node after it has ended.
        self._node = subprocess.Popen(command, env=environment, stdout=sys.stderr, start_new_session=True)

    def _stop_node(self) -> None:
        if self._node is None or self._node.poll() is not None:
            return
        self._node.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._node.wait(_STOP_SECONDS)
        _kill(self._node)
        self._node.wait()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._ending = number
        if self._command is not None and self._command.poll() is None:
            self._command.send_signal(number)


def _kill(node: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)  # Ray's own guard ends what it started elsewhere


def _further_options(environment: Mapping[str, str]) -> list[str]:
    """Return the options of `ray start` from WITH_RAY_OPTIONS; by default metrics are at port 8080."""
    return environment.get("WITH_RAY_OPTIONS", "--metrics-export-port=8080").split()


def _machine() -> str:
    """Name this machine or container as one label: letters, digits, `-`, `_` and `.`, at most 63."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:63].strip("-_.") or "here"


def _say(text: str) -> None:
    sys.stderr.write(f"with-ray: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
