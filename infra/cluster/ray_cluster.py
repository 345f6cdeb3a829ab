"""Starts a local Ray on loopback, or joins one by its address; never joins a cluster that was not named."""

import contextlib
import logging
import math
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra.private_folders import ray_folder
from infra.redact import hide_value
from infra.settings import CODE_VARIABLE, autoscales, max_node_gpus
from infra.stages.stage import Resources

_OBJECT_STORE_BYTES = 200 * 2**20  # parts travel by reference; Ray's default takes a third of the machine
_ONLY_HERE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # makes every socket of a local Ray 127.0.0.1
    "AUTOSCALER_METRIC_PORT": "-1",  # no port: these metrics ask for no token, and nothing here reads them
}
GROW_SECONDS = 1800.0  # a cloud may take that long to give a machine with a GPU
_TELL_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_HEAD_SECONDS = 5.0

_log = logging.getLogger(__name__)
_growing = threading.Lock()


class ClusterError(Exception):
    """The Ray cluster cannot be joined, or lacks what is needed of it."""


@contextlib.contextmanager
def ray_cluster(address: str | None, *, code: str = "") -> Iterator[None]:
    """Connect to the cluster at `address`, or start a local one that listens on loopback only and stops with us.

    code: digest of the driver's code; workers of a cluster that run other code refuse their parts.
    """
    if address is None:
        with _local_ray():
            yield
        return
    import ray

    if not listens(address):
        raise ClusterError(f"RAY_ADDRESS: {address} does not listen; start that cluster, or unset it")
    environment = {"env_vars": {CODE_VARIABLE: code}} if code else None
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env=environment)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"RAY_ADDRESS: {address} cannot be joined ({error}); start it, or unset it") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def head_watched(lost: Callable[[], None]) -> Iterator[None]:
    """Call `lost`, once, when another cluster answers at the address of ours.

    Ray does not report it: results of the old cluster never come, and some calls to it abort the process. Where nothing
    answers for a minute, Ray ends the process by itself.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(_HEAD_SECONDS):
            if _is_replaced():
                if not over.is_set():  # else the next run's cluster may be the one that answered
                    lost()
                return

    thread = threading.Thread(target=look, daemon=True, name="head")
    thread.start()
    try:
        yield
    finally:
        over.set()  # the thread may still wait for an answer, so it is not joined


def _is_replaced() -> bool:
    import ray

    try:
        raylet: Any = ray._raylet
        ours = ray._private.worker.global_worker.gcs_client
        return bool(raylet.GcsClient(address=ours.address).cluster_id.hex() != ours.cluster_id.hex())
    except Exception:  # of a dozen kinds: nobody answers, or this process is not connected any more
        return False


def listens(address: str) -> bool:
    """Look whether anything answers at an address, before Ray does, which takes minutes to give up."""
    parts = urlsplit(address if "://" in address else f"gcs://{address}")
    if parts.port is None:  # `auto`: Ray itself knows where
        return True
    try:
        socket.create_connection((parts.hostname or "", parts.port), timeout=5).close()
    except OSError:
        return False
    return True


def granted(resources: Resources) -> Resources:
    """Lower the CPUs to what a node has: a part that fits no node would wait in Ray for ever, without an error.

    Where the cluster grows (RENEG_AUTOSCALE=1) it is asked for a node that fits, and waited for.

    Raises:
        ClusterError: no node has the GPUs or the memory, or none came in time.
    """
    if autoscales():
        _grow(resources)
        return resources
    nodes = living()
    if not any(_fits(node, replace(resources, num_cpus=0.0)) for node in nodes):
        most = [f"{max((n.get(k, 0.0) for n in nodes), default=0.0):g}" for k in ("GPU", "memory")]
        raise ClusterError(
            f"a node with {describe(resources)} is asked for; none has it (at most {most[0]} GPUs, {most[1]} bytes of "
            "memory); lower `resources` in the configuration, or set RENEG_AUTOSCALE=1 if the cluster grows when asked"
        )
    able = [node for node in nodes if _fits(node, replace(resources, num_cpus=0.0))]
    return replace(resources, num_cpus=min(resources.num_cpus, max(node.get("CPU", 0.0) for node in able) or 1.0))


def slots_for(resources: Resources) -> int:
    """Count how many parts of these resources the cluster holds at a time."""
    return max(1, sum(_slots(node, resources) for node in living()))


def slots_now(resources: Resources) -> int | None:
    """Count the same again while parts are at work; None where that is not known now.

    Where the cluster grows, nothing is asked of the autoscaler here.
    """
    if _is_replaced():  # Ray would end this process when it is asked for the nodes
        return None
    try:
        return slots_for(resources if autoscales() else granted(resources))
    except ClusterError:  # the node that could hold one is gone; another may come
        return None


def living() -> list[Mapping[str, float]]:
    """Return the resources of each living node, used or not, by Ray's names."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def fits_somewhere(resources: Resources) -> bool:
    """Tell whether any node could hold a part of these resources, were it idle."""
    return any(_fits(node, resources) for node in living())


