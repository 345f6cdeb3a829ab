"""What the method takes and returns: a curation that is ready to run (`Setup`), and its results (`Outcome`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from pydantic import BaseModel

from flows.config.curation import CurationConfig
from flows.config.engines import TierConfig
from flows.config.section import ConfigError
from flows.guarantee_stages import audited
from flows.method.tables import Places
from flows.stage_names import judge_stage, scores_stage
from infra.engines.specs import ScoresSpec
from infra.provenance import declared
from infra.stages import part_keys
from infra.stages.stage import Stage
from infra.storage.artifacts import Directory, Table
from tasks.judging.config import JudgeConfig
from tasks.prompts.prompt import load_definition, prompt_digest
from tasks.quality.imported import IMPORTED
from tasks.quality.scores import ScoresConfig, name_judge
from tasks.texts import hash_text
from tasks.verdicts.calibration import DATA, Calibration
from tasks.verdicts.decide import DecideConfig
from tasks.verdicts.escalate import EscalateConfig
from tasks.verdicts.guarantee.reach import GuaranteeConfig

TO_THE_END = (  # ends a message about an unfinished curation
    "run it to its end first with `reneg curate`, also where an earlier version of Reneg finished it: what did not "
    "change is reused"
)
# Older settings may name it; it stays out of the parts' keys.
_WITHOUT_EFFECT = {"pairs_per_part": EscalateConfig().pairs_per_part}


class CurationFailed(Exception):
    """Parts failed; the message lists them with the command that computes them again."""


class TooManyRejected(CurationFailed):
    """Ingest could not use too much of the source; the message names the reasons, with examples, and the remedy."""


class Contaminated(TooManyRejected):
    """The training data repeats evaluation sets, and `guards.contamination` refuses that; the message says what."""


class WaitingForLabels(Exception):
    """Too few pairs of the sample are labelled; the message says how many are needed and how to import labels."""

    def __init__(self, message: str, sheet: Directory | None = None) -> None:
        """Keep the message, and the sheet that people must fill in."""
        super().__init__(message)
        self.sheet = sheet


@dataclass(frozen=True)
class Tier:
    """One judge, ready to run: which pairs it judges, its settings, its engine, and digests of its texts.

    scores: the file with its verdicts, as kept in the store; None for a judge that is asked. rows: the file's rows, cut
    into those of each query part; None until the flow has cut them.
    """

    name: str
    escalate: EscalateConfig
    judge: JudgeConfig
    engine: BaseModel
    shown: Mapping[str, Mapping[str, str]]  # digests of its prompt files and of its definitions of relevance
    scores: Directory | None = None
    rows: Table | None = None

    @classmethod
    def of(cls, tier: TierConfig, config: CurationConfig, engine: BaseModel, model: str) -> "Tier":
        """Build a tier from its settings: add the policies, and name the judge after model, engine and prompts."""
        policies = {dataset: policy for dataset, policy in config.policies.items() if not policy.skip}
        judge = JudgeConfig.model_validate(tier.judge.model_dump() | {"tier": tier.name, "policies": policies})
        prompts = {name: prompt_digest(name) for name in judge.prompt_names}
        definitions = {name: hash_text(load_definition(name)) for name in judge.definition_names}
        asked = f"{model}:{part_keys.digest(part_keys.semantic(engine))[:12]}"
        names = {"engine": asked, "judge": f"{asked}/{part_keys.digest([prompts, definitions])[:12]}"}
        shown = {"prompts": prompts, "definitions": definitions}
        return cls(tier.name, tier.escalate, judge.model_copy(update=names), engine, shown)

    @classmethod
    def of_file(cls, tier: TierConfig, spec: ScoresSpec, files: Mapping[str, str]) -> "Tier":
        """Build a tier whose verdicts are in a file. Its judge is named after what the file holds, not after its path.

        files: of the copy in the store.
        """
        label, grade = spec.name or spec.columns.score, tier.judge.relevant_grade
        name = name_judge(label, spec.scale, max_grade=spec.max_grade, relevant_grade=grade)
        judge = tier.judge.model_copy(update={"tier": tier.name, "engine": name, "judge": name})
        return cls(tier.name, tier.escalate, judge, spec, {}, Directory("source", files))

    @property
    def stage(self) -> str:
        """The name of the stage in which it judges the candidates, with its label."""
        return judge_stage(self.name) if self.scores is None else scores_stage(self.name)

    @property
    def stages(self) -> tuple[str, ...]:
        """All stages in which it judges candidates: with a guarantee, first that of the audit sample."""
        return (self.stage,) if self.escalate.target is None else (audited(self.stage), self.stage)

    @property
    def reading(self) -> ScoresConfig:
        """How the values of its file become verdicts.

        Raises:
            TypeError: its verdicts are in no file.
        """
        if not isinstance(self.engine, ScoresSpec):
            raise TypeError(f"tier {self.name}: verdicts from a file expected, its engine is {self.engine!r}")
        judge = self.judge
        return ScoresConfig(
            tier=self.name,
            judge=judge.judge,
            scale=self.engine.scale,
            max_grade=self.engine.max_grade,
            relevant_grade=judge.relevant_grade,
            relevant_from=judge.relevant_from,
            not_relevant_below=judge.not_relevant_below,
        )

    @property
    def is_pinned(self) -> bool:
        """Whether the digest of its weights is known. An endpoint's model can change although its name does not."""
        return bool(getattr(self.engine, "digest", ""))


