"""Ray, local and loopback-only or by address; it never joins a cluster that was not named."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from infra.stage import Resources

_OBJECT_STORE_BYTES = 200 * 2**20  # parts travel by reference; Ray's default takes a third of the machine


class ClusterError(Exception):
    """The named Ray cluster cannot be joined."""


@contextlib.contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start a local one that listens on loopback only and stops with us."""
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # makes every socket of a local Ray 127.0.0.1
    import ray

    if address is None:
        ray.init(
            address="local",
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level="ERROR",
        )
        _guard_token()
    else:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(f"RAY_ADDRESS: {address} cannot be joined ({error}); start it, or unset it") from error
    try:
        yield
    finally:
        ray.shutdown()


def granted(resources: Resources) -> Resources:
    """Ask for no more CPUs than the cluster has: a part that can never be placed would wait for ever in silence.

    Raises:
        ClusterError: GPUs are asked for and the cluster has too few.
    """
    import ray

    total = ray.cluster_resources()
    if resources.num_gpus > total.get("GPU", 0.0):
        raise ClusterError(f"{resources.num_gpus:g} GPUs asked for, the cluster has {total.get('GPU', 0.0):g}")
    return replace(resources, num_cpus=min(resources.num_cpus, total.get("CPU", 1.0)))


def slots_for(resources: Resources) -> int:
    """Count how many parts of these resources the cluster holds at a time."""
    import ray

    total = ray.cluster_resources()
    fits = [total.get("CPU", 1.0) / max(resources.num_cpus, 0.01)]
    if resources.num_gpus:
        fits.append(total.get("GPU", 0.0) / resources.num_gpus)
    return max(1, int(min(fits)))


def _guard_token() -> None:
    """Ray writes its access token readable by everybody; other users of the machine must not have it."""
    token = Path("~/.ray/auth_token").expanduser()
    with contextlib.suppress(OSError):
        token.chmod(0o600)
