"""Which earlier ingest a curation's texts keep their parts from: decided once for each curation, and recorded.

A curation of a source that an earlier curation of the same name had takes what that one took: it finds the same parts.
One of a changed source takes the newest finished ingest of its name, so that only what is new gets new parts. It also
takes the ingest that made the oldest parts: texts that were away for a night return to them. Small generations of parts
are put together from time to time: they cost more than they hold.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import polars as pl

from flows.method.losses import too_much_lost
from flows.method.tables import Places, read_source
from flows.stages import INGEST
from infra.stages.runner import Runner, StageRun, WorkNeeded
from infra.storage.artifacts import Directory, Manifest, Piece, Table, read_table, write_table
from infra.storage.numbered_records import decide_next, keep_next, numbers, parse_key, read, read_newest
from infra.storage.store import Store
from tasks import schemas
from tasks.data.ingest_config import IngestConfig

_HALF = 16  # hexadecimal digits of a hash that a table of places has
_MOST_GENERATIONS = 8  # of which all but the first are put together
_ANEW = "the source is cut into parts anew"
_VERSIONS = range(INGEST.version, 4, -1)  # of ingest that say where texts are: an upgrade keeps the parts
_LARGEST_SHARE = 0.25  # of the rows that later generations may hold before all are cut anew


@dataclass(frozen=True)
class Decision:
    """Where the texts of a curation stay.

    before: as the newest ingest and the one that made the oldest parts left it; None: the source is cut into parts
    anew. first: as the latter left it; None without `before`. because: what is worth telling people; mostly nothing.
    """

    before: Places | None = None
    first: Places | None = None
    because: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the record."""
        places = {"before": self.before, "first": self.first}
        return {name: None if each is None else _dump(each) for name, each in places.items()} | {
            "because": self.because
        }

    def with_pieces(self, instead: Mapping[Piece, Piece]) -> "Decision":
        """Return the same with some pieces replaced by others."""
        before, first = (None if each is None else _replace(each, instead) for each in (self.before, self.first))
        return Decision(before, first, self.because)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Decision":
        """Read a record."""
        before, first = (None if record[name] is None else _load(record[name]) for name in ("before", "first"))
        return cls(before, first, record["because"])


@dataclass(frozen=True)
class Reading:
    """How a curation reads its source."""

    config: IngestConfig
    source: Directory


@dataclass(frozen=True)
class Earlier:
    """The earlier curations of one name, the newest first.

    sources: the files of each one's source, by its id. load: returns how one reads it; None where that is not known.
    """

    sources: Mapping[str, Mapping[str, str]]
    load: Callable[[str], Reading | None]


def recorded(store: Store, curation: str) -> Decision | None:
    """Return what was decided for a curation; None before its first execution."""
    record = read_newest(store, _prefix(curation))
    return None if record is None else Decision.of(record)


def decide(store: Store, reading: Reading, earlier: Earlier) -> Decision:
    """Decide where the texts of a source stay; nothing is written."""
    decision = _decide(store, reading, earlier)
    return _without_lost(store, reading, decision) or decision


def _decide(store: Store, reading: Reading, earlier: Earlier) -> Decision:
    same = (id_ for id_, files in earlier.sources.items() if files == dict(reading.source.files))
    known = next((found for id_ in same if (found := recorded(store, id_)) is not None), None)
    if known is not None:
        return Decision(known.before, known.first)
    for id_ in earlier.sources:
        decision, its_own = recorded(store, id_), earlier.load(id_)
        done = None if decision is None or its_own is None else _ingested(store, its_own, decision, _VERSIONS)
        if decision is None or its_own is None or done is None:
            continue
        if not too_much_lost(store, [done], its_own.config.max_rejected):  # texts that are lost would move otherwise
            return _follow(id_, done.manifests[0], decision)
    decided = (recorded(store, id_) for id_ in earlier.sources)
    last = next((found for found in decided if found is not None and found.before is not None), None)
    if last is not None:
        return Decision(last.before, last.first)
    why = f"no earlier ingest that says where its texts are is finished; {_ANEW}"
    return Decision(because=why if earlier.sources else "")


def keep(store: Store, curation: str, reading: Reading, earlier: Callable[[], Earlier], *, anew: bool = False) -> str:
    """Record what is decided for a curation, unless it is already; safe beside other processes that do the same.

    Args:
        store: holds the record.
        curation: its id.
        reading: how it reads its source.
        earlier: returns the earlier curations of its name.
        anew: the source is to be cut into parts anew.

    Returns:
        What is worth telling people; empty for nothing.
    """
    told: list[str] = []

    def unless_known(taken: list[int]) -> dict[str, Any] | None:
        known = Decision.of(read(store, _prefix(curation), taken[-1])) if taken else None
        decision = _next(store, reading, earlier, known, anew=anew)
        told[:] = [] if decision is None else [decision.because]
        return None if decision is None else decision.as_json()

    decide_next(store, _prefix(curation), unless_known)
    return "".join(told)


