"""One configuration for one curation: a YAML file, validated, unknown keys refused with the nearest known one named."""

import difflib
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from flows.gold import GoldSource
from flows.notifications import NotifyConfig
from flows.retention import RetentionConfig
from flows.schedule import NightlyConfig
from flows.stages import STAGES
from infra.engines.specs import OpenAIBatchSpec, OpenAISpec
from tasks.data.demo_corpus import HarvestConfig
from tasks.data.export import ExportConfig
from tasks.data.ingest import IngestConfig
from tasks.data.treatments import TreatConfig
from tasks.judging.cascade import CompleteConfig, DecideConfig, EscalateConfig
from tasks.judging.config import JudgeConfig, Policy
from tasks.judging.similarity import SimilarityConfig
from tasks.mining.encode import EncodeConfig
from tasks.mining.mine import AdoptConfig, MineConfig
from tasks.mining.search import SearchConfig
from tasks.quality.drift import DriftConfig
from tasks.quality.known_false_negatives import AgreeConfig
from tasks.quality.sample import SampleConfig
from tasks.report.report import ReportConfig
from tasks.schemas import TREATMENTS, Treatment
from tasks.training.evaluate import EvaluateConfig
from tasks.training.promote import PromoteConfig
from tasks.training.training_rows import TrainConfig

_OPERATIONAL: dict[str, JsonValue] = {"operational": True}


_INSTEAD = {
    "judge": "the judge is named after its engine and prompts",
    "tier": "give the tier's `name`",
    "engine": "give the tier's `engine`",
    "policies": "put `policies` beside `tiers`: they hold for all of them",
}


class ConfigError(Exception):
    """The configuration cannot be used; the message has one line per problem."""


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)  # it may hold a secret


class SourceConfig(_Config):
    """Where the training data comes from: a file or folder, or the documentation of installed libraries."""

    path: str | None = Field(None, description="a JSONL file, a folder of them, or a BEIR folder")
    harvest: HarvestConfig | None = Field(None, description="the embedded demo corpus instead of a path")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        """Demand one source."""
        if (self.path is None) == (self.harvest is None):
            raise ValueError("give either source.path or source.harvest")
        return self


class EncoderConfig(_Config):
    """The embedding model that mines and gives the similarity judge its features; training starts from it too.

    model: `hub:owner/name@commit` (all 40 digits), `path:folder`, or `package:minilm`.
    max_seq_length: tokens read of a text; the rest is cut.
    query_prompt, passage_prompt: put before each text of that role, as the model's card asks.
    batch_size: texts at once. dtype: of the weights. device: where it runs.
    """

    model: str = "package:minilm"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_seq_length: int = Field(256, ge=8)
    query_prompt: str = ""
    passage_prompt: str = ""
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = Field(32, ge=1, json_schema_extra=_OPERATIONAL)
    threads: int | None = Field(None, ge=1, description="default: the CPUs its parts are granted")


class VLLMConfig(_Config):
    """A language model under vLLM.

    model: `hub:owner/name@commit`, `path:folder`, `path:file.gguf` or `package:…`; `w8a8:` before it makes it 8-bit.
    max_model_len: tokens of prompt and answer together.
    quantization: as vLLM names it; null takes what the model's own configuration says.
    dtype: of the weights. device: where it runs. gpu_memory_utilization: share of a GPU's memory taken.
    cpu_kvcache_gib: memory for the key-value cache on a CPU.
    """

    kind: Literal["vllm"] = "vllm"
    model: str = "package:qwen2.5-coder-1.5b-instruct"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    max_model_len: int = Field(2048, ge=128)
    quantization: str | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs per engine")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, json_schema_extra=_OPERATIONAL)
    cpu_kvcache_gib: float = Field(1.0, gt=0, json_schema_extra=_OPERATIONAL)
    threads: int | None = Field(None, ge=1, description="default: the CPUs its parts are granted")


class CrossEncoderConfig(_Config):
    """A cross-encoder under sentence-transformers, as a judge.

    model: `hub:owner/name@commit` or `path:folder`. max_seq_length: tokens read of a pair; the rest is cut.
    activation: makes a probability of the model's output; `none` where the model gives one itself.
    batch_size: pairs at once. dtype: of the weights. device: where it runs.
    """

    kind: Literal["cross_encoder"] = "cross_encoder"
    model: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_seq_length: int = Field(512, ge=8)
    activation: Literal["sigmoid", "none"] = "sigmoid"
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = Field(32, ge=1, json_schema_extra=_OPERATIONAL)
    threads: int | None = Field(None, ge=1, description="default: the CPUs its parts are granted")


EngineConfig = Annotated[
    VLLMConfig | CrossEncoderConfig | OpenAISpec | OpenAIBatchSpec,
    Field(discriminator="kind"),
]


