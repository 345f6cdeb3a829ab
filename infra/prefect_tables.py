"""What a stage did, as a table in the Prefect UI: one row per part."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext

from infra.artifacts import Manifest
from infra.runner import Failure, PartSpec


def show_stage(
    name: str,
    specs: Sequence[PartSpec],
    finished: Mapping[int, Manifest],
    results: Mapping[int, Manifest | Failure],
) -> None:
    """Show the parts of a stage with rows, seconds and the facts their function gave; outside a flow run, nothing."""
    if not specs or FlowRunContext.get() is None:
        return
    rows = [row_of(spec, results[spec.number], reused=spec.number in finished) for spec in specs]
    key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")  # all that Prefect allows
    create_table_artifact(table=rows, key=key, description=f"{name}: {len(rows)} part(s)")


def row_of(spec: PartSpec, result: Manifest | Failure, *, reused: bool) -> dict[str, Any]:
    """Say what happened to one part."""
    if isinstance(result, Failure):
        return {"part": spec.number, "ended": "failed", "reason": result.reason}
    stats = result.stats
    facts = {name: value for name, value in stats.get("facts", {}).items() if value != {}}
    counts = {name: stats[name] for name in ("rows_in", "rows_out", "seconds")}
    return {"part": spec.number, "ended": "reused" if reused else "computed", **counts, **facts}
