"""What every command prints with: a line as it is, and one JSON object for scripts."""

import io
import json
import typing

import pytest
from rich.console import Console
from rich.table import Table

from flows.cli.console import ERR, OUT, Treatment, print_json, print_line
from tasks import schemas


def test_a_script_reads_one_line_whatever_stands_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"text": "Füße\nund [b]Haken[/b]", "n": 1})
    out = capsys.readouterr().out
    assert out == '{"text": "Füße\\nund [b]Haken[/b]", "n": 1}\n'
    assert json.loads(out)["n"] == 1


def test_a_line_is_printed_as_it_is_and_never_broken() -> None:
    out = io.StringIO()
    print_line(Console(file=out, width=20), "[bold]no markup[/bold] " + "x" * 40)
    assert out.getvalue() == "[bold]no markup[/bold] " + "x" * 40 + "\n"


HOSTILE = "a\x1b[2Jb\x1b]0;title\x07c\x9b31md\re\u202ef"
SHOWN = r"a\x1b[2Jb\x1b]0;title\x07c\x9b31md\x0de\u202ef"


@pytest.mark.parametrize("console", [OUT, ERR], ids=["stdout", "stderr"])
def test_no_text_of_others_gives_orders_to_the_terminal(console: Console) -> None:
    table = Table("name", title=HOSTILE)
    table.add_row(HOSTILE)
    with console.capture() as captured:
        print_line(console, f"{HOSTILE}\n\tend")
        console.print(table)
    text = captured.get()
    assert text.startswith(f"{SHOWN}\n")
    assert text.count(SHOWN) == 3
    assert not (set(HOSTILE) - set(SHOWN)) & set(text)


def test_a_pipe_gets_tables_of_a_fixed_width() -> None:
    assert OUT.width == 140


def test_the_choices_on_the_command_line_are_the_treatments_of_the_method() -> None:
    assert [choice.value for choice in Treatment] == list(typing.get_args(schemas.Treatment))
