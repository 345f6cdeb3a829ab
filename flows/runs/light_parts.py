"""Computes parts that need no engine in this process, one after the other: no server is started for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.stages.compute_part import compute_part
from infra.stages.runner import Failure, PartSpec
from infra.storage.artifacts import Manifest
from infra.storage.store import Store


@dataclass(frozen=True)
class LightParts:
    """An executor for stages without an engine; `scratch` is a folder for their directory inputs."""

    store: Store
    scratch: Path

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        """Compute the parts that are not finished; a part whose stage refuses its input has failed.

        Raises:
            ValueError: a part needs an engine.
        """
        results: dict[int, Manifest | Failure] = dict(finished)
        for spec in specs:
            if spec.stage.engine is not None:
                raise ValueError(f"{name}: a stage without an engine expected, this one needs {spec.stage.engine!r}")
            if spec.number not in finished:
                try:
                    results[spec.number] = compute_part(self.store.url, spec, self.scratch)
                except ValueError as error:
                    results[spec.number] = Failure(str(error))
        return results