@dataclass(frozen=True)
class Gold:
    """The gold set of one curation, as kept in the store, and the night it is judged in (YYYY-MM-DD)."""

    directory: Directory
    night: str


@dataclass(frozen=True)
class Calibrated:
    """A calibration, as kept in the store, and what it says."""

    directory: Directory
    calibration: Calibration

    @property
    def decides(self) -> bool:
        """Whether its P(relevant) decides. One on labels of the data itself only ranks what the first tier is asked."""
        return self.calibration.origin.labels_from != DATA

    def refuse_others(self, encoder: str, judges: Mapping[str, str]) -> None:
        """Refuse an encoder or a judge that is not one of those the calibration was fitted on.

        encoder: its key. judges: by tier, what each is named in VERDICTS.

        Raises:
            ConfigError: a line for each that differs, and what to run.
        """
        fitted = self.calibration.origin
        told = []
        if fitted.encoder not in (None, encoder):
            told.append(f"its cosines are of another encoder (key {str(fitted.encoder)[:8]}, here {encoder[:8]})")
        for tier, judge in judges.items() if self.decides else ():
            if tier not in fitted.judges:
                told.append(f"it knows no tier {tier!r}, only {', '.join(fitted.judges) or 'similarity'}")
            elif fitted.judges[tier] != judge:
                told.append(f"tier {tier!r} is another judge (fitted on {fitted.judges[tier]}, here {judge})")
        if told:
            raise ConfigError(
                "\n".join(f"calibration: {line}" for line in told) + "\nScores of one judge say nothing about "
                "another's. Curate once without `calibration:`, and make one with `reneg calibrate CURATION`"
            )

    def thresholds(self, decide: DecideConfig) -> dict[str, float]:
        """Return the thresholds of P(relevant) for the price of a decision; those of the settings where it has none.

        A price that no threshold reaches calls nothing relevant: the threshold is 1, and P is always below.
        """
        if not decide.price:
            return {"relevant_from": decide.relevant_from, "not_relevant_below": decide.not_relevant_below}
        found = self.calibration.threshold_for(**decide.price)
        upper = 1.0 if found is None else float(found)
        lower = upper if decide.precision is None and found is not None else 1 - (decide.precision or 1.0)
        return {"relevant_from": upper, "not_relevant_below": min(upper, lower)}


