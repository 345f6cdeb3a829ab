"""Garbage collection: moves what no kept curation or release uses to the store's trash, and deletes it later."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from flows import stages as st
from flows.config.schedule import RetentionConfig
from flows.config.section import ConfigError
from flows.curation.prepare import prepare
from flows.curation.records import load_curation
from flows.curation.workspace import Workspace
from flows.method.curate import curate_method
from flows.method.setup import Setup, TooManyRejected, WaitingForLabels
from infra.ledger.forgetting import drop_old
from infra.ledger.vectors import drop_unused
from infra.models.resolve import ModelError
from infra.names import NumberedId
from infra.settings import Settings
from infra.stages import part_keys
from infra.stages.found_parts import FoundParts
from infra.stages.runner import Failure, PartSpec, Runner
from infra.storage.artifacts import Manifest
from infra.storage.gc import Collection, Roots, Snapshot, carry_out, live, plan
from infra.storage.large_files import end_uploads
from infra.storage.local_files import remove_abandoned_folders
from infra.storage.numbered_records import parse_key
from infra.storage.release_pointers import heal_all, prune_published
from infra.storage.store import TRASH, Entry, Store, StoreError

_HOUR, _DAY = 3600.0, 86400.0
_CURATION = re.compile(r"(?P<folder>(trash/)?curations/(?P<id>(?P<name>[^/]+)-\d{6,}))/(?P<file>.+)")
# Stages that work on a finished curation: no record keeps their parameters, so their parts stay with their inputs.
_FURTHER = frozenset(stage.name for stage in st.STAGES if stage.afterwards)


@dataclass(frozen=True)
class Wanted:
    """The options of the command line. Unset ones come from each name's newest configuration, else the defaults.

    drop: curations that are removed whatever the rules say.
    """

    curations: int | None = None
    releases: int | None = None
    days: float | None = None
    grace: float = 24.0  # hours
    drop: frozenset[str] = frozenset()


@dataclass
class Kept:
    """Which curations and releases are kept and which are removed, and why."""

    curations: dict[str, str] = field(default_factory=dict)  # by id, the reason
    dropped: dict[str, str] = field(default_factory=dict)  # by id, why it goes
    releases: list[str] = field(default_factory=list)  # records that are kept
    dropped_releases: list[str] = field(default_factory=list)
    back: set[str] = field(default_factory=set)
    encoders: set[str] = field(default_factory=set)  # keys of those that kept curations use
    unknown: int = 0  # kept curations of which it is not known what they use


class _Nothing:
    """An executor that computes nothing, so that a method continues past unfinished parts."""

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        """Return what is finished."""
        return finished


def collect(settings: Settings, wanted: Wanted, *, yes: bool) -> dict[str, Any]:
    """Find what no kept curation or release uses; with `yes`, move it to the trash, and delete what is old there.

    Returns:
        What was, or would be, removed, and the curations that are kept with the reason (`kept`), as JSON.

    Raises:
        ConfigError: the parts of a kept curation cannot be found, or a curation to drop does not exist; nothing is
            removed.
        StoreError: a record is damaged, or the store fails; what was not removed yet is kept.
    """
    if wanted.grace < 0:
        raise ConfigError(f"--grace: hours expected, {wanted.grace} came")
    store = Store.open(settings.store, write=yes)
    snapshot = Snapshot.take(store)
    kept = _decide(store, snapshot.listed, wanted)
    collection = plan(store, snapshot, _roots(settings, snapshot, kept), wanted.grace * _HOUR)
    leftovers = dropped = vectors = 0
    if yes:
        carry_out(store, collection, at_once=wanted.grace == 0)
        for name in sorted(
            {key.split("/")[1] for key in kept.releases}
        ):  # published copies are removed with their releases
            prune_published(store, name, sum(key.startswith(f"releases/{name}/") for key in kept.releases))
        heal_all(store)
        dropped = drop_old(store, wanted.grace * _HOUR)
        if not kept.unknown:
            vectors = drop_unused(store, kept.encoders, wanted.grace * _HOUR)
        leftovers = _sweep(store, settings, max(_HOUR, wanted.grace * _HOUR))
    done = {"removed": yes, "leftovers": leftovers, "forgotten": dropped, "vectors": vectors}
    return _facts(snapshot, kept, collection) | done


def _sweep(store: Store, settings: Settings, older: float) -> int:
    """Remove what killed processes left half-written, in the store and in this machine's cache; returns how many."""
    abandoned = store.sweep(older) + end_uploads(store, max(_DAY, older))
    return abandoned + remove_abandoned_folders(settings.scratch, max(_DAY, older))


