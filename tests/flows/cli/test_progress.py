"""Progress on the terminal and on a pipe, and what the judges have used."""

import io
from typing import Any

from rich.console import Console

from flows.cli.progress import progress, usage_line
from infra.stages.runner import StageRun

USED = {"calls": 2.0, "prompt_tokens": 900, "output_tokens": 100, "seconds": 4.0, "money": 0.5, "priced": 1.0}
STAGE = StageRun("mine", 3, 1, 2, {}, 0, frozenset(), 40, 1.5)


def told(*, terminal: bool) -> str:
    file = io.StringIO()
    with progress(Console(file=file, force_terminal=terminal, width=100, color_system=None)) as hooks:
        hooks.on_message("starting Ray")
        hooks.on_part("mine", 1, 3)
        hooks.on_part("mine", 3, 3)
        hooks.on_stage(STAGE)
        for _ in range(2):
            hooks.on_usage({"judge-llm": USED}, "USD")
        hooks.on_usage({}, "USD")
    return file.getvalue()


def test_a_pipe_gets_one_line_per_stage_and_each_usage_once() -> None:
    assert told(terminal=False).splitlines() == ["starting Ray", STAGE.line(), usage_line({"judge-llm": USED}, "USD")]


def test_a_terminal_gets_a_bar_per_stage_and_the_usage_below() -> None:
    printed = told(terminal=True)
    assert "starting Ray" in printed
    assert "3/3" in printed
    assert "used: 2 calls" in printed
    assert STAGE.line() not in printed


def test_nothing_used_is_an_empty_line() -> None:
    assert usage_line({}, "USD") == ""
    assert usage_line({"judge-llm": {**USED, "calls": 0.0}}, "USD") == ""


def test_the_judges_are_added_up_and_one_without_a_price_is_told() -> None:
    free: dict[str, Any] = {**USED, "money": 0.0, "priced": 0.0}
    line = usage_line({"judge-a": USED, "judge-b": {**USED, "calls": 1000}, "judge-c": free}, "EUR")
    assert line == "used: 1,004 calls, 3,000 tokens (250/s of engine time), 1 EUR plus calls without a price"
    assert usage_line({"judge-c": free}, "EUR") == "used: 2 calls, 1,000 tokens (250/s of engine time)"
    untimed = {**USED, "seconds": 0.0}
    assert usage_line({"judge-a": untimed}, "USD") == "used: 2 calls, 1,000 tokens, 0.5 USD"
