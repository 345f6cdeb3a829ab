"""Reads and writes the store's records of curations, of deployed configurations, and of failed parts."""

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from flows.config.curation import CurationConfig
from flows.config.load import parse_config
from flows.config.schedule import RetentionConfig
from flows.config.section import ConfigError
from flows.curation.hub_models import pin_models
from flows.curation.source import import_source, pinned_source
from flows.curation.stored_config import refuse_other_places
from flows.curation.workspace import Workspace
from infra.cluster.nodes import recorded_versions
from infra.names import NumberedId, PartName
from infra.redact import redact
from infra.stages import part_keys
from infra.stages.runner import PartSpec
from infra.storage.artifacts import Directory
from infra.storage.numbered_records import decide_next, keep_next, numbers, read, read_newest, record_key
from infra.storage.store import Store, StoreError

_LISTED = 5  # curations that an error names
_READERS = 16


@dataclass(frozen=True)
class Curation:
    """A recorded curation: its id, its configuration, and its source as it was then.

    read_from: the address of the source with its commit then, where it is a data set of a hub; else empty.
    own_file: the configuration was read from a file of the user who runs it. One from the store was written by somebody
    who need not own this machine, so it is bound (flows.curation.stored_config).
    """

    id: str
    config: CurationConfig
    source: Directory | None
    own_file: bool = False
    read_from: str = ""

    @property
    def is_draft(self) -> bool:
        """Whether it is not recorded (see `draft_curation`)."""
        return self.id == f"{self.config.name}-draft"


def draft_curation(workspace: Workspace, config: CurationConfig, *, own_file: bool = False) -> Curation:
    """Make a curation that is not recorded, to see what it would do; its source is kept in the store.

    Raises:
        ConfigError: the source does not exist, or the configuration is not of the user's own and may not read it.
        ModelError: a model names no commit, and the hub could not be asked for it.
    """
    if not own_file:
        refuse_other_places(config, workspace.settings)
    config = pin_models(workspace, config)
    address = pinned_source(config)
    source = import_source(workspace.store, workspace.settings, config, address)
    read_from = "" if address is None or address == config.source.path else address
    return Curation(f"{config.name}-draft", config, source, own_file, read_from)


def open_curation(workspace: Workspace, config: CurationConfig, *, own_file: bool = False) -> Curation:
    """Return the newest curation of the same configuration and source, or record a new one.

    Raises:
        ConfigError, ModelError: as `draft_curation`.
    """
    draft, store = draft_curation(workspace, config, own_file=own_file), workspace.store
    config = draft.config  # with the commits of its models
    files = None if draft.source is None else dict(draft.source.files)
    identity = part_keys.digest({"config": part_keys.semantic(config), "source": files})
    known = curation_names(store, config.name)
    if known:
        newest = store.read_json(f"curations/{known[-1]}/curation.json") or {}
        if newest.get("identity") == identity:
            _keep_settings(store, known[-1], config)
            return replace(draft, id=known[-1], read_from=newest.get("read_from", ""))
    record = {
        "identity": identity,
        "config": config.model_dump(mode="json"),
        "source": files,
        "read_from": draft.read_from,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": recorded_versions(),
    }
    data = json.dumps(record, indent=1).encode()
    newest_number = NumberedId.parse(known[-1]).number if known else 0
    while True:
        # A number is never given again, even after `reneg gc` removed its curation: records elsewhere may name it.
        number = keep_next(store, f"taken/{config.name}", {})
        id_ = str(NumberedId(config.name, number))
        if number > newest_number and store.create(f"curations/{id_}/curation.json", data):
            return replace(draft, id=id_)


def load_curation(store: Store, curation: str) -> Curation:
    """Read a recorded curation.

    Raises:
        ConfigError: there is none of that name; the message lists those there are.
    """
    record = store.read_json(f"curations/{curation}/curation.json")
    if record is None:
        known = curation_names(store)
        listed = f"known: {', '.join(known[-_LISTED:])}" if known else "this store holds none"
        gone = "; gc removed it (see `retention`)" if _was_taken(store, curation) else ""
        raise ConfigError(f"no curation {curation!r} in {store.url}{gone}; {listed}")
    source = None if record["source"] is None else Directory("source", record["source"])
    config = parse_config(_settings_of(store, curation) or record["config"], curation)
    return Curation(curation, config, source, read_from=record.get("read_from", ""))


def _was_taken(store: Store, curation: str) -> bool:
    """Tell whether a curation of this id was ever opened."""
    with contextlib.suppress(ValueError):
        return store.exists(f"taken/{NumberedId.parse(curation)}.json")
    return False


def curation_names(store: Store, name: str | None = None) -> list[str]:
    """List the curations of a store, oldest first within each name."""
    found = set[NumberedId]()
    for folder in {key.split("/")[1] for key in store.list("curations")}:
        with contextlib.suppress(ValueError):  # somebody else's folder
            found.add(NumberedId.parse(folder))
    return [str(id_) for id_ in sorted(found) if name is None or id_.name == name]


