"""Ray, local and loopback-only or by address; it never joins a cluster that was not named."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_OBJECT_STORE_BYTES = 200 * 2**20  # parts travel by reference; Ray's default takes a third of the machine


@contextlib.contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start a local one that listens on loopback only and stops with us."""
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # makes every socket of a local Ray 127.0.0.1
    import ray

    if ray.is_initialized():
        yield  # whoever connected this process also disconnects it
        return
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
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def _guard_token() -> None:
    """Ray writes its access token readable by everybody; other users of the machine must not have it."""
    token = Path("~/.ray/auth_token").expanduser()
    with contextlib.suppress(OSError):
        token.chmod(0o600)
