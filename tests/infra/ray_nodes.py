"""Several Ray nodes on this machine, on loopback only, in a process of their own: other processes join by address.

By hand: `python -m tests.infra.ray_nodes --nodes 2` starts a head and two nodes, and prints a line of JSON with the
address and the raylets' process ids, the head's first. Each line on standard input is a command answered with a line of
JSON: `kill 1` kills a node at once, `add {"num_cpus": 2}` adds one. The end of standard input ends everything.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
# Whoever joins must have these too: they keep every socket on 127.0.0.1.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
_MEMORY = 100 * 2**20  # of each node's object store
_ATTEMPTS = 3  # Ray gives a node 30 s to start, which a machine with much else to do may not


class RayNodes:
    """A head and `nodes` further nodes; use it as a context.

    address: what `ray.init` and RAY_ADDRESS take. raylets: process ids by node, the head's first.
    environment: the variables a process that joins must be started with.
    """

    def __init__(
        self,
        nodes: int = 2,
        *,
        num_cpus: float = 1,
        environment: Mapping[str, str] | None = None,
        head_port: int = 0,
        **options: object,
    ) -> None:
        """Start them; 5 s for the head and 2 s for each further node.

        Args:
            nodes: how many beside the head.
            num_cpus: of every node, the head too.
            environment: further variables of the nodes, and so of Ray's workers.
            head_port: of the address; 0 for any.
            **options: further arguments of `ray.cluster_utils.Cluster.add_node`, for every node but the head.
        """
        variables = {**os.environ, **LOOPBACK, "PYTHONPATH": ROOT, **(environment or {})}
        for name in ("RAY_ADDRESS", "RAY_RUNTIME_ENV_HOOK"):
            variables.pop(name, None)
        command = [sys.executable, "-m", "tests.infra.ray_nodes", "--nodes", str(nodes), "--num-cpus", str(num_cpus)]
        command += ["--head-port", str(head_port)]
        self.process = subprocess.Popen(
            [*command, "--options", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=variables,
            text=True,
        )
        started = self._read()
        self.address: str = started["address"]
        self.raylets: list[int] = started["raylets"]
        self.environment = {**LOOPBACK, "RAY_ADDRESS": self.address}

    def kill(self, node: int, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill a node with all its workers at once; with SIGTERM, ask its raylet to end."""
        if how is signal.SIGKILL:
            self._ask(f"kill {node}")
        else:
            os.kill(self.raylets[node], how)

    def add(self, **options: object) -> int:
        """Add a node, such as `add(num_cpus=2, num_gpus=1)`; returns its index."""
        self.raylets = self._ask(f"add {json.dumps(options)}")["raylets"]
        return len(self.raylets) - 1

    def close(self) -> None:
        """End every node."""
        with contextlib.suppress(OSError):
            self.process.communicate(timeout=60)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the Ray nodes' process ended with {self.process.wait()}; see its standard error")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Start the nodes, then obey standard input until it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--num-cpus", type=float, default=1)
    parser.add_argument("--head-port", type=int, default=0)
    parser.add_argument("--options", type=json.loads, default={})
    wanted = parser.parse_args()
    os.environ.update(LOOPBACK)  # read when Ray is imported
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray's own words must not come between the answers
    folder = tempfile.mkdtemp(prefix="rn-", dir="/tmp")  # short: Ray makes sockets below it
    (Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)  # Ray writes the head's address there
    common = {"num_cpus": wanted.num_cpus, "object_store_memory": _MEMORY}
    cluster = Cluster()
    try:
        port = {"gcs_server_port": wanted.head_port} if wanted.head_port else {}
        nodes = [_add(cluster, common | port | {"temp_dir": folder, "include_dashboard": False})]
        nodes += [_add(cluster, common | wanted.options) for _ in range(wanted.nodes)]
        threading.Thread(target=_reap, args=(nodes,), daemon=True).start()
        _tell(answers, cluster, nodes)
        for line in sys.stdin:
            command, _, rest = line.strip().partition(" ")
            if command == "kill":
                cluster.remove_node(nodes[int(rest)], allow_graceful=False)
            elif command == "add":
                nodes.append(_add(cluster, common | json.loads(rest or "{}")))
            _tell(answers, cluster, nodes)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _reap(nodes: list[Any]) -> None:
    """Take note of raylets that somebody killed: as zombies they would seem alive to their workers, which stayed."""
    while True:
        time.sleep(1.0)
        for node in list(nodes):
            for raylet in node.all_processes.get("raylet", []):
                raylet.process.poll()


def _add(cluster: Any, options: Mapping[str, Any]) -> Any:
    for attempt in range(_ATTEMPTS):
        try:
            return cluster.add_node(**options)
        except Exception as error:  # Ray raises that very class
            if "timed out" not in str(error) or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _tell(answers: Any, cluster: Any, nodes: list[Any]) -> None:
    raylets = [_raylet(node) for node in nodes]
    answers.write(json.dumps({"address": cluster.address, "raylets": raylets}) + "\n")


_PIDS: dict[int, int] = {}


def _raylet(node: Any) -> int:
    """The process id of a node's raylet; Ray forgets it once the node was killed."""
    found = node.all_processes.get("raylet")
    if found:
        _PIDS[id(node)] = found[0].process.pid
    return _PIDS[id(node)]


if __name__ == "__main__":
    main()
