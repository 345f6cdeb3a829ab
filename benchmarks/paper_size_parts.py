"""Read from a store what the parts of a curation read and made, by a walk over its manifests that computes nothing."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flows.curation.lookup import Job, look
from flows.curation.prepare import prepare
from flows.curation.records import curation_names, load_curation
from flows.curation.workspace import Workspace
from flows.method.curate import curate_method
from flows.method.setup import Outcome, Setup
from infra.names import object_name
from infra.settings import read_settings
from infra.stages.part_spec import PartSpec
from infra.stages.runner import Runner
from infra.stages.stage import Stage
from infra.storage.artifacts import Directory, Manifest, Piece, Table


@dataclass(frozen=True)
class Part:
    """A finished part.

    stage: with its label. arity: of the stage. index: the one that its output carries. path: of its manifest.
    inputs: bytes of each piece that it was given, by content. made: rows of each piece that it wrote, by content.
    pieces: those that it was given, and `tables` those that it made, by the table's name.
    encoded: texts that its encoder was given, so not those that were remembered.
    """

    stage: str
    arity: str
    number: int
    index: int
    key: str
    path: str = ""
    inputs: Mapping[str, int] = field(default_factory=dict)
    made: Mapping[str, int] = field(default_factory=dict)
    pieces: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)
    tables: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)
    rows: int = 0
    read_bytes: int = 0
    seconds: float = 0.0
    peak_gib: float = 0.0
    encoded: int = 0


@dataclass
class _Watching(Runner):
    """A runner that tells of each finished part with what it was given."""

    tell: Callable[[Stage, str, PartSpec, Manifest], None] = lambda stage, name, spec, manifest: None

    def _find_finished(
        self, stage: Stage, name: str, specs: list[PartSpec]
    ) -> tuple[list[PartSpec], Mapping[int, Manifest]]:
        placed, finished = super()._find_finished(stage, name, specs)
        for spec in placed:
            if spec.number in finished:
                self.tell(stage, name, spec, finished[spec.number])
        return placed, finished


def parts_of(folder: Path, name: str) -> list[Part]:
    """Return the finished parts of the newest curation of a name, in the home and store below a folder.

    Parts of equal keys share what is in the store, and are listed once for each.
    """
    settings = replace(read_settings(), home=folder / "home", store=str(folder / "store"), cache=folder / "cache")
    workspace = Workspace.open(settings)
    store = workspace.store
    setup = prepare(workspace, load_curation(store, curation_names(store, name)[-1]))
    sizes = {object_name(path): size for path, size in store.sizes("objects").items()}
    found: list[Part] = []

    def tell(stage: Stage, label: str, spec: PartSpec, manifest: Manifest) -> None:
        found.append(_part(stage, label, spec, manifest, sizes))

    def method(runner: Runner, setup: Setup) -> Outcome:
        watching = _Watching(runner.store, found=runner.found, tell=tell)
        try:
            return curate_method(watching, setup)
        finally:
            runner.runs += watching.runs

    look(store, setup, Job(method=method))
    return found


def _part(stage: Stage, label: str, spec: PartSpec, manifest: Manifest, sizes: Mapping[str, int]) -> Part:
    inputs: dict[str, int] = {}
    pieces: dict[str, tuple[Piece, ...]] = {}
    for name, artifact in spec.inputs.items():
        if isinstance(artifact, Table):
            pieces[name] = artifact.pieces
            inputs |= {piece.content: _size(piece, sizes) for piece in artifact.pieces}
        elif isinstance(artifact, Directory):
            inputs |= {key: sizes.get(object_name(key), 0) for key in artifact.files.values()}
    stats = manifest.stats
    return Part(
        stage=label,
        arity=stage.arity,
        number=spec.number,
        index=spec.index,
        key=manifest.key,
        path=manifest.path,
        inputs=inputs,
        made={piece.content: piece.rows for pieces in manifest.tables.values() for piece in pieces},
        pieces=pieces,
        tables=manifest.tables,
        rows=int(stats["rows_in"]) + int(stats["rows_out"]),
        read_bytes=int(stats.get("read_bytes", 0)),
        seconds=float(stats["seconds"]),
        peak_gib=float(stats.get("peak_gib", 0.0)),
        encoded=int(stats.get("facts", {}).get("encoded", 0)),
    )


def _size(piece: Piece, sizes: Mapping[str, int]) -> int:
    return sizes.get(object_name(piece.object), 0) if piece.length is None else piece.length


def read_over_input(parts: Iterable[Part]) -> dict[str, float]:
    """Return by stage how many bytes its parts read, over the distinct bytes of what they were given."""
    read: dict[str, int] = defaultdict(int)
    inputs: dict[str, dict[str, int]] = defaultdict(dict)
    for part in _distinct(parts):
        read[part.stage] += part.read_bytes
        inputs[part.stage] |= part.inputs
    whole = {stage: sum(sizes.values()) for stage, sizes in inputs.items()}
    return {stage: round(read[stage] / whole[stage], 3) for stage in sorted(read) if whole[stage]}


def seconds_by_stage(parts: Iterable[Part]) -> dict[str, float]:
    """Return the working seconds of each stage's parts, the longest first."""
    spent: dict[str, float] = defaultdict(float)
    for part in _distinct(parts):
        spent[part.stage] += part.seconds
    return {stage: round(seconds, 1) for stage, seconds in sorted(spent.items(), key=lambda item: -item[1])}


def growth_shares(before: Sequence[Part], after: Sequence[Part]) -> dict[str, float]:
    """Return what growth computed, as shares of the curation before it.

    - `redone_share`: rows of pieces that were not in the store before, over the rows of all pieces.
    - `computed_share`: rows that the new parts read and wrote, over those of all parts. It counts also what only passes
      through: ingest reads the whole source again, and the files of the judges are cut again.
    - `parts_share`: parts with new keys, over all parts.
    - `encoded_share`: texts that the encoder was given, over all texts.
    """
    keys, made = {part.key for part in before}, {name for part in before for name in part.made}
    new = [part for part in _distinct(after) if part.key not in keys]
    old = _distinct(before)
    fresh = {name: rows for part in new for name, rows in part.made.items() if name not in made}
    known = {name: rows for part in old for name, rows in part.made.items()}
    return {
        "redone_share": _share(sum(fresh.values()), sum(known.values())),
        "computed_share": _share(sum(part.rows for part in new), sum(part.rows for part in old)),
        "parts_share": _share(len(new), len(old)),
        "encoded_share": _share(sum(part.encoded for part in new), sum(part.encoded for part in old)),
    }


def new_by_stage(before: Sequence[Part], after: Sequence[Part]) -> dict[str, list[int]]:
    """Return by stage how many parts have new keys, and how many there are."""
    keys, counts = {part.key for part in before}, dict[str, list[int]]()
    for part in _distinct(after):
        count = counts.setdefault(part.stage, [0, 0])
        count[0] += part.key not in keys
        count[1] += 1
    return {stage: count for stage, count in counts.items() if count[0]}


def below(part: Part, parts: Iterable[Part]) -> list[Part]:
    """Return the parts of the same index that read what a part made, directly or not; gathers are not followed."""
    made, found = set(part.made), list[Part]()
    for one in parts:  # in the order of the method
        if one.arity == "map" and one.index == part.index and one.key != part.key and made & set(one.inputs):
            found.append(one)
            made |= set(one.made)
    return found


def _distinct(parts: Iterable[Part]) -> list[Part]:
    return list({(part.stage, part.key): part for part in parts}.values())


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0
