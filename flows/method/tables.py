"""The tables that one step of the method passes to the next, one type per step: a misspelt name is a type error."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

import polars as pl

from flows import stages as st
from flows.config.section import ConfigError
from flows.guards.guarding import Duplicates
from flows.stage_names import is_check, is_of_gold, is_of_held_out
from infra.names import StageName
from infra.stages.runner import Runner, StageRun
from infra.stages.stage import Stage
from infra.storage.artifacts import Directory, Files, Manifest, Table
from tasks import schemas
from tasks.data.ingest_config import IngestConfig
from tasks.data.pieces.read import PIECE
from tasks.data.reading.source import files_of_rows

_FIRST = frozenset({0})
# Bytes. Smaller files are read by ingest itself, as a part costs about a second; and larger ones, which it reads as a
# stream, as their rows would not fit into the memory of a part. A source with less in such files is read by one part.
# Files of JSON lines are cut into ranges. Ingest reads parquet and Arrow by column, which is not much slower than to
# read what a part read of them.
LEAST_FILE, MOST_FILE, LEAST_APART, RANGE_BYTES = 2**22, 2**29, 2**25, 2**26
_LINES, _BY_COLUMN = (".jsonl", ".ndjson"), (".parquet", ".arrow")


@dataclass(frozen=True)
class Generations:
    """How many parts each generation of the queries, and of the passages, has, in order; part numbers run on.

    The texts of the first ingest are generation 0. What a later one adds is a generation of its own, so the parts of
    the older ones keep their content and their keys.

    >>> Generations(queries=(3, 1)).query_parts
    (range(0, 3), range(3, 4))
    """

    queries: tuple[int, ...] = (1,)
    passages: tuple[int, ...] = (1,)

    @property
    def query_parts(self) -> tuple[range, ...]:
        """The numbers of the query parts of each generation."""
        return _run_on(self.queries)

    @property
    def passage_parts(self) -> tuple[range, ...]:
        """The numbers of the passage parts of each generation."""
        return _run_on(self.passages)

    @classmethod
    def of(cls, facts: Mapping[str, Any], queries: Table, passages: Table) -> "Generations":
        """Read the generations from the facts of an ingest; one that says nothing of them has one of each."""
        counts = {"queries": facts.get("query_generations"), "passages": facts.get("passage_generations")}
        whole = {"queries": len(queries.indexes), "passages": len(passages.indexes)}
        return cls(**{name: tuple(found or (whole[name],)) for name, found in counts.items()})


def group_parts(table: Table, generations: Sequence[range], rows: int) -> tuple[range, ...]:
    """Cut each generation's parts into groups that hold at most about so many rows, all with as many parts.

    A part of the search reads a group of queries and a group of passages. What a source grows by is a generation of its
    own, so no group changes.

    >>> from infra.storage.artifacts import Piece
    >>> table = Table("queries", tuple(Piece(index, "", 1_000) for index in range(5)))
    >>> group_parts(table, (range(0, 4), range(4, 5)), 2_000)
    (range(0, 2), range(2, 4), range(4, 5))
    """
    found: list[range] = []
    for parts in (parts for parts in generations if len(parts)):
        held = sum(piece.rows for piece in table.pieces if piece.index in parts)
        size = math.ceil(len(parts) / max(math.ceil(held / rows), 1))
        found += [parts[start : start + size] for start in range(0, len(parts), size)]
    return tuple(found)


@dataclass(frozen=True)
class Places:
    """Where an ingest put its texts. A later one leaves them there, and cuts other texts into parts of their own."""

    query_places: Table
    passage_places: Table
    generations: Table

    @property
    def inputs(self) -> dict[str, Table]:
        """The inputs of the later ingest, by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def _run_on(counts: tuple[int, ...]) -> tuple[range, ...]:
    ends = tuple(accumulate(counts))
    return tuple(range(end - count, end) for end, count in zip(ends, counts, strict=True))


@dataclass(frozen=True)
class Ingested:
    """The source as `ingest` reads it."""

    queries: Table
    positives: Table
    given: Table  # negatives that rows brought with them
    irrelevant: Table  # what people called irrelevant to training queries
    teacher: Table  # scores that the source's rows carry
    extras: Table  # further fields of the source's rows: prompt, type
    passages: Table
    qrels: Table  # of the held-out queries
    known: Table  # false negatives that are known before judging, as in the demo
    copies: Table  # the ids of merged queries and passages, with those that stand for them
    rejects: Table
    generations: Generations = Generations()  # which parts of queries and passages belong together


@dataclass(frozen=True)
class Vectors:
    """The embeddings of the queries and of the passages."""

    queries: Table
    passages: Table


@dataclass(frozen=True)
class Fetched:
    """Passages and their vectors, cut by query part: each part has those of its candidates, and of their positives."""

    texts: Table
    vectors: Table


