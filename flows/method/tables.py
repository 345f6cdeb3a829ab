"""The tables that the stages of the method hand on, one type per step, so that a misspelt table is a type error."""

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
    known: Table  # false negatives that are known beforehand, as in the demo
    rejects: Table


@dataclass(frozen=True)
class Vectors:
    """The embeddings of the queries and of the passages."""

    queries: Table
    passages: Table


@dataclass(frozen=True)
class Pool:
    """The candidates of every query, and the pick among them that becomes its negatives."""

    candidates: Table
    negatives: Table
    rejects: Table


@dataclass(frozen=True)
class Verdicts:
    """What the judges say of the candidates that are judged.

    decisions: one verdict for each candidate, after people's labels where there are any.
    people: how people and judges agree; None where nobody has labelled a candidate.
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
    """What the report lists: the labels that relabelling changed, and every row left out on the way."""

    edits: Table
    rejects: Table


@dataclass(frozen=True)
class Finished:
    """The tables of a curation, from the manifests of its stages."""

    runs: Mapping[str, StageRun]

    def table(self, name: str, *stages: str) -> Table:
        """Join the pieces that stages (with their labels) made of a table.

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
    """Join the pieces of several tables of one schema; what one of them misses, the union misses."""
    pieces = sorted((p for table in tables for p in table.pieces), key=lambda piece: piece.index)
    return Table(name, tuple(pieces), frozenset[int]().union(*(table.missing for table in tables)))


def empty_table(run: Runner, name: str, schema: schemas.Schema, parts: frozenset[int] = _FIRST) -> Table:
    """Keep an empty table in the store, with a piece for each part."""
    return run.keep_table(name, schema.empty(), schema, parts)


def behind(gate: Table, table: Table) -> Table:
    """Make a table wait for a gate: while the gate is not finished, everything that reads the table is blocked."""
    return Table(table.name, table.pieces, table.indexes) if gate.missing else table