def collection_page(facts: Mapping[str, Any]) -> str:
    """Say as Markdown what `collect` did or would do; the first line is a summary."""
    verb = "removed" if facts["removed"] else "would be removed"
    lines = [
        f"{verb}: {len(facts['curations'])} curations, {len(facts['releases'])} releases, {facts['parts']} finished "
        f"parts and {facts['objects']} objects ({facts['bytes'] / 1e6:.1f} MB), to the trash; from the trash for good: "
        f"{facts['deleted']} objects ({facts['deleted_bytes'] / 1e6:.1f} MB)",
        "",
        f"{len(facts['kept'])} curations are kept. Restored from the trash: {facts['put_back']}. "
        f"Half-written files of killed processes: {facts['leftovers']}.",
    ]
    lines += [""] + [f"- {id_}: {why}" for id_, why in facts["why"].items()] if facts["why"] else []
    lines += [""] + [f"- {key}" for key in facts["releases"]] if facts["releases"] else []
    if facts["missing"]:
        lines += ["", f"Missing objects of kept parts; run those parts again: {', '.join(facts['missing'])}"]
    return "\n".join(lines)


def _decide(store: Store, listed: Mapping[str, Entry], wanted: Wanted) -> Kept:
    """Decide for each name which curations and releases are kept."""
    kept, now = Kept(), time.time()
    files: dict[str, dict[str, dict[str, Entry]]] = {}  # name, id, key
    for key, entry in listed.items():
        if match := _CURATION.fullmatch(key):
            files.setdefault(match["name"], {}).setdefault(match["id"], {})[key] = entry
    heads: dict[str, list[str]] = {}
    for key in sorted(listed):
        if key.startswith("releases/") and _number(key):
            heads.setdefault(key.split("/")[1], []).append(key)
    unknown = sorted(wanted.drop - {id_ for of_name in files.values() for id_ in of_name})
    if unknown:
        raise ConfigError(f"--drop {unknown[0]}: no such curation in {store.url}; see `reneg list`")
    for name in sorted(files.keys() | heads.keys()):
        retention = _retention(store, listed, name, wanted)
        released = _decide_releases(store, sorted(heads.get(name, []), key=_number), retention, kept)
        _decide_curations(files.get(name, {}), retention, (released, wanted, now), kept)
    return kept


def _retention(store: Store, listed: Mapping[str, Entry], name: str, wanted: Wanted) -> RetentionConfig:
    """Return what is kept: by the command line, else the newest deployed configuration, else the defaults."""
    deployed = sorted(key for key in listed if key.startswith(f"configs/{name}/"))
    record = store.read_json(deployed[-1]) if deployed else None
    said = {n: v for n in RetentionConfig.model_fields if (v := getattr(wanted, n, None)) is not None}
    section = record.get("retention") if isinstance(record, dict) else None
    try:
        return RetentionConfig.model_validate({**(section or {}), **said})
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"retention of {name} ({deployed[-1:] or 'command line'}): {error}") from error


def _decide_releases(store: Store, heads: list[str], retention: RetentionConfig, kept: Kept) -> set[str]:
    """Keep the newest releases, and those that a kept one was rolled back to; returns their curations."""
    records = {key: _record(store, key) for key in heads}
    numbers = {_number(key): key for key in heads}
    staying = set(heads[-retention.releases :])
    while True:
        origins = {numbers.get(records[key].get("of") or 0) for key in staying} - {None} - staying
        if not origins:
            break
        staying |= {key for key in origins if key}
    kept.releases += sorted(staying)
    kept.dropped_releases += sorted(set(heads) - staying)
    return {str(records[key].get("curation")) for key in staying}


def _decide_curations(
    files: Mapping[str, Mapping[str, Entry]],
    retention: RetentionConfig,
    asked: tuple[set[str], Wanted, float],
    kept: Kept,
) -> None:
    released, wanted, now = asked
    here = {id_ for id_, keys in files.items() if f"curations/{id_}/curation.json" in keys}
    newest = set(sorted(here, key=_order)[-retention.curations :])
    for id_ in sorted(files, key=_order):
        lives = {key: entry for key, entry in files[id_].items() if not key.startswith(f"{TRASH}/")}
        age = now - max((entry.written for entry in lives.values()), default=0.0)
        unfinished = id_ in here and not any("/result-" in key for key in lives)
        reasons = {
            "of a kept release": id_ in released,
            "among the newest": id_ in newest,
            "unfinished": unfinished and age < retention.unfinished_days * _DAY,
            f"at work within {retention.days:g} days": id_ in here and age < retention.days * _DAY,
            "at work just now": age < wanted.grace * _HOUR,
        }
        reason = next((reason for reason, holds in reasons.items() if holds), None)
        if reason is not None and id_ not in wanted.drop:
            kept.curations[id_] = reason
            kept.back |= {live(key) for key in files[id_]}
        elif lives:
            state = "unfinished" if unfinished else "finished"
            kept.dropped[id_] = "--drop" if id_ in wanted.drop else f"{state}, last at work {age / _DAY:.0f} days ago"


