"""What a flow run shows in the Prefect UI: per stage a table of its parts and their progress, and at the end a summary.

Outside a flow run nothing is shown. A server that does not take an artifact must not fail a part, so nothing is raised
here.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext

from infra.redact import redact, redact_values
from infra.stages.runner import Failure, PartSpec
from infra.storage.artifacts import Manifest

_ROWS = 1000  # the most parts in a table; failed ones come first then
_UPDATE_SECONDS = 1.0
_LINKS = ("http://", "https://", "file://")
_log = logging.getLogger(__name__)


def key_of(*names: str) -> str:
    """Make an artifact's key: Prefect allows lower-case letters, digits and dashes.

    >>> key_of("summary", "My_data")
    'summary-my-data'
    """
    return re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")


def show_stage(
    name: str,
    specs: Sequence[PartSpec],
    finished: Mapping[int, Manifest],
    results: Mapping[int, Manifest | Failure],
) -> None:
    """Show the parts of a stage with rows, seconds, the node and the facts their function gave."""
    if not specs:
        return
    rows = [row_of(spec, results[spec.number], reused=spec.number in finished) for spec in specs]
    shown = f"{name}: {len(rows)} part(s)"
    if len(rows) > _ROWS:
        rows = sorted(rows, key=lambda row: ("failed", "computed", "reused").index(row["ended"]))[:_ROWS]
        shown += f", of which {_ROWS} are shown"
    columns = dict.fromkeys(name for row in rows for name in row)  # the UI takes the columns from the first row
    table = [{name: row.get(name) for name in columns} for row in rows]
    _try(lambda: create_table_artifact(table=table, key=key_of(name), description=shown))


def row_of(spec: PartSpec, result: Manifest | Failure, *, reused: bool) -> dict[str, Any]:
    """Say what happened to one part."""
    if isinstance(result, Failure):
        return {"part": spec.number, "ended": "failed", "reason": redact(result.reason)}
    stats = result.stats
    counts = {name: stats[name] for name in ("rows_in", "rows_out", "seconds")}
    rejects = {name: rows for name, rows in stats.get("rows", {}).items() if name == "rejects"}
    took = {name: stats[name] for name in ("read_bytes", "peak_gib") if name in stats}
    node = {"node": stats["node"]} if "node" in stats else {}
    facts = {name: redact_values(value) for name, value in stats.get("facts", {}).items() if value != {}}
    return {
        "part": spec.number,
        "ended": "reused" if reused else "computed",
        **counts,
        **took,
        **rejects,
        **node,
        **facts,
    }


class StageProgress:
    """The progress of a stage with several parts to compute, told to Prefect at most once a second."""

    def __init__(self, name: str, total: int) -> None:
        """Show none done yet; a stage of a single part shows nothing."""
        self._total = total
        self._lock = threading.Lock()
        self._told = time.monotonic()
        self._artifact: UUID | None = None
        if total > 1:
            described = f"{name}: {total} parts to compute"
            self._artifact = _try(lambda: create_progress_artifact(0.0, key_of("progress", name), described))

    def update(self, done: int) -> None:
        """Show how many are done, unless that was shown a moment ago or another thread shows it now."""
        if self._artifact is None or time.monotonic() - self._told < _UPDATE_SECONDS:
            return
        if self._lock.acquire(blocking=False):
            try:
                self._tell(done)
            finally:
                self._lock.release()

    def close(self, done: int) -> None:
        """Show how many are done in the end; parts that failed are not."""
        with self._lock:
            self._tell(done)

    def _tell(self, done: int) -> None:
        if (artifact := self._artifact) is not None:
            self._told = time.monotonic()
            _try(lambda: update_progress_artifact(artifact, 100.0 * done / self._total))


def show_summary(name: str, text: str, report: str) -> None:
    """Show what came out at the end of a flow run, as Markdown, with a link to the report.

    Args:
        name: the curation's name without its number; the artifacts of all its runs stand under one key.
        text: what is shown.
        report: the report's address, linked if it is one of the web or `file://`, otherwise only told in `text`.
    """
    _try(lambda: create_markdown_artifact(redact(text), key_of("summary", name), f"{name}: summary"))
    if report.startswith(_LINKS):
        _try(lambda: create_link_artifact(report, "report", key_of("report", name), f"{name}: the report"))


def _try(show: Callable[[], Any]) -> Any:  # noqa: ANN401 - what Prefect returns
    if FlowRunContext.get() is None:
        return None
    try:
        return show()
    except Exception as error:  # of any kind: only the showing failed, not the work
        _log.warning("Prefect could not show something: %s: %s", type(error).__name__, redact(str(error)))
        return None
