"""The names of stages, parts, manifests and curations, and the keys of objects in the store.

Each kind of name is a small type: its fields make the name (`str`), and `parse` reads them from a name. A number is
padded with zeros to the width of its kind, and takes more digits where it needs them.
"""

import re
from dataclasses import dataclass
from typing import Self

OBJECTS = "objects/"
CHECKPOINTS = "checkpoints/"  # of unfinished trainings
_NUMBERED = re.compile(r"(.+)-([0-9]+)", re.DOTALL)


@dataclass(frozen=True, order=True)
class StageName:
    """A stage, and the label that tells several runs of one stage apart.

    >>> str(StageName("judge", "gold-llm")), str(StageName("read_gold"))
    ('judge-gold-llm', 'read_gold')
    >>> StageName.parse("judge-gold-llm")
    StageName(stage='judge', label='gold-llm')
    """

    stage: str
    label: str = ""

    def __post_init__(self) -> None:
        """Refuse a stage whose name could not be read back."""
        if not self.stage or "-" in self.stage:
            raise ValueError(f"stage {self.stage!r}: a name without dashes expected, such as judge")

    def __str__(self) -> str:
        return f"{self.stage}-{self.label}" if self.label else self.stage

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a stage's name: the label begins after the first dash.

        Raises:
            ValueError: there is no stage before the dash, or nothing after it.
        """
        stage, dash, label = text.partition("-")
        if not stage or (dash and not label):
            raise ValueError(f"{text!r} is no name of a stage; a stage and its label expected, such as judge-gold-llm")
        return cls(stage, label)


@dataclass(frozen=True, order=True)
class PartName:
    """One part of a stage, as the pages of Prefect and Ray show it.

    >>> str(PartName(StageName("judge", "gold-llm"), 3))
    'judge-gold-llm-00003'
    >>> PartName.parse("read_gold-00000")
    PartName(stage=StageName(stage='read_gold', label=''), number=0)
    """

    stage: StageName
    number: int

    def __str__(self) -> str:
        return f"{self.stage}-{self.number:05d}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a part's name.

        Raises:
            ValueError: it does not end in a dash and five digits.
        """
        stage, number = _split(text, 5, "part", "judge-gold-llm-00003")
        return cls(StageName.parse(stage), number)


@dataclass(frozen=True, order=True)
class ManifestName:
    """The file of a part's manifest: the part's key, and the attempt; attempt 0 is the first computation.

    >>> str(ManifestName("5f3c", 1)), ManifestName.parse("5f3c-000")
    ('5f3c-001', ManifestName(key='5f3c', attempt=0))
    """

    key: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.key}-{self.attempt:03d}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the name of a manifest's file, without its folder and its ending.

        Raises:
            ValueError: it does not end in a dash and three digits.
        """
        return cls(*_split(text, 3, "manifest", "5f3c-000"))


@dataclass(frozen=True, order=True)
class NumberedId:
    """A name with a running number: the id of a curation.

    >>> str(NumberedId("my-data", 3)), NumberedId.parse("my-data-000003")
    ('my-data-000003', NumberedId(name='my-data', number=3))
    """

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}-{self.number:06d}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an id.

        Raises:
            ValueError: it does not end in a dash and six digits.
        """
        return cls(*_split(text, 6, "curation", "my-data-000003"))


def _split(text: str, width: int, kind: str, example: str) -> tuple[str, int]:
    """Split a name into what stands before its last dash and the number after it."""
    found = _NUMBERED.fullmatch(text)
    if found is None or found[2] != f"{int(found[2]):0{width}d}":
        raise ValueError(
            f"{text!r} is no name of a {kind}; a name, a dash and at least {width} digits expected, such as {example}"
        )
    return found[1], int(found[2])


def object_key(name: str) -> str:
    """Return the key of an object by its name: its SHA-256, followed by its suffix where it has one.

    >>> object_key("5f3c.parquet")
    'objects/5f/5f3c.parquet'
    """
    return f"{OBJECTS}{name[:2]}/{name}"


def object_name(key: str) -> str:
    """Return the name of an object by its key; what a part's ingredients hold of a table.

    >>> object_name("objects/5f/5f3c.parquet")
    '5f3c.parquet'
    """
    return key.rpartition("/")[2]


def digest_of(key: str) -> str:
    """Return the SHA-256 that the key of an object or of a model's record names.

    >>> digest_of("objects/5f/5f3c.parquet"), digest_of("weights/5f3c.json"), digest_of("5f3c")
    ('5f3c', '5f3c', '5f3c')
    """
    return object_name(key).partition(".")[0]
