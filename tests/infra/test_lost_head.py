"""The cluster's head is lost and another stands at its address: who speaks to the old one is not kept for ever."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port
from tests.infra.cluster import RayNodes

pytestmark = pytest.mark.slow

_DRIVER = """
import os, ray
from infra.meter import Budget, RemoteMeter, Usage
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
meter = RemoteMeter.start(Budget(), {})
meter.add("judge", Usage(calls=1, prompt_tokens=90))
assert meter.totals()["judge"]["prompt_tokens"] == 90
print("counted", flush=True)
input()
print("told", meter.totals()["judge"]["prompt_tokens"], flush=True)
ray.shutdown()
"""


def head_of(nodes: RayNodes) -> int:
    """Find the process of a cluster's head service."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        arguments = path.read_bytes().split(b"\0") if path.exists() else []
        if (
            arguments[0].endswith(b"gcs_server")
            and f"--gcs_server_port={nodes.address.split(':')[1]}".encode() in arguments
        ):
            return int(path.parent.name)
    raise AssertionError("no head is there")


def test_a_meter_whose_cluster_lost_its_head_answers_as_last_told_and_its_process_ends() -> None:
    port = free_port()
    with RayNodes(0, head_port=port) as old:
        environment = {**os.environ, **old.environment, "PYTHONPATH": str(ROOT)}
        driver = subprocess.Popen(
            [sys.executable, "-c", _DRIVER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert driver.stdout is not None
        assert driver.stdout.readline() == "counted\n"
        os.kill(head_of(old), signal.SIGKILL)
        os.kill(old.raylets[0], signal.SIGKILL)
        old.process.kill()
        with RayNodes(0, head_port=port):
            began = time.monotonic()
            said, _ = driver.communicate("go\n", timeout=120)
    assert said == "told 90\n"
    assert driver.returncode == 0
    assert time.monotonic() - began < 60
