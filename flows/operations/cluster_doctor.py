"""`reneg doctor --cluster`: checks the Prefect server, the worker, the deployments, Ray and each of its nodes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import prefect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError

from flows.config.curation import CurationConfig
from flows.config.resources import resources_of
from flows.operations.deploy import HEARTBEAT_AUTOMATION, deployments_of, shared_deployments
from flows.operations.doctor import Finding
from flows.operations.engine_needs import Engine, engines_of, too_large
from infra.cluster.nodes import (
    VERSIONED,
    Node,
    Probe,
    Wanted,
    find_skew,
    inspect_nodes,
    leave_beacon,
    look_at_nodes,
    probe,
)
from infra.cluster.ray_cluster import ClusterError, describe, fits_somewhere, listens, ray_cluster, token_problem
from infra.prefect_api.client import Api, connected
from infra.prefect_api.events import POOL
from infra.prefect_api.health import trouble_with
from infra.settings import Settings, autoscales
from infra.storage.store import Store, StoreError

_CLOCK_SECONDS = 60.0
_GIB = 2**30
_SPARE = 5 * _GIB  # of a node's disk, for what is laid out from the store
_SERVE = "run `reneg serve` on a machine that stays up"
_DEPLOY = "run `reneg deploy CONFIG.yaml`"


def examine_cluster(settings: Settings, config: CurationConfig | None) -> list[Finding]:
    """Check everything that a cluster needs, from here and from each node. config: whose needs are checked too."""
    return [*_addresses(settings), *_prefect(settings, config), *_cluster(settings, config)]


def _addresses(settings: Settings) -> Iterator[Finding]:
    if settings.prefect_api_url is None:
        yield Finding(
            "PREFECT_API_URL",
            "missing",
            "not set: runs would use a server of their own",
            "set it to http://HOST:4200/api",
        )
    if settings.ray_address is None:
        yield Finding(
            "RAY_ADDRESS", "missing", "not set: runs would start Ray on this machine alone", "set it to HOST:6379"
        )
    problem = token_problem()
    yield Finding("Ray's token", "missing" if problem else "ok", *(problem or ("guarded",)))


def _prefect(settings: Settings, config: CurationConfig | None) -> list[Finding]:
    address = settings.prefect_api_url
    if address is None:
        return []
    trouble = trouble_with(address)
    if trouble is not None:
        return [Finding("Prefect server", "missing", trouble.found, trouble.remedy)]
    try:
        with connected(Api(address)), get_client(sync_client=True) as client:
            return [*_server(client, address), *_pool(client), *_deployments(client, config), *_automation(client)]
    except (PrefectHTTPStatusError, httpx.HTTPError) as error:
        found = f"{address}: {error}".splitlines()[0][:200]
        return [Finding("Prefect server", "missing", found, "see the server's log")]


def _server(client: SyncPrefectClient, address: str) -> Iterator[Finding]:
    version, ours = _ask(client, "GET", "/admin/version"), prefect.__version__
    if version == ours:
        yield Finding("Prefect server", "ok", f"{address}, version {version}")
    else:
        yield Finding(
            "Prefect server", "missing", f"{address} is version {version}, this is {ours}", "install the same on both"
        )


def _pool(client: SyncPrefectClient) -> Iterator[Finding]:
    found = _ask(client, "POST", "/work_pools/filter", {"work_pools": {"name": {"any_": [POOL]}}})
    what = f"work pool {POOL}"
    if not found:
        yield Finding(what, "missing", "not there", _DEPLOY)
        return
    if found[0]["is_paused"]:
        yield Finding(what, "missing", "paused: nothing starts", f"run `prefect work-pool resume {POOL}`")
    else:
        yield Finding(what, "ok", "not paused")
    workers = _ask(client, "POST", f"/work_pools/{POOL}/workers/filter", {})
    online = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
    if online:
        yield Finding("worker", "ok", ", ".join(online))
    else:
        last = max((str(worker["last_heartbeat_time"])[:19] for worker in workers), default="never")
        yield Finding("worker", "missing", f"none is online (last heard of: {last})", _SERVE)


def _deployments(client: SyncPrefectClient, config: CurationConfig | None) -> Iterator[Finding]:
    expected = [d.full_name for d in (*(deployments_of(config) if config else ()), *shared_deployments())]
    there = _ask(client, "POST", "/deployments/filter", {"work_pools": {"name": {"any_": [POOL]}}})
    names = {str(flow["id"]): flow["name"] for flow in _ask(client, "POST", "/flows/filter", {})}
    known = {f"{names.get(str(d['flow_id']), '?')}/{d['name']}": d for d in there}
    for name in expected:
        if name not in known:
            yield Finding(f"deployment {name}", "missing", "not there", _DEPLOY)
    for name, deployment in sorted(known.items()):
        asleep = [s for s in deployment["schedules"] if not s["active"]]
        if deployment["paused"]:
            remedy = f"run `prefect deployment schedule resume {name}` or resume it in the UI"
            yield Finding(f"deployment {name}", "missing", "paused: its schedule starts nothing", remedy)
        elif asleep:
            yield Finding(
                f"deployment {name}", "missing", f"{len(asleep)} schedule(s) switched off", "switch them on in the UI"
            )
        else:
            schedules = ", ".join(str(s["schedule"].get("cron", "")) for s in deployment["schedules"])
            yield Finding(f"deployment {name}", "ok", schedules or "on demand")


def _automation(client: SyncPrefectClient) -> Iterator[Finding]:
    name = HEARTBEAT_AUTOMATION
    found = client.read_automations_by_name(name)
    if not found:
        yield Finding(f"automation {name!r}", "missing", "not there: a dead machine's runs stay Running", _DEPLOY)
    elif not found[0].enabled:
        yield Finding(f"automation {name!r}", "missing", "switched off", "switch it on in the UI (Automations)")
    else:
        yield Finding(f"automation {name!r}", "ok", "enabled")


def _ask(client: SyncPrefectClient, method: Any, path: Any, body: Any = None) -> Any:  # noqa: ANN401 - JSON is any
    return client.request(method, path, json=body).json()


def _cluster(settings: Settings, config: CurationConfig | None) -> list[Finding]:
    address = settings.ray_address
    if address is None:
        return []
    if not listens(address):
        return [Finding("Ray", "missing", f"{address} does not listen", "start the cluster, or correct RAY_ADDRESS")]
    try:
        with ray_cluster(address):
            return [*_nodes(settings, config)]
    except ClusterError as error:
        return [Finding("Ray", "missing", str(error)[:300], "start the cluster with this Ray and its token")]


def _nodes(settings: Settings, config: CurationConfig | None) -> Iterator[Finding]:
    engines, problems = engines_of(config, settings.cache) if config else ([], [])
    yield from problems
    try:
        store = Store.open(settings.store)
        beacon = leave_beacon(store)
    except StoreError as error:
        yield Finding("store", "missing", settings.store, str(error))
        store, beacon = None, ""
    wanted = Wanted(
        store_url=settings.store,
        cache=settings.scratch,
        beacon=beacon,
        weights=tuple((e.path, e.digest) for e in engines if e.digest),
        variables=tuple(sorted({e.key_variable for e in engines if e.key_variable})),
    )
    try:
        seen = inspect_nodes(VERSIONED)
        yield Finding("Ray", "ok", f"{settings.ray_address}: {len(seen)} nodes")
        for skew in find_skew(VERSIONED, seen):
            remedy = "install the same release on every node, or start the driver from the image of the nodes"
            yield Finding(skew.node, "missing", f"{skew.what}: {skew.expected} expected, {skew.found} found", remedy)
        looked = look_at_nodes(probe, wanted)
        for node in looked:
            yield from _node(node, wanted, engines)
        if config is not None:
            yield from _resources(config, engines, looked)
    finally:
        if store is not None and beacon:
            store.delete(beacon)


def _node(node: Node, wanted: Wanted, engines: Sequence[Engine]) -> Iterator[Finding]:
    found = node.found
    if not isinstance(found, Probe):
        yield Finding(node.name, "missing", node.problem, "see the node's log; `reneg` must be installed there")
        return
    computes = any(node.resources.get(name, 0) for name in ("CPU", "GPU"))  # a head without both needs no store or key
    findings = [*_clock_of(node, found)]
    if computes:
        findings += [*_store_of(node, found), *_machine_of(node, found, wanted, engines)]
    yield from findings
    if not any(finding.state == "missing" for finding in findings):
        had = {name: f"{node.resources.get(name, 0):g}" for name in ("CPU", "GPU")}
        told = f"{had['CPU']} CPUs, {had['GPU']} GPUs, {found.memory / _GIB:.0f} GiB, {found.free_disk / _GIB:.0f} free"
        yield Finding(node.name, "ok", told)


def _store_of(node: Node, found: Probe) -> Iterator[Finding]:
    what = f"store from {node.name}"
    if found.store_problem:
        yield Finding(what, "missing", found.store_problem, "give the node the address and AWS_* of the store")
    elif not found.sees_beacon:
        yield Finding(
            what,
            "missing",
            "what this machine writes is not seen there: a local folder, or another store",
            "use s3://bucket/prefix, or a folder that every node mounts at the same path",
        )


def _clock_of(node: Node, found: Probe) -> Iterator[Finding]:
    off = max(node.asked - found.clock, found.clock - node.answered, 0.0)
    if off > _CLOCK_SECONDS:
        yield Finding(f"clock of {node.name}", "note", f"{off:.0f} s away from this machine's", "let NTP set it")


def _machine_of(node: Node, found: Probe, wanted: Wanted, engines: Sequence[Engine]) -> Iterator[Finding]:
    to_fetch = sum(e.size for e in engines if found.weights.get(e.digest) != "here")
    if found.cache_problem:
        remedy = "set RENEG_CACHE to a folder that every node can write"
        yield Finding(f"{wanted.cache} on {node.name}", "missing", found.cache_problem, remedy)
    elif found.free_disk < to_fetch + _SPARE:
        needed = f"{found.free_disk / _GIB:.0f} GiB free, {(to_fetch + _SPARE) / _GIB:.0f} needed"
        yield Finding(f"{wanted.cache} on {node.name}", "missing", needed, "make room, or set RENEG_CACHE")
    for name in found.unset:
        yield Finding(
            f"{name} on {node.name}", "missing", "not set", "set the endpoint's key in the node's environment"
        )
    for engine in engines:
        if engine.digest and found.weights.get(engine.digest) == "missing" and not engine.path:
            yield Finding(
                f"weights of {engine.reference} on {node.name}",
                "note",
                "neither there, nor in the store, nor on this machine",
                "the next run fetches them here and publishes them",
            )


def _resources(config: CurationConfig, engines: Sequence[Engine], nodes: Sequence[Node]) -> Iterator[Finding]:
    """Yield resources that no node has: Ray would wait for them for ever."""
    table = resources_of(config.tiers, config.resources, config.all_encoders, config.rescore)
    for name in sorted({engine.stage for engine in engines}):
        resources = table[name]
        if fits_somewhere(replace(resources, num_cpus=0.0)):  # CPUs are cut to what there is
            continue
        state = "note" if autoscales() else "missing"
        remedy = "add such a node, lower `resources`, or set RENEG_AUTOSCALE=1 where the cluster grows when asked"
        yield Finding(f"resources of {name}", state, f"no node has {describe(resources)}", remedy)
    for engine in engines:
        yield from too_large(engine, table[engine.stage], nodes)
