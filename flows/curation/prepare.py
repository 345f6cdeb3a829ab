"""Prepares a curation: collects the inputs of an execution, and makes the `Setup` that the method takes.

The inputs are people's labels so far, the gold set, and the date of the night. They are recorded for each curation, so
that looking at a finished curation uses the inputs of its last execution. The next execution reads them anew.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import yaml
from pydantic import BaseModel

from flows.config.curation import PREVIEW, CurationConfig
from flows.config.engines import AnyEncoderConfig, TierConfig
from flows.config.schedule import night_of
from flows.config.section import ConfigError
from flows.curation.kinship import related_judges
from flows.curation.records import Curation, load_curation, sources_of
from flows.curation.source import keep_sets, set_of
from flows.curation.workspace import Workspace
from flows.inputs.addresses import is_unreadable, open_address
from flows.inputs.base_models import keep_base, stored_base
from flows.inputs.calibration import keep_calibration, read_kept
from flows.inputs.imported import keep_imported
from flows.inputs.partition import Decision, Earlier, Reading, decide, keep, recorded
from flows.inputs.scores import keep_scores
from flows.method.human_labels import label_keys, read_labels
from flows.method.setup import Gold, Setup, Tier
from infra.cluster.nodes import recorded_versions
from infra.confined import check_names
from infra.engines.kinds import KINDS, kind_of, software_of
from infra.engines.specs import EndpointSpec, ScoresSpec, SentenceTransformersSpec, VectorsSpec
from infra.ledger.forgetting import forgotten_at
from infra.models.resolve import digest_of, is_vectors, name_of, resolve
from infra.provenance import versions
from infra.stages import part_keys
from infra.storage.artifacts import Directory
from infra.storage.numbered_records import keep_next, read_newest
from infra.storage.store import Store
from tasks.quality.gold_set import GoldConfig, GoldError, read_gold
from tasks.quality.labels import settle

_LARGEST_GOLD = 256 * 2**20  # bytes; the file is read into memory


@dataclass(frozen=True)
class Intake:
    """The inputs of an execution besides the source.

    labels: keys of the imports. gold: the gold set's files in the store. night: YYYY-MM-DD if some judge is asked about
    the gold set again every night, else empty. imported: the files of the imported verdicts. scores: by tier, the files
    with its verdicts. calibration: the files of the calibration. evaluation, collections: the files of the sets of
    `guards.evaluation` and `evaluate.collections`, each set below its number.
    """

    labels: tuple[str, ...] = ()
    gold: Mapping[str, str] | None = None
    night: str = ""
    imported: Mapping[str, str] | None = None
    scores: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    calibration: Mapping[str, str] | None = None
    evaluation: Mapping[str, str] = field(default_factory=dict)
    collections: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def now(
        cls,
        store: Store,
        config: CurationConfig,
        now: datetime,
        known: "Intake | None" = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> "Intake":
        """Collect the inputs there are now. The gold set and imported verdicts are copied to the store.

        `tell` reports their unusable rows.

        Raises:
            ConfigError: they cannot be used.
        """
        imported = None
        if config.imported is not None:
            imported = keep_imported(store, config.imported.path, None if known is None else known.imported, tell)
        scores = _keep_scores(store, config, {} if known is None else known.scores, tell)
        calibration = keep_calibration(store, config, None if known is None else known.calibration, tell)
        files: dict[str, Any] = {"imported": imported, "scores": scores, "calibration": calibration}
        if config.gold is None:
            return cls(tuple(label_keys(store)), **files)
        endpoints = any(kind_of(tier.engine).is_endpoint for tier in config.tiers)
        gold = _keep_gold(store, config, None if known is None else known.gold, tell)
        night = night_of(config.nightly, now) if endpoints else ""
        without = [tier.name for tier in config.tiers if tier.reads_file]
        if without:
            tell(f"gold: no verdicts of {', '.join(without)}: a file with verdicts holds none of the gold set's pairs")
        return cls(tuple(label_keys(store)), gold, night, **files)

    @classmethod
    def of(cls, store: Store, curation: str) -> "Intake":
        """Read the inputs of a curation's newest execution; they are empty if none has begun."""
        record = read_newest(store, f"curations/{curation}/intake")
        return (
            cls()
            if record is None
            else cls(
                tuple(record["labels"]),
                record["gold"],
                record["night"],
                record.get("imported"),
                record.get("scores") or {},
                record.get("calibration"),
                record.get("evaluation") or {},
                record.get("collections") or {},
            )
        )

    def keep(self, store: Store, curation: str) -> None:
        """Record the inputs of a curation, unless they equal the newest record."""
        if self != Intake.of(store, curation):
            keep_next(store, f"curations/{curation}/intake", asdict(self))

    def settled(self, store: Store) -> pl.DataFrame | None:
        """Return one label per pair, settled by majority; None if there are no labels."""
        return settle(read_labels(store, self.labels)) if self.labels else None

    @property
    def sets(self) -> Mapping[str, Mapping[str, str]]:
        """The files of the sets that a setting names, by the setting."""
        return {"guards.evaluation": self.evaluation, "evaluate.collections": self.collections}

    def gold_set(self) -> Gold | None:
        """Return the gold set with its night; None if there is none."""
        return None if self.gold is None else Gold(Directory("gold", self.gold), self.night)


