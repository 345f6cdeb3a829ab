"""A stage is data plus a function: what it reads, what it writes, how it is cut into parts, what it needs to run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from infra.storage.table_schema import SchemaLike

Arity = Literal["map", "grid", "gather", "single"]


@dataclass(frozen=True)
class Resources:
    """What Ray must grant to one part, and how long it may work (seconds on the working clock).

    engines: how many engines of a stage stand side by side, as far as they fit.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int | None = None  # bytes
    deadline: float = 3600.0
    engines: int = 1


@dataclass(frozen=True)
class Stage:
    """One node of the DAG.

    function: `module:name` of a pure function `f(config, **tables, [engine=], [ledger=], [out=])` that returns a dict
        of output name to frame (for the tables named in `splits`, to an iterable of frames, one per part), and
        optionally `facts`: figures about the work, for the manifest and for people.
    version: raised by hand whenever the function's output for the same input changes.
    each: inputs of which the part sees only the pieces with its own index.
    across: for a `grid`, the inputs that are crossed with `each`: one part per pair of indexes.
    every: inputs that every part sees whole.
    late: inputs the part reads but whose content the key covers through hashes in another input.
    late_each: inputs of which the part reads only the pieces with its own index, and whose content the key covers
        through hashes in another input.
    outputs: table name to schema. directories: names of outputs that are folders of files, written below `out`.
    splits: outputs the function returns as several frames: these make the parts of later stages. They may come from a
        generator: each frame is written and dropped before the next one is asked for, output after output in the order
        of `outputs`.
    scatters: outputs the function returns as an iterable of (index, frame): rows for the part of a later stage that
        has this index. All frames of a part go into one object, a bundle (`infra.storage.tables`). The later part reads
        the frames of all makers, in the order of the makers. If one maker failed, every later part waits.
    numbered: inputs that the function sees with a further column `part` (Int32): the index of the piece that a row
        came from. A gather can so return `splits` that are aligned with its input.
    streams: inputs that the function gets as an iterable of frames, one for each piece, which are read one by one, each
        time that it iterates: what it reads may be larger than what it may hold. It can ask for a part by its index,
        too (`infra.storage.tables.Stream`).
    columns: by input, the columns that the function reads; the others are not put into memory. Without an entry it gets
        all. The key covers the whole input.
    ledger: the function takes `ledger=`, what is remembered row by row; it is asked first, so a part whose every row is
        remembered needs no engine.
    vectors: the function takes `vectors=`, the embeddings that are remembered by text hash; a part whose every text is
        remembered needs no engine.
    trains: the function takes `checkpoints=`, where it keeps its state until the part is finished, and `workers=`, by
        which `workers` processes of its settings train together.
    libraries: the packages that decide the numbers of a stage without an engine; with none, those of tables.
    retries: further attempts of a failed part.
    """

    name: str
    function: str
    version: int
    arity: Arity
    each: tuple[str, ...] = ()
    across: tuple[str, ...] = ()
    every: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    late_each: tuple[str, ...] = ()
    outputs: Mapping[str, SchemaLike] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    scatters: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    engine: Literal["encoder", "judge"] | None = None
    ledger: bool = False
    vectors: bool = False
    trains: bool = False
    libraries: tuple[str, ...] = ()
    resources: Resources = Resources()
    retries: int = 2

    @property
    def inputs(self) -> tuple[str, ...]:
        """All input names, in the order in which the function's keywords are filled."""
        return (*self.each, *self.across, *self.every, *self.late, *self.late_each)
