"""Starts or joins the servers that a job needs, and does the job in a flow run."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from flows.curation.lookup import Done, Job
from flows.curation.workspace import Workspace
from flows.method.setup import Setup
from infra.cluster.nodes import VERSIONED, code_digest, refuse_skew
from infra.cluster.ray_cluster import ray_cluster
from infra.cluster.weights import publish_for
from infra.prefect_api.server import PrefectServer, ServerError, is_healthy


def in_own_flow_run(workspace: Workspace, setup: Setup, job: Job) -> Done:
    """Start the servers that have no address in the settings (Prefect, Ray), and do the job in a new flow run.

    Raises:
        ServerError, ClusterError: a server could not be started or joined.
        CurationFailed, WaitingForLabels, PartUnready: as the job ended.
    """
    with _servers(workspace, setup) as api_url:
        from flows.runs.flow_run import run_flow

        return run_flow(workspace, setup, job, api_url)


def in_this_flow_run(workspace: Workspace, setup: Setup, job: Job) -> Done:
    """Do the job inside the flow run of a deployment; raises as `in_own_flow_run` does."""
    from flows.runs.flow_run import compute_parts

    with ray_for(workspace, setup):
        return compute_parts(workspace, setup, job)


@contextmanager
def _servers(workspace: Workspace, setup: Setup) -> Iterator[str]:
    """Join or start Prefect and Ray at the same time; yields the address of Prefect's API."""
    settings = workspace.settings
    with ExitStack() as stack:
        address = settings.prefect_api_url
        if address is not None and not is_healthy(address):
            raise ServerError(f"PREFECT_API_URL: {address} does not answer; start that server, or unset it")
        workspace.hooks.on_message("starting " + ("Ray" if address else "Ray and the embedded Prefect server"))
        starting = None
        if address is None:
            server = PrefectServer(settings.home)
            stack.callback(server.stop)
            starting = stack.enter_context(ThreadPoolExecutor(1)).submit(server.start)
        # In the main thread: Ray's signal handlers are set only there, and SIGTERM must stop what was started.
        stack.enter_context(ray_for(workspace, setup))
        os.environ.setdefault("PREFECT_HOME", str(settings.home / "prefect-client"))
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # the terminal has progress bars
        yield address or (starting.result() if starting else "")


@contextmanager
def ray_for(workspace: Workspace, setup: Setup) -> Iterator[None]:
    """Start a local Ray, or join the cluster of the settings, refuse nodes that differ, and publish the weights.

    Raises:
        ClusterError: the cluster cannot be joined, or a node runs other code or versions than this process.
        ModelError, StoreError: the weights could not be copied to the store.
    """
    address = workspace.settings.ray_address
    if address is None:
        with ray_cluster(None):
            yield
        return
    with ray_cluster(address, code=code_digest()):
        refuse_skew(VERSIONED)
        engines = [setup.encoder, *(tier.engine for tier in setup.tiers)]
        for digest in publish_for(workspace.store, engines, workspace.settings.cache):
            workspace.hooks.on_message(f"the weights {digest[:12]} are in the store now, for the nodes")
        yield
