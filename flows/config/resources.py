"""What Ray grants to the parts of each stage: the stage table's resources, the engines' needs, the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from flows.config.engines import TierConfig
from flows.config.section import Section
from flows.guarantee_stages import audited
from flows.stage_names import check_stage, judge_stage
from flows.stages import JUDGE, STAGES
from infra.engines.kinds import kind_of
from infra.names import StageName
from infra.stages.stage import Resources


class ResourcesConfig(Section):
    """What Ray grants to each part of one stage; unset fields keep the stage table's values."""

    num_cpus: float | None = Field(None, gt=0, description="cut to what a node has")
    num_gpus: float | None = Field(
        None, ge=0, description="default: what the engine needs; if no node has them, the run ends with an error"
    )
    memory: int | None = Field(None, gt=0, description="bytes")
    deadline: float | None = Field(None, gt=0, description="seconds a part may work; then it is killed and tried again")


def resources_of(tiers: Sequence[TierConfig], configured: Mapping[str, ResourcesConfig]) -> dict[str, Resources]:
    """Return the resources of every stage, by its name with or without its label.

    The stage table's values come first, then what the tiers' engines need, then the settings. Settings for a stage with
    its label (`judge-llm`) override those for the stage (`judge`).
    """
    table = {stage.name: stage.resources for stage in STAGES}
    for tier in (tier for tier in tiers if not tier.reads_file):
        granted: dict[str, Any] = kind_of(tier.engine).resources(tier.engine)
        needs = replace(JUDGE.resources, engines=tier.engines, **granted)
        table |= {judge_stage(tier.name): needs, judge_stage(tier.name, gold=True): replace(needs, engines=1)}
        table[check_stage(tier.name)] = needs
        if tier.escalate.target is not None:
            table[audited(judge_stage(tier.name))] = needs
    for name, wanted in sorted(configured.items(), key=lambda item: bool(StageName.parse(item[0]).label)):
        changes, stage = wanted.model_dump(exclude_none=True), StageName.parse(name).stage
        if name not in table:
            table[name] = replace(table[stage], **changes)
        for known in [k for k in table if k == name or StageName.parse(k).stage == name]:
            table[known] = replace(table[known], **changes)
    for tier in tiers:
        name = judge_stage(tier.name)
        if audited(name) in table and audited(name) not in configured:
            table[audited(name)] = table[name]
    return table