@dataclass(frozen=True)
class Setup:
    """One curation, ready to run: its configuration, its source in the store, its engines with their digests.

    Paths of models are empty until `flows.curation.prepare.fetch_models` has fetched them. That is enough to look up
    finished parts, because keys contain digests and no paths.
    """

    config: CurationConfig
    source: Directory | None
    base_model: Directory | None
    encoder: BaseModel
    tiers: tuple[Tier, ...]
    encoder_key: str  # weights and settings of the encoder, for stages that read embeddings through hashes
    base_model_key: str  # its weights alone: where training starts
    base_model_path: str
    page: Mapping[str, Any]  # what the report says of the run: configuration, command, versions
    curation: str = ""
    sheet: str = ""  # where the sheet for people is laid out
    labels: pl.DataFrame | None = None  # people's labels, by text (tasks.quality.labels.settle)
    gold: Gold | None = None
    imported: Directory | None = None  # the table of imported verdicts, as kept in the store
    evaluation: Directory | None = None  # the evaluation sets of `guards.evaluation`, as kept in the store
    collections: tuple[Directory, ...] = ()  # those of `evaluate.collections`, as kept in the store
    reranker: BaseModel | None = None  # ranks again what the base model finds in collections
    calibration: Calibrated | None = None
    read_from: str = ""  # the source's address with its commit, if it is a data set of a hub
    encoders: Mapping[str, BaseModel] = field(default_factory=dict)  # that search beside `encoder`, by name
    before: Places | None = None  # where an earlier ingest put its texts: they stay there (flows.inputs.partition)
    rescorer: Tier | None = None  # the reranker that scores the pool, asked as a judge is
    reranker_start: Directory | None = None  # the model that the training of a reranker starts from
    reranker_start_key: str = ""  # its weights alone
    own_file: bool = False  # of the user who runs it; a configuration from the store is bound to RENEG_ALLOWED_KEYS

    @property
    def engines(self) -> tuple[BaseModel, ...]:
        """The specs of everything that encodes or is asked."""
        reranker = () if self.reranker is None else (self.reranker,)
        return (self.encoder, *self.encoders.values(), *(tier.engine for tier in self.asked), *reranker)

    @property
    def asked(self) -> tuple[Tier, ...]:
        """Everything that is asked about pairs, and whose answers are remembered: the judges and the reranker."""
        judges = tuple(tier for tier in self.tiers if tier.scores is None)
        return judges if self.rescorer is None else (*judges, self.rescorer)

    @property
    def rescored_depth(self) -> int:
        """How many of the nearest passages of each query the reranker scores; 0 without one."""
        wanted = self.config.rescore
        return 0 if wanted is None else wanted.depth or self.config.mine.range_max

    def software(self, stage: Stage, device: str = "cpu") -> dict[str, dict[str, str]]:
        """Return what the key of a stage without an engine covers of the software; nothing unless the settings say so.

        Engines have the same in their specs.
        """
        return {} if self.config.software == "ignore" else {"software": declared(stage.libraries, device)}

    @property
    def tier_names(self) -> tuple[str, ...]:
        """The names of the tiers after similarity, in the order in which they judge."""
        return tuple(tier.name for tier in self.tiers)

    @property
    def judges(self) -> tuple[str, ...]:
        """The tiers whose verdicts are combined, after similarity: `imported` where there is a table, and the tiers."""
        return self.tier_names if self.imported is None else (IMPORTED, *self.tier_names)

    @property
    def judge_names(self) -> dict[str, str]:
        """What each of `judges` is named in VERDICTS, by tier."""
        named = {tier.name: tier.judge.judge for tier in self.tiers}
        return named if self.imported is None else {IMPORTED: IMPORTED, **named}

    @property
    def decided_by(self) -> Calibrated | None:
        """The calibration, if it decides."""
        return self.calibration if self.calibration is not None and self.calibration.decides else None

    def refuse_price_without_labels(self) -> None:
        """Refuse a price of decisions where the calibration decides nothing.

        Raises:
            ConfigError: with what to do.
        """
        price = next(iter(self.config.decide.price), None)
        if price is not None and self.decided_by is None:
            raise ConfigError(
                f"decide.{price}: the calibration rests on what the data itself tells: it ranks and decides nothing. "
                "Let people label the sheet, then `reneg calibrate CURATION --from people`; or remove the price"
            )

    def is_combined(self, number: int) -> bool:
        """Tell whether P(relevant) is computed after the first `number` tiers."""
        return self.calibration is not None and (number == 0 or self.calibration.decides)

    def escalate(self, place: int) -> EscalateConfig:
        """Return how the tier at a place (from 0) gets its pairs: its settings, and whether the scores it reads count.

        With a calibration P(relevant) after the tiers before says alone what is open: the states follow from the band.
        Similarity without one, and without thresholds of its own, only ranks.
        """
        wanted = self.tiers[place].escalate.model_copy(update=_WITHOUT_EFFECT)
        if wanted.per_query is not None and wanted.per_query.enough is None:
            per_query = wanted.per_query.model_copy(update={"enough": self.config.mine.num_negatives})
            wanted = wanted.model_copy(update={"per_query": per_query})
        if self.is_combined(place):
            return wanted.model_copy(update={"states": ("unsure",)})
        return wanted.model_copy(update={"calibrated": place > 0 or self.config.similarity.decides})

    @property
    def guaranteed(self) -> GuaranteeConfig:
        """What the last tier guarantees.

        Raises:
            ValueError: it guarantees nothing.
        """
        last = self.tiers[-1]
        if last.escalate.target is None:
            raise ValueError(f"tier {last.name}: escalate.target expected, got none")
        return GuaranteeConfig(tier=last.name, target=last.escalate.target)

    @property
    def decide(self) -> DecideConfig:
        """How decisions are made: the settings, with what the calibration and the other sections say of it."""
        c = self.config
        # Without a calibration, a score in the first tier's band that nobody was asked about, for lack of budget, stays
        # unsure.
        first = self.tiers[0].escalate if self.tiers else EscalateConfig()
        update = {"tiers": self.judges, "similarity_decides": c.similarity.decides}
        if self.decided_by is None:
            update |= {"lower": first.lower, "upper": first.upper}
        else:
            update |= self.decided_by.thresholds(c.decide)
        return c.decide.model_copy(update=update)

    @property
    def decided(self) -> str:
        """The thresholds of P(relevant), in words."""
        if self.decided_by is None:
            return "This calibration ranks the candidates for the judges and decides nothing."
        decide, price = self.decide, self.config.decide.price
        said = [f"for {name} {value:g}" if name != "f1" else "for the largest F1" for name, value in price.items()]
        why = "".join(f", {words}," for words in said) or ","
        return (
            f"A pair is relevant from P = {decide.relevant_from:.4g} on{why or ','} not relevant below P = "
            f"{decide.not_relevant_below:.4g}, and unsure between them."
        )

    @property
    def skipped(self) -> tuple[str, ...]:
        """The datasets that are not judged (`policies: {name: {skip: true}}`), sorted."""
        return tuple(sorted(dataset for dataset, policy in self.config.policies.items() if policy.skip))


@dataclass(frozen=True)
class Outcome:
    """The results of a curation: the page, the sheet for people, and one folder of exports per treatment.

    passages: by query part, those of the candidates and of the training queries' positives.
    models: by the treatment each was trained on. evidence: the tables that an export by hand may read besides.
    do_not_batch: by treatment, the pairs of rows that must not share a batch, if the settings ask for them.
    scores, dev_scores: of the split that is reported, and of the development queries, by which is chosen.
    evaluations: results on collections, by model and collection. rerankers: by the treatment each was trained on.
    """

    page: Directory
    sheet: Directory
    exports: Mapping[str, Directory]
    instances: Mapping[str, Table]
    queries: Table
    passages: Table
    scores: Table = field(default_factory=lambda: Table("scores"))
    models: Mapping[str, Directory] = field(default_factory=dict)
    evidence: Mapping[str, Table] = field(default_factory=dict)
    do_not_batch: Mapping[str, Table] = field(default_factory=dict)
    dev_scores: Table = field(default_factory=lambda: Table("dev_scores"))
    evaluations: Mapping[str, Directory] = field(default_factory=dict)
    rerankers: Mapping[str, Directory] = field(default_factory=dict)
