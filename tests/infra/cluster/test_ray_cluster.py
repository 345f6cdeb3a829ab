"""Ray, local or by address: what it grants of its nodes, how it grows, what is refused."""

import logging
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.autoscaler.sdk

from infra.cluster import ray_cluster
from infra.cluster.ray_cluster import (
    ClusterError,
    describe,
    granted,
    is_going,
    listens,
    slots_for,
    slots_now,
    token_problem,
)
from infra.stages.stage import Resources
from tests.conftest import free_port
from tests.infra.ray_in_process import RayInProcess, node


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test here start or join a real one."""

    def refuse(**options: Any) -> None:
        raise AssertionError(f"no cluster is started here: {options}")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> RayInProcess:
    for name in ("RENEG_AUTOSCALE", "RENEG_MAX_NODE_GPUS"):
        monkeypatch.delenv(name, raising=False)
    return RayInProcess().install(monkeypatch)


# ---- what is granted ----


def test_no_more_cpus_are_granted_than_the_largest_node_that_fits_has(cluster: RayInProcess) -> None:
    cluster.nodes = [node(CPU=2.0), node(CPU=8.0), node(CPU=3.0, GPU=1.0), node(alive=False, CPU=64.0)]
    assert granted(Resources(num_cpus=16.0)).num_cpus == 8.0
    assert granted(Resources(num_cpus=1.5)).num_cpus == 1.5
    assert granted(Resources(num_cpus=4.0, num_gpus=1.0)).num_cpus == 3.0
    cluster.nodes = [node(GPU=1.0)]
    assert granted(Resources(num_cpus=4.0, num_gpus=1.0)).num_cpus == 1.0  # a node that lends no CPU


def test_gpus_or_memory_that_no_node_has_are_refused_with_what_there_is(cluster: RayInProcess) -> None:
    cluster.nodes = [node(CPU=2.0, memory=1000.0), node(CPU=4.0, GPU=1.0, memory=500.0)]
    with pytest.raises(ClusterError, match=r"2 CPUs, 2 GPUs is asked for; none has it \(at most 1 GPUs, 1000 bytes"):
        granted(Resources(num_cpus=2.0, num_gpus=2.0))
    with pytest.raises(ClusterError, match="1 CPUs, 0 GPUs, 1001 bytes of memory is asked for"):
        granted(Resources(memory=1001))
    assert granted(Resources(memory=1000)).memory == 1000
    assert granted(Resources(num_gpus=1.0, memory=500)).num_gpus == 1.0


@pytest.mark.parametrize(
    ("resources", "slots"),
    [
        (Resources(num_cpus=1.0), 7),
        (Resources(num_cpus=2.0), 3),
        (Resources(num_cpus=0.5, num_gpus=1.0), 2),
        (Resources(num_cpus=0.0, num_gpus=2.0), 1),
        (Resources(num_cpus=1.0, memory=300), 4),
        (Resources(num_cpus=9.0), 1),
    ],
)
def test_parts_are_counted_by_what_is_short_on_each_node(
    cluster: RayInProcess, resources: Resources, slots: int
) -> None:
    cluster.nodes = [node(CPU=3.0, memory=900.0), node(CPU=4.0, GPU=2.0, memory=500.0), node(alive=False, CPU=9.0)]
    assert slots_for(resources) == slots


def test_slots_are_counted_again_as_nodes_come_and_go(cluster: RayInProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.nodes = [node(CPU=3.0)]
    assert slots_now(Resources(num_cpus=4.0)) == 1  # cut to what the largest node has
    cluster.nodes = [node(CPU=3.0), node(CPU=8.0)]
    assert slots_now(Resources(num_cpus=4.0)) == 2
    assert slots_now(Resources(num_gpus=1.0)) is None  # no node that could hold one is there now
    monkeypatch.setattr(ray_cluster, "_is_replaced", lambda: True)
    assert slots_now(Resources(num_cpus=4.0)) is None


def test_what_is_asked_for_is_described_with_memory_only_where_some_is() -> None:
    assert describe(Resources(num_cpus=0.5)) == "0.5 CPUs, 0 GPUs"
    assert describe(Resources(num_gpus=1.0, memory=7)) == "1 CPUs, 1 GPUs, 7 bytes of memory"


@pytest.mark.parametrize(
    ("draining", "alive", "going"), [({}, True, False), ({"abc": 1}, True, True), ({}, False, True)]
)
def test_a_node_is_going_when_it_drains_or_is_dead(
    cluster: RayInProcess, monkeypatch: pytest.MonkeyPatch, draining: dict[str, int], alive: bool, going: bool
) -> None:
    monkeypatch.setattr(ray._private.state.state, "get_draining_nodes", lambda: draining)
    cluster.nodes = [node("abc", alive=alive), node("other")]
    assert is_going("abc") is going


# ---- a cluster that grows ----


class Autoscaler:
    """Takes requests, lets a node come after some looks, and is the clock: each reading is some seconds later."""

    def __init__(
        self, cluster: RayInProcess, monkeypatch: pytest.MonkeyPatch, *, looks: int = 0, seconds: float = 0.0
    ) -> None:
        self.requests: list[Any] = []
        self._cluster, self._left, self._seconds, self._now = cluster, looks, seconds, 0.0
        monkeypatch.setenv("RENEG_AUTOSCALE", "1")
        monkeypatch.setattr(ray.autoscaler.sdk, "request_resources", self.request)
        monkeypatch.setattr(ray_cluster, "time", self)

    def request(self, bundles: list[dict[str, int]]) -> None:
        self.requests.append(bundles)

    def monotonic(self) -> float:
        self._now += self._seconds
        return self._now

    def sleep(self, seconds: float) -> None:
        self._left -= 1
        assert self._left > -1000, "the node is waited for without an end"
        if self._left == 0:
            self._cluster.nodes = [*self._cluster.nodes, node(CPU=2.0, GPU=1.0, memory=100.0)]


def test_where_the_cluster_grows_a_place_for_each_engine_is_asked_for_and_the_request_is_taken_back(
    cluster: RayInProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.nodes = [node(CPU=2.0)]
    autoscaler = Autoscaler(cluster, monkeypatch, looks=3)
    wanted = Resources(num_cpus=1.5, num_gpus=1.0, memory=50, engines=2)
    assert granted(wanted) == wanted
    assert autoscaler.requests == [[{"CPU": 2, "GPU": 1, "memory": 50}] * 2, []]
    assert caplog.messages == ["waiting for a node with 1.5 CPUs, 1 GPUs, 50 bytes of memory (0 min so far)"]
    assert granted(wanted) == wanted
    assert len(autoscaler.requests) == 2  # it is there: nothing more is asked for


def test_a_node_that_does_not_come_in_time_is_an_error_and_the_request_is_taken_back(
    cluster: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoscaler = Autoscaler(cluster, monkeypatch, seconds=700)
    with pytest.raises(ClusterError, match="no node with 1 CPUs, 1 GPUs came within 30 minutes"):
        granted(Resources(num_gpus=1.0))
    assert autoscaler.requests == [[{"CPU": 1, "GPU": 1}], []]


def group(most: int, **resources: float) -> Any:
    """Describe a kind of node as the autoscaler tells it."""
    return SimpleNamespace(max_count=most, resources=resources)


def test_what_no_kind_of_node_has_is_refused_at_once_and_nothing_is_asked_for(
    cluster: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoscaler = Autoscaler(cluster, monkeypatch, looks=1)
    kinds = [group(0, CPU=64.0, GPU=8.0), group(4, CPU=8.0, GPU=1.0, memory=100.0), group(-1, CPU=16.0)]
    config = SimpleNamespace(node_group_configs=kinds)
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: config)
    said = r"2 GPUs is asked for, and the cluster can grow by none: its largest kind of node has 1 GPUs; lower `tensor"
    with pytest.raises(ClusterError, match=said):
        granted(Resources(num_gpus=2.0))
    assert autoscaler.requests == []
    granted(Resources(num_gpus=1.0))
    assert len(autoscaler.requests) == 2


def test_more_gpus_than_the_largest_node_may_have_are_refused_at_once(
    cluster: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoscaler = Autoscaler(cluster, monkeypatch, looks=1)
    monkeypatch.setenv("RENEG_MAX_NODE_GPUS", "1")
    with pytest.raises(ClusterError, match="RENEG_MAX_NODE_GPUS=1: a node with 1 CPUs, 2 GPUs will never come"):
        granted(Resources(num_gpus=2.0))
    assert autoscaler.requests == []
    granted(Resources(num_gpus=1.0))


def test_an_autoscaler_that_told_no_kinds_of_nodes_refuses_nothing(
    cluster: RayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    Autoscaler(cluster, monkeypatch, looks=1)
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: None)
    granted(Resources(num_gpus=1.0))


# ---- joining and starting ----


def test_an_address_where_nothing_listens_is_an_error_within_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(ClusterError, match="does not listen"), ray_cluster.ray_cluster(f"127.0.0.1:{free_port()}"):
        pass
    assert time.monotonic() - started < 30


def test_an_address_is_tried_before_ray_tries_it_and_auto_is_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(f"127.0.0.1:{port}")
        assert listens(f"ray://127.0.0.1:{port}")
    assert not listens(f"127.0.0.1:{port}")
    assert listens("auto")


class Joined:
    """Takes the place of `ray.init` and `ray.shutdown`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *troubles: Exception) -> None:
        self.inits: list[dict[str, Any]] = []
        self.shutdowns = 0
        self._troubles = list(troubles)
        monkeypatch.setattr(ray, "init", self._init)
        monkeypatch.setattr(ray, "shutdown", self._shutdown)

    def _init(self, **options: Any) -> None:
        self.inits.append(options)
        if self._troubles:
            raise self._troubles.pop(0)

    def _shutdown(self) -> None:
        self.shutdowns += 1


