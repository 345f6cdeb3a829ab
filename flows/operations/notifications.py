"""Notifications: two Prefect automations per dataset, one for failures, one for releases and drift (docs/releases.md).

Each calls a block of the Prefect server: a webhook, or one of Prefect's notification blocks (Slack, Teams, mail). The
address is a secret: only the block holds it, no configuration, automation or log does.
"""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infra.prefect_api.automations import ensure_automation
from infra.prefect_api.events import TAG, resource
from infra.redact import hide_variable

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import BlockDocument
    from prefect.events.actions import ActionTypes
    from prefect.events.schemas.automations import AutomationCore
from flows.config.curation import NotifyConfig

SHARED = "any"  # the name of deployments that take any curation
_WEBHOOK = "webhook"

# Jinja expressions, rendered by the Prefect server.
_MESSAGE = '(flow_run.state.message or "no message")'
_SUBJECT = 'flow_run.name ~ " " ~ (flow_run.state.name | lower)'


class NotifyError(Exception):
    """The notification cannot be set up; the message says what is expected, and where."""


def register_notifications(
    client: "SyncPrefectClient", name: str, config: NotifyConfig | None, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """Create or update one dataset's automations; remove those that the configuration no longer wants.

    Args:
        client: of the server that Prefect's settings name.
        name: of the configuration; its deployments have the same.
        config: the wanted notifications; None for none.
        environ: where `webhook_env` is looked up.

    Returns:
        The names of the automations that exist now.

    Raises:
        NotifyError: the block does not exist or cannot notify, or the variable is not set.
    """
    wanted = [] if config is None else _automations(client, name, config, environ)
    for automation in wanted:
        ensure_automation(client, automation)
    for title in {_failure_title(name), _release_title(name)} - {automation.name for automation in wanted}:
        for surplus in client.read_automations_by_name(title):
            client.delete_automation(surplus.id)
    if config is None or config.webhook_env is None:
        _forget_webhook(client, name)
    return [automation.name for automation in wanted]


def _failure_title(name: str) -> str:
    return f"{TAG}: {name} failed"


def _release_title(name: str) -> str:
    return f"{TAG}: releases and drift of {name}"


def _automations(
    client: "SyncPrefectClient", name: str, config: NotifyConfig, environ: Mapping[str, str]
) -> "list[AutomationCore]":
    block = _find_block(client, config.block) if config.block else _keep_webhook(client, name, config, environ)
    ui = config.ui_url or _ui_url(client)
    told = {f"{TAG}.{occasion}" for occasion in config.on if occasion != "failed"}
    made = [_on_failure(name, block, ui.rstrip("/"))] if "failed" in config.on else []
    made += [_on_events(name, block, told)] if told else []
    # An update sends only fields that were set, and the server needs them all, except one that it refuses.
    return [type(a).model_validate(a.model_dump(mode="json", exclude={"owner_resource"})) for a in made]


def _on_failure(name: str, block: "BlockDocument", ui: str) -> "AutomationCore":
    """Report flow runs of the dataset's and the shared deployments that failed, crashed or timed out.

    The state's type is matched, not its name: a failed state may be called TimedOut, Stopped or anything else.
    """
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

    link = f'"{ui}/runs/flow-run/" ~ flow_run.id'
    trigger = EventTrigger(
        expect={"prefect.flow-run.*"},
        match={"prefect.resource.id": "prefect.flow-run.*", "prefect.state-type": ["FAILED", "CRASHED"]},
        match_related=[
            {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
            {"prefect.resource.role": "deployment", "prefect.resource.name": [name, SHARED]},
        ],
    )
    fields = {
        "event": '"reneg.failed"',
        "dataset": f'"{name}"',
        "flow_run": "flow_run.name",
        "state": "flow_run.state.name",
        "message": _MESSAGE,
        "link": link,
        "text": f'{_SUBJECT} ~ ": " ~ {_MESSAGE} ~ " " ~ {link}',
    }
    action = _action(block, _SUBJECT, f'{_MESSAGE} ~ "\\n" ~ {link}', fields)
    return AutomationCore(
        name=_failure_title(name), description="Made by `reneg deploy`.", trigger=trigger, actions=[action]
    )


def _on_events(name: str, block: "BlockDocument", told: set[str]) -> "AutomationCore":
    """Report our own events about a dataset; the event's payload holds a sentence and the figures."""
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

    trigger = EventTrigger(expect=told, match={"prefect.resource.id": resource(name)["prefect.resource.id"]})
    text = f'(event.payload.text or "{name}: " ~ event.event)'
    fields = {"event": "event.event", "dataset": f'"{name}"', "text": text, "figures": "event.payload"}
    action = _action(block, f'event.event ~ ": {name}"', text, fields)
    return AutomationCore(
        name=_release_title(name), description="Made by `reneg deploy`.", trigger=trigger, actions=[action]
    )


def _action(block: "BlockDocument", subject: str, body: str, fields: Mapping[str, str]) -> "ActionTypes":
    """Call a webhook with JSON, or a notification block with a subject and a text; all given as Jinja expressions."""
    from prefect.events.actions import CallWebhook, SendNotification

    if block.block_type is not None and block.block_type.slug == _WEBHOOK:
        # `tojson` quotes what comes from outside, so that no message can break the body.
        pairs = ", ".join(f"{json.dumps(key)}: {{{{ ({value}) | tojson }}}}" for key, value in fields.items())
        return CallWebhook(block_document_id=block.id, payload="{" + pairs + "}")
    return SendNotification(block_document_id=block.id, subject=f"{{{{ {subject} }}}}", body=f"{{{{ {body} }}}}")


def _find_block(client: "SyncPrefectClient", reference: str) -> "BlockDocument":
    """Return a block that users made on the server."""
    from prefect.exceptions import ObjectNotFound

    kind, _, title = reference.partition("/")
    try:
        document = client.read_block_document_by_name(title, kind)
    except ObjectNotFound as error:
        raise NotifyError(
            f"notify.block: no block {reference!r} on the Prefect server; make it there (Blocks in the UI, or "
            "`prefect block create`), or give notify.webhook_env"
        ) from error
    can: Any = document.block_schema.capabilities if document.block_schema else []
    if kind != _WEBHOOK and "notify" not in can:
        raise NotifyError(
            f"notify.block: {reference!r} is neither a webhook nor a notification block, such as slack-webhook"
        )
    return document


def _keep_webhook(
    client: "SyncPrefectClient", name: str, config: NotifyConfig, environ: Mapping[str, str]
) -> "BlockDocument":
    """Store the URL of a variable in a webhook block, where the server encrypts it."""
    from prefect.blocks.webhook import Webhook
    from pydantic import SecretStr

    variable = str(config.webhook_env)
    hide_variable(variable)
    url = environ.get(variable, "")
    if not url.startswith(("http://", "https://")):
        came = "something else came" if url else "it is not set"
        raise NotifyError(
            f"notify.webhook_env: a URL expected in {variable}, {came}; export it where `reneg deploy` runs"
        )
    hook = Webhook(url=SecretStr(url), headers={"Content-Type": "application/json"})
    saved: Any = hook.save(_webhook_name(name), overwrite=True)
    assert saved is not None
    return client.read_block_document_by_name(_webhook_name(name), _WEBHOOK)


def _forget_webhook(client: "SyncPrefectClient", name: str) -> None:
    """Remove a URL that is not used any more."""
    from prefect.exceptions import ObjectNotFound

    try:
        client.delete_block_document(client.read_block_document_by_name(_webhook_name(name), _WEBHOOK).id)
    except ObjectNotFound:
        return


def _webhook_name(name: str) -> str:
    return f"{TAG}-{name}"


def _ui_url(client: "SyncPrefectClient") -> str:
    from prefect.settings import PREFECT_UI_URL

    return PREFECT_UI_URL.value() or str(client.api_url).rstrip("/").removesuffix("/api")
