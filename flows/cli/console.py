"""What every command shares: the two consoles, and the options that many take."""

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

_WIDTH = None if sys.stdout.isatty() else 140  # a pipe has no width; tables in it are not cut short
OUT = Console(highlight=False, width=_WIDTH)
ERR = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line of standard output.")]
CurationArgument = Annotated[str, typer.Argument(help="A curation's id, as `reneg list` shows it.")]


class Treatment(StrEnum):
    """What can be made of the negatives: `tasks.schemas.Treatment`, which takes long to import, as a choice."""

    default = "default"
    remove = "remove"
    remove_hn = "remove_hn"
    relabel = "relabel"


def print_json(value: object) -> None:
    """Print the line a script reads."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_line(out: Console, text: str) -> None:
    """Print a line as it is: no markup is read in it, and a pipe gets it unbroken."""
    out.print(text, markup=False, soft_wrap=True)
