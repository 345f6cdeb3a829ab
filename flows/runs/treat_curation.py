"""Makes the treatments of a finished curation again, and lays out their exports; no judge and no encoder is asked."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from flows.config.curation import CurationConfig
from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation.prepare import prepare
from flows.curation.records import Curation
from flows.curation.workspace import Workspace
from flows.results.output_folder import copy_files
from flows.runs.light_parts import LightParts
from flows.runs.treat_again import MadeAgain, treat_again
from infra.stages.runner import Runner

FOLDER, SUMMARY_FILE = "treat", "treat.json"
_SECTIONS = ("treat", "export")


@dataclass(frozen=True)
class Laid:
    """Where the exports lie, the settings of the treatments, and what was made by treatment."""

    folder: Path
    settings: Mapping[str, Any]
    made: Mapping[str, MadeAgain]

    def as_json(self) -> dict[str, Any]:
        """Return what a script reads: the counts of each treatment, and those of the curation where it made it."""
        counts = {
            name: {"now": asdict(each.now), "before": each.before and asdict(each.before)}
            for name, each in self.made.items()
        }
        return {"folder": str(self.folder), "settings": dict(self.settings), "treatments": counts}


def treat_curation(
    workspace: Workspace,
    curation: Curation,
    *,
    treatments: Sequence[str] = (),
    changes: Sequence[str] = (),
    out: Path | None = None,
) -> Laid:
    """Make treatments of a finished curation again, and write their exports, each into a folder of its name.

    Args:
        workspace: the store and the home.
        curation: the curation.
        treatments: which; by default those that the curation made.
        changes: settings of `treat` and `export`, as `treat.max_false_negatives=3`.
        out: the folder to write, which must be empty or not exist; by default `treat` in the curation's folder, where
            what was made before is replaced.

    Raises:
        ConfigError: the curation is unfinished, a setting is not of these sections or does not fit, or `out` holds
            files.
    """
    if out is not None and (out.is_file() or (out.exists() and any(out.iterdir()))):
        raise ConfigError(f"{out} holds files already; give another folder with --out")
    changed = change_settings(curation.config, treatments, changes)
    setup = prepare(workspace, curation)
    run = Runner(workspace.store, LightParts(workspace.store, workspace.settings.scratch))
    made = treat_again(Runner(workspace.store), run, setup, replace(setup, config=changed))
    folder = out or workspace.folder(curation.id) / FOLDER
    for name, each in made.items():
        if out is None and (folder / name).is_dir():
            shutil.rmtree(folder / name)
        copy_files(workspace, each.export, folder / name)
    laid = Laid(folder, changed.treat.model_dump(mode="json", exclude={"treatment", "skip"}), made)
    record = {"curation": curation.id, **laid.as_json()}
    record.pop("folder")
    (folder / SUMMARY_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return laid


def change_settings(config: CurationConfig, treatments: Sequence[str], changes: Sequence[str]) -> CurationConfig:
    """Return a configuration with other treatments, and other settings of `treat` and `export`.

    Raises:
        ConfigError: a change has another form than `treat.name=value`, or does not fit.
    """
    data = config.model_dump(mode="json")
    for change in changes:
        name, equals, text = change.partition("=")
        section, _, field = name.strip().partition(".")
        if not equals or section not in _SECTIONS or not field:
            raise ConfigError(
                f"--set {change}: treat.NAME=VALUE or export.NAME=VALUE expected, such as treat.max_false_negatives=3; "
                "other settings change what is judged: change the configuration and run `reneg curate`"
            )
        try:
            data[section][field] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {change}: the value is no YAML") from error
    if treatments:
        made = list(dict.fromkeys(treatments))
        data |= {"treatments": made, "train_on": made, "promote": None}
    return parse_config(data, "--set")