def _keep_scores(
    store: Store, config: CurationConfig, known: Mapping[str, Mapping[str, str]], tell: Callable[[str], None]
) -> Mapping[str, Mapping[str, str]]:
    """Copy the files with verdicts of tiers into the store, by tier."""
    return {
        tier.name: keep_scores(store, tier.engine, (tier.name, config.ingest.dataset), known.get(tier.name), tell)
        for tier in config.tiers
        if isinstance(tier.engine, ScoresSpec)
    }


def _keep_gold(
    store: Store, config: CurationConfig, known: Mapping[str, str] | None, tell: Callable[[str], None]
) -> Mapping[str, str]:
    """Copy the gold set into the store; if its file cannot be read, use the copy of the last execution."""
    path = config.gold.path if config.gold else ""
    try:
        fs, root = open_address(path, "gold.path")
        with fs.open(root, "rb") as file:
            data: bytes = file.read(_LARGEST_GOLD + 1)
    except Exception as error:
        if not is_unreadable(error):
            raise
        if known is not None:
            tell(f"gold.path: {path} cannot be read here; the copy of the last execution is used")
            return known
        raise ConfigError(f"gold.path: {path} cannot be read ({type(error).__name__}: {error})") from error
    if len(data) > _LARGEST_GOLD:
        raise ConfigError(f"gold.path: {path} is larger than {_LARGEST_GOLD} bytes; a gold set has some hundred pairs")
    check_gold(data, config, tell)
    return {_name_of(root): store.put_object(data, "")}


def _name_of(path: str) -> str:
    name = urlsplit(path).path.rpartition("/")[2] if path.startswith("http") else Path(path).name
    try:
        check_names([name])
    except ValueError as error:
        raise ConfigError(f"gold.path: {error}") from error
    return name


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
        now = Intake.now(workspace.store, curation.config, workspace.clock(), known, hooks.on_message)
        kept = {setting: keep_sets(workspace, curation.config, setting, there) for setting, there in known.sets.items()}
        return replace(now, evaluation=kept["guards.evaluation"], collections=kept["evaluate.collections"])
    return known


def keep_partition(workspace: Workspace, curation: Curation, *, anew: bool = False) -> None:
    """Record from which ingest a curation's texts keep their parts; with `anew`, none do.

    A source that the method itself makes is always cut into parts anew.
    """
    reading = _reading(curation)
    if reading is not None:
        said = keep(workspace.store, curation.id, reading, lambda: _earlier(workspace, curation), anew=anew)
        if said:
            workspace.hooks.on_message(f"partition: {said}")


def _partition_of(workspace: Workspace, curation: Curation) -> Decision:
    """Return what was decided for a curation; for a draft, what would be."""
    reading = _reading(curation)
    if curation.is_draft and reading is not None:
        return decide(workspace.store, reading, _earlier(workspace, curation))
    return recorded(workspace.store, curation.id) or Decision()