def _roots(settings: Settings, snapshot: Snapshot, kept: Kept) -> Roots:
    """Find the parts and models that the kept curations use."""
    manifests, models = set[str](), set[str]()
    found = FoundParts()  # the snapshot does not change, so every walk may use what another one found
    for id_ in kept.curations:
        recorded = _recorded(snapshot, id_)
        try:
            reached, used, encoders = _walk(settings, snapshot, id_, found)
        except (ConfigError, StoreError, ModelError, LookupError, TypeError, ValueError) as error:
            # A record of another version, or a damaged one, fails in many ways; parts that its results list stay.
            if not recorded:
                raise ConfigError(
                    f"curation {id_} is kept ({kept.curations[id_]}), but its parts cannot be found: {error}. "
                    f"Nothing was removed. Run gc where its models are, repair it, or remove it with --drop {id_}"
                ) from error
            reached, used, encoders = set(), set(), set()
            kept.unknown += 1
        manifests |= recorded | reached
        models |= used
        kept.encoders |= encoders
    going = (*_in_order(snapshot, kept.dropped), *kept.dropped_releases)
    return Roots(frozenset(manifests), going, frozenset(kept.back), frozenset(models - {""}), _FURTHER)


def _walk(settings: Settings, snapshot: Snapshot, id_: str, found: FoundParts) -> tuple[set[str], set[str], set[str]]:
    """Run the method over the manifests, past unfinished parts; returns parts, digests of models, keys of encoders."""
    setup = prepare(Workspace(settings, snapshot), load_curation(snapshot, id_))
    run = Runner(snapshot, _Nothing(), found=found)
    try:
        curate_method(run, setup)
    except (WaitingForLabels, TooManyRejected):
        pass
    models = {
        setup.base_model_key,
        setup.reranker_start_key,
        *(getattr(engine, "digest", "") for engine in setup.engines),
    }
    manifests = [manifest for stage in run.runs for manifest in stage.manifests]
    encoders = {part_keys.digest(m.ingredients.get("engine")) for m in manifests if "vectors" in m.stats}
    encoders |= encoders_of(setup)
    return {manifest.path for manifest in manifests}, models, encoders


def encoders_of(setup: Setup) -> set[str]:
    """Return the keys under which a curation's encoders keep vectors, also where no part of theirs is finished yet."""
    return {part_keys.digest(part_keys.semantic(spec)) for spec in (setup.encoder, *setup.encoders.values())}


def _recorded(snapshot: Snapshot, id_: str) -> set[str]:
    """Return the parts that a curation's results list and that still exist."""
    named = set[str]()
    for key in snapshot.list(f"curations/{id_}"):
        if "/result-" in key:
            found = snapshot.read_json(key)
            named |= set(found.get("manifests") or ()) if isinstance(found, dict) else set()
    return named & snapshot.manifests.keys()


def _in_order(snapshot: Snapshot, dropped: Iterable[str]) -> list[str]:
    """Order the records to remove: `curation.json` first, so that no half-removed curation is left."""
    keys = []
    for id_ in dropped:
        own = [key for key in snapshot.list(f"curations/{id_}") if key in snapshot.listed]
        keys += sorted(own, key=lambda key: not key.endswith("/curation.json"))
    return keys


def _record(store: Store, key: str) -> dict[str, Any]:
    record = store.read_json(key)
    if not isinstance(record, dict):
        raise StoreError(f"store {store.url}: {key} is damaged (an object expected); restore or delete it")
    return record


def _number(key: str) -> int:
    """Return the number of a release's pointer; 0 for any other key."""
    prefix, number = parse_key(key) or ("", 0)
    return number if prefix.endswith("/HEAD") else 0


def _order(id_: str) -> int:
    return NumberedId.parse(id_).number


def _facts(snapshot: Snapshot, kept: Kept, collection: Collection) -> dict[str, Any]:
    """Return what was or would be removed, as JSON."""
    kinds = Counter(live(key).split("/")[0] for key in collection.move)
    return {
        "curations": list(kept.dropped),
        "why": kept.dropped,
        "releases": kept.dropped_releases,
        "kept": dict(sorted(kept.curations.items())),
        "parts": kinds["parts"],
        "objects": kinds["objects"],
        "bytes": collection.bytes_of(collection.move),
        "put_back": len(collection.back),
        "deleted": len(collection.delete),
        "deleted_bytes": collection.bytes_of(collection.delete),
        "missing": list(collection.missing),
    }
