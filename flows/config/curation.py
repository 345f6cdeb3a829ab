"""All settings of one curation, as one model; each stage's section is defined beside the stage."""

import difflib
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from flows.config.engines import EncoderConfig, TierConfig
from flows.config.resources import ResourcesConfig
from flows.config.schedule import NightlyConfig
from flows.config.section import OPERATIONAL, Section
from flows.stages import STAGES
from infra.names import StageName
from tasks.data.demo_corpus import HarvestConfig
from tasks.data.export import ExportConfig
from tasks.data.ingest import IngestConfig
from tasks.data.treatments import TreatConfig
from tasks.judging.cascade import CompleteConfig, DecideConfig
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


class SourceConfig(Section):
    """Where the training data comes from: a file or folder, or the documentation of installed libraries."""

    path: str | None = Field(None, description="a JSONL file, a folder of them, or a BEIR folder")
    harvest: HarvestConfig | None = Field(None, description="the embedded demo corpus instead of a path")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        """Refuse both or neither of `path` and `harvest`."""
        if (self.path is None) == (self.harvest is None):
            raise ValueError("give either source.path or source.harvest")
        return self


class BudgetConfig(Section):
    """The limits of one run of a curation. A run that reaches one stops; the next run continues. Unset: no limit."""

    tokens: int | None = Field(None, ge=1, description="read and written")
    money: float | None = Field(None, gt=0, description="in the currency of the price file")
    hours: float | None = Field(None, gt=0, description="in which engines work")


class RetentionConfig(Section):
    """What `reneg gc` keeps of each name. Unfinished curations and those of kept releases are always kept."""

    curations: int = Field(30, ge=1, description="So many of the newest curations are kept.")
    days: float = Field(30.0, ge=0, description="Curations that worked within so many days are kept too.")
    releases: int = Field(5, ge=1, description="So many of the newest releases are kept, the current one included.")


class GoldSource(Section):
    """The fixed set of labelled pairs that is judged every night."""

    path: str = Field(description="JSON lines: query, positives, passage, label")


Occasion = Literal["failed", "promoted", "held", "rolled-back", "drift"]


class NotifyConfig(Section):
    """Where notifications are sent, and about what.

    block: a block on the Prefect server, as type/name: `webhook/my-hook`, `slack-webhook/data-team`.
    webhook_env: instead, the environment variable that holds a webhook's URL where `reneg deploy` runs.
    on: what is reported; `held` is a finished curation that was not promoted.
    ui_url: the address of the Prefect UI, for links; default: the server that `reneg deploy` uses.
    """

    block: str | None = Field(None, pattern=r"^[a-z0-9-]+/[A-Za-z0-9._-]+$")
    webhook_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    on: tuple[Occasion, ...] = Field(("failed", "promoted", "held", "rolled-back", "drift"), min_length=1)
    ui_url: str | None = Field(None, pattern=r"^https?://[A-Za-z0-9._~:/@%\[\]-]+$")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        """Refuse both or neither of `block` and `webhook_env`."""
        if (self.block is None) == (self.webhook_env is None):
            raise ValueError("give either notify.block (type/name) or notify.webhook_env (a variable's name)")
        return self


class CurationConfig(Section):
    """Everything one curation needs. Defaults are the paper's values where it has one."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="lower-case letters, digits, dashes")
    source: SourceConfig
    encoder: EncoderConfig = EncoderConfig()
    tiers: tuple[TierConfig, ...] = Field((TierConfig(),), description="judges after similarity, in the order asked")
    nightly: NightlyConfig | None = Field(
        None, description="when it runs, once deployed", json_schema_extra=OPERATIONAL
    )
    promote: PromoteConfig | None = Field(
        None, description="when a finished curation becomes a release", json_schema_extra=OPERATIONAL
    )
    gold: GoldSource | None = Field(
        None, description="labelled pairs that are judged every night", json_schema_extra=OPERATIONAL
    )
    drift: DriftConfig = Field(DriftConfig(), description="when an alarm is raised", json_schema_extra=OPERATIONAL)
    notify: NotifyConfig | None = Field(
        None, description="where notifications are sent, and about what", json_schema_extra=OPERATIONAL
    )
    retention: RetentionConfig = Field(
        RetentionConfig(), description="what `reneg gc` keeps", json_schema_extra=OPERATIONAL
    )
    policies: dict[str, Policy] = Field({}, description="by dataset: its definition of relevance, or skip")
    budget: BudgetConfig = Field(BudgetConfig(), json_schema_extra=OPERATIONAL)
    prices: str | dict[str, JsonValue] | None = Field(
        None, description="a file like flows/config/prices.yaml, or the content of one", json_schema_extra=OPERATIONAL
    )
    resources: dict[str, ResourcesConfig] = Field(
        {}, description="by stage name, with or without its label (`judge-llm`)", json_schema_extra=OPERATIONAL
    )
    treatments: tuple[Treatment, ...] = Field(
        TREATMENTS,
        min_length=1,
        description="what is done with false negatives: `default` leaves them negatives, `remove` drops the query, "
        "`remove_hn` drops them, `relabel` makes them positives",
    )
    train_on: tuple[Treatment, ...] = Field(
        ("default", "relabel"), description="the treatments that a model is trained on"
    )
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
        """Refuse resources of a stage that does not exist."""
        known = [stage.name for stage in STAGES]
        for name in value:
            if StageName.parse(name).stage not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                raise ValueError(f"no stage {name!r}; " + (f"did you mean {near[0]!r}?" if near else ", ".join(known)))
        return value

    @model_validator(mode="after")
    def _tiers_have_names_of_their_own(self) -> Self:
        """Refuse two tiers with one name, and weights of tiers that do not exist."""
        names = [tier.name for tier in self.tiers]
        if len(set(names)) < len(names):
            raise ValueError(f"tiers: names must differ, got {names}")
        unknown = sorted(set(self.decide.weights) - {"similarity", *names})
        if unknown:
            raise ValueError(f"decide.weights names {unknown}; the tiers are {['similarity', *names]}")
        return self

    @model_validator(mode="after")
    def _policies_fit_the_tiers(self) -> Self:
        """Refuse a policy whose prompt does not fit the protocol of a tier's judge."""
        for tier in self.tiers:
            try:
                JudgeConfig.model_validate({**tier.judge.model_dump(), "policies": self.policies})
            except ValidationError as error:
                message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                raise ValueError(f"policies, for tier {tier.name!r}: {message}") from error
        return self

    @model_validator(mode="after")
    def _search_as_deep_as_mining_reads(self) -> Self:
        """Refuse a search that finds fewer hits than mining reads: ranks over several corpus parts would be wrong."""
        if self.search.depth < self.mine.depth:
            raise ValueError(f"search.depth={self.search.depth} must not be below mine.depth={self.mine.depth}")
        return self

    @model_validator(mode="after")
    def _train_on_what_is_treated(self) -> Self:
        """Refuse to train on a treatment that is not made."""
        absent = [t for t in self.train_on if t not in self.treatments]
        if self.train is not None and absent:
            raise ValueError(f"train_on names {absent}, which treatments {list(self.treatments)} does not make")
        return self

    @model_validator(mode="after")
    def _promote_what_is_compared(self) -> Self:
        """Refuse to promote a treatment that is not made, or one that no model is trained on."""
        if self.promote is not None:
            trained = () if self.train is None else self.train_on
            self.promote.check(self.treatments, trained, self.evaluate.measures)
        return self
