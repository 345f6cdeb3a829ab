"""Runs `prefect` with one fault of its server mended: `python -m infra.prefect_api.server_process server start`.

On SQLite the server keeps its automations in memory and reads a changed one again after the commit. Up to Prefect 3.7
the thread of the event loop waits for that, while a task of the same loop may hold the lock that the reading needs: the
server then answers nobody any more (github.com/PrefectHQ/prefect/issues/23055; mended in 3.8, which asks for a newer
fastapi than our engines allow). Here the reading becomes a task of the loop, as it does in 3.8.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from prefect.server.events.models import automations
from prefect.utilities.asyncutils import run_coro_as_sync

_RUNNING: set[asyncio.Task[Any]] = set()  # a loop holds its tasks by weak references only


def without_waiting(coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - as Prefect's function
    """Run a coroutine as a task of this thread's event loop; where none runs, to its end."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return run_coro_as_sync(coroutine)
    task = loop.create_task(coroutine)
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)
    return None


def mend() -> None:
    """Let changed automations be read without blocking the event loop, in this process."""
    automations.__dict__["run_coro_as_sync"] = without_waiting  # a name that the module imported


def main() -> None:
    """Run `prefect` with the arguments of the command line."""
    from prefect.cli import app

    mend()
    app()


if __name__ == "__main__":
    main()
