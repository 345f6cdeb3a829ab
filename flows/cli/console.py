"""What the commands share: the two consoles, and common options."""

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from flows.config.curation import CurationConfig

# What a terminal would obey or show in another order: control characters, and those that turn the direction of a text.
_OBEYED = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"} | {
    code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


class _Plain(Console):
    """A console that shows control characters instead of obeying them: names and messages come from other people."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a string, which may be a cell of a table, into what is shown."""
        return super().render_str(text.translate(_OBEYED), **options)


_WIDTH = None if sys.stdout.isatty() else 140  # a pipe has no width; tables in it must not be cut
OUT: Console = _Plain(highlight=False, width=_WIDTH)
ERR: Console = _Plain(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line of standard output.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop before anything is encoded if any row, passage or file is lost.")
]
CurationArgument = Annotated[str, typer.Argument(help="A curation's id, as `reneg list` shows it.")]


class Treatment(StrEnum):
    """The treatments as a choice on the command line: `tasks.schemas.Treatment` takes too long to import here."""

    default = "default"
    remove = "remove"
    remove_hn = "remove_hn"
    relabel = "relabel"
    drop_ambiguous = "drop_ambiguous"


def print_json(value: object) -> None:
    """Print a value as one line of JSON, for scripts."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_line(out: Console, text: str) -> None:
    """Print a line as it is: without reading markup in it, and without breaking it."""
    out.print(text, markup=False, soft_wrap=True)


def strictly(config: "CurationConfig", *, strict: bool) -> "CurationConfig":
    """Return the configuration with which a run stops if ingest loses anything, or as it is without `strict`."""
    if not strict:
        return config
    return config.model_copy(update={"ingest": config.ingest.model_copy(update={"max_rejected": 0.0})})
