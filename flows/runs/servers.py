"""Starts or joins the servers that a job needs, and does the job in a flow run."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

from flows.curation.lookup import Done, Job
from flows.curation.stored_config import key_rules, refuse_other_keys
from flows.curation.workspace import Workspace
from flows.method.setup import Setup
from infra.cluster.nodes import VERSIONED, code_digest, refuse_skew
from infra.cluster.ray_cluster import ray_cluster
from infra.cluster.weights import publish_for
from infra.prefect_api.client import Api
from infra.prefect_api.health import check_named
from infra.prefect_api.server import PrefectServer


def in_own_flow_run(workspace: Workspace, setup: Setup, job: Job) -> Done:
    """Start the servers that have no address in the settings (Prefect, Ray), and do the job in a new flow run.

    Raises:
        ConfigError: the configuration is from the store and names a key that it may not use.
        ServerError, ClusterError: a server could not be started or joined.
        CurationFailed, WaitingForLabels, PartUnready: as the job ended.
    """
    _refuse_other_keys(workspace, setup, job)
    kept = _KEPT.get()
    with _servers(workspace, setup) if kept is None else nullcontext(kept.api(workspace, setup)) as api:
        from flows.runs.flow_run import run_flow

        return run_flow(workspace, setup, job, api)


@contextmanager
def keep_servers() -> Iterator[None]:
    """Let the servers that the first job here starts stay for the jobs after it, up to the end.

    A night that is promoted is two jobs. A second start would take as long as the first, and Prefect's workers in this
    process would go on telling the first server what happens.
    """
    with ExitStack() as stack:
        token = _KEPT.set(_Kept(stack))
        try:
            yield
        finally:
            _KEPT.reset(token)


@dataclass
class _Kept:
    """The servers of several jobs."""

    stack: ExitStack
    started: Api | None = None

    def api(self, workspace: Workspace, setup: Setup) -> Api:
        """Start or join the servers at the first call."""
        if self.started is None:
            self.started = self.stack.enter_context(_servers(workspace, setup))
        elif workspace.settings.ray_address is not None:
            _publish(workspace, setup)
        return self.started


_KEPT: ContextVar[_Kept | None] = ContextVar("kept servers", default=None)


def in_this_flow_run(workspace: Workspace, setup: Setup, job: Job) -> Done:
    """Do the job inside the flow run of a deployment; raises as `in_own_flow_run` does."""
    from flows.runs.flow_run import compute_parts

    _refuse_other_keys(workspace, setup, job)
    with ray_for(workspace, setup):
        return compute_parts(workspace, setup, job)


def _refuse_other_keys(workspace: Workspace, setup: Setup, job: Job) -> None:
    """Refuse keys that the configuration may not use, before anything starts, where a judge is sure to be asked.

    `retrain` and the like ask none, and a ledger may hold every answer. An engine that starts is checked in any case.
    """
    if not job.again and not workspace.store.holds("ledger"):
        refuse_other_keys(setup.config, key_rules(own_file=setup.own_file))


@contextmanager
def _servers(workspace: Workspace, setup: Setup) -> Iterator[Api]:
    """Join or start Prefect and Ray at the same time; yields Prefect's API."""
    settings = workspace.settings
    with ExitStack() as stack:
        address = settings.prefect_api_url
        if address is not None:
            check_named(address)
        workspace.hooks.on_message("starting " + ("Ray" if address else "Ray and the embedded Prefect server"))
        server, starting = PrefectServer(settings.home), None
        if address is None:
            stack.callback(server.stop)
            starting = stack.enter_context(ThreadPoolExecutor(1)).submit(server.start)
        # In the main thread: Ray's signal handlers are set only there, and SIGTERM must stop what was started.
        stack.enter_context(ray_for(workspace, setup))
        os.environ.setdefault("PREFECT_HOME", str(settings.home / "prefect-client"))
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # the terminal has progress bars
        yield Api(str(address)) if starting is None else server.api(starting.result())


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
        _publish(workspace, setup)
        yield


def _publish(workspace: Workspace, setup: Setup) -> None:
    for digest in publish_for(workspace.store, setup.engines, workspace.settings.cache):
        workspace.hooks.on_message(f"the weights {digest[:12]} are in the store now, for the nodes")
