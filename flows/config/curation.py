"""All settings of one curation, as one model; each stage's section is defined beside the stage."""

import difflib
import re
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from flows.config.engines import (
    AnyEncoderConfig,
    CrossEncoderConfig,
    EncoderConfig,
    TierConfig,
    refuse_begun_answers,
    refuse_without_model,
)
from flows.config.rescore import RescoreConfig
from flows.config.resources import ResourcesConfig, refuse_too_few_gpus
from flows.config.schedule import NightlyConfig, RetentionConfig
from flows.config.section import KEYED_WHEN_SET, OPERATIONAL, Section
from flows.config.training_recipes import SAID, with_recipe
from flows.stages import GOLD, STAGES
from infra.engines.kinds import kind_of
from infra.names import StageName
from infra.redact import hide_variable
from tasks.data.demo_corpus import HarvestConfig
from tasks.data.export import ExportConfig
from tasks.data.ingest import IngestConfig
from tasks.data.treatments import TreatConfig
from tasks.guards.config import GuardsConfig
from tasks.judging.config import JudgeConfig, Policy
from tasks.judging.similarity import SimilarityConfig
from tasks.mining.adopt import AdoptConfig
from tasks.mining.bm25.search import NAME as BM25
from tasks.mining.bm25.search import Bm25Config
from tasks.mining.encode import EncodeConfig
from tasks.mining.mine import MineConfig
from tasks.mining.search import SearchConfig
from tasks.quality.drift import DriftConfig
from tasks.quality.imported import IMPORTED
from tasks.quality.known_false_negatives import AgreeConfig
from tasks.quality.sample import SampleConfig
from tasks.report.report import ReportConfig
from tasks.schemas import DENSE, PAPER_TREATMENTS, Treatment
from tasks.training.evaluate import EvaluateConfig
from tasks.training.promote import PromoteConfig
from tasks.training.rerankers.settings import RerankerTrainConfig
from tasks.training.train_config import TrainConfig
from tasks.verdicts.checks import CheckConfig
from tasks.verdicts.complete import CompleteConfig
from tasks.verdicts.decide import DecideConfig

PREVIEW = "-preview"  # ends the names of previews, and no other name
LATEST, SHIPPED = "latest", "package:"  # names of calibrations that are no files


def is_no_file(calibration: str | None) -> bool:
    """Tell whether the setting names no file or address: it is unset, `latest`, or one that is shipped.

    >>> is_no_file("latest"), is_no_file("package:demo"), is_no_file("my.json")
    (True, True, False)
    """
    return calibration is None or calibration == LATEST or calibration.startswith(SHIPPED)


class SourceConfig(Section):
    """Where the training data comes from: a file or folder, or the documentation of installed libraries."""

    path: str | None = Field(
        None, description="a file, a folder, a pattern (`rows/*.jsonl`) or an address (docs/sources.md)"
    )
    harvest: HarvestConfig | None = Field(None, description="the embedded demo corpus instead of a path")
    max_bytes: int = Field(
        200 * 10**9,
        ge=1,
        description="a source elsewhere or in an archive that is larger, unpacked, is refused",
        json_schema_extra=OPERATIONAL,
    )

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


class GoldSource(Section):
    """The fixed set of labelled pairs that is judged every night."""

    path: str = Field(description="JSON lines: query, positives, passage, label")


