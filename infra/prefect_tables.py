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
    return {"part": spec.number, "ended": "reused" if reused else "computed", **counts, **facts, **rates(facts)}


def rates(facts: Mapping[str, Any]) -> dict[str, float]:
    """Derive what people compare: tokens and queries per second of the engine's work, and the prefix cache's share.

    >>> rates({"prompt_tokens": 100, "cached_tokens": 25, "output_tokens": 20, "queries": 6, "engine_seconds": 2.0})
    {'prefix_hit_rate': 0.25, 'tokens_per_second': 60.0, 'queries_per_second': 3.0}
    """
    found = {}
    prompt, seconds = facts.get("prompt_tokens", 0), facts.get("engine_seconds", 0.0)
    if prompt:
        found["prefix_hit_rate"] = round(facts.get("cached_tokens", 0) / prompt, 4)
    if prompt and seconds:
        found["tokens_per_second"] = round((prompt + facts.get("output_tokens", 0)) / seconds, 1)
    if facts.get("queries") and seconds:
        found["queries_per_second"] = round(facts["queries"] / seconds, 3)
    return found
