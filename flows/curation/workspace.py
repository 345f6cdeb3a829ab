"""What a command or flow works with: the settings, the store, the clock, and functions that report progress."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from infra.private_files import open_private_folder
from infra.settings import Settings
from infra.stages.runner import StageRun
from infra.storage.store import Store


@dataclass(frozen=True)
class Hooks:
    """Functions that are called to report what a curation does; by default they do nothing."""

    on_message: Callable[[str], None] = lambda text: None
    on_part: Callable[[str, int, int], None] = lambda stage, done, total: None
    on_usage: Callable[[Mapping[str, Mapping[str, float]], str], None] = lambda totals, currency: None
    on_stage: Callable[[StageRun], None] = lambda run: None


@dataclass(frozen=True)
class Workspace:
    """One store, with the settings of this process."""

    settings: Settings
    store: Store
    hooks: Hooks = field(default_factory=Hooks)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @classmethod
    def open(cls, settings: Settings, hooks: Hooks | None = None, *, write: bool = True) -> "Workspace":
        """Open the store that the settings name, and the home, which nobody else can read.

        Raises:
            StoreError: it cannot be opened, or, with `write`, cannot be written.
        """
        if write or settings.home.exists():
            with contextlib.suppress(OSError):  # a command that writes no file into the home works without one
                open_private_folder(settings.home)
        return cls(settings, Store.open(settings.store, write=write), hooks or Hooks())

    def folder(self, curation: str) -> Path:
        """Return the folder in which a curation's results are laid out."""
        return self.settings.home / "curations" / curation
