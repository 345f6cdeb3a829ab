"""`reneg deploy`: writes configurations to the store, deployments and automations to a Prefect server.

It can be run again: what exists under a name is updated.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import Flow
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from flows.config.curation import CurationConfig
from flows.config.prices import with_prices
from flows.curation.records import collection_times, keep_config
from flows.operations import deployed_flows
from flows.operations.notifications import SHARED, register_notifications
from infra.prefect_api.automations import ensure_automation
from infra.prefect_api.client import Api, connected
from infra.prefect_api.events import POOL, TAG
from infra.prefect_api.health import check_named
from infra.prefect_api.server import PrefectServer
from infra.settings import Settings
from infra.storage.store import Store

HEARTBEAT_AUTOMATION = "reneg: dead runs are crashed"
_HEARTBEAT = "prefect.flow-run.heartbeat"
# Events carry the state's name, and ours have names of their own (flows.operations.deployed_flows).
_ENDS = tuple(
    f"prefect.flow-run.{end}"
    for end in ("Completed", "Failed", "Cancelled", "Crashed", "NoChange", "Waiting", "Stopped", "Skipped")
)
_SILENCE = timedelta(minutes=4)  # eight missed heartbeats: a busy or restarted server loses a few


@dataclass(frozen=True)
class Deployed:
    """One deployment as it is on the server."""

    name: str  # flow/deployment, as Prefect addresses it
    schedule: str
    overlap: str


def deploy(settings: Settings, configs: Sequence[CurationConfig], pool: str = POOL) -> list[Deployed]:
    """Write configurations to the store, and everything they need to the Prefect server.

    Raises:
        ServerError: the server cannot be used.
        StoreError: the store cannot be written.
        ConfigError: the price file cannot be read.
    """
    store = Store.open(settings.store)
    for config in configs:
        keep_config(store, with_prices(config))
    with api(settings), get_client(sync_client=True) as client:
        _ensure_pool(client, pool)
        ensure_automation(client, _dead_runs())
        for config in configs:
            register_notifications(client, config.name, config.notify)
        wanted = [
            *(d for config in configs for d in deployments_of(config)),
            *shared_deployments(collection_times(store)),
        ]
        return [_apply(client, deployment, pool) for deployment in wanted]


@contextmanager
def api(settings: Settings) -> Iterator[str]:
    """Connect Prefect's client to the server of the settings, or to an embedded one that runs while it is needed.

    Raises:
        ServerError: it cannot be used, or did not start.
    """
    address = settings.prefect_api_url
    if address is not None:
        check_named(address)
        with connected(Api(address)):
            yield address
        return
    server = PrefectServer(settings.home)
    try:
        started = server.start()
        with connected(server.api(started)):
            yield started
    finally:
        server.stop()


def deployments_of(config: CurationConfig) -> list[RunnerDeployment]:
    """Return the deployments of one configuration: its nights, and a curation on demand."""
    night = config.nightly
    nights = _deployment(
        deployed_flows.nightly,
        config.name,
        {"night": {"configuration": config.name}},
        f"Curates {config.name} every night, from its source. A night without a change computes nothing.",
        schedule=None if night is None else Cron(night.cron, timezone=night.timezone, slug="nightly"),
        concurrency_limit=_one_at_a_time("queue" if night is None else night.overlap),
        tags=[TAG, config.name],
    )
    now = {"curation": {"configuration": config.name}}
    told = f"Curates {config.name} now, beside its schedule."
    return [nights, _deployment(deployed_flows.curate, config.name, now, told, tags=[TAG, config.name])]


def shared_deployments(collected: Sequence[str] = ()) -> list[RunnerDeployment]:
    """Return the deployments that belong to no configuration: those that take a curation as their parameter, and gc.

    collected: when gc runs by itself, as cron expressions in UTC.
    """
    flows: tuple[Flow[Any, Any], ...] = (
        deployed_flows.rerun_part,
        deployed_flows.validate,
        deployed_flows.retrain,
        deployed_flows.prune,
    )
    schedules = [Cron(cron, timezone="UTC", slug=f"gc-{number}") for number, cron in enumerate(collected, 1)]
    gc = _deployment(
        deployed_flows.gc,
        SHARED,
        {},
        (deployed_flows.gc.fn.__doc__ or "").strip(),
        schedules=schedules or None,
        concurrency_limit=_one_at_a_time("refuse"),
        tags=[TAG],
    )
    return [*(_deployment(f, SHARED, {}, (f.fn.__doc__ or "").strip(), tags=[TAG]) for f in flows), gc]


def _deployment(
    flow: Flow[Any, Any], name: str, parameters: dict[str, Any], told: str, **more: Any
) -> RunnerDeployment:
    made: Any = flow.to_deployment(
        name, parameters=parameters, description=told, entrypoint_type=EntrypointType.MODULE_PATH, **more
    )
    deployment: RunnerDeployment = made
    return deployment


def _one_at_a_time(overlap: str) -> ConcurrencyLimitConfig:
    queue, refuse = ConcurrencyLimitStrategy.ENQUEUE, ConcurrencyLimitStrategy.CANCEL_NEW
    return ConcurrencyLimitConfig(limit=1, collision_strategy=queue if overlap == "queue" else refuse)


def _apply(client: SyncPrefectClient, deployment: RunnerDeployment, pool: str) -> Deployed:
    id_: Any = deployment.apply(work_pool_name=pool)
    schedules: Any = deployment.schedules or []
    if not schedules:  # without schedules, Prefect leaves the old ones as they are
        for old in client.read_deployment_schedules(id_):
            client.delete_deployment_schedule(id_, old.id)
    shown = ", ".join(f"{s.schedule.cron} {s.schedule.timezone}" for s in schedules)
    options = deployment.concurrency_options
    overlap = "" if options is None else "queued" if options.collision_strategy == "ENQUEUE" else "refused"
    return Deployed(deployment.full_name, shown, overlap)


def _ensure_pool(client: SyncPrefectClient, pool: str) -> None:
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        try:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        except ObjectAlreadyExists:
            return  # another `reneg deploy` created it at the same moment


def _dead_runs(silence: timedelta = _SILENCE) -> AutomationCore:
    """Return the automation that marks a flow run as crashed after heartbeats stop without an end."""
    trigger = EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
        after={_HEARTBEAT},
        expect={_HEARTBEAT, *_ENDS},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=silence,
    )
    action = ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat: the machine that ran it died")
    return AutomationCore(name=HEARTBEAT_AUTOMATION, trigger=trigger, actions=[action])
