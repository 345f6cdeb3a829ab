"""Validates a curation with labels of people: how far people and judges agree (paper section 7)."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from flows import stages as st
from flows.config.section import ConfigError
from flows.method.curate import finished_curation
from flows.method.human_labels import read_labels
from flows.method.setup import Setup
from flows.method.tables import empty_table
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks import schemas
from tasks.quality.validate import ValidateConfig as ValidateStageConfig


class ValidateConfig(BaseModel):
    """How people's labels are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wanted_precision: tuple[float, ...] = Field(
        (0.8, 0.9, 0.95), description="Precisions for which a threshold is searched."
    )
    min_labels: int = Field(20, ge=1, description="With fewer clearly labelled pairs, nothing is estimated.")


@dataclass(frozen=True)
class ValidateOutcome:
    """The results of validation: the measures, and a page with validation.json and validation.md."""

    page: Directory
    validation: Table


def validate_method(run: Runner, setup: Setup, wanted: ValidateConfig) -> ValidateOutcome:
    """Measure how far people and judges agree, and how good the verdicts are (paper section 7).

    All labels of the store are read; a label counts wherever the texts are the same. The verdicts are those of the
    judges, before any label.

    Raises:
        ConfigError: the curation has not drawn its sample yet, or nobody has labelled anything.
    """
    human = read_labels(run.store)
    if human.is_empty():
        raise ConfigError(
            f"{run.store.url} holds no labels of people; fill in the sheet of {setup.curation or setup.config.name}, "
            "then: reneg labels import CURATION SHEET --annotator NAME"
        )
    done = finished_curation(run, setup, to_the_end=False)
    tiers = tuple(tier.name for tier in setup.config.tiers)
    answers = [stage for tier in setup.tiers for stage in tier.stages]
    skipped = any(policy.skip for policy in setup.config.policies.values())
    candidates = done.table("admitted", "admit") if skipped else done.table("candidates", *done.mined_by)
    config = ValidateStageConfig(
        tiers=tiers,
        wanted_precision=wanted.wanted_precision,
        min_labels=wanted.min_labels,
        title=f"{setup.config.name}: validation",
    )
    made = run(
        st.VALIDATE,
        config,
        candidates=candidates,
        similarity=done.table("verdicts", "judge_similarity"),
        llm_verdicts=done.table("verdicts", *answers) if answers else empty_table(run, "verdicts", schemas.VERDICTS),
        decisions=done.table("decisions", "decide"),
        samples=done.table("samples", "sample"),
        human=run.keep_table("human", human, schemas.HUMAN),
    )
    return ValidateOutcome(made["page"], made["validation"])