def describe(resources: Resources) -> str:
    """Say what is asked for: `2 CPUs, 1 GPUs`."""
    said = f"{resources.num_cpus:g} CPUs, {resources.num_gpus:g} GPUs"
    return said if resources.memory is None else f"{said}, {resources.memory} bytes of memory"


def beside_driver() -> Any:  # noqa: ANN401 - Ray's strategies have no common type
    """Place an actor on the driver's own node: it dies with the run then, not with any node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def is_draining() -> bool:
    """Tell whether the node of this worker is about to be taken away; its tasks are not told otherwise."""
    import ray

    return is_going(ray.get_runtime_context().get_node_id())


def is_going(node_id: str) -> bool:
    """Tell whether a node is dead, or about to be taken away."""
    import ray

    draining: Mapping[str, Any] = ray._private.state.state.get_draining_nodes()
    return node_id in draining or not any(node["Alive"] and node["NodeID"] == node_id for node in ray.nodes())


def _fits(node: Mapping[str, float], resources: Resources) -> bool:
    return (
        node.get("CPU", 0.0) >= resources.num_cpus
        and node.get("GPU", 0.0) >= resources.num_gpus
        and node.get("memory", 0.0) >= (resources.memory or 0)
    )


def _slots(node: Mapping[str, float], resources: Resources) -> int:
    if not _fits(node, resources):
        return 0
    room = [node.get("CPU", 0.0) / max(resources.num_cpus, 0.01)]
    if resources.num_gpus:
        room.append(node["GPU"] / resources.num_gpus)
    if resources.memory:
        room.append(node["memory"] / resources.memory)
    return int(min(room))


def _grow(resources: Resources) -> None:
    """Ask the autoscaler for as many places as engines are configured, and wait for the first.

    Raises:
        ClusterError: the cluster has no kind of node that fits, or none came in time.
    """
    with _growing:  # the others of this process wait here, and find it done
        if fits_somewhere(resources):
            return
        _refuse_what_never_comes(resources)
        from ray.autoscaler.sdk import request_resources

        wanted = {"CPU": resources.num_cpus, "GPU": resources.num_gpus, "memory": float(resources.memory or 0)}
        place = {name: math.ceil(amount) for name, amount in wanted.items() if amount}
        request_resources(bundles=[place] * resources.engines)
        try:
            _await_node(resources)
        finally:
            request_resources(bundles=[])  # it would hold for ever; parts that wait in Ray ask for themselves


def _refuse_what_never_comes(resources: Resources) -> None:
    """Refuse what no node has that the cluster can grow by, as far as that is known."""
    most = max_node_gpus()
    if most is not None and resources.num_gpus > most:
        raise ClusterError(
            f"RENEG_MAX_NODE_GPUS={most:g}: a node with {describe(resources)} will never come; lower "
            "`tensor_parallel_size` or `resources` in the configuration, or give nodes with more GPUs"
        )
    kinds = _kinds_of_nodes()
    if kinds and not any(_fits(kind, resources) for kind in kinds):
        gpus = max(kind.get("GPU", 0.0) for kind in kinds)
        raise ClusterError(
            f"a node with {describe(resources)} is asked for, and the cluster can grow by none: its largest kind of "
            f"node has {gpus:g} GPUs; lower `tensor_parallel_size` or `resources` in the configuration, or add a group "
            "of larger nodes to the cluster"
        )


def _kinds_of_nodes() -> list[Mapping[str, float]]:
    """Return the resources of each kind of node that Ray's autoscaler may start; empty where it has told none."""
    import ray

    try:
        config = ray._private.state.state.get_cluster_config()
    except Exception:  # of a dozen kinds: this process is not connected, or the head does not answer
        return []
    groups = [] if config is None else config.node_group_configs
    return [dict(group.resources) for group in groups if group.max_count != 0]


