"""The results of an execution (`Result`, `Further`), and their files in the curation's folder."""

import filecmp
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.curation.workspace import Workspace
from flows.method.setup import Outcome
from flows.results.promotion import Held, Release
from infra.names import digest_of
from infra.stages.runner import StageRun
from infra.storage.artifacts import Directory, materialise, place_directory

EVALUATION = "evaluation"  # the folder of results on collections
RERANKERS = "rerankers"  # the subfolder of the trained rerankers
SAMPLE = "sample"  # the folder of the sheet that people fill in
_AT_ONCE = 4  # directories that are copied at a time


@dataclass(frozen=True)
class Further:
    """The result of further work on a curation: its pages in `folder`, and what each stage did."""

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


@dataclass(frozen=True)
class Result(Further):
    """The result of a curation; `folder` holds the report, the sheet and the exports."""

    curation: str
    summary: Mapping[str, Any]
    seconds: float
    promotion: Release | Held | None = None

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


def lay_out(workspace: Workspace, curation: str, outcome: Outcome) -> Path:
    """Lay out report, sheet, exports, trained rerankers and results on collections; returns the curation's folder."""
    exports = [(directory, f"export/{treatment}") for treatment, directory in outcome.exports.items()]
    results = [(directory, EVALUATION) for directory in outcome.evaluations.values()]
    results += [(directory, f"{RERANKERS}/{treatment}") for treatment, directory in outcome.rerankers.items()]
    return place(workspace, curation, (outcome.page, ""), (outcome.sheet, SAMPLE), *exports, *results)


def place(workspace: Workspace, curation: str, *placed: tuple[Directory, str]) -> Path:
    """Copy each directory into its subfolder; a sheet that people may have filled in is never overwritten."""
    folder = workspace.folder(curation)
    sheets = [directory for directory, below in placed if below == SAMPLE]
    with ThreadPoolExecutor(_AT_ONCE, "place") as pool:
        others = [(directory, folder / below) for directory, below in placed if below != SAMPLE]
        for done in [pool.submit(copy_files, workspace, *each) for each in others]:
            done.result()
    for directory in sheets:
        laid_out = materialise(workspace.store, directory, workspace.settings.scratch)
        for name in directory.files:
            target = _beside(workspace, folder / SAMPLE / name, laid_out / name, directory.files[name])
            if target is not None:
                _replace(laid_out / name, target)
    return folder


def copy_files(workspace: Workspace, directory: Directory, folder: Path) -> None:
    """Copy all files of a directory of the store into a folder, which is made if need be."""
    place_directory(workspace.store, directory, folder)


def _beside(workspace: Workspace, target: Path, new: Path, key: str) -> Path | None:
    """Return where a new sheet goes: beside one that people may have filled in, named after its content, and once."""
    if not target.exists() or filecmp.cmp(new, target, shallow=False):
        return target
    other = target.with_name(f"{target.stem}-{digest_of(key)[:8]}{target.suffix}")
    workspace.hooks.on_message(f"{target} is not this run's (filled in, or older) and is kept; see {other}")
    return None if other.exists() else other


def _replace(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(target)
