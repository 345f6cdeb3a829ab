"""Imports people's labels from a filled-in sheet, and finds waiting curations that can continue with them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from flows.config.section import ConfigError
from flows.curation.lookup import look_at
from flows.curation.prepare import prepare
from flows.curation.records import Curation, curation_names, load_curation
from flows.curation.workspace import Workspace
from flows.method.curate import curate_method
from flows.method.human_labels import read_labels, write_labels
from flows.method.setup import WaitingForLabels
from flows.stages import SAMPLE
from infra.models.resolve import ModelError
from infra.names import object_key
from infra.stages.found_parts import read_manifests
from infra.stages.runner import Runner, WorkNeeded
from infra.storage.artifacts import Manifest, Piece, Table, newest_attempts, read_table
from infra.storage.store import Store
from tasks.quality.labels import settle
from tasks.quality.sheet import Checked, Origin, Pair, SheetError, Shown, check, in_utc, read_rows, shown_on

_IDS = ["dataset", "query_id", "doc_id"]
_WHOSE = ["query_hash", "text_hash", "annotator"]
_SHEET = "sheet.csv"
_LARGEST = 256 * 2**20  # bytes of a sheet, which is read into memory


@dataclass(frozen=True)
class Imported:
    """The result of importing a sheet.

    new: labels that the store did not hold. changed: labels that replace another label of the same person.
    key: of the object that holds both; None if there are none.
    """

    curation: str
    checked: Checked
    new: int
    changed: int
    key: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the line a script reads."""
        reasons = self.checked.rejects.group_by("reason").len().sort("reason")
        return {
            "curation": self.curation,
            "labels": self.checked.labels.height,
            "new": self.new,
            "changed": self.changed,
            "known": self.checked.labels.height - self.new - self.changed,
            "repeated": self.checked.repeated,
            "blank": self.checked.blank,
            "rejects": dict(reasons.iter_rows()),
            "key": self.key,
        }


def import_labels(workspace: Workspace, curation: Curation, path: Path, annotator: str = "") -> Imported:
    """Read a filled-in sheet of a curation (CSV or JSON lines), check it, and store its labels.

    Labels that the store holds already are not stored again, so a sheet can be imported several times as it grows.

    Raises:
        ConfigError: the file cannot be read, holds labels but none that can be used, or the curation drew no sample.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise SheetError(f"a sheet of at most {_LARGEST} bytes expected; import it in several files")
        rows = read_rows(path.read_bytes())
    except (OSError, SheetError) as error:
        raise ConfigError(f"{path}: {error}") from error
    at = in_utc(workspace.clock())
    origin = Origin(curation.id, annotator or curation.config.sample.annotator, at)
    checked = check(rows, dict(_shown(workspace, curation)), origin)
    if checked.labels.is_empty() and not checked.rejects.is_empty():
        raise ConfigError("\n".join([f"{path}: no label in it can be used", *reasons_of(checked)]))
    known = read_labels(workspace.store)
    fresh = checked.labels.join(known, on=[*_WHOSE, "label"], how="anti")
    changed = fresh.join(known, on=_WHOSE, how="semi").height
    key = None if fresh.is_empty() else write_labels(workspace.store, fresh)
    return Imported(curation.id, checked, fresh.height - changed, changed, key)


def _shown(workspace: Workspace, curation: Curation) -> Iterator[tuple[Pair, Shown]]:
    """Yield the pairs of every sheet drawn from the curation's candidates, older sheets included."""
    _, runs = look_at(workspace, curation)
    mine = next((run.manifests[0] for run in runs if run.name == SAMPLE.name and run.manifests), None)
    if mine is None:
        raise ConfigError(f"{curation.id} has drawn no sample yet, so it has no sheet; run it first")
    candidates = _drawn_from(mine)
    drawn = [m for m in _samples(workspace.store) if _drawn_from(m) == candidates]
    sampled = pl.concat(_read(workspace.store, piece).select(_IDS) for m in drawn for piece in m.tables["samples"])
    pieces = (Piece(0, object_key(name), 0) for name in candidates)
    pairs = pl.concat(_read(workspace.store, piece).join(sampled.unique(), on=_IDS, how="semi") for piece in pieces)
    for manifest in drawn:
        sheet = workspace.store.get_object(manifest.directories["sheet"][_SHEET])
        yield from shown_on(sheet, pairs)


def _drawn_from(sample: Manifest) -> list[str]:
    """Return the contents of the candidates that a sample was drawn from; older versions read them as an input."""
    ingredients = sample.ingredients
    return list(ingredients.get("candidates", ingredients["inputs"].get("candidates", [])))


def _samples(store: Store) -> list[Manifest]:
    return read_manifests(store, SAMPLE.name, sorted(newest_attempts(store, SAMPLE.name).items()))


def _read(store: Store, piece: Piece) -> pl.DataFrame:
    return read_table(store, Table("pairs", (piece,)))


def resumable(workspace: Workspace, name: str | None = None) -> list[str]:
    """Return the curations that waited for labels and now have enough; oldest first."""
    return [curation for curation in waiting(workspace.store, name) if not _still_waits(workspace, curation)]


def waiting(store: Store, name: str | None = None) -> list[str]:
    """Return the curations whose last execution ended waiting for labels; oldest first."""
    found = []
    for curation in curation_names(store, name):
        records = [key.rsplit("/", 1)[-1] for key in store.list(f"curations/{curation}")]
        if any(record.startswith("waiting-") for record in records) and not any(
            record.startswith("result-") for record in records
        ):
            found.append(curation)
    return found


def _still_waits(workspace: Workspace, curation: str) -> bool:
    look = Runner(workspace.store)
    try:
        setup = prepare(workspace, load_curation(workspace.store, curation))
        curate_method(look, replace(setup, labels=settle(read_labels(workspace.store)), gold=None))
    except WorkNeeded:
        if SAMPLE.name in {run.name for run in look.runs}:
            return False
        # Parts before the sample are unfinished: a stage has a new version, or a part was purged or computed again.
        again = f"`reneg labels import {curation} SHEET --resume`"
        workspace.hooks.on_message(f"{curation} waits for labels, and has parts to compute up to its sample: {again}")
        return True
    except (
        WaitingForLabels,
        ConfigError,
        ModelError,
    ):  # too few labels, a record of another version, or files are gone
        return True
    return False


def reasons_of(checked: Checked) -> list[str]:
    """Return one line per reason for which rows were left out, with the first such row."""
    return [
        f"  left out, {reason[0]}: {group.height} ({group['key'][0]}: {group['detail'][0]})"
        for reason, group in checked.rejects.group_by("reason", maintain_order=True)
    ]
