"""What Ray grants to the parts of each stage: the stage table's resources, the engines' needs, the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from flows.config.engines import AnyEncoderConfig, TierConfig
from flows.config.rescore import RescoreConfig
from flows.config.section import Section
from flows.guarantee_stages import audited
from flows.stage_names import check_stage, encode_stages, held_out_stage, judge_stage, judge_stages
from flows.stages import ENCODE_PASSAGES, JUDGE, RESCORE, STAGES
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


def resources_of(
    tiers: Sequence[TierConfig],
    configured: Mapping[str, ResourcesConfig],
    encoders: Mapping[str, AnyEncoderConfig] | None = None,
    rescore: RescoreConfig | None = None,
) -> dict[str, Resources]:
    """Return the resources of every stage, by its name with or without its label.

    The stage table's values come first, then what the engines of encoders, tiers and reranker need, then the settings.
    Settings for a stage with its label (`judge-llm`) override those for the stage (`judge`). encoders: by their place
    in the settings.
    """
    table = {stage.name: stage.resources for stage in STAGES}
    table |= _of_encoders(encoders or {})
    if rescore is not None:
        needed: dict[str, Any] = kind_of(rescore.engine).resources(rescore.engine)
        table[RESCORE.name] = replace(RESCORE.resources, engines=rescore.engines, **needed)
    for tier in (tier for tier in tiers if not tier.reads_file):
        granted: dict[str, Any] = kind_of(tier.engine).resources(tier.engine)
        needs = replace(JUDGE.resources, engines=tier.engines, **granted)
        table |= {judge_stage(tier.name): needs, judge_stage(tier.name, gold=True): replace(needs, engines=1)}
        table |= {check_stage(tier.name): needs, held_out_stage(tier.name): needs}
        if tier.escalate.target is not None:
            table |= {audited(judge_stage(tier.name)): needs, audited(held_out_stage(tier.name)): needs}
    for name, wanted in sorted(configured.items(), key=lambda item: bool(StageName.parse(item[0]).label)):
        changes, stage = wanted.model_dump(exclude_none=True), StageName.parse(name).stage
        if name not in table:
            table[name] = replace(table[stage], **changes)
        for known in [k for k in table if k == name or StageName.parse(k).stage == name]:
            table[known] = replace(table[known], **changes)
    for name in (name for tier in tiers for name in (judge_stage(tier.name), held_out_stage(tier.name))):
        if audited(name) in table and audited(name) not in configured:
            table[audited(name)] = table[name]
    return table


def _of_encoders(encoders: Mapping[str, AnyEncoderConfig]) -> dict[str, Resources]:
    """Return the resources of the stages that encode, where an endpoint does: it needs hardly any CPU here."""
    kinds = {place: kind_of(encoder) for place, encoder in encoders.items()}
    if not any(kind.is_endpoint for kind in kinds.values()):
        return {}
    granted: dict[str, dict[str, Any]] = {
        place: dict(kind.resources(encoders[place])) if kind.is_endpoint else {} for place, kind in kinds.items()
    }
    needs = {place: replace(ENCODE_PASSAGES.resources, **fields) for place, fields in granted.items()}
    return {stage: needs[place] for place in encoders for stage in encode_stages(place)}


def refuse_too_few_gpus(
    tiers: Sequence[TierConfig], configured: Mapping[str, ResourcesConfig], rescore: RescoreConfig | None
) -> None:
    """Refuse `resources` that leave an engine fewer GPUs than it spreads over.

    Raises:
        ValueError: with the stage, and how many GPUs its engine needs.
    """
    granted = resources_of(tiers, configured, rescore=rescore)
    engines = [(stage, f"tier {tier.name!r}", tier.engine) for tier in tiers for stage in judge_stages(tier.name)]
    if rescore is not None:
        engines.append((RESCORE.name, "`rescore`", rescore.engine))
    for stage, name, engine in engines:
        gpus = kind_of(engine).resources(engine).get("num_gpus", 0.0)
        if gpus > 1 and granted[stage].num_gpus < gpus:
            raise ValueError(
                f"resources: {stage} gets num_gpus={granted[stage].num_gpus:g}, but the engine of {name} has "
                f"tensor_parallel_size={gpus:g}; remove num_gpus, or give at least {gpus:g}"
            )