def _reading(curation: Curation) -> Reading | None:
    return None if curation.source is None else Reading(curation.config.ingest, curation.source)


def _earlier(workspace: Workspace, curation: Curation) -> Earlier:
    def load(id_: str) -> Reading | None:
        try:
            return _reading(load_curation(workspace.store, id_))
        except ConfigError:  # of another version
            return None

    return Earlier(sources_of(workspace.store, curation.id), load)


def prepare(workspace: Workspace, curation: Curation) -> Setup:
    """Return the setup of a curation; no model is fetched, so paths of models are empty.

    Raises:
        ConfigError: the gold set, the imported verdicts or the calibration of a draft cannot be used.
        ModelError: a model's reference is wrong, or its digest cannot be found out here.
    """
    config, cache, intake = curation.config, workspace.settings.cache, intake_of(workspace, curation)
    encoder = _encoder(config.encoder, config, cache)
    digest = str(getattr(encoder, "digest", ""))  # an endpoint has none
    trains, reranker = config.train is not None or config.train_reranker is not None, config.train_reranker
    start = "" if reranker is None else digest_of(reranker.model, cache)
    setup = Setup(
        config=config,
        source=curation.source,
        base_model=stored_base(workspace.store, digest) if trains else None,
        encoder=encoder,
        tiers=tuple(_jobs_since_forgotten(_tier(t, config, cache, intake), workspace.store) for t in config.tiers),
        encoder_key=part_keys.digest(part_keys.semantic(encoder)),
        base_model_key=digest,
        base_model_path="",
        page={
            "kinship": tuple(related_judges(config, files=False)),
            "title": config.name,
            "configuration": yaml.safe_dump(part_keys.semantic(config), sort_keys=False, allow_unicode=True),
            "command": _command(config.name),
            "versions": recorded_versions(),
        },
        curation=curation.id,
        sheet=str(workspace.folder(curation.id) / "sample" / "sheet.csv"),
        labels=intake.settled(workspace.store),
        gold=intake.gold_set(),
        imported=None if intake.imported is None else Directory("source", intake.imported),
        evaluation=Directory("source", intake.evaluation) if intake.evaluation else None,
        collections=tuple(set_of(intake.collections, n) for n in range(len(config.evaluate.collections))),
        reranker=None if config.reranker is None else _pinned(config.reranker, config, cache),
        calibration=read_kept(workspace.store, intake.calibration),
        read_from=curation.read_from,
        encoders={name: _encoder(wanted, config, cache) for name, wanted in config.encoders.items()},
        before=_partition_of(workspace, curation).before,
        rescorer=None if config.rescore is None else _tier(config.rescore.tier, config, cache, intake),
        reranker_start=None if reranker is None else stored_base(workspace.store, start),
        reranker_start_key=start,
        own_file=curation.own_file,
    )
    if setup.calibration is not None:
        setup.calibration.refuse_others(setup.encoder_key, setup.judge_names)
        setup.refuse_price_without_labels()
    return setup


def _command(name: str) -> str:
    """Name the command that makes a curation of this name."""
    if name.endswith(PREVIEW):
        return f"reneg preview {name.removesuffix(PREVIEW)}.yaml"
    return "make demo" if name == "demo" else f"reneg curate {name}.yaml"


