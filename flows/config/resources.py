"""What Ray grants to the parts of each stage: the stage table's resources, the engines' needs, the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from flows.config.engines import EngineConfig, TierConfig
from flows.config.section import Section
from flows.stages import JUDGE, LABEL, STAGES
from infra.engines.specs import OpenAIBatchSpec, OpenAISpec
from infra.stages.stage import Resources

_BATCH_SECONDS = 7 * 24 * 3600.0  # a batch may take a day, and a request may be in several


class ResourcesConfig(Section):
    """What Ray grants to each part of one stage; unset fields keep the stage table's values."""

    num_cpus: float | None = Field(None, gt=0, description="cut to what a node has")
    num_gpus: float | None = Field(None, ge=0, description="if no node has them, the run ends with an error")
    memory: int | None = Field(None, gt=0, description="bytes")
    deadline: float | None = Field(None, gt=0, description="seconds a part may work; then it is killed and tried again")


def resources_of(tiers: Sequence[TierConfig], configured: Mapping[str, ResourcesConfig]) -> dict[str, Resources]:
    """Return the resources of every stage, by its name with or without its label.

    The stage table's values come first, then what the tiers' engines need, then the settings. Settings for a stage with
    its label (`judge-llm`) override those for the stage (`judge`).
    """
    table = {stage.name: stage.resources for stage in STAGES}
    for tier in tiers:
        needs = replace(JUDGE.resources, engines=tier.engines, **_needs(tier.engine))
        table |= {f"{JUDGE.name}-{tier.name}": needs, f"{JUDGE.name}-{LABEL}-{tier.name}": replace(needs, engines=1)}
    for name, wanted in sorted(configured.items(), key=lambda item: "-" in item[0]):
        changes = wanted.model_dump(exclude_none=True)
        if name not in table:
            table[name] = replace(table[name.partition("-")[0]], **changes)
        for known in [k for k in table if k == name or k.partition("-")[0] == name]:
            table[known] = replace(table[known], **changes)
    return table


def _needs(engine: EngineConfig) -> dict[str, Any]:
    """Return what an engine's actor gets unless the settings say otherwise: GPUs, or a small share of a CPU."""
    if isinstance(engine, OpenAIBatchSpec):
        return {"num_cpus": 0.1, "deadline": _BATCH_SECONDS}
    if isinstance(engine, OpenAISpec):
        return {"num_cpus": 0.1}
    if engine.device == "cuda":
        return {"num_gpus": float(getattr(engine, "tensor_parallel_size", 1))}
    return {}
