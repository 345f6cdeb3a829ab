"""Flow runs outlive the worker that reads their output."""

import os
import sys

from rich.console import Console


def ignore_broken_pipes() -> None:
    """Go on in silence when nobody reads this process's output any more; by default rich ends the process then.

    Prefect's log goes through rich to a pipe that the worker reads. A worker that died would take its flow runs along
    with their next line of log. What goes to Prefect's API is not touched.
    """
    Console.on_broken_pipe = _fall_silent  # type: ignore[method-assign, assignment]


def _fall_silent(console: Console) -> None:
    console.quiet = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