def fetch_models(workspace: Workspace, setup: Setup) -> Setup:
    """Fetch and verify the models of a curation; returns its setup with their paths.

    The models that trainings start from are stored too, by digest; the base model is evaluated like the trained ones.

    Raises:
        ModelError: a model cannot be fetched, or is not the one that was named.
        StoreError: the base model could not be stored.
    """
    config, store, fetch = setup.config, workspace.store, partial(_with_weights, workspace)
    encoder = fetch(setup.encoder, config.encoder)
    path, base = "" if isinstance(encoder, EndpointSpec) else str(getattr(encoder, "model", "")), setup.base_model
    if base is not None:
        base = keep_base(store, setup.base_model_key, base, Path(path))
    start, wanted = setup.reranker_start, config.train_reranker
    if start is not None and wanted is not None and not start.files:
        folder = resolve(wanted.model, workspace.settings.cache, on_message=workspace.hooks.on_message).path
        start = keep_base(store, setup.reranker_start_key, start, folder)
    return replace(
        setup,
        base_model=base,
        base_model_path=path,
        reranker_start=start,
        encoder=encoder,
        encoders={name: fetch(setup.encoders[name], wanted) for name, wanted in config.encoders.items()},
        reranker=None if setup.reranker is None or config.reranker is None else fetch(setup.reranker, config.reranker),
        tiers=tuple(
            replace(tier, engine=fetch(tier.engine, asked.engine))
            for tier, asked in zip(setup.tiers, config.tiers, strict=True)
        ),
        rescorer=None
        if setup.rescorer is None or config.rescore is None
        else replace(setup.rescorer, engine=fetch(setup.rescorer.engine, config.rescore.engine)),
    )


def _encoder(wanted: AnyEncoderConfig, config: CurationConfig, cache: Path) -> BaseModel:
    """Build the spec of an encoder, without the path of its weights."""
    if isinstance(wanted, EndpointSpec):
        return _with_software(wanted, config)
    if is_vectors(wanted.model):
        return _with_software(VectorsSpec(model="", digest=digest_of(wanted.model, cache)), config)
    settings = wanted.model_dump(exclude={"model"})
    spec = SentenceTransformersSpec(model="", digest=digest_of(wanted.model, cache), **settings)
    return _with_software(spec, config)


def _tier(tier: TierConfig, config: CurationConfig, cache: Path, intake: Intake) -> Tier:
    engine, kind = tier.engine, kind_of(tier.engine)
    if isinstance(engine, ScoresSpec):
        return Tier.of_file(tier, engine, intake.scores.get(tier.name, {}))
    if kind.is_endpoint:
        return Tier.of(tier, config, _with_software(engine, config), engine.model)
    return Tier.of(tier, config, _pinned(engine, config, cache), name_of(engine.model))


def _pinned(engine: Any, config: CurationConfig, cache: Path) -> BaseModel:  # noqa: ANN401 - settings of any engine
    """Build the spec of an engine with weights of its own, without their path."""
    weights = {"model": "", "digest": digest_of(engine.model, cache)}
    return _with_software(kind_of(engine).spec.model_validate(engine.model_dump() | weights), config)


def _jobs_since_forgotten(tier: Tier, store: Store) -> Tier:
    """Let an engine that finds earlier jobs again leave alone those from before answers of it were forgotten."""
    if not kind_of(tier.engine).jobs or not (at := forgotten_at(store, tier.judge.ledger_name)):
        return tier
    return replace(tier, engine=tier.engine.model_copy(update={"not_before": float(at)}))


def _with_software(spec: BaseModel, config: CurationConfig) -> BaseModel:
    """Put the versions of the software into an engine's spec, and so into the keys and names that cover it.

    Nobody knows an endpoint's software. If it is to be asked again too, the versions here become part of its revision.
    """
    if config.software == "ignore":
        return spec
    if not isinstance(spec, EndpointSpec):
        return spec.model_copy(update={"software": software_of(spec)})
    if config.software == "recompute_local":
        return spec
    everything = {name for kind in KINDS.values() for name in kind.libraries}
    here = ", ".join(f"{name} {version}" for name, version in sorted(versions(everything).items()))
    return spec.model_copy(update={"revision": f"{spec.revision} {here}".strip()})


def _with_weights(workspace: Workspace, engine: BaseModel, wanted: BaseModel) -> BaseModel:
    """Fetch the weights that an engine's settings name, and put their path into its spec; others stay as they are."""
    if not kind_of(wanted).has_weights:
        return engine
    reference = str(getattr(wanted, "model", ""))
    path = resolve(reference, workspace.settings.cache, on_message=workspace.hooks.on_message).path
    return engine.model_copy(update={"model": str(path)})
