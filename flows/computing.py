"""Where parts are computed: in a flow run of our own, with servers started for it, or in a deployment's flow run."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from flows.curation import Curation, Curator
from flows.job import Job
from flows.joining import ray_for
from flows.method import Setup
from infra.prefect_api.server import PrefectServer, ServerError, is_healthy
from infra.stages.runner import StageRun

Done = tuple[Any, tuple[StageRun, ...]]


def in_own_flow_run(curator: Curator, curation: Curation, setup: Setup, job: Job) -> Done:
    """Start what is not named by address (a Prefect server, a local Ray), and do the job in a new flow run.

    Raises:
        ServerError, ClusterError: a server could not be started or joined.
        CurationFailed, WaitingForLabels, PartUnready: as the job ended.
    """
    with _servers(curator, setup) as api_url:
        from flows.flow_run import run_flow

        return run_flow(curator, curation, setup, job, api_url)


def in_this_flow_run(curator: Curator, curation: Curation, setup: Setup, job: Job) -> Done:
    """Do the job inside the flow run of a deployment; raises as `in_own_flow_run` does."""
    from flows.flow_run import compute_parts

    with ray_for(curator, setup):
        return compute_parts(curator, curation, setup, job)


@contextmanager
def _servers(curator: Curator, setup: Setup) -> Iterator[str]:
    """Join or start Prefect and Ray, side by side; yields the address of Prefect's API."""
    settings = curator.settings
    with ExitStack() as stack:
        address = settings.prefect_api_url
        if address is not None and not is_healthy(address):
            raise ServerError(f"PREFECT_API_URL: {address} does not answer; start that server, or unset it")
        curator.hooks.on_message("starting " + ("Ray" if address else "Ray and the embedded Prefect server"))
        starting = None
        if address is None:
            server = PrefectServer(settings.home)
            stack.callback(server.stop)
            starting = stack.enter_context(ThreadPoolExecutor(1)).submit(server.start)
        # In the main thread: Ray's signal handlers are set only there, and SIGTERM must stop what was started.
        stack.enter_context(ray_for(curator, setup))
        os.environ.setdefault("PREFECT_HOME", str(settings.home / "prefect-client"))
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # the terminal has progress bars
        yield address or (starting.result() if starting else "")