class TierConfig(_Config):
    """One judge of the cascade, after similarity: who it is, how it is asked, and about what.

    name: `similarity`, `cascade` and `gold` are taken. engines: how many stand side by side.
    """

    name: str = Field("llm", pattern=r"^[a-z][a-z0-9_]{0,20}$", description="lower-case letters, digits, underscores")
    engine: EngineConfig = VLLMConfig()
    engines: int = Field(1, ge=1, json_schema_extra=_OPERATIONAL)
    judge: JudgeConfig = JudgeConfig()
    escalate: EscalateConfig = EscalateConfig()

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """Take an engine without a kind for vLLM, a cross-encoder's protocol for granted, and batch jobs for large."""
        if not isinstance(data, dict) or not isinstance(data.get("engine", {}), dict):
            return data
        engine = {"kind": "vllm", **data.get("engine", {})}
        judge = data.get("judge", {})
        if engine["kind"] == "cross_encoder" and isinstance(judge, dict):
            judge = {"protocol": "cross_encoder", **judge}
        escalate = data.get("escalate", {})
        if engine["kind"] == "openai_batch" and isinstance(judge, dict) and isinstance(escalate, dict):
            # A job takes hours whatever its size, and one that was submitted is found again after a kill.
            judge = {"batch_size": 100_000, **judge}
            escalate = {"pairs_per_part": 100_000, **escalate}
        return {**data, "engine": engine, "judge": judge, "escalate": escalate}

    @model_validator(mode="after")
    def _engine_fits_protocol(self) -> Self:
        """Refuse a protocol that the engine cannot speak."""
        if (self.engine.kind == "cross_encoder") != (self.judge.protocol == "cross_encoder"):
            raise ValueError(f"engine {self.engine.kind!r} cannot be asked by protocol {self.judge.protocol!r}")
        unset = JudgeConfig()
        for name in ("judge", "tier", "engine", "policies"):
            if getattr(self.judge, name) != getattr(unset, name):
                raise ValueError(f"judge.{name} is set by the flow; " + _INSTEAD[name])
        if self.name in ("similarity", "cascade", "gold"):
            raise ValueError(f"name {self.name!r} is taken")
        return self


class BudgetConfig(_Config):
    """What one run of a curation may use before it stops, resumable; unset: no limit."""

    tokens: int | None = Field(None, ge=1, description="read and written")
    money: float | None = Field(None, gt=0, description="in the currency of the price file")
    hours: float | None = Field(None, gt=0, description="in which engines work")


class ResourcesConfig(_Config):
    """What Ray grants to each part of one stage; unset fields keep the stage table's values."""

    num_cpus: float | None = Field(None, gt=0, description="cut to what a node has")
    num_gpus: float | None = Field(None, ge=0, description="where no node has them, the run ends and says so")
    memory: int | None = Field(None, gt=0, description="bytes")
    deadline: float | None = Field(None, gt=0, description="seconds a part may work; then it is killed and tried again")


