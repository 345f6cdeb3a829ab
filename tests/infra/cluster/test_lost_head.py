"""The cluster's head is lost and another stands at its address: who speaks to the old one is not kept for ever."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port
from tests.infra.ray_nodes import RayNodes

pytestmark = pytest.mark.slow

_METER = """
import os, ray
from infra.execution.usage_meter import Budget, RemoteMeter, Usage
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
meter = RemoteMeter.start(Budget(), {})
meter.add("judge", Usage(calls=1, prompt_tokens=90))
assert meter.totals()["judge"]["prompt_tokens"] == 90
print("counted", flush=True)
input()
print("told", meter.totals()["judge"]["prompt_tokens"], flush=True)
ray.shutdown()
"""


_WAITS = """
import os, ray
from infra.cluster.ray_cluster import head_watched
from infra.execution.ray_tasks import LOST, PartError, await_ray, give_up, given_up
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
@ray.remote(num_gpus=1)
class Engine:
    def ready(self): ...
waited_for = Engine.remote().ready.remote()  # a place for it may come
with head_watched(lambda: give_up(LOST)):
    print("counted", flush=True)
    input()
    try:
        await_ray(waited_for, 600)
    except PartError as error:
        print("told", given_up(), error.retry, error, flush=True)
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


@pytest.mark.parametrize(
    ("driver", "told"),
    [
        pytest.param(_METER, "told 90", id="a meter answers as last told"),
        pytest.param(_WAITS, "told True False lost: another cluster stands at Ray's address", id="a part is given up"),
    ],
)
def test_who_speaks_to_a_head_that_is_lost_goes_on_when_another_stands_there(driver: str, told: str) -> None:
    port = free_port()
    with RayNodes(0, head_port=port) as old:
        environment = {**os.environ, **old.environment, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-c", driver], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        os.kill(head_of(old), signal.SIGKILL)
        os.kill(old.raylets[0], signal.SIGKILL)
        old.process.kill()
        with RayNodes(0, head_port=port):
            said, _ = process.communicate("go\n", timeout=120)
    assert said.startswith(told)
    assert process.returncode == 0
