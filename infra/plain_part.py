"""Parts without an engine: plain Ray tasks, never retried by Ray (a silent rerun would hide a failure)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from infra.artifacts import Manifest
from infra.nodes import refuse_other_code
from infra.part_logs import Sender, relayed
from infra.ray_cluster import granted
from infra.runner import PartSpec
from infra.worker import EngineNeeded, compute_part


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _compute(store_url: str, spec: PartSpec, cache: Path, sender: Sender | None) -> Manifest:
    with relayed(sender, spec.name, expected=(EngineNeeded,)):
        refuse_other_code()
        return compute_part(store_url, spec, cache)


def submit_part(store_url: str, spec: PartSpec, cache: Path, num_cpus: float, sender: Sender | None = None) -> Any:  # noqa: ANN401 - a Ray reference
    """Submit one part to Ray; wait for the returned reference with `await_ray`, which shows what `sender` sends."""
    memory = None if spec.stage.engine is not None else spec.stage.resources.memory  # that is the engine's
    resources = granted(replace(spec.stage.resources, num_cpus=num_cpus, num_gpus=0.0, memory=memory))
    return _compute.options(
        name=spec.name, num_cpus=resources.num_cpus, num_gpus=resources.num_gpus, memory=resources.memory
    ).remote(store_url, spec, cache, sender)
