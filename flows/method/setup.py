"""What the method is given and what it returns: a curation made ready (`Setup`) and what it leaves (`Outcome`)."""

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
    """Parts failed; the message lists them with the command that repairs them."""


class WaitingForLabels(Exception):
    """Too little of the sample is labelled; the message says how many labels are wanted, and how to import them."""

    def __init__(self, message: str, sheet: Directory | None = None) -> None:
        """Keep the sheet that is to be filled in."""
        super().__init__(message)
        self.sheet = sheet


@dataclass(frozen=True)
class Tier:
    """One judge made ready: which pairs it is asked about, how, with which engine, and digests of what it is shown."""

    name: str
    escalate: EscalateConfig
    judge: JudgeConfig
    engine: BaseModel
    shown: Mapping[str, Mapping[str, str]]  # of its prompt files, and of its definitions of relevance

    @classmethod
    def of(cls, tier: TierConfig, config: CurationConfig, engine: BaseModel, model: str) -> "Tier":
        """Complete a tier's configuration with the policies, and with the judge's name: model, engine and prompts."""
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
        """Whether its model is known by the digest of its weights; an endpoint's can change behind its name."""
        return bool(getattr(self.engine, "digest", ""))


@dataclass(frozen=True)
class Gold:
    """The gold set of one curation, as kept in the store, and the night it is judged in (YYYY-MM-DD)."""

    directory: Directory
    night: str


@dataclass(frozen=True)
class Setup:
    """One curation made ready: its configuration, its source in the store, its engines with their digests.

    Until its models are fetched (`flows.curation.prepare.fetch_models`), paths of models are empty: enough to look at
    what is finished, since keys cover digests and no paths.
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
        """The tiers after similarity, in the order asked."""
        return tuple(tier.name for tier in self.tiers)

    @property
    def skipped(self) -> tuple[str, ...]:
        """The datasets that are not judged (`policies: {name: {skip: true}}`)."""
        return tuple(sorted(dataset for dataset, policy in self.config.policies.items() if policy.skip))


@dataclass(frozen=True)
class Outcome:
    """What a curation leaves: the page, the sheet for people, and one folder of exports per treatment."""

    page: Directory
    sheet: Directory
    exports: Mapping[str, Directory]
    instances: Mapping[str, Table]
    queries: Table
    passages: Table
    scores: Table = field(default_factory=lambda: Table("scores"))
    models: Mapping[str, Directory] = field(default_factory=dict)  # by the treatment each was trained on
