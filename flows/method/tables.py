"""The tables that one step of the method passes to the next, one type per step: a misspelt name is a type error."""

from collections.abc import Mapping
from dataclasses import dataclass

from flows.config.section import ConfigError
from infra.stages.runner import Runner, StageRun
from infra.storage.artifacts import Directory, Table
from tasks import schemas

_FIRST = frozenset({0})


@dataclass(frozen=True)
class Ingested:
    """The source as `ingest` reads it."""

    queries: Table
    positives: Table
    given: Table  # negatives that rows brought with them
    passages: Table
    qrels: Table  # of the held-out queries
    known: Table  # false negatives that are known before judging, as in the demo
    rejects: Table


@dataclass(frozen=True)
class Vectors:
    """The embeddings of the queries and of the passages."""

    queries: Table
    passages: Table


@dataclass(frozen=True)
class Pool:
    """The candidates of every query, and those among them that were picked as its negatives."""

    candidates: Table
    negatives: Table
    rejects: Table


@dataclass(frozen=True)
class Verdicts:
    """The judges' verdicts on the candidates.

    decisions: one verdict per candidate; labels of people replace the judges' decisions where there are any.
    people: how far people and judges agree; None if nobody has labelled a candidate.
    """

    candidates: Table
    similarity: Table
    llm_verdicts: Table
    calls: Table
    decisions: Table
    agreement: Table
    people: Table | None = None


@dataclass(frozen=True)
class Sampled:
    """The pairs drawn for people, and the sheet they fill in."""

    samples: Table
    sheet: Directory


@dataclass(frozen=True)
class Treated:
    """The training instances of one treatment."""

    instances: Table
    edits: Table
    rejects: Table


@dataclass(frozen=True)
class Changes:
    """What the report lists: the labels that relabelling changed, and every row that a stage left out."""

    edits: Table
    rejects: Table


@dataclass(frozen=True)
class Finished:
    """The tables of a curation's finished stages, read from their manifests."""

    runs: Mapping[str, StageRun]

    def table(self, name: str, *stages: str) -> Table:
        """Return one output of several stages (named with their labels) as one table.

        Raises:
            ConfigError: a stage is not finished.
        """
        absent = [stage for stage in stages if stage not in self.runs]
        if absent:
            raise ConfigError(f"the curation has not finished {', '.join(absent)}; run it to its end first")
        pieces = (p for stage in stages for m in self.runs[stage].manifests for p in m.tables[name])
        return Table(name, tuple(sorted(pieces, key=lambda piece: piece.index)))

    @property
    def mined_by(self) -> list[str]:
        """The stages that made the candidates: `adopt`, `mine`, or both."""
        return [stage for stage in ("adopt", "mine") if stage in self.runs]


def union(name: str, *tables: Table) -> Table:
    """Join tables of one schema. A part that is missing in one of them is missing in the result."""
    pieces = sorted((p for table in tables for p in table.pieces), key=lambda piece: piece.index)
    return Table(name, tuple(pieces), frozenset[int]().union(*(table.missing for table in tables)))


def empty_table(run: Runner, name: str, schema: schemas.Schema, parts: frozenset[int] = _FIRST) -> Table:
    """Store an empty table with one piece per part."""
    return run.keep_table(name, schema.empty(), schema, parts)


def wait_for(gate: Table, table: Table) -> Table:
    """Return a table that is missing while the gate is: every stage that reads it is then blocked."""
    return Table(table.name, table.pieces, table.indexes) if gate.missing else table