class ImportedSource(Section):
    """Verdicts of a judge that was asked elsewhere, or silver labels (`reneg labels silver`)."""

    path: str = Field(
        description="a .parquet, .csv or .jsonl file: query_hash and text_hash, or query, passage and title; label or "
        "state; score"
    )


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
    recipe: str | tuple[str, ...] = Field("", exclude=True, description=SAID, json_schema_extra=KEYED_WHEN_SET)
    source: SourceConfig
    encoder: AnyEncoderConfig = EncoderConfig()
    encoders: dict[str, AnyEncoderConfig] = Field(
        {},
        description="by name: further embedding models that search beside `encoder`; `mine.retrievers` names them",
        json_schema_extra=KEYED_WHEN_SET,
    )
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
    imported: ImportedSource | None = Field(
        None,
        description="verdicts from a table; judges are asked about the other pairs only",
        json_schema_extra=OPERATIONAL,
    )
    calibration: str | None = Field(
        None,
        min_length=1,
        description="turns what the judges say into P(relevant), which decides: a file of `reneg calibrate`, `latest` "
        "for the newest of this name in the store, or `package:demo` for the one that is shipped with the demo",
        json_schema_extra=KEYED_WHEN_SET,
    )
    drift: DriftConfig = Field(DriftConfig(), description="when an alarm is raised", json_schema_extra=OPERATIONAL)
    notify: NotifyConfig | None = Field(
        None, description="where notifications are sent, and about what", json_schema_extra=OPERATIONAL
    )
    retention: RetentionConfig = Field(
        RetentionConfig(), description="what `reneg gc` keeps", json_schema_extra=OPERATIONAL
    )
    software: Literal["ignore", "recompute_local", "recompute_all"] = Field(
        "ignore",
        description="what is computed again when the software has other versions or the processor is of another kind: "
        "nothing; what models on your machines compute; that, and the answers of endpoints, which are paid again",
        json_schema_extra=KEYED_WHEN_SET,
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
        PAPER_TREATMENTS,
        min_length=1,
        description="what is done with false negatives: `default` leaves them negatives, `remove` drops the query, "
        "`remove_hn` drops them, `relabel` makes them positives; `drop_ambiguous` relabels, and drops the negatives "
        "that the judges are unsure of",
    )
    train_on: tuple[Treatment, ...] = Field(
        ("default", "relabel"), description="the treatments that models are trained on, retrievers and rerankers"
    )
    ingest: IngestConfig
    guards: GuardsConfig = Field(GuardsConfig(), json_schema_extra=KEYED_WHEN_SET)
    encode: EncodeConfig = EncodeConfig()
    search: SearchConfig = SearchConfig()
    bm25: Bm25Config = Field(Bm25Config(), json_schema_extra=KEYED_WHEN_SET)
    rescore: RescoreConfig | None = Field(
        None,
        description="a reranker that scores the pool; margins and the pick of `mine` then go by its scores",
        json_schema_extra=KEYED_WHEN_SET,
    )
    mine: MineConfig = MineConfig()
    adopt: AdoptConfig = AdoptConfig()
    similarity: SimilarityConfig = SimilarityConfig()
    decide: DecideConfig = DecideConfig()
    agree: AgreeConfig = AgreeConfig()
    complete: CompleteConfig = CompleteConfig()
    check: CheckConfig = Field(CheckConfig(), json_schema_extra=KEYED_WHEN_SET)
    treat: TreatConfig = TreatConfig()
    sample: SampleConfig = SampleConfig()
    train: TrainConfig | None = TrainConfig()
    train_reranker: RerankerTrainConfig | None = Field(None, json_schema_extra=KEYED_WHEN_SET)
    evaluate: EvaluateConfig = EvaluateConfig()
    reranker: CrossEncoderConfig | None = Field(
        None,
        description="a cross-encoder that ranks again what the untrained model finds in `evaluate.collections`",
        json_schema_extra=KEYED_WHEN_SET,
    )
    export: ExportConfig = ExportConfig()
    report: ReportConfig = ReportConfig()

    @property
    def all_encoders(self) -> dict[str, AnyEncoderConfig]:
        """The encoders, by their place in the settings: `encoder`, and `encoders.<name>`."""
        return {"encoder": self.encoder, **{f"encoders.{name}": one for name, one in self.encoders.items()}}

    @model_validator(mode="before")
    @classmethod
    def _name_the_dataset(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """Use the curation's name for rows that name no dataset; fill in a recipe, and what the encoder reads."""
        data = with_recipe(data)
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
    def _hide_what_it_names(self) -> Self:
        """Hide the values of the variables that hold its secrets, in every text that this process shows or keeps."""
        for engine in (*self.all_encoders.values(), *(tier.engine for tier in self.tiers)):
            hide_variable(kind_of(engine).key_variable(engine))
        hide_variable((self.notify and self.notify.webhook_env) or "")
        return self

    @model_validator(mode="after")
    def _tiers_have_names_of_their_own(self) -> Self:
        """Refuse two tiers with one name, and weights of tiers that do not exist."""
        names = [tier.name for tier in self.tiers]
        if len(set(names)) < len(names):
            raise ValueError(f"tiers: names must differ, got {names}")
        early = [tier.name for tier in self.tiers[:-1] if tier.escalate.target is not None]
        if early:
            raise ValueError(f"tiers: only the last can have escalate.target, for it decides; {early[0]!r} is not")
        if self.imported is not None and IMPORTED in names:
            raise ValueError(f"tiers: the name {IMPORTED!r} is that of the imported verdicts; choose another")
        known = {"similarity", *names} | ({IMPORTED} if self.imported is not None else set())
        unknown = sorted(set(self.decide.weights) - known)
        if unknown:
            raise ValueError(f"decide.weights names {unknown}; the tiers are {['similarity', *names]}")
        return self

    @model_validator(mode="after")
    def _a_judge_checks_the_positives(self) -> Self:
        """Refuse a check of positives without a judge that can be asked about them."""
        names = [tier.name for tier in self.tiers if not tier.reads_file]
        if self.check.positives and (not names if self.check.tier is None else self.check.tier not in names):
            raise ValueError(
                f"check.positives: the name of a tier with an engine expected in check.tier, one of {names}, got "
                f"{self.check.tier!r}; a file has no verdicts on positives, and similarity cannot be asked"
            )
        return self

    @model_validator(mode="after")
    def _price_has_a_calibration(self) -> Self:
        """Refuse a price of decisions without a calibration, and what a calibration replaces."""
        price = next(iter(self.decide.price), None)
        if self.calibration is None:
            if price is not None:
                raise ValueError(
                    f"decide.{price} needs a calibration, which says how often a score is right. Curate without "
                    "it, run `reneg calibrate CURATION`, and set `calibration: latest`"
                )
            return self
        given = [name for name in ("weights", "bias") if getattr(self.decide, name)]
        if self.decide.mode == "last" or given:
            named = "mode: last" if self.decide.mode == "last" else given[0]
            raise ValueError(f"decide.{named}: with a calibration P(relevant) decides; remove it, or `calibration`")
        return self

    @model_validator(mode="after")
    def _gpus_for_every_engine(self) -> Self:
        """Refuse `resources` that leave an engine fewer GPUs than it spreads over."""
        refuse_too_few_gpus(self.tiers, self.resources, self.rescore)
        return self

    @model_validator(mode="after")
    def _policies_fit_the_tiers(self) -> Self:
        """Refuse a policy whose prompt does not fit the protocol of a tier's judge."""
        for tier in self.tiers:
            try:
                judge = JudgeConfig.model_validate({**tier.judge.model_dump(), "policies": self.policies})
                refuse_begun_answers(tier.engine, judge)
            except ValueError as error:
                told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
                message = str(told).removeprefix("Value error, ")
                raise ValueError(f"policies, for tier {tier.name!r}: {message}") from error
        return self

    @model_validator(mode="after")
    def _search_as_deep_as_mining_reads(self) -> Self:
        """Refuse a search that finds fewer hits than mining reads: ranks over several corpus parts would be wrong."""
        if self.search.depth < self.mine.depth:
            raise ValueError(f"search.depth={self.search.depth} must not be below mine.depth={self.mine.depth}")
        if BM25 in self.mine.retrievers and self.bm25.depth < self.mine.depth:
            raise ValueError(f"bm25.depth={self.bm25.depth} must not be below mine.depth={self.mine.depth}")
        if self.rescore is not None:
            self.rescore.check(self.mine)
        return self

    @model_validator(mode="after")
    def _retrievers_are_there(self) -> Self:
        """Refuse a retriever that is neither built in nor an encoder of its own, and an encoder that nobody uses."""
        for name in self.encoders:
            if name in (DENSE, BM25, GOLD) or re.fullmatch(r"[a-z][a-z0-9_]{0,20}", name) is None:
                raise ValueError(
                    f"encoders: a name of lower-case letters, digits and underscores expected, and not {DENSE}, {BM25} "
                    f"or {GOLD}, got {name!r}"
                )
        known = (DENSE, BM25, *self.encoders)
        for name in self.mine.retrievers:
            if name not in known:
                raise ValueError(
                    f"mine.retrievers: one of {', '.join(known)} expected, got {name!r}; name it in encoders"
                )
        idle = sorted(set(self.encoders) - set(self.mine.retrievers))
        if idle:
            raise ValueError(f"encoders.{idle[0]} is used by nothing; name it in mine.retrievers, or remove it")
        return self

    @model_validator(mode="after")
    def _vectors_encode_nothing(self) -> Self:
        """Refuse what needs a model, and settings of one, where the vectors are in files."""
        needs_model = {"train": self.train, "train_reranker": self.train_reranker, "gold": self.gold}
        refuse_without_model(self.all_encoders, needs_model)
        return self

    @model_validator(mode="after")
    def _train_on_what_is_treated(self) -> Self:
        """Refuse to train on a treatment that is not made."""
        absent = [t for t in self.train_on if t not in self.treatments]
        if (self.train is not None or self.train_reranker is not None) and absent:
            raise ValueError(f"train_on names {absent}, which treatments {list(self.treatments)} does not make")
        return self

    @model_validator(mode="after")
    def _promote_what_is_compared(self) -> Self:
        """Refuse to promote a treatment that is not made, or one that no model is trained on."""
        if self.promote is not None:
            trained = () if self.train is None else self.train_on
            self.promote.check(self.treatments, trained, self.evaluate.measures)
        return self
