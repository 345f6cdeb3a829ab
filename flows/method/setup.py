"""What the method takes and returns: a curation that is ready to run (`Setup`), and its results (`Outcome`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from pydantic import BaseModel

from flows.config.curation import CurationConfig
from flows.config.engines import TierConfig
from infra.stages import part_keys
from infra.storage.artifacts import Directory, Table
from tasks.judging.cascade import EscalateConfig
from tasks.judging.config import JudgeConfig
from tasks.prompts.prompt import load_definition, prompt_digest
from tasks.texts import hash_text


class CurationFailed(Exception):
    """Parts failed; the message lists them with the command that computes them again."""


class WaitingForLabels(Exception):
    """Too few pairs of the sample are labelled; the message says how many are needed and how to import labels."""

    def __init__(self, message: str, sheet: Directory | None = None) -> None:
        """Keep the message, and the sheet that people must fill in."""
        super().__init__(message)
        self.sheet = sheet


@dataclass(frozen=True)
class Tier:
    """One judge, ready to run: which pairs it judges, its settings, its engine, and digests of its texts."""

    name: str
    escalate: EscalateConfig
    judge: JudgeConfig
    engine: BaseModel
    shown: Mapping[str, Mapping[str, str]]  # digests of its prompt files and of its definitions of relevance

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

    @property
    def tier_names(self) -> tuple[str, ...]:
        """The names of the tiers after similarity, in the order in which they judge."""
        return tuple(tier.name for tier in self.tiers)

    @property
    def skipped(self) -> tuple[str, ...]:
        """The datasets that are not judged (`policies: {name: {skip: true}}`), sorted."""
        return tuple(sorted(dataset for dataset, policy in self.config.policies.items() if policy.skip))


@dataclass(frozen=True)
class Outcome:
    """The results of a curation: the page, the sheet for people, and one folder of exports per treatment."""

    page: Directory
    sheet: Directory
    exports: Mapping[str, Directory]
    instances: Mapping[str, Table]
    queries: Table
    passages: Table
    scores: Table = field(default_factory=lambda: Table("scores"))
    models: Mapping[str, Directory] = field(default_factory=dict)  # by the treatment each was trained on
