"""Events for Prefect's automations: what happened, to which dataset, with which figures. Sending never fails a run."""

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any

TAG = "reneg"  # on every flow run of ours, beside the dataset's name
POOL = "reneg"  # the work pool that deployments run in, unless another is named


def resource(name: str) -> dict[str, str]:
    """Name what an event is about: the line of releases of one dataset."""
    return {"prefect.resource.id": f"{TAG}.dataset.{name}", "prefect.resource.name": name}


def emit(event: str, about: Mapping[str, str], payload: Mapping[str, Any]) -> bool:
    """Send an event to the Prefect server, if one is set; in a flow run the event also names that run.

    Without an address nothing is sent: Prefect would start a server of its own to receive it. It is sent in the
    background, and at the latest when the process ends.

    Returns:
        Whether it was handed over. A server that does not answer, or refuses, changes nothing else.
    """
    if "prefect" not in sys.modules and "PREFECT_API_URL" not in os.environ:
        return False  # nobody has set a server; importing Prefect to learn it takes seconds
    from prefect.events import emit_event
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        return False
    with contextlib.suppress(Exception):  # whatever Prefect raises, what was done stays done
        return emit_event(event, resource=dict(about), payload=dict(payload)) is not None
    return False
