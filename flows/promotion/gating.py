"""Says what the gate has to train and score before it decides, as a job on a finished curation."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from flows.curation.lookup import CURATE, Job
from flows.method.afterwards.gate import GateConfig, gate_method
from flows.method.setup import Outcome
from infra.storage.release_pointers import newest
from infra.storage.store import Store
from tasks.training.promote import PromoteConfig

_AGAIN = "Retry of the flow run, or the same command again"


@dataclass(frozen=True)
class Released:
    """The models of the current release, by seed; missing: why there are too few to compare with."""

    models: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    missing: str = ""


def compares_models(config: PromoteConfig | None, outcome: Outcome) -> bool:
    """Tell whether a promotion of this outcome compares models."""
    is_scored = bool(outcome.scores.rows or outcome.dev_scores.rows)
    return config is not None and config.require != "none" and is_scored


def gate_job(store: Store, name: str, config: PromoteConfig, job: Job = CURATE) -> Job:
    """Return the job that trains and scores what the gate compares. job: of the curation, with the end of the night."""
    found = released_models(store, name, config)
    wanted = GateConfig(treatment=config.treatment, against=config.against, seeds=config.seeds, released=found.models)
    method = partial(gate_method, wanted=wanted)
    return replace(CURATE, name="gate", method=method, until=job.until, again=_AGAIN)


def released_models(store: Store, name: str, config: PromoteConfig) -> Released:
    """Find the models of the current release, one for each seed, as the release's record names them.

    Releases that an earlier version made keep the model of one seed, and releases without training keep none. They are
    not compared, as the chance of one training is not known.
    """
    if config.against_release == "none":
        return Released(missing="promote.against_release is none")
    record: Mapping[str, Any] = newest(store, name) or {}
    models = {int(seed): files for seed, files in (record.get("models") or {}).items()}
    number = record.get("number")
    if len(models) < config.seeds:
        return Released(missing=f"release {number} keeps the models of {len(models)} seeds, {config.seeds} are wanted")
    if any(store.find(key) is None for files in models.values() for key in files.values()):
        return Released(missing=f"files of the models of release {number} are gone, for example after `reneg purge`")
    return Released(models)
