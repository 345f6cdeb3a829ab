"""A real local Ray, with a long TMPDIR and tokens switched off: nobody else gets in, and nothing stays behind."""

import json
import os
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest

from tests.conftest import ROOT
from tests.system.test_secrets import is_loopback, listeners, listening, processes_of

pytestmark = pytest.mark.slow
RUN = """
import json, os, sys
from infra.cluster.ray_cluster import ray_cluster
with ray_cluster(None):
    import ray
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    session = ray._private.worker._global_node.get_session_dir_path()
    print(json.dumps([ray.get_runtime_context().gcs_address, session]), flush=True)
    sys.stdin.read()
"""
ASK = """
import sys
from ray._raylet import GcsClient
print("let in", len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)))
"""
# One method of each service that some process of a local Ray offers, with what a stranger could do by it.
METHODS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVPut",
    "/ray.rpc.JobInfoGcsService/AddJob",
    "/ray.rpc.NodeManagerService/RequestWorkerLease",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/PushTask",
)


def answers(port: int) -> set[str]:
    """Ask a port, without a token, everything that Ray's services offer; returns the codes of the answers."""
    codes = set()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in METHODS:
            try:
                channel.unary_unary(method)(b"", timeout=5)
                codes.add("OK")
            except grpc.RpcError as error:
                codes.add(error.code().name)
    return codes


def http_status(port: int) -> int:
    """Ask a port for a page; 0 where it does not speak HTTP."""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return int(opener.open(f"http://127.0.0.1:{port}/metrics", timeout=5).status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError, urllib.error.URLError, ConnectionError):
        return 0
    except Exception as error:  # http.client's own kinds, for what is no HTTP
        assert type(error).__module__ == "http.client", error
        return 0


def test_nobody_without_the_token_reaches_a_port_or_file_of_a_local_ray_and_all_is_gone_at_its_end(
    tmp_path: Path,
) -> None:
    long = tmp_path / "slurm_jobdir_1355700" / "slurm_jobdir_1355700" / "slurm_jobdir_1355700" / "tmp"
    long.mkdir(parents=True)
    token = tmp_path / "of a new user" / "auth_token"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PYTHONPATH": str(ROOT), "TMPDIR": str(long), "RENEG_HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }  # fmt: skip
    command = [sys.executable, "-c", RUN]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address, session = json.loads(process.stdout.readline())
            assert token.stat().st_mode & 0o777 == 0o600
            private = next(folder for folder in Path(session).parents if folder.name.startswith("ray-"))
            assert private.parent == Path("/tmp")
            assert stat.S_IMODE(private.stat().st_mode) == 0o700
            there = listeners()
            sockets = {one for pid in processes_of(tmp_path) for one in listening(pid, there)}
            assert len(sockets) >= 6
            assert [one for one in sockets if not is_loopback(one[1])] == []
            by_port = {port: answers(port) for _, _, port in sockets}
            refusing = {port for port, codes in by_port.items() if codes <= {"UNAUTHENTICATED", "UNIMPLEMENTED"}}
            assert all("UNAUTHENTICATED" in by_port[port] for port in refusing), by_port
            assert {port: http_status(port) for port in by_port if port not in refusing} == {
                port: 401 for port in by_port if port not in refusing
            }
            assert int(address.rpartition(":")[2]) in refusing
            wrong = environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}
            asked = subprocess.run(
                [sys.executable, "-c", ASK, address], env=wrong, capture_output=True, text=True, timeout=60, check=False
            )
            assert (asked.returncode, asked.stdout) == (1, ""), asked.stderr
        finally:
            process.communicate(timeout=60)
    assert process.returncode == 0
    assert not private.exists()
    assert list(long.iterdir()) == []
