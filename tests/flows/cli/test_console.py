"""What every command prints with: a line as it is, and one JSON object for scripts."""

import io
import json
import typing

import pytest
from rich.console import Console

from flows.cli.console import OUT, Treatment, print_json, print_line
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


def test_a_pipe_gets_tables_of_a_fixed_width() -> None:
    assert OUT.width == 140


def test_the_choices_on_the_command_line_are_the_treatments_of_the_method() -> None:
    assert [choice.value for choice in Treatment] == list(typing.get_args(schemas.Treatment))