@dataclass(frozen=True)
class Pool:
    """The candidates of every query: those picked as its negatives, and those that can replace one of them."""

    candidates: Table
    negatives: Table
    reserve: Table
    rejects: Table


@dataclass(frozen=True)
class Verdicts:
    """The judges' verdicts on the candidates.

    decisions: one verdict per candidate; labels of people replace the judges' decisions where there are any.
    features: what is known of each candidate without asking a judge. texts: by query part, the passages of the whole
    pool and of the training queries' positives, also those that no judge was asked about.
    people: how far people and judges agree; None if nobody has labelled a candidate.
    guarantee: what the last tier's guarantee reached; None where it has none.
    """

    candidates: Table
    similarity: Table
    llm_verdicts: Table
    calls: Table
    decisions: Table
    agreement: Table
    features: Table
    texts: Table
    people: Table | None = None
    guarantee: Table | None = None


@dataclass(frozen=True)
class Sampled:
    """The pairs drawn for people, and the sheet they fill in."""

    samples: Table
    sheet: Directory


@dataclass(frozen=True)
class Judged:
    """What every treatment is made of, and the counts of it.

    decisions: missing where too many pairs have no verdict. vectors: of training queries and passages. duplicates:
    near duplicates of the corpus, if the settings ask for them. guards: the figures of the guards.
    """

    data: Ingested
    pool: Pool
    verdicts: Verdicts
    sampled: Sampled
    decisions: Table
    counts: Table
    vectors: Vectors
    duplicates: Duplicates | None = None
    guards: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Checked:
    """What the checks say of the labels that came with the data.

    candidates, verdicts, decisions: the positives that were put to a judge; `unsure` is decided where it doubts one.
    queries: those that have no clear answer.
    """

    candidates: Table
    verdicts: Table
    decisions: Table
    queries: Table

    @property
    def evidence(self) -> dict[str, Table]:
        """The tables that the verdict layer shows besides those of the candidates."""
        return {f"check_{name}": getattr(self, name) for name in ("candidates", "verdicts", "decisions")}


@dataclass(frozen=True)
class Treated:
    """The training instances of one treatment.

    do_not_batch: pairs of rows that must not share a batch, if the settings ask for them. guards: figures of them.
    """

    instances: Table
    edits: Table
    rejects: Table
    do_not_batch: Table | None = None
    guards: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Completed:
    """The scores of models on the test queries by two sets of labels, on the same rankings.

    labelled: by the labels alone. completed: with what the judges call relevant besides. decisions: on the unlabelled
    pairs that they were put.
    """

    labelled: Table
    completed: Table
    decisions: Table


@dataclass(frozen=True)
class Changes:
    """What the report lists: labels that relabelling changed, rows that a stage left out, labels that are in doubt.

    guards: the figures of the guards. completed: the scores of models with labels that judges completed.
    """

    edits: Table
    rejects: Table
    checked: Checked | None = None
    guards: tuple[Table, ...] = ()
    completed: Completed | None = None


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
            raise ConfigError(
                f"the curation has not finished {', '.join(absent)}, or an earlier version of Reneg finished it; "
                "run it to its end first (reneg curate)"
            )
        pieces = (p for stage in stages for m in self.runs[stage].manifests for p in m.tables[name])
        return Table(name, tuple(sorted(pieces, key=lambda piece: piece.index)))

    @property
    def mined_by(self) -> list[str]:
        """The stages that made the candidates: `adopt`, `mine`, or both."""
        return [stage for stage in ("adopt", "mine") if stage in self.runs]


def read_source(
    run: Runner,
    config: IngestConfig,
    source: Directory,
    before: Places | None,
    *,
    stage: Stage | None = None,
    apart: bool = True,
) -> Ingested:
    """Run ingest; before it, of a large source, the stage whose parts read its large files, or ranges of their lines.

    An ingest that is finished stays as it was made: the files are not read for it now if they were not then. Where a
    part failed, ingest reads all files itself.

    Args:
        run: runs the stages.
        config: of ingest.
        source: the files.
        before: where an earlier ingest put its texts; None: the source is cut into parts anew.
        stage: of another version.
        apart: False: ingest reads all files itself. Its outputs and its key are the same.
    """
    stage = st.INGEST if stage is None else stage
    inputs: dict[str, Any] = {"source": source, **({} if before is None else before.inputs)}
    stage = replace(stage, every=tuple(inputs))
    apart = apart and not source.incomplete and _is_read_apart(run.find(stage, config, **inputs))
    if apart and (cut := _cut_files(run, config, source)):
        read = run(st.READ_SOURCE, config.reading, **_parts_of(run, source, cut))
        if any(table.incomplete for table in read.values()):
            why = "".join(f" ({reason})" for reason in list(run.runs[-1].failed.values())[:1])
            run.on_note(f"read_source: some of its parts are not finished{why}; ingest reads all files itself")
            run.runs[-1] = replace(run.runs[-1], failed={})  # nothing that the curation makes is lacking
        else:
            stage, inputs = replace(stage, late=tuple(read), streams=("read",)), {**inputs, **read}
    made = run(stage, config, **inputs)
    facts: Mapping[str, Any] = next((manifest.stats.get("facts", {}) for manifest in run.runs[-1].manifests), {})
    generations = Generations.of(facts, made["queries"], made["passages"])
    tables = {name: table for name, table in made.items() if name not in {each.name for each in fields(Places)}}
    return Ingested(**tables, generations=generations)


