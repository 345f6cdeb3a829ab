"""Where a command works: one store, the folders of its results, and who is told of progress."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.curation.workspace import Hooks, Workspace
from infra.settings import Settings
from infra.stages.runner import StageRun
from infra.storage.store import StoreError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home", str(tmp_path / "store"), tmp_path / "cache", None, None)


def test_the_results_of_a_curation_lie_in_a_folder_of_its_name(settings: Settings, tmp_path: Path) -> None:
    workspace = Workspace.open(settings)
    assert workspace.store.url == settings.store
    assert workspace.folder("nq-000003") == tmp_path / "home" / "curations" / "nq-000003"


def test_the_home_is_private_with_all_that_lies_in_it(settings: Settings, tmp_path: Path) -> None:
    inside = replace(settings, store=str(tmp_path / "home" / "store"))
    Workspace.open(inside)
    assert oct(settings.home.stat().st_mode)[-3:] == "700"
    settings.home.chmod(0o755)
    Workspace.open(inside, write=False)
    assert oct(settings.home.stat().st_mode)[-3:] == "700"
    away = replace(settings, home=tmp_path / "away")
    Workspace.open(away, write=False)
    assert not away.home.exists()


def test_a_home_that_cannot_be_made_is_no_fault_of_a_command_that_writes_none(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert Workspace.open(replace(settings, home=tmp_path / "file" / "home")).store.list("parts") == []


def test_a_store_of_another_format_is_refused(settings: Settings) -> None:
    Workspace.open(settings)
    (Path(settings.store) / "FORMAT.json").write_text('{"format": 0}')
    with pytest.raises(StoreError, match="format 0 found"):
        Workspace.open(settings)


def test_opened_only_to_read_it_leaves_the_store_as_it_is(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    Workspace.open(settings)
    before = sorted(Path(settings.store).iterdir())
    monkeypatch.setattr("infra.storage.store.Store._probe", lambda store: pytest.fail("the store was written"))
    assert Workspace.open(settings, write=False).store.list("parts") == []
    assert sorted(Path(settings.store).iterdir()) == before


def test_nobody_is_told_unless_hooks_are_given(settings: Settings) -> None:
    told: list[str] = []
    silent, heard = Workspace.open(settings), Workspace.open(settings, Hooks(on_message=told.append))
    run = StageRun("mine", 1, 0, 1, {}, 0, frozenset(), 0, 0.0)
    for workspace in (silent, heard):
        workspace.hooks.on_message("a line")
        workspace.hooks.on_part("mine", 1, 2)
        workspace.hooks.on_usage({}, "USD")
        workspace.hooks.on_stage(run)
    assert told == ["a line"]


def test_the_clock_is_in_utc_and_can_be_set(settings: Settings) -> None:
    workspace = Workspace.open(settings)
    assert abs(workspace.clock() - datetime.now(UTC)) < timedelta(minutes=1)
    assert workspace.clock().tzinfo is UTC
    noon = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    assert replace(workspace, clock=lambda: noon).clock() == noon