class CurationConfig(_Config):
    """Everything one curation needs. Defaults are the paper's values where it has one."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="lower-case letters, digits, dashes")
    source: SourceConfig
    encoder: EncoderConfig = EncoderConfig()
    tiers: tuple[TierConfig, ...] = Field((TierConfig(),), description="judges after similarity, in the order asked")
    nightly: NightlyConfig | None = Field(
        None, description="when it runs, once deployed", json_schema_extra=_OPERATIONAL
    )
    promote: PromoteConfig | None = Field(
        None, description="when a finished curation becomes a release", json_schema_extra=_OPERATIONAL
    )
    gold: GoldSource | None = Field(None, description="judged every night", json_schema_extra=_OPERATIONAL)
    drift: DriftConfig = Field(DriftConfig(), description="when it alarms", json_schema_extra=_OPERATIONAL)
    notify: NotifyConfig | None = Field(None, description="who is told, and of what", json_schema_extra=_OPERATIONAL)
    retention: RetentionConfig = Field(
        RetentionConfig(), description="what `reneg gc` keeps", json_schema_extra=_OPERATIONAL
    )
    policies: dict[str, Policy] = Field({}, description="by dataset: its definition of relevance, or skip")
    budget: BudgetConfig = Field(BudgetConfig(), json_schema_extra=_OPERATIONAL)
    prices: str | dict[str, JsonValue] | None = Field(
        None, description="a file like flows/prices.yaml, or what stands in one", json_schema_extra=_OPERATIONAL
    )
    resources: dict[str, ResourcesConfig] = Field(
        {}, description="by stage name, with or without its label (`judge-llm`)", json_schema_extra=_OPERATIONAL
    )
    treatments: tuple[Treatment, ...] = Field(
        TREATMENTS,
        min_length=1,
        description="what becomes of false negatives: `default` nothing, `remove` drops the query, `remove_hn` drops "
        "them, `relabel` makes them positives",
    )
    train_on: tuple[Treatment, ...] = Field(("default", "relabel"), description="which of them a model is trained on")
    ingest: IngestConfig
    encode: EncodeConfig = EncodeConfig()
    search: SearchConfig = SearchConfig()
    mine: MineConfig = MineConfig()
    adopt: AdoptConfig = AdoptConfig()
    similarity: SimilarityConfig = SimilarityConfig()
    decide: DecideConfig = DecideConfig()
    agree: AgreeConfig = AgreeConfig()
    complete: CompleteConfig = CompleteConfig()
    treat: TreatConfig = TreatConfig()
    sample: SampleConfig = SampleConfig()
    train: TrainConfig | None = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="before")
    @classmethod
    def _name_the_dataset(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """Use the curation's name for rows that name no dataset."""
        if isinstance(data, dict) and isinstance(data.get("ingest", {}), dict) and "name" in data:
            return {**data, "ingest": {"dataset": data["name"], **data.get("ingest", {})}}
        return data

    @field_validator("resources")
    @classmethod
    def _resources_of_stages(cls, value: dict[str, ResourcesConfig]) -> dict[str, ResourcesConfig]:
        """Refuse resources of a stage that is not there."""
        known = [stage.name for stage in STAGES]
        for name in value:
            if name.partition("-")[0] not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                raise ValueError(f"no stage {name!r}; " + (f"did you mean {near[0]!r}?" if near else ", ".join(known)))
        return value

    @model_validator(mode="after")
    def _tiers_have_names_of_their_own(self) -> Self:
        """Refuse two tiers of one name, and weights of tiers that are not there."""
        names = [tier.name for tier in self.tiers]
        if len(set(names)) < len(names):
            raise ValueError(f"tiers: names must differ, got {names}")
        unknown = sorted(set(self.decide.weights) - {"similarity", *names})
        if unknown:
            raise ValueError(f"decide.weights names {unknown}; the tiers are {['similarity', *names]}")
        return self

    @model_validator(mode="after")
    def _policies_fit_the_tiers(self) -> Self:
        """Refuse a policy whose prompt a tier's judge cannot be asked with."""
        for tier in self.tiers:
            try:
                JudgeConfig.model_validate({**tier.judge.model_dump(), "policies": self.policies})
            except ValidationError as error:
                message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                raise ValueError(f"policies, for tier {tier.name!r}: {message}") from error
        return self

    @model_validator(mode="after")
    def _search_as_deep_as_mining_reads(self) -> Self:
        """Demand one depth: below the search's, ranks over several corpus parts are not exact."""
        if self.search.depth < self.mine.depth:
            raise ValueError(f"search.depth={self.search.depth} must not be below mine.depth={self.mine.depth}")
        return self

    @model_validator(mode="after")
    def _train_on_what_is_treated(self) -> Self:
        """Demand the instances of every treatment that a model is trained on."""
        absent = [t for t in self.train_on if t not in self.treatments]
        if self.train is not None and absent:
            raise ValueError(f"train_on names {absent}, which treatments {list(self.treatments)} does not make")
        return self

    @model_validator(mode="after")
    def _promote_what_is_compared(self) -> Self:
        """Refuse to promote what is not made, or what no model is trained on."""
        if self.promote is not None:
            trained = () if self.train is None else self.train_on
            self.promote.check(self.treatments, trained, self.evaluate.measures)
        return self


def load_config(path: Path) -> CurationConfig:
    """Read and validate one YAML file; relative paths in it are taken from its folder.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or does not fit; every problem on its own line.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a mapping of settings expected, {type(data).__name__} came")
    config = parse_config(data, str(path))
    source = config.source.model_copy(update={"path": _beside(path, config.source.path)})
    gold = config.gold and config.gold.model_copy(update={"path": _beside(path, config.gold.path)})
    prices = _beside(path, config.prices) if isinstance(config.prices, str) else config.prices
    return config.model_copy(update={"source": source, "prices": prices, "gold": gold})


def _beside(config: Path, name: str | None) -> str | None:
    """Take a relative path from the configuration's folder."""
    if name is None or "://" in name or Path(name).is_absolute():
        return name
    return str((config.parent / name).resolve())


def parse_config(data: dict[str, Any], origin: str) -> CurationConfig:
    """Validate settings; `origin` names them in errors.

    Raises:
        ConfigError: every problem on its own line.
    """
    try:
        return CurationConfig.model_validate(data)
    except ValidationError as error:
        lines = [f"{origin}: {_explain(problem)}" for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def _explain(problem: Any) -> str:  # noqa: ANN401 - pydantic's error details
    where = ".".join(str(step) for step in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown key {where!r}; {hint}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Return the keys a section knows, walking down the models by field name."""
    models: list[Any] = [CurationConfig]
    for step in path:
        fields = [m.model_fields[step] for m in models if isinstance(step, str) and step in m.model_fields]
        if fields:
            models = models_in(fields[0].annotation)
        else:  # a place in a list, or the kind that chose among several models
            models = [
                m for m in models if "kind" not in m.model_fields or m.model_fields["kind"].default == step
            ] or models
    return [name for model in models for name in model.model_fields]


def models_in(annotation: Any) -> list[Any]:  # noqa: ANN401 - any type expression
    """List the models that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in models_in(inner)]
