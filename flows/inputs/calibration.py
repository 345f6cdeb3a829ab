"""Copies the calibration that a configuration names into the store, and keeps those that `reneg calibrate` makes."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.config.curation import LATEST, PREVIEW, SHIPPED, CurationConfig
from flows.config.section import ConfigError
from flows.inputs.addresses import is_unreadable, open_address
from flows.method.setup import Calibrated
from infra.storage.artifacts import Directory
from infra.storage.numbered_records import decide_next, numbers, read, record_key
from infra.storage.store import Store, StoreError
from tasks.calibrating.combine import FILE
from tasks.verdicts.calibration import Calibration

_SHIPPED_IN = Path(__file__).parents[1] / "config"
_SHIPPED_NAME = re.compile(rf"{SHIPPED}[a-z0-9-]+")
_LARGEST = 64 * 2**20  # bytes; a calibration has some ten thousand


def keep_calibration(
    store: Store,
    config: CurationConfig,
    known: Mapping[str, str] | None,
    tell: Callable[[str], None] = lambda text: None,
) -> Mapping[str, str] | None:
    """Store the calibration that a configuration names; returns its files, None if it names none.

    `latest` is the newest one in the store of this configuration's name, `package:NAME` the one that is shipped with
    the configuration of this name. Anything else is a file or an address.

    known: the copy of the last execution, which is used if the file cannot be read now.

    Raises:
        ConfigError: there is none, it cannot be read, or it is no calibration of this version; the message says what to
            run.
    """
    named = config.calibration
    if named is None:
        return None
    if named == LATEST:
        return keep_file(store, newest_calibration(store, config.name))
    try:
        data = _read(named)
    except OSError as error:
        if known is not None:
            tell(f"calibration: {named} cannot be read here; the copy of the last execution is used")
            return known
        raise ConfigError(f"calibration: {named} cannot be read ({type(error).__name__}: {error})") from error
    return keep_file(store, parse_calibration(data, named))


def keep_file(store: Store, calibration: Calibration) -> Mapping[str, str]:
    """Store a calibration as the file that stages read; returns the files. The same one has the same bytes."""
    return {FILE: store.put_object(calibration.model_dump_json(indent=1).encode(), ".json")}


def read_kept(store: Store, files: Mapping[str, str] | None) -> Calibrated | None:
    """Read the copy of an execution."""
    if files is None:
        return None
    return Calibrated(Directory("calibration", files), parse_calibration(store.get_object(files[FILE]), FILE))


def record_calibration(store: Store, name: str, calibration: Calibration) -> str:
    """Store a calibration as the newest of a configuration's name, unless it already is; returns the record's key."""
    prefix, made = _prefix(name), calibration.model_dump(mode="json")

    def unless_it_is_there(taken: list[int]) -> object:
        same = taken and _content(read(store, prefix, taken[-1])) == _content(made)
        return None if same else made

    number = decide_next(store, prefix, unless_it_is_there)
    return record_key(prefix, number or numbers(store, prefix)[-1])


def _content(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without the time it was made. It is not read as a calibration: it may be of another version."""
    origin = {name: value for name, value in record.get("origin", {}).items() if name != "at"}
    return {**record, "origin": origin}


def newest_calibration(store: Store, name: str) -> Calibration:
    """Read the newest calibration of a configuration's name; that of a preview is its configuration's.

    Raises:
        ConfigError: there is none; the message says how to make one.
    """
    prefix = _prefix(name.removesuffix(PREVIEW))
    taken = numbers(store, prefix)
    if not taken:
        raise ConfigError(
            f"calibration: {LATEST}: the store holds no calibration of {name.removesuffix(PREVIEW)!r} yet; run "
            "`reneg curate` without `calibration:` first, then `reneg calibrate CURATION`"
        )
    key = record_key(prefix, taken[-1])
    return parse_calibration(store.read(key) or b"", key)


def parse_calibration(data: bytes, origin: str) -> Calibration:
    """Read a calibration; `origin` names it in errors.

    Raises:
        ConfigError: it is none, or one of another version.
    """
    try:
        return Calibration.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        found = f"{where}: {first['msg']}" if where else first["msg"]
        remedy = "make one with `reneg calibrate CURATION --out FILE`"
        if where == "format":
            remedy = f"another version of Reneg wrote it: use that version, or {remedy}"
        raise ConfigError(
            f"calibration: {origin}: a calibration of this version expected ({found}); {remedy}"
        ) from error


def _prefix(name: str) -> str:
    return f"calibrations/{name}/"


def _read(named: str) -> bytes:
    """Read a file, an address, or one that is shipped.

    Raises:
        OSError: it cannot be read.
    """
    if named.startswith(SHIPPED):
        if not _SHIPPED_NAME.fullmatch(named):
            raise ConfigError(f"calibration: {named}: `{SHIPPED}` and a name of letters, digits and dashes expected")
        return (_SHIPPED_IN / f"{named.removeprefix(SHIPPED)}.calibration.json").read_bytes()
    try:
        fs, root = open_address(named, "calibration")
        with fs.open(root, "rb") as file:
            data: bytes = file.read(_LARGEST + 1)
    except (ConfigError, StoreError):
        raise
    except Exception as error:
        if not is_unreadable(error):
            raise
        raise OSError(str(error)) from error
    if len(data) > _LARGEST:
        raise ConfigError(f"calibration: {named} is larger than {_LARGEST} bytes")
    return data
