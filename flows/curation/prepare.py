"""Prepares a curation: collects the inputs of an execution, and makes the `Setup` that the method takes.

The inputs are people's labels so far, the gold set, and the date of the night. They are recorded for each curation, so
that looking at a finished curation uses the inputs of its last execution. The next execution reads them anew.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl
import yaml
from fsspec.core import url_to_fs

from flows.config.curation import CurationConfig
from flows.config.engines import TierConfig
from flows.config.schedule import night_of
from flows.config.section import ConfigError
from flows.curation.records import Curation
from flows.curation.workspace import Workspace
from flows.method.human_labels import label_keys, read_labels
from flows.method.setup import Gold, Setup, Tier
from infra.cluster.nodes import recorded_versions
from infra.engines.kinds import kind_of
from infra.engines.specs import SentenceTransformersSpec
from infra.models.resolve import digest_of, name_of, resolve
from infra.stages import part_keys
from infra.storage.artifacts import Directory, write_directory
from infra.storage.errors import is_of_storage
from infra.storage.numbered_records import keep_next, read_newest
from infra.storage.store import Store
from tasks.quality.gold_set import GoldConfig, GoldError, read_gold
from tasks.quality.labels import settle


@dataclass(frozen=True)
class Intake:
    """The inputs of an execution besides the source.

    labels: keys of the imports. gold: the gold set's files in the store. night: YYYY-MM-DD if some judge is asked about
    the gold set again every night, else empty.
    """

    labels: tuple[str, ...] = ()
    gold: Mapping[str, str] | None = None
    night: str = ""

    @classmethod
    def now(
        cls,
        store: Store,
        config: CurationConfig,
        now: datetime,
        known: "Intake | None" = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> "Intake":
        """Collect the inputs there are now. The gold set is copied to the store; `tell` reports its unusable rows.

        Raises:
            ConfigError: the gold set cannot be used.
        """
        if config.gold is None:
            return cls(tuple(label_keys(store)))
        endpoints = any(kind_of(tier.engine).is_endpoint for tier in config.tiers)
        gold = _keep_gold(store, config, None if known is None else known.gold, tell)
        return cls(tuple(label_keys(store)), gold, night_of(config.nightly, now) if endpoints else "")

    @classmethod
    def of(cls, store: Store, curation: str) -> "Intake":
        """Read the inputs of a curation's newest execution; they are empty if none has begun."""
        record = read_newest(store, f"curations/{curation}/intake")
        return cls() if record is None else cls(tuple(record["labels"]), record["gold"], record["night"])

    def keep(self, store: Store, curation: str) -> None:
        """Record the inputs of a curation, unless they equal the newest record."""
        if self != Intake.of(store, curation):
            keep_next(store, f"curations/{curation}/intake", asdict(self))

    def settled(self, store: Store) -> pl.DataFrame | None:
        """Return one label per pair, settled by majority; None if there are no labels."""
        return settle(read_labels(store, self.labels)) if self.labels else None

    def gold_set(self) -> Gold | None:
        """Return the gold set with its night; None if there is none."""
        return None if self.gold is None else Gold(Directory("gold", self.gold), self.night)


def _keep_gold(
    store: Store, config: CurationConfig, known: Mapping[str, str] | None, tell: Callable[[str], None]
) -> Mapping[str, str]:
    """Copy the gold set into the store; if its file cannot be read, use the copy of the last execution."""
    path = config.gold.path if config.gold else ""
    try:
        fs, root = url_to_fs(path)
        data: bytes = fs.cat_file(root)
    except Exception as error:
        if not is_of_storage(error) and not isinstance(error, ValueError | ImportError):
            raise
        if known is not None:
            tell(f"gold.path: {path} cannot be read here; the copy of the last execution is used")
            return known
        raise ConfigError(f"gold.path: {path} cannot be read ({type(error).__name__}: {error})") from error
    check_gold(data, config, tell)
    return {Path(root).name: store.put_object(data, "")}