def test_a_cluster_is_joined_with_the_digest_of_our_code_and_left_whatever_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined = Joined(monkeypatch)
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    with (
        pytest.raises(KeyError),
        socket.create_server(("127.0.0.1", 0)) as server,
        ray_cluster.ray_cluster(address := f"127.0.0.1:{server.getsockname()[1]}", code="c" * 64),
    ):
        raise KeyError
    (options,) = joined.inits
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
    assert (options["address"], options["log_to_driver"]) == (address, False)
    assert options["runtime_env"] == {"env_vars": {"RENEG_CODE": "c" * 64}}
    assert joined.shutdowns == 1


def test_a_cluster_that_does_not_let_us_join_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = Joined(monkeypatch, ConnectionError("version mismatch"))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ClusterError, match=r"cannot be joined \(version mismatch\)"),
        ray_cluster.ray_cluster(f"127.0.0.1:{server.getsockname()[1]}"),
    ):
        pass
    assert joined.inits[0]["runtime_env"] is None


def test_a_local_ray_is_loopback_only_and_its_token_is_for_its_owner_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    joined = Joined(monkeypatch)
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").touch(0o644)
    with ray_cluster.ray_cluster(None):
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        assert os.environ["RAY_worker_niceness"] == "0"
    (options,) = joined.inits
    assert (options["address"], options["num_cpus"], options["include_dashboard"]) == ("local", os.cpu_count(), False)
    assert options["object_store_memory"] == 209_715_200
    assert options["log_to_driver"] is False
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "token").read_text() == ""  # a token that is there is not replaced
    assert joined.shutdowns == 1