def forget(store: Store, hashes: Iterable[str], *, dry_run: bool = False) -> int:
    """Leave texts (hashes of 32 hexadecimal digits) out of what records name; returns how many rows hold them.

    Records are written before what the older ones name is deleted, so a purge that was killed can be repeated.
    """
    halves = pl.Series([int(digits[:_HALF], 16) for digits in hashes], dtype=pl.UInt64)
    lines = sorted({found[0] for key in store.list("curations") if (found := parse_key(key)) and _is_ours(found[0])})
    records = {line: [Decision.of(read(store, line, number)) for number in numbers(store, line)] for line in lines}
    named = {piece for decisions in records.values() for decision in decisions for piece in _pieces(decision)}
    rows, instead = 0, dict[Piece, Piece]()
    for piece in sorted(named, key=lambda each: each.object):
        frame = _read_places(store, piece)
        kept = None if frame is None else frame.filter(~pl.col("high").is_in(halves.implode()))
        if frame is None or kept is None or kept.height == frame.height:
            continue
        rows += frame.height - kept.height
        if not dry_run:
            instead[piece] = write_table(store, "places", kept, schemas.PLACES, piece.index)
    for line, decisions in records.items():
        if instead.keys() & set(_pieces(decisions[-1])):
            keep_next(store, line, decisions[-1].with_pieces(instead).as_json())
    for piece in instead:
        store.delete(piece.object)
    return rows


def _is_ours(prefix: str) -> bool:
    return prefix.rpartition("/")[2] == "partition"


def _pieces(decision: Decision) -> list[Piece]:
    found = (decision.before, decision.first)
    return [piece for each in found if each is not None for table in each.inputs.values() for piece in table.pieces]


def _read_places(store: Store, piece: Piece) -> pl.DataFrame | None:
    """Read a table of places; None where it is another table, or gone."""
    if store.find(piece.object) is None:
        return None
    frame = read_table(store, Table("places", (piece,)))
    return frame if frame.columns == list(schemas.PLACES.columns) else None


def _next(
    store: Store, reading: Reading, earlier: Callable[[], Earlier], known: Decision | None, *, anew: bool
) -> Decision | None:
    """Return what is to be recorded next; None if what is known stays."""
    if anew:
        is_new = known is None or known.before is not None
        return Decision(because=_ANEW) if is_new else None
    return decide(store, reading, earlier()) if known is None else _without_lost(store, reading, known)


def _without_lost(store: Store, reading: Reading, decision: Decision) -> Decision | None:
    """Return what replaces a decision whose tables are gone although ingest has yet to read them; None if none is."""
    if decision.before is None or _ingested(store, reading, decision) is not None:
        return None
    pieces = (piece for table in decision.before.inputs.values() for piece in table.pieces)
    if all(store.find(piece.object) is not None for piece in pieces):
        return None
    return Decision(because=f"the store does not hold any more where the earlier texts were; {_ANEW}")


def _ingested(
    store: Store, reading: Reading, decision: Decision, versions: Sequence[int] = (INGEST.version,)
) -> StageRun | None:
    """Return the finished ingest of a curation by the newest of some versions of the stage; None if there is none."""
    for version in versions:
        look = Runner(store)
        with suppress(WorkNeeded):
            stage = replace(INGEST, version=version)
            read_source(look, reading.config, reading.source, decision.before, stage=stage, apart=False)
            return look.runs[-1]
    return None


def _follow(curation: str, done: Manifest, decision: Decision) -> Decision:
    """Decide by the newest ingest that is finished: stay with its parts, or put generations together."""
    made = Places(**{each.name: Table(each.name, done.tables[each.name]) for each in fields(Places)})
    facts, of = done.stats["facts"], {"query_generations": "queries", "passage_generations": "passages"}
    is_first = all(facts[f"{name}_new"] == facts[f"{name}_kept"] for name in of.values())
    first = made if decision.first is None or is_first else decision.first
    share = max(_share_of_later(done.tables[table], facts[name]) for name, table in of.items())
    generations = max(len(facts[name]) for name in of)
    if share > _LARGEST_SHARE:
        return Decision(because=f"{share:.0%} of the rows of {curation} came after its oldest parts; {_ANEW}")
    if generations > _MOST_GENERATIONS:
        why = f"{curation} has parts of {generations} generations; all but the oldest are put together"
        return Decision(first, first, because=why)
    return Decision(made if made == first else _with_lost(made, first), first)


def _with_lost(newest: Places, first: Places) -> Places:
    """Add the texts of the oldest parts that the newest ingest did not have: they return to where they were."""
    queries, passages = (
        Table(name, (*getattr(newest, name).pieces, *getattr(first, name).pieces))
        for name in ("query_places", "passage_places")
    )
    return Places(queries, passages, newest.generations)


def _share_of_later(pieces: Sequence[Piece], counts: Sequence[int]) -> float:
    """Return the share of a table's rows that are not of generation 0."""
    rows = sum(piece.rows for piece in pieces)
    return sum(piece.rows for piece in pieces if piece.index >= counts[0]) / rows if rows and counts else 0.0


def _prefix(curation: str) -> str:
    return f"curations/{curation}/partition"


def _dump(places: Places) -> dict[str, Any]:
    return {name: [piece.__dict__ for piece in table.pieces] for name, table in places.inputs.items()}


def _replace(places: Places, instead: Mapping[Piece, Piece]) -> Places:
    return Places(
        **{
            name: replace(table, pieces=tuple(instead.get(piece, piece) for piece in table.pieces))
            for name, table in places.inputs.items()
        }
    )


def _load(record: Mapping[str, Any]) -> Places:
    tables = {name: Table(name, tuple(Piece(**piece) for piece in pieces)) for name, pieces in record.items()}
    return Places(**tables)
