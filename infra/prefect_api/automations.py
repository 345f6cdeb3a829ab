"""Writes automations to a Prefect server, where they differ from what stands there."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

_OF_THE_SERVER = ("id", "created", "updated", "owner_resource")


def ensure_automation(client: "SyncPrefectClient", automation: "AutomationCore") -> None:
    """Create an automation; change the one of its name if it differs, and delete others of its name.

    A write that changes nothing is left out: on SQLite a server of Prefect up to 3.7 can stop for ever at one
    (`infra.prefect_api.server_process`).
    """
    known = client.read_automations_by_name(automation.name)
    if not known:
        client.create_automation(automation)
    elif _told(known[0]) != _told(automation):
        client.update_automation(known[0].id, automation)
    for surplus in known[1:]:
        client.delete_automation(surplus.id)


def _told(automation: "AutomationCore") -> Any:  # noqa: ANN401 - as JSON
    """Return what somebody decided of an automation: all but what the server gives it, lists of events in one order."""
    return _without(automation.model_dump(mode="json"))


def _without(value: Any) -> Any:  # noqa: ANN401 - as JSON
    if isinstance(value, dict):
        return {name: _without(inner) for name, inner in value.items() if name not in _OF_THE_SERVER}
    if isinstance(value, list):
        return sorted((_without(inner) for inner in value), key=str)
    return value
