"""What our code and the re-typed defects have in common: a row, a judge's reply, and what is made of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Said = Sequence[tuple[int, str]]  # (number of a negative, counted from 1; better, worse or none)
REASONING = "The query asks for one thing. Most give another, one gives it as well as the known text does."


@dataclass(frozen=True)
class Row:
    """One training row; passages are (title, text)."""

    query: str
    positives: Sequence[tuple[str, str]]
    negatives: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """What comes back from a model: its text may be missing."""

    text: str | None
    finish_reason: str = "stop"


@dataclass(frozen=True)
class Judged:
    """Each negative's state, in the row's order, and whether the row goes on to the second stage."""

    states: Sequence[str]
    escalated: bool


@dataclass(frozen=True)
class Edited:
    """The texts of a row after relabelling."""

    positives: Sequence[str]
    negatives: Sequence[str]


@dataclass(frozen=True)
class Shown:
    """A prompt, and what its form lets a reader take for the positives, the passages and the passages' names."""

    prompt: str
    positives: Sequence[str]
    passages: Sequence[str]
    names: Sequence[str] = field(default_factory=tuple)


class Pen(Protocol):
    """How a model writes its answer to the prompt at hand. Whatever is not named is `none`."""

    marker: str

    def write(self, said: Said, reasoning: str = REASONING) -> str:
        """The whole answer, well-formed."""
        ...

    def slovenly(self, numbers: Sequence[int]) -> Mapping[str, str]:
        """Answers that call these better and the others none, in forms that were not asked for."""
        ...

    def in_passing(self, number: int) -> Mapping[str, str]:
        """Answers that call all none, and speak of one in prose."""
        ...


Script = Callable[[Pen], Reply]


def says(*said: tuple[int, str], finish_reason: str = "stop") -> Script:
    """A model that says just that."""
    return lambda pen: Reply(pen.write(said), finish_reason)


class Pipeline(Protocol):
    """From a judge's reply to the training set, in the paper's two stages."""

    def judged(self, row: Row, script: Script) -> Judged:
        """Read the first stage's reply."""
        ...

    def relabelled(self, rows: Mapping[str, tuple[Row, Script]]) -> Sequence[tuple[str, Edited]]:
        """Make the relabelled training set: (query id, row), in any order."""
        ...


def make_row(*negatives: str, positive: str = "The known text.", query: str = "What is asked?") -> Row:
    """A row of texts without titles."""
    return Row(query, [("", positive)], [("", text) for text in negatives])


def numbered(count: int) -> Row:
    """A row with so many different negatives."""
    return make_row(*(f"Negative passage {number}." for number in range(1, count + 1)))
