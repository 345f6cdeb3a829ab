"""Makes a calibration of a curation, keeps it in the store and writes it to a file; no judge, no encoder is asked."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.config.section import ConfigError
from flows.curation.prepare import prepare
from flows.curation.records import Curation
from flows.curation.workspace import Workspace
from flows.inputs.calibration import parse_calibration, record_calibration
from flows.method.afterwards.calibrate import Wanted, calibrate_method
from flows.results.output_folder import copy_files
from flows.runs.light_parts import LightParts
from infra.stages.runner import Runner
from tasks.calibrating.combine import FILE
from tasks.calibrating.fit import PAGE_FILE
from tasks.calibrating.page import presets
from tasks.verdicts.calibration import Calibration

FOLDER = "calibrate"


@dataclass(frozen=True)
class Made:
    """A calibration, its record in the store, the folder with its page, and the file it was written to, if any."""

    calibration: Calibration
    record: str
    folder: Path
    file: Path | None

    @property
    def page(self) -> str:
        """The page, as Markdown."""
        return (self.folder / PAGE_FILE).read_text(encoding="utf-8")

    def as_json(self) -> dict[str, Any]:
        """Return what a script reads."""
        made = self.calibration
        return {
            "curation": made.origin.curation,
            "labels_from": made.origin.labels_from,
            "trust": made.origin.trust,
            **made.counts.model_dump(),
            "separates": made.separates,
            "figures": made.figures.model_dump(mode="json"),
            "presets": [
                dict(zip(("decide", "threshold", "share", "precision", "recall", "f1"), row, strict=True))
                for row in presets(made)
            ],
            "record": self.record,
            "folder": str(self.folder),
            "file": None if self.file is None else str(self.file),
        }


def calibrate_curation(workspace: Workspace, curation: Curation, wanted: Wanted, out: Path | None = None) -> Made:
    """Make a calibration, keep it as the newest of the curation's name, and write it to `out`.

    The page is laid out in the folder `calibrate` of the curation's.

    Raises:
        ConfigError: as `calibrate_method`, or `out` cannot be written.
    """
    if out is not None and out.is_dir():
        raise ConfigError(f"--out: {out} is a folder; name a file, such as {out / FILE}")
    setup = prepare(workspace, curation)
    run = Runner(workspace.store, LightParts(workspace.store, workspace.settings.scratch))
    at = workspace.clock().isoformat(timespec="seconds")
    made = calibrate_method(Runner(workspace.store), run, setup, replace(wanted, at=at))
    data = workspace.store.get_object(made.files[FILE])
    calibration = parse_calibration(data, FILE)
    record = record_calibration(workspace.store, setup.config.name, calibration)
    folder = workspace.folder(curation.id) / FOLDER
    copy_files(workspace, made, folder)
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(data)
        except OSError as error:
            raise ConfigError(f"--out: {out} cannot be written ({error.strerror})") from error
    return Made(calibration, record, folder, out)