def check_gold(data: bytes, config: CurationConfig, tell: Callable[[str], None] = lambda text: None) -> int:
    """Read a gold set as the stage will, report the rows that are left out and why, and return how many are usable.

    Raises:
        ConfigError: no row is usable.
    """
    with tempfile.TemporaryDirectory(prefix="reneg-gold-") as folder:
        (Path(folder) / "gold.jsonl").write_bytes(data)
        try:
            made = read_gold(GoldConfig(dataset=config.ingest.dataset), source=Path(folder))
        except GoldError as error:
            raise ConfigError(f"{config.gold.path if config.gold else 'gold'}: {error}") from error
    for reason, rows in made["rejects"].group_by("reason").len().sort("reason").iter_rows():
        tell(f"gold: {rows} row(s) left out: {reason}")
    return made["gold"].height


def intake_of(workspace: Workspace, curation: Curation, *, anew: bool = False) -> Intake:
    """Return the recorded inputs of a curation; with `anew`, or for a draft, those there are now."""
    known = Intake.of(workspace.store, curation.id)
    if anew or curation.is_draft:
        hooks = workspace.hooks
        return Intake.now(workspace.store, curation.config, workspace.clock(), known, hooks.on_message)
    return known


def prepare(workspace: Workspace, curation: Curation) -> Setup:
    """Return the setup of a curation; no model is fetched, so paths of models are empty.

    Raises:
        ConfigError: the gold set of a draft cannot be used.
        ModelError: a model's reference is wrong, or its digest cannot be found out here.
    """
    config, cache, intake = curation.config, workspace.settings.cache, intake_of(workspace, curation)
    digest = digest_of(config.encoder.model, cache)
    encoder = SentenceTransformersSpec(model="", digest=digest, **config.encoder.model_dump(exclude={"model"}))
    base = None
    if config.train is not None:
        base = Directory("model", workspace.store.read_json(_base_model_key(digest)) or {})
    return Setup(
        config=config,
        source=curation.source,
        base_model=base,
        encoder=encoder,
        tiers=tuple(_tier(tier, config, cache) for tier in config.tiers),
        encoder_key=part_keys.digest(part_keys.semantic(encoder)),
        base_model_key=digest,
        base_model_path="",
        page={
            "title": config.name,
            "configuration": yaml.safe_dump(part_keys.semantic(config), sort_keys=False, allow_unicode=True),
            "command": "make demo" if config.name == "demo" else f"reneg curate {config.name}.yaml",
            "versions": recorded_versions(),
        },
        curation=curation.id,
        sheet=str(workspace.folder(curation.id) / "sample" / "sheet.csv"),
        labels=intake.settled(workspace.store),
        gold=intake.gold_set(),
    )


def fetch_models(workspace: Workspace, setup: Setup) -> Setup:
    """Fetch and verify the models of a curation; returns its setup with their paths.

    The base model is stored too, by digest, so that it can be evaluated like the trained models.

    Raises:
        ModelError: a model cannot be fetched, or is not the one that was named.
        StoreError: the base model could not be stored.
    """
    config, store = setup.config, workspace.store
    path = _fetch(workspace, config.encoder.model)
    base = setup.base_model
    if base is not None and not base.files:
        files = dict(write_directory(store, "model", path).files)
        store.create(_base_model_key(setup.base_model_key), json.dumps(files, sort_keys=True).encode())
        base = Directory("model", files)
    return replace(
        setup,
        base_model=base,
        base_model_path=str(path),
        encoder=setup.encoder.model_copy(update={"model": str(path)}),
        tiers=tuple(
            tier if kind_of(asked.engine).is_endpoint else _with_weights(tier, _fetch(workspace, asked.engine.model))
            for tier, asked in zip(setup.tiers, config.tiers, strict=True)
        ),
    )


def _tier(tier: TierConfig, config: CurationConfig, cache: Path) -> Tier:
    engine, kind = tier.engine, kind_of(tier.engine)
    if kind.is_endpoint:
        return Tier.of(tier, config, engine, engine.model)
    weights = {"model": "", "digest": digest_of(engine.model, cache)}
    return Tier.of(tier, config, kind.spec.model_validate(engine.model_dump() | weights), name_of(engine.model))


def _with_weights(tier: Tier, path: Path) -> Tier:
    return replace(tier, engine=tier.engine.model_copy(update={"model": str(path)}))


def _fetch(workspace: Workspace, reference: str) -> Path:
    return resolve(reference, workspace.settings.cache, on_message=workspace.hooks.on_message).path


def _base_model_key(digest: str) -> str:
    return f"models/{digest}.json"