def sources_of(store: Store, curation: str) -> dict[str, dict[str, str]]:
    """Return the files of the sources of the curations before one of the same name, by their ids, the newest first.

    curation: its id; before a draft are all of its name.
    """
    name, _, number = curation.rpartition("-")
    names = [id_ for id_ in curation_names(store, name) if not number.isdigit() or _number(id_) < int(number)]
    with ThreadPoolExecutor(_READERS, "records") as pool:
        records = pool.map(lambda id_: store.read_json(f"curations/{id_}/curation.json"), reversed(names))
    return {id_: record["source"] for id_, record in zip(reversed(names), records, strict=True) if _has_source(record)}


def _number(curation: str) -> int:
    return NumberedId.parse(curation).number


def _has_source(record: Any) -> bool:  # noqa: ANN401 - JSON is any
    return isinstance(record, dict) and isinstance(record.get("source"), dict)


def results_of(store: Store, curation: str) -> list[dict[str, Any]]:
    """Read the results of a curation's executions, oldest first; an unfinished execution has none."""
    prefix = f"curations/{curation}/result"
    return [read(store, prefix, number) for number in numbers(store, prefix)]


def say_unfinished(store: Store, curation: str) -> str:
    """Say that a curation is unfinished, and what to do: one that was finished once is so since a change of Reneg."""
    if not results_of(store, curation):
        return f"{curation} is unfinished; see `reneg status {curation}`"
    return (
        f"{curation} is unfinished now: an earlier version of Reneg finished it, and some stages give other results "
        "since, or a purge removed parts. Run `reneg curate` with its configuration again: what did not change is "
        "reused, and no judge is asked the same question again"
    )


def record_failure(store: Store, curation: str, spec: PartSpec, reason: str) -> None:
    """Record why a part failed, for `reneg status`."""
    stage = str(PartName.parse(spec.name).stage)
    record = json.dumps({"stage": stage, "part": spec.number, "reason": redact(reason)})
    key = f"curations/{curation}/failures/{spec.name}-{time.time_ns()}.json"
    with contextlib.suppress(StoreError):  # a full disk failed the part already; its siblings go on
        store.create(key, record.encode())


def failures_of(store: Store, curation: str) -> dict[tuple[str, int], str]:
    """Read the newest reason of every part that has failed; the part may have been computed since."""
    records = [store.read_json(key) for key in store.list(f"curations/{curation}/failures")]
    return {(record["stage"], record["part"]): record["reason"] for record in records}


def keep_config(store: Store, config: CurationConfig) -> str:
    """Store a configuration as the newest of its name, unless it already is; returns its key.

    A worker on another machine reads it from there and needs no file.
    """
    settings, prefix = config.model_dump(mode="json"), f"configs/{config.name}/"

    def unless_it_is_there(taken: list[int]) -> Any:  # noqa: ANN401 - JSON is any
        return None if taken and read(store, prefix, taken[-1]) == settings else settings

    number = decide_next(store, prefix, unless_it_is_there)
    return record_key(prefix, number or numbers(store, prefix)[-1])


def collection_times(store: Store) -> list[str]:
    """List when gc shall run, as the newest configuration of each name says (cron in UTC), each time once."""
    times = set[str]()
    for name in sorted({key.split("/")[1] for key in store.list("configs")}):
        record = read_newest(store, f"configs/{name}/")
        section = record.get("retention") if isinstance(record, dict) else None
        cron = (section or {}).get("cron", RetentionConfig().cron)
        times |= {cron} if cron else set()
    return sorted(times)


def read_config(store: Store, name: str) -> CurationConfig:
    """Read the newest configuration of a name.

    Raises:
        ConfigError: none was deployed, or this version cannot read it.
    """
    prefix = f"configs/{name}/"
    known = numbers(store, prefix)
    if not known:
        names = sorted({key.split("/")[1] for key in store.list("configs")})
        listed = f"deployed here: {', '.join(names)}" if names else "none is deployed here"
        raise ConfigError(f"no configuration {name!r} in {store.url}; {listed}. Run `reneg deploy CONFIG.yaml`")
    return parse_config(read(store, prefix, known[-1]), record_key(prefix, known[-1]))


def _settings_of(store: Store, curation: str) -> dict[str, Any] | None:
    """Read the newest settings (budget, prices, resources) that a later run of a curation recorded."""
    settings: dict[str, Any] | None = read_newest(store, f"curations/{curation}/settings")
    return settings


def _keep_settings(store: Store, curation: str, config: CurationConfig) -> None:
    """Record the configuration of a later run whose operational settings differ; `rerun` uses it."""
    record = store.read_json(f"curations/{curation}/curation.json") or {}
    settings = config.model_dump(mode="json")
    if settings != (_settings_of(store, curation) or record.get("config")):
        keep_next(store, f"curations/{curation}/settings", settings)
