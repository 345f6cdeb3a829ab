"""Shows progress while a curation runs: bars on a terminal, lines on a pipe, and the judges' usage."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flows.cli.console import print_line
from flows.curation.workspace import Hooks
from infra.redact import redact


@contextmanager
def progress(err: Console) -> Iterator[Hooks]:
    """Yield hooks that show a bar per stage with work, or on a pipe a line per stage."""
    if not err.is_terminal:
        used: dict[str, str] = {}

        def on_usage_line(totals: Mapping[str, Mapping[str, float]], currency: str) -> None:
            text = usage_line(totals, currency)
            if text and used.get("last") != text:
                used["last"] = text
                print_line(err, text)

        yield Hooks(
            on_message=lambda text: print_line(err, redact(text)),
            on_stage=lambda run: print_line(err, run.line()),
            on_usage=on_usage_line,
        )
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bars:
        known: dict[str, Any] = {}

        def on_part(stage: str, done: int, total: int) -> None:
            if stage not in known:
                known[stage] = bars.add_task(stage, total=total)
            bars.update(known[stage], completed=done)

        def on_usage(totals: Mapping[str, Mapping[str, float]], currency: str) -> None:
            text = usage_line(totals, currency)
            if text and "" not in known:
                known[""] = bars.add_task(text, total=None)
            if text:
                bars.update(known[""], description=text)

        yield Hooks(on_message=lambda text: print_line(bars.console, redact(text)), on_part=on_part, on_usage=on_usage)


def usage_line(totals: Mapping[str, Mapping[str, float]], currency: str) -> str:
    """Return a line about what the judges have used so far; empty if they have used nothing.

    >>> usage_line({"judge-llm": {"calls": 2, "prompt_tokens": 900, "cached_tokens": 0, "output_tokens": 100,
    ...     "seconds": 4.0, "money": 0.5, "priced": 1.0}}, "USD")
    'used: 2 calls, 1,000 tokens (250/s of engine time), 0.5 USD'
    """
    judges = [total for stage, total in totals.items() if total["calls"]]
    calls, seconds, money = (sum(total[name] for total in judges) for name in ("calls", "seconds", "money"))
    if not calls:
        return ""
    tokens = sum(total["prompt_tokens"] + total["output_tokens"] for total in judges)
    rate = f" ({tokens / seconds:,.0f}/s of engine time)" if seconds else ""
    unpriced = " plus calls without a price" if not all(total["priced"] for total in judges) else ""
    cost = f", {money:,.4g} {currency}{unpriced}" if money else ""
    return f"used: {calls:,.0f} calls, {tokens:,.0f} tokens{rate}{cost}"
