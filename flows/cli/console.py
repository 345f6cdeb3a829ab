"""What the commands share: the two consoles, and common options."""

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

_WIDTH = None if sys.stdout.isatty() else 140  # a pipe has no width; tables in it must not be cut
OUT = Console(highlight=False, width=_WIDTH)
ERR = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line of standard output.")]
CurationArgument = Annotated[str, typer.Argument(help="A curation's id, as `reneg list` shows it.")]


class Treatment(StrEnum):
    """The treatments as a choice on the command line: `tasks.schemas.Treatment` takes too long to import here."""

    default = "default"
    remove = "remove"
    remove_hn = "remove_hn"
    relabel = "relabel"


def print_json(value: object) -> None:
    """Print a value as one line of JSON, for scripts."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_line(out: Console, text: str) -> None:
    """Print a line as it is: without reading markup in it, and without breaking it."""
    out.print(text, markup=False, soft_wrap=True)
