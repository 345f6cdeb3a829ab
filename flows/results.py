"""What a curation leaves, laid out as files a person opens, and the record of how it ended."""

import filecmp
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.method import Outcome
from infra.names import digest_of
from infra.settings import Settings
from infra.stages.runner import StageRun
from infra.storage.artifacts import Directory, materialise
from infra.storage.store import Store

if TYPE_CHECKING:
    from flows.releases import Held, Release


@dataclass(frozen=True)
class Result:
    """How a curation ended."""

    curation: str
    summary: Mapping[str, Any]
    runs: tuple[StageRun, ...]
    seconds: float
    folder: Path
    promotion: "Release | Held | None" = None

    @property
    def computed(self) -> int:
        """Parts computed by this execution."""
        return sum(run.computed for run in self.runs)

    @property
    def reused(self) -> int:
        """Parts found finished."""
        return sum(run.reused for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return the line a script reads."""
        return {
            "curation": self.curation,
            **self.summary,
            "parts": {"computed": self.computed, "reused": self.reused},
            "seconds": round(self.seconds, 1),
            "report": str(self.folder / "report.html"),
            **({"promotion": self.promotion.as_json()} if self.promotion else {}),
        }


@dataclass(frozen=True)
class Further:
    """What further work on a curation left: its pages below `folder`, and what each stage did."""

    folder: Path
    runs: tuple[StageRun, ...]

    @property
    def computed(self) -> int:
        """Parts computed by this execution."""
        return sum(run.computed for run in self.runs)

    @property
    def reused(self) -> int:
        """Parts found finished."""
        return sum(run.reused for run in self.runs)


def folder_of(settings: Settings, curation: str) -> Path:
    """Name the folder in which a curation's results are laid out."""
    return settings.home / "curations" / curation


@dataclass(frozen=True)
class Layout:
    """Lays directories of the store out below one curation's folder.

    say: told in a line of what was kept instead of replaced.
    """

    store: Store
    settings: Settings
    curation: str
    say: Callable[[str], None] = lambda text: None

    def lay_out(self, outcome: Outcome) -> Path:
        """Lay out the report, the sheet for people and the exports; returns the folder."""
        exports = [(directory, f"export/{treatment}") for treatment, directory in outcome.exports.items()]
        return self.place((outcome.page, ""), (outcome.sheet, "sample"), *exports)

    def place(self, *placed: tuple[Directory, str]) -> Path:
        """Copy each directory below its subfolder; a sheet that people may have filled in is never overwritten."""
        folder = folder_of(self.settings, self.curation)
        for directory, below in placed:
            laid_out = materialise(self.store, directory, self.settings.scratch)
            for name in directory.files:
                target: Path | None = folder / below / name
                if below == "sample":
                    target = self._beside(folder / below / name, laid_out / name, directory.files[name])
                if target is not None:
                    _replace(laid_out / name, target)
        return folder

    def _beside(self, target: Path, new: Path, key: str) -> Path | None:
        """Keep what people may have filled in: this run's stands beside it under its content's name, once."""
        if not target.exists() or filecmp.cmp(new, target, shallow=False):
            return target
        other = target.with_name(f"{target.stem}-{digest_of(key)[:8]}{target.suffix}")
        self.say(f"{target} is not this run's (filled in, or older) and is kept; see {other}")
        return None if other.exists() else other


def _replace(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(target)
