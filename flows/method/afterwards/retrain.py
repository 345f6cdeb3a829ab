"""Trains again on a finished curation, with several seeds, and compares the treatments (`retrain`).

It first reads the curation's manifests and then runs its own stages; finished parts are reused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows import stages as st
from flows.config.section import ConfigError
from flows.method.curate import finished_curation
from flows.method.evaluating import Scored, evaluate_one, join_scores
from flows.method.setup import Setup
from flows.method.tables import Finished
from flows.method.training import reads_verdicts, training_of
from flows.training_stages import training_stage
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks.schemas import Treatment
from tasks.training.compare import CompareConfig
from tasks.training.train_config import TrainConfig


class RetrainConfig(BaseModel):
    """What is trained again; everything else comes from the curation's sections `train` and `evaluate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    treatments: tuple[Treatment, ...] | None = Field(
        None, description="The treatments whose instances are trained on; unset: `train_on`. The first is the baseline."
    )
    seeds: int = Field(3, ge=1, description="Trainings per treatment. The seeds count up from the configured one.")
    steps: int | None = Field(None, ge=1, description="Optimiser steps of each training; unset: the configured ones.")


@dataclass(frozen=True)
class RetrainOutcome:
    """The results of retraining; `page` holds comparison.json and comparison.md, `models` are by treatment and seed."""

    page: Directory
    scores: Table
    models: Mapping[tuple[str, int], Directory]


def retrain_method(run: Runner, setup: Setup, wanted: RetrainConfig) -> RetrainOutcome:
    """Train and evaluate one model per treatment and seed, from the same start and with the same steps; compare them.

    Raises:
        ConfigError: the curation is unfinished, trains nothing, holds nothing out, or did not make a treatment.
    """
    done = finished_curation(run, setup)
    treatments = tuple(dict.fromkeys(wanted.treatments or setup.config.train_on))
    check_made(setup, treatments)
    training = Training.of(setup, done, wanted.seeds, wanted.steps)
    mixes = {t: done.table("instances", f"treat-{t}") for t in treatments}
    scored, models = training.run_all(run, {t: (t, mix) for t, mix in mixes.items()})
    config = CompareConfig(
        title=f"{setup.config.name}: retraining",
        baseline=treatments[0],
        models=treatments[1:],
        training=training.facts,
    )
    page = run(st.COMPARE, config, scores=scored.scores)["page"]
    return RetrainOutcome(page, scored.scores, models)


@dataclass(frozen=True)
class Training:
    """How every model is trained and evaluated, and on which queries."""

    setup: Setup
    base: Directory
    train: TrainConfig
    seeds: tuple[int, ...]
    texts: dict[str, Any]  # queries, passages
    qrels: Table
    known: Table | None  # pairs that are masked, and soft labels

    @classmethod
    def of(cls, setup: Setup, done: Finished, seeds: int, steps: int | None) -> "Training":
        """Build it for a finished curation.

        Raises:
            ConfigError: the curation trains nothing, or holds no query out.
        """
        train = setup.config.train
        if train is None or setup.base_model is None:
            raise ConfigError(f"{setup.config.name} trains no model (`train: null`); give it a `train` section")
        qrels = done.table("qrels", "ingest")
        if not qrels.rows:
            raise ConfigError(
                f"{setup.config.name} holds no queries out, so models cannot be compared; give `ingest` a test split, "
                "or a share to hold out (`holdout: 0.1`)"
            )
        train = train.model_copy(update={"model": setup.base_model_path, "steps": steps or train.steps})
        numbers = tuple(train.seed + i for i in range(seeds))
        texts: dict[str, Any] = {name: done.table(name, "ingest") for name in ("queries", "passages")}
        listed = st.LIST_KNOWN_PAIRS.name
        is_read = listed in done.runs and reads_verdicts(train)  # it is also made for rerankers alone
        known = done.table("known", listed) if is_read else None
        return cls(setup, setup.base_model, train, numbers, texts, qrels, known)

    @property
    def facts(self) -> dict[str, str | int | float]:
        """What the page says about the training."""
        facts = self.train.model_dump(include={"steps", "batch_size", "learning_rate", "num_negatives"})
        return facts | {"seeds": ", ".join(map(str, self.seeds))}

    def run_all(
        self, run: Runner, mixes: Mapping[str, tuple[str, Table]], treatment: str = ""
    ) -> tuple[Scored, dict[tuple[str, int], Directory]]:
        """Train and evaluate each mix with each seed.

        mixes: by label, the model's name and its instances. treatment: of all mixes; empty: the label names it.
        """
        models: dict[tuple[str, int], Directory] = {}
        scored: list[Scored] = []
        for label, (name, instances) in mixes.items():
            for seed in self.seeds:
                config = self.train.model_copy(update={"seed": seed})
                treated = training_of(run, config, treatment or label, self.known)
                models[name, seed] = self._train(run, f"{label}_s{seed}", instances, *treated)
        for label, (name, _) in mixes.items():
            scored += [self._evaluate(run, f"{label}_s{seed}", (name, seed), models[name, seed]) for seed in self.seeds]
        return join_scores(scored), models

    def _train(self, run: Runner, label: str, instances: Table, config: TrainConfig, known: Table) -> Directory:
        key = {"base": self.setup.base_model_key, **self.setup.software(st.TRAIN, config.device)}
        inputs = {"instances": instances, "base": self.base, **self.texts, "known": known}
        stage = training_stage(config)
        if "qrels" in stage.inputs:
            inputs["qrels"] = self.qrels
        made: dict[str, Any] = run(stage, config, label=label, key=key, **inputs)
        model: Directory = made["model"]
        return model

    def _evaluate(self, run: Runner, label: str, name: tuple[str, int], model: Directory) -> Scored:
        texts = {**self.texts, "qrels": self.qrels}
        return evaluate_one(run, self.setup, texts, model, name[0], label=label, seed=name[1])


def check_made(setup: Setup, treatments: Sequence[str]) -> None:
    """Refuse treatments that the curation did not make.

    Raises:
        ConfigError: one of them was not made, or none is named.
    """
    absent = [t for t in treatments if t not in setup.config.treatments]
    if absent or not treatments:
        made = ", ".join(setup.config.treatments)
        raise ConfigError(f"treatments: some of {made} expected, {', '.join(absent) or 'none'} came")