def _await_node(resources: Resources) -> None:
    started = told = time.monotonic()
    while not fits_somewhere(resources):
        now = time.monotonic()
        if now - started > GROW_SECONDS:
            raise ClusterError(
                f"no node with {describe(resources)} came within {GROW_SECONDS / 60:.0f} minutes; see the autoscaler's "
                "log (`ray status`), or lower `resources` in the configuration"
            )
        if now >= told:
            told = now + _TELL_SECONDS
            _log.warning("waiting for a node with %s (%.0f min so far)", describe(resources), (now - started) / 60)
        time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def _local_ray() -> Iterator[None]:
    """Start a local Ray that only this user can reach, and stop it at the end.

    Raises:
        ClusterError: it did not come up, or there is no place for its token, files or sockets.
    """
    os.environ.update(_ONLY_HERE)
    os.environ.setdefault("RAY_worker_niceness", "0")  # with Ray's own 15, a busy machine starves the judge
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        os.environ.pop("RAY_AUTH_MODE", None)  # a local Ray then asks for its token
    with contextlib.ExitStack() as stack:
        try:
            _make_token()
            _hide_token()
            folder = stack.enter_context(ray_folder())
        except OSError as error:
            raise ClusterError(f"Ray did not start. {error}") from error
        import ray

        stack.callback(ray.shutdown)
        _start_local(folder)
        yield


def _start_local(folder: Path) -> None:
    """Start a local Ray; one that did not come up in Ray's own time, on a busy machine, is tried once more.

    Raises:
        ClusterError: it did not come up.
    """
    import ray

    for attempt in (1, 2):
        try:
            ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=str(folder),
            )
        except Exception as error:  # Ray raises a dozen kinds for a process that is slow to start
            ray.shutdown()
            if attempt == 1:
                _log.warning("Ray did not start (%s: %s); trying once more", type(error).__name__, error)
                continue
            raise ClusterError(
                f"Ray did not start ({type(error).__name__}: {str(error)[:300]}). Is the machine very busy, or its "
                "memory or /dev/shm full? Run again; finished parts are kept. RAY_TMPDIR=FOLDER keeps Ray's logs there"
            ) from error
        return


def _make_token() -> None:
    """Make sure that there is an access token that the owner alone can read: Ray would write one for everybody.

    Raises:
        OSError: it cannot be written.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = token_file()
    if path.exists():
        with contextlib.suppress(OSError):  # somebody else's file, mounted for this user
            path.chmod(0o600)
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, written = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # of mode 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # another run was faster: its token counts
            os.link(written, path)
        Path(written).unlink()
    except OSError as error:
        raise OSError(
            f"its access token cannot be written to {path} ({error.strerror}); set RAY_AUTH_TOKEN_PATH to a file that "
            "this user can write"
        ) from error


def _hide_token() -> None:
    """Take the token for a secret in every text that this process shows."""
    with contextlib.suppress(OSError):
        hide_value(token_file().read_text(encoding="utf-8"))


def token_file() -> Path:
    """Where Ray keeps the token that guards a cluster."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()


def token_problem() -> tuple[str, str] | None:
    """Say what is wrong with the token of this machine, and what to do; None where nothing is."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() == "disabled":
        return "RAY_AUTH_MODE=disabled: whoever reaches the cluster can run anything", "unset RAY_AUTH_MODE everywhere"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    try:
        mode = token_file().stat().st_mode & 0o777
    except OSError:
        return f"{token_file()} is not there", "copy the head's token to this file, mode 0600, on every machine"
    if mode & 0o077:
        return f"{token_file()} has mode {mode:04o}: others on this machine can read it", f"chmod 600 {token_file()}"
    return None