def test_a_token_that_is_not_there_is_written_for_its_owner_alone_and_used_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Joined(monkeypatch)
    token = tmp_path / "home" / ".ray" / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    old = os.umask(0)
    try:
        with ray_cluster.ray_cluster(None):
            assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    finally:
        os.umask(old)
    written = token.read_text()
    assert len(written) == 64
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]
    with ray_cluster.ray_cluster(None):
        assert token.read_text() == written


def test_a_token_that_cannot_be_written_is_an_error_that_says_where_it_may_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Joined(monkeypatch)
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file" / "token"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ClusterError, match="set RAY_AUTH_TOKEN_PATH to a file"), ray_cluster.ray_cluster(None):
        pass


@pytest.mark.parametrize("mode", ["disabled", "Disabled", "token", "TOKEN"])
def test_a_local_ray_asks_for_the_token_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    Joined(monkeypatch)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with ray_cluster.ray_cluster(None):
        assert os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"  # unset, Ray's own default is the token
        assert os.environ["AUTOSCALER_METRIC_PORT"] == "-1"


def test_a_tmpdir_that_is_not_there_is_no_fault_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    joined = Joined(monkeypatch)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("TMPDIR", "/nowhere/at/all")
    with pytest.raises(ClusterError, match=r"Ray did not start. TMPDIR: /nowhere/at/all is not a folder"):
        with ray_cluster.ray_cluster(None):
            pass
    assert joined.inits == []


