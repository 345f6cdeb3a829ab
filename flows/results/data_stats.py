"""What the data of a curation looks like, from the results of its finished stages; nothing is computed."""

from collections.abc import Sequence
from typing import Any

from flows import stages as st
from flows.method.losses import left_out_of
from flows.stage_names import is_of_gold
from infra.stages.runner import StageRun
from infra.storage.artifacts import Piece, Table, read_table
from infra.storage.store import Store
from tasks import schemas
from tasks.report.checks import sum_up_checks
from tasks.report.data_figures import sum_up_data

_COUNTING = (st.DESCRIBE_QUERIES.name, st.DESCRIBE_PASSAGES.name)


def data_of(store: Store, runs: Sequence[StageRun]) -> dict[str, Any]:
    """Sum up the data of a curation, as its report does, as far as its stages are finished.

    Returns:
        `data`: see `tasks.report.data_figures.sum_up_data`. `rejects`: what ingest left out, as in summary.json; None
        while ingest is not finished. `checks`: what the checks of the given labels doubt, where they are on.
    """
    counts = [piece for run in runs if run.name in _COUNTING for piece in _pieces(run, "counts")]
    rejects = [piece for run in runs if not is_of_gold(run.name) for piece in _pieces(run, "rejects")]
    data = sum_up_data(
        read_table(store, Table("counts", tuple(counts)), schemas.COUNTS),
        read_table(store, Table("rejects", tuple(rejects)), schemas.REJECTS),
    )
    left = left_out_of(store, runs)
    return {"data": data, "rejects": None if left is None else left.as_dict(), **_checks(store, runs)}


def _checks(store: Store, runs: Sequence[StageRun]) -> dict[str, Any]:
    """Count what the checks of the given labels doubt; nothing where nothing is checked."""
    found = [run for run in runs if run.name == st.CHECK.name and run.manifests]
    if not found:
        return {}
    tables = {
        name: read_table(store, Table(name, tuple(_pieces(found[0], name))), schema)
        for name, schema in (("decisions", schemas.VERDICTS), ("queries", schemas.QUERY_CHECKS))
    }
    return {"checks": sum_up_checks(tables["decisions"], tables["queries"]).as_json()}


def _pieces(run: StageRun, table: str) -> list[Piece]:
    return [piece for manifest in run.manifests for piece in manifest.tables.get(table, ())]
