"""Trains what the promotion gate compares: each system with several seeds, and scores the released models tonight.

The trainings are those of `reneg retrain` with the same number of seeds: parts that either finished are reused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.method.afterwards.retrain import Training
from flows.method.curate import finished_curation
from flows.method.evaluating import Scored, evaluate_one, join_scores
from flows.method.setup import Setup
from flows.method.training import BASE
from infra.stages.runner import Runner
from infra.storage.artifacts import MODEL, Directory, Table
from tasks.training.promote import RELEASED


class GateConfig(BaseModel):
    """Which systems are trained and scored.

    treatment, against: as in `promote`. seeds: trainings of each; they count up from the configured one.
    released: the files of the current release's models, by seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    treatment: str
    against: str
    seeds: int = Field(ge=1)
    released: Mapping[int, Mapping[str, str]] = {}


@dataclass(frozen=True)
class Gated:
    """What the gate decides by. models: those of the treatment, by seed; a release keeps them for later nights."""

    scores: Table
    dev_scores: Table
    models: Mapping[int, Directory]


def gate_method(run: Runner, setup: Setup, wanted: GateConfig) -> Gated:
    """Train the treatment and its baseline with each seed; score them, and the released models, on tonight's queries.

    Raises:
        ConfigError: the curation is unfinished, trains nothing, or holds nothing out.
    """
    done = finished_curation(run, setup)
    training = Training.of(setup, done, wanted.seeds, None)
    trained = [name for name in dict.fromkeys((wanted.treatment, wanted.against)) if name != BASE]
    mixes = {name: (name, done.table("instances", f"treat-{name}")) for name in trained}
    scored, models = training.run_all(run, mixes)
    found, texts = [scored], {**training.texts, "qrels": training.qrels}
    if wanted.against == BASE:
        found.append(evaluate_one(run, setup, texts, training.base, BASE))
    found += [_score_released(run, setup, texts, seed, files) for seed, files in sorted(wanted.released.items())]
    joined = join_scores(found)
    own = {seed: model for (name, seed), model in models.items() if name == wanted.treatment}
    return Gated(joined.scores, joined.dev_scores, own)


def _score_released(run: Runner, setup: Setup, texts: Mapping[str, Any], seed: int, files: Mapping[str, str]) -> Scored:
    model = Directory(MODEL, files)
    return evaluate_one(run, setup, texts, model, RELEASED, label=f"{RELEASED}_s{seed}", seed=seed)