def _cut_files(run: Runner, config: IngestConfig, source: Directory) -> dict[str, int]:
    """Return the files that are read apart, and into how many ranges each is cut; none of a small one or a corpus."""
    names = files_of_rows(source.files, config.format, config.train_split)

    def large() -> dict[str, int]:
        found = {name: run.store.find(source.files[name]) for name in names}
        sizes = {name: 0 if place is None else place[1] for name, place in found.items()}
        lines = {name for name in names if name.endswith(_LINES)}
        fit = (name for name in names if name in lines or (sizes[name] <= MOST_FILE and not name.endswith(_BY_COLUMN)))
        chosen = [name for name in fit if sizes[name] >= LEAST_FILE]
        if sum(sizes[name] for name in chosen) < LEAST_APART:
            return {}
        return {name: math.ceil(sizes[name] / RANGE_BYTES) if name in lines else 1 for name in chosen}

    return run.found.note(f"files apart {config.format} {config.train_split}", [source], large)


def _parts_of(run: Runner, source: Directory, cut: Mapping[str, int]) -> dict[str, Any]:
    """Return the inputs of the parts that read files: for each part its file, and which range of it."""
    ranges = [(name, number, count) for name, count in cut.items() for number in range(count)]
    kept = {
        which: run.keep_table("piece", pl.DataFrame([which], schema=PIECE.columns, orient="row"), PIECE).pieces[0]
        for which in sorted({(number, count) for _, number, count in ranges})
    }
    pieces = (replace(kept[number, count], index=part) for part, (_, number, count) in enumerate(ranges))
    files = tuple((name, source.files[name]) for name, *_ in ranges)
    return {"file": Files("source", files), "piece": Table("piece", tuple(pieces))}


def _is_read_apart(finished: Manifest | None) -> bool:
    """Whether files are read apart for an ingest: for one that is to come, or where they were."""
    return finished is None or "files_read_apart" in finished.stats.get("facts", {})


def union(name: str, *tables: Table) -> Table:
    """Join tables of one schema. A part that is missing in one of them is missing in the result."""
    pieces = sorted((p for table in tables for p in table.pieces), key=lambda piece: piece.index)
    missing = frozenset[int]().union(*(table.missing for table in tables))
    schema = next((table.schema for table in tables if table.schema is not None), None)
    return Table(name, tuple(pieces), missing, any(table.partial for table in tables), schema)


def only_parts(table: Table, parts: frozenset[int]) -> Table:
    """Return the pieces of some parts."""
    pieces = tuple(piece for piece in table.pieces if piece.index in parts)
    return replace(table, pieces=pieces, missing=table.missing & parts)


def only_asked(wanted: Table, table: Table) -> Table:
    """Return the parts that are asked for something; where that is not known, all, as they have to wait."""
    return table if wanted.partial else only_parts(table, wanted.indexes)


def gather(run: Runner, name: str, stage: str, schema: schemas.Schema, parts: frozenset[int]) -> Table:
    """Join one output of a stage over all its labels, as the run has made it so far; that on the candidates only.

    Each of the parts has a piece, which may be empty.
    """
    named = (done for done in run.runs if StageName.parse(done.name).stage == stage)
    others = (is_of_gold, is_check, is_of_held_out)
    made = (done for done in named if not any(is_other(done.name) for is_other in others))
    pieces = (piece for done in made for manifest in done.manifests for piece in manifest.tables[name])
    # Parts that were asked about nothing share a manifest, whose piece has the number of one of them.
    with_rows = tuple(piece for piece in pieces if piece.rows)
    return union(name, empty_table(run, name, schema, parts), Table(name, with_rows))


def empty_table(run: Runner, name: str, schema: schemas.Schema, parts: frozenset[int] = _FIRST) -> Table:
    """Store an empty table with one piece per part."""
    return run.keep_table(name, schema.empty(), schema, parts)


def wait_for(gate: Table, table: Table) -> Table:
    """Return a table that is missing while the gate is: every stage that reads it is then blocked."""
    return replace(table, missing=table.indexes) if gate.incomplete else table
