"""The verdict layer of a finished curation, read part by part and written as files."""

import tempfile
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

_QUERY = ["dataset", "query_id"]


def export_verdicts(workspace: Workspace, curation: Curation, folder: Path) -> dict[str, int]:
    """Write the verdicts of a finished curation to a folder; returns the counts of rows and pairs.

    Raises:
        ConfigError: it is unfinished.
    """
    outcome, _ = look_at(workspace, curation)
    if outcome is None:
        raise ConfigError(say_unfinished(workspace.store, curation.id))
    with tempfile.TemporaryDirectory(prefix="reneg-verdicts-") as scratch:
        return write_verdicts(folder, verdict_parts(workspace.store, outcome.evidence, Path(scratch)))


def verdict_parts(store: Store, evidence: Mapping[str, Table], scratch: Path) -> Iterator[VerdictPart]:
    """Yield the verdicts in the parts of the candidates; beside a part, only the ids of the queries are in memory.

    Answers of language models come in parts of their own, so they are first sorted into those of the candidates, in
    files below `scratch`. Positives that were put to a judge come last, in one part.
    """
    candidates, similarity, decisions = (evidence[name] for name in ("judged", "similarity", "decisions"))
    _sort_answers(store, candidates, evidence["llm_verdicts"], scratch)
    for index in sorted(candidates.indexes):
        answers = [pl.read_parquet(path) for path in sorted((scratch / str(index)).glob("*.parquet"))]
        yield VerdictPart(
            candidates=read_table(store, candidates.at(index), schemas.CANDIDATES),
            verdicts=pl.concat([read_table(store, similarity.at(index), schemas.VERDICTS), *answers]),
            decisions=read_table(store, decisions.at(index), schemas.VERDICTS),
        )
    if "check_decisions" in evidence:
        checked = {name: evidence[f"check_{name}"] for name in ("candidates", "verdicts", "decisions")}
        yield VerdictPart(
            candidates=read_table(store, checked["candidates"], schemas.CANDIDATES),
            verdicts=read_table(store, checked["verdicts"], schemas.VERDICTS),
            decisions=read_table(store, checked["decisions"], schemas.VERDICTS),
        )


def _sort_answers(store: Store, candidates: Table, answers: Table, scratch: Path) -> None:
    """Write the answers to `<scratch>/<part of the candidates>/<piece>.parquet`."""
    queries = [
        read_table(store, candidates.at(index), schemas.CANDIDATES).select(_QUERY).unique().with_columns(part=index)
        for index in sorted(candidates.indexes)
    ]
    part_of = pl.concat(queries)
    for number, piece in enumerate(answers.pieces):
        rows = read_table(store, Table(answers.name, (piece,))).join(part_of, on=_QUERY, maintain_order="left")
        for (index,), found in rows.partition_by("part", as_dict=True, include_key=False, maintain_order=True).items():
            folder = scratch / str(index)
            folder.mkdir(exist_ok=True)
            found.write_parquet(folder / f"{number:06d}.parquet")
