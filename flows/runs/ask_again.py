"""Orders to ask the judges of a curation again: the answers so far are not recalled.

An order is recorded with its time. While it is unfinished, the same command goes on with it: what was answered since is
recalled and nothing is asked twice. Once a run has ended, the next such command is a new order.
"""

from dataclasses import replace

from flows.curation.workspace import Workspace
from flows.method.setup import Setup, Tier
from infra.engines.kinds import kind_of
from infra.storage.numbered_records import keep_next, read_newest
from infra.storage.store import Store

_EVERYTHING = "all judges"


def open_order(workspace: Workspace, curation: str, part: tuple[str, int] | None = None) -> int:
    """Return the time of the unfinished order, or record a new one; in seconds since the epoch.

    part: the one part (stage with its label, number) that is to be asked again; None for all.
    """
    what, store = _said(part), workspace.store
    record = read_newest(store, _prefix(curation))
    if record is not None and not record["finished"] and record["what"] == what:
        workspace.hooks.on_message(f"{curation}: going on to ask again; what was answered since is not asked twice")
        return int(record["since"])
    since = _after(store, curation, int(workspace.clock().timestamp()))
    keep_next(store, _prefix(curation), {"what": what, "since": since, "finished": False})
    return since


def close_order(store: Store, curation: str, since: int, part: tuple[str, int] | None = None) -> None:
    """Record that everything was asked again."""
    keep_next(store, _prefix(curation), {"what": _said(part), "since": since, "finished": True})


def engines_since(setup: Setup, since: int) -> Setup:
    """Make engines that find earlier jobs again leave alone those that were submitted before a time."""
    return replace(setup, tiers=tuple(_since(tier, since) for tier in setup.tiers)) if since else setup


def _since(tier: Tier, since: int) -> Tier:
    if not kind_of(tier.engine).jobs:
        return tier
    latest = max(float(since), float(getattr(tier.engine, "not_before", 0.0)))
    return replace(tier, engine=tier.engine.model_copy(update={"not_before": latest}))


def _after(store: Store, curation: str, now: int) -> int:
    """Return a time that no earlier order has, so that its answers are not taken for those of the new one."""
    record = read_newest(store, _prefix(curation))
    return now if record is None else max(now, int(record["since"]) + 1)


def _prefix(curation: str) -> str:
    return f"curations/{curation}/asked_again"


def _said(part: tuple[str, int] | None) -> str:
    return _EVERYTHING if part is None else f"{part[0]} part {part[1]}"