def test_a_local_ray_that_did_not_start_is_started_once_more_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    joined = Joined(monkeypatch, TimeoutError("30 s"))
    with ray_cluster.ray_cluster(None):
        assert (len(joined.inits), joined.shutdowns) == (2, 1)
    assert caplog.messages == ["Ray did not start (TimeoutError: 30 s); trying once more"]
    joined = Joined(monkeypatch, TimeoutError("30 s"), TimeoutError("again"))
    with pytest.raises(ClusterError, match=r"Ray did not start \(TimeoutError: again\)"), ray_cluster.ray_cluster(None):
        pass
    assert len(joined.inits) == 2


# ---- another cluster at the address of ours ----


def test_a_head_that_was_replaced_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([False, False, True])
    monkeypatch.setattr(ray_cluster, "_is_replaced", lambda: next(looks))
    monkeypatch.setattr(ray_cluster, "_HEAD_SECONDS", 0.01)
    told = threading.Event()
    times: list[int] = []
    with ray_cluster.head_watched(lambda: (times.append(1), told.set())):
        assert told.wait(60)
    assert times == [1]
    assert next(looks, None) is None


def test_a_head_that_is_replaced_after_the_run_concerns_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = threading.Event(), threading.Event()

    def look_for_long() -> bool:
        asked.set()
        return over.wait(60)

    monkeypatch.setattr(ray_cluster, "_is_replaced", look_for_long)
    monkeypatch.setattr(ray_cluster, "_HEAD_SECONDS", 0.01)
    told: list[int] = []
    with ray_cluster.head_watched(lambda: told.append(1)):
        assert asked.wait(60)
    over.set()
    for thread in [thread for thread in threading.enumerate() if thread.name == "head"]:
        thread.join(60)
    assert told == []


def test_a_head_that_cannot_be_asked_is_not_replaced() -> None:
    assert ray_cluster._is_replaced() is False  # this process is not connected


# ---- the token ----


def test_the_token_must_be_there_and_for_its_owner_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    assert token_problem() == (
        f"{token} is not there", "copy the head's token to this file, mode 0600, on every machine"
    )  # fmt: skip
    token.touch()
    for mode, told in ((0o640, "0640"), (0o604, "0604"), (0o601, "0601")):
        token.chmod(mode)
        assert token_problem() == (
            f"{token} has mode {told}: others on this machine can read it", f"chmod 600 {token}"
        )  # fmt: skip
    token.chmod(0o600)
    assert token_problem() is None
    token.unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert token_problem() is None
    monkeypatch.setenv("RAY_AUTH_MODE", "Disabled")
    problem = token_problem()
    assert problem is not None
    assert "whoever reaches the cluster can run anything" in problem[0]


def test_the_token_lies_in_the_home_unless_ray_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert ray_cluster.token_file() == Path.home() / ".ray" / "auth_token"


def test_the_wait_for_a_node_is_told_again_every_minute(
    cluster: RayInProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Autoscaler(cluster, monkeypatch, looks=10, seconds=15)
    with caplog.at_level(logging.WARNING):
        granted(Resources(num_gpus=1.0))
    assert [message.rpartition("(")[2] for message in caplog.messages] == [
        "0 min so far)", "1 min so far)", "2 min so far)",
    ]  # fmt: skip
