"""The server's process: an automation is changed while a task of the same event loop holds the lock of automations."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.server.events.models import automations

from infra.prefect_api import server_process

CHANGE = """
import asyncio
from prefect.server.database import provide_database_interface
from prefect.server.events import triggers
from prefect.server.events.models.automations import create_automation
from prefect.server.events.schemas.automations import Automation, EventTrigger, Posture
from prefect.server.events.actions import DoNothing

async def reconcile(held, changed):  # as Prefect's loop does every five seconds, only longer
    async with triggers._automations_lock():
        held.set()
        await changed.wait()

async def main():
    interface = provide_database_interface()
    await interface.create_db()
    held, changed = asyncio.Event(), asyncio.Event()
    other = asyncio.create_task(reconcile(held, changed))
    await held.wait()
    trigger = EventTrigger(expect={"a.b"}, posture=Posture.Reactive, threshold=1)
    async with interface.session_context(begin_transaction=True) as session:
        made = await create_automation(
            session=session, automation=Automation(name="one", trigger=trigger, actions=[DoNothing()])
        )
    changed.set()
    await other
    for _ in range(100):
        if made.id in triggers.automations_by_id:
            print("known")
            return
        await asyncio.sleep(0.1)

asyncio.run(main())
"""


def run(code: str, home: Path, seconds: float) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect.db",
        "PREFECT_LOGGING_LEVEL": "ERROR",
    }
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, timeout=seconds, check=True, capture_output=True, text=True
    ).stdout


def test_a_changed_automation_is_read_without_blocking_the_event_loop(tmp_path: Path) -> None:
    mended = f"from infra.prefect_api.server_process import mend\nmend()\n{CHANGE}"
    assert run(mended, tmp_path, 120).split() == ["known"]


def test_prefect_still_needs_this(tmp_path: Path) -> None:
    """Where this fails, Prefect has mended its server: delete `server_process` and start `prefect server` itself."""
    with pytest.raises(subprocess.TimeoutExpired):
        run(CHANGE, tmp_path, 20)


def test_a_coroutine_becomes_a_task_where_a_loop_runs_and_else_runs_to_its_end() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        done.append(True)
        return 7

    async def within() -> None:
        assert server_process.without_waiting(answer()) is None
        assert not done
        await asyncio.gather(*server_process._RUNNING)

    done: list[bool] = []
    asyncio.run(within())
    assert done == [True]
    assert not server_process._RUNNING
    assert server_process.without_waiting(answer()) == 7


def test_the_server_is_mended_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    names = vars(automations)
    monkeypatch.setitem(names, "run_coro_as_sync", names["run_coro_as_sync"])  # put back afterwards
    monkeypatch.setattr("prefect.cli.app", lambda: found.append(names["run_coro_as_sync"]))
    server_process.main()
    assert found == [server_process.without_waiting]


def test_it_takes_the_arguments_of_prefect(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.prefect_api.server_process", "version"]
    told = subprocess.run(command, env={**os.environ, "PREFECT_HOME": str(tmp_path)}, capture_output=True, text=True,
                          check=True, timeout=120)  # fmt: skip
    assert told.stdout.startswith("Version:")
