"""The verdict layer of a finished curation, read part by part and written as files."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from flows.config.section import ConfigError
from flows.curation.lookup import look_at
from flows.curation.records import Curation, say_unfinished
from flows.curation.workspace import Workspace
from infra.storage.artifacts import Table, read_table
from infra.storage.store import Store
from tasks import schemas
from tasks.data.writing.verdicts import VerdictPart, write_verdicts


def export_verdicts(workspace: Workspace, curation: Curation, folder: Path) -> dict[str, int]:
    """Write the verdicts of a finished curation to a folder; returns the counts of rows and pairs.

    Raises:
        ConfigError: it is unfinished.
    """
    outcome, _ = look_at(workspace, curation)
    if outcome is None:
        raise ConfigError(say_unfinished(workspace.store, curation.id))
    return write_verdicts(folder, verdict_parts(workspace.store, outcome.evidence))


def verdict_parts(store: Store, evidence: Mapping[str, Table]) -> Iterator[VerdictPart]:
    """Yield the verdicts in the parts of the candidates. Positives that were put to a judge come last."""
    names = ("judged", "similarity", "llm_verdicts", "decisions")
    candidates, similarity, answers, decisions = (evidence[name] for name in names)
    for index in sorted(candidates.indexes):
        said = [read_table(store, table.at(index), schemas.VERDICTS) for table in (similarity, answers)]
        yield VerdictPart(
            candidates=read_table(store, candidates.at(index), schemas.CANDIDATES),
            verdicts=pl.concat(said),
            decisions=read_table(store, decisions.at(index), schemas.VERDICTS),
        )
    if "check_decisions" in evidence:
        checked = {name: evidence[f"check_{name}"] for name in ("candidates", "verdicts", "decisions")}
        for index in sorted(checked["candidates"].indexes):
            yield VerdictPart(
                candidates=read_table(store, checked["candidates"].at(index), schemas.CANDIDATES),
                verdicts=read_table(store, checked["verdicts"].at(index), schemas.VERDICTS),
                decisions=read_table(store, checked["decisions"].at(index), schemas.VERDICTS),
            )
