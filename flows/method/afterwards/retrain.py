"""Trains again on a finished curation: with several seeds (`retrain`), and without each dataset (`prune`).

Each method first reads the curation's manifests and then runs its own stages; finished parts are reused.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from flows import stages as st
from flows.config.section import ConfigError
from flows.method.curate import finished_curation
from flows.method.setup import Setup
from flows.method.tables import Finished
from infra.stages import part_keys
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks.schemas import Treatment
from tasks.training.compare import CompareConfig
from tasks.training.prune import LeaveOutConfig
from tasks.training.prune import PruneConfig as PruneStageConfig
from tasks.training.training_rows import TrainConfig

_SLUG = 40  # characters of a dataset's name in the name of a stage


class RetrainConfig(BaseModel):
    """What is trained again; everything else comes from the curation's sections `train` and `evaluate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    treatments: tuple[Treatment, ...] | None = Field(
        None, description="The treatments whose instances are trained on; unset: `train_on`. The first is the baseline."
    )
    seeds: int = Field(3, ge=1, description="Trainings per treatment. The seeds count up from the configured one.")
    steps: int | None = Field(None, ge=1, description="Optimiser steps of each training; unset: the configured ones.")


class PruneConfig(BaseModel):
    """How the effect of each dataset in the training mix is measured: by training without it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    treatment: Treatment = Field("relabel", description="The treatment whose instances are the training mix.")
    datasets: tuple[str, ...] | None = Field(
        None, description="The datasets that are left out, one at a time; unset: all."
    )
    seeds: int = Field(3, ge=1, description="Trainings per mix. The seeds count up from the configured one.")
    steps: int | None = Field(None, ge=1, description="Optimiser steps of each training; unset: the configured ones.")
    level: float = Field(
        0.05, gt=0, lt=1, description="A difference counts as shown if its corrected p-value is below this."
    )


@dataclass(frozen=True)
class RetrainOutcome:
    """The results of retraining; `page` holds comparison.json and comparison.md, `models` are by treatment and seed."""

    page: Directory
    scores: Table
    models: Mapping[tuple[str, int], Directory]


@dataclass(frozen=True)
class PruneOutcome:
    """The results of pruning: a row per dataset left out, and a page with pruning.json and pruning.md."""

    page: Directory
    pruning: Table
    scores: Table


def retrain_method(run: Runner, setup: Setup, wanted: RetrainConfig) -> RetrainOutcome:
    """Train and evaluate one model per treatment and seed, from the same start and with the same steps; compare them.

    Raises:
        ConfigError: the curation is unfinished, trains nothing, holds nothing out, or did not make a treatment.
    """
    done = finished_curation(run, setup)
    treatments = tuple(dict.fromkeys(wanted.treatments or setup.config.train_on))
    _check_made(setup, treatments)
    training = _Training.of(setup, done, wanted.seeds, wanted.steps)
    mixes = {t: done.table("instances", f"treat-{t}") for t in treatments}
    scores, models = training.run_all(run, {t: (t, mix) for t, mix in mixes.items()})
    config = CompareConfig(
        title=f"{setup.config.name}: retraining",
        baseline=treatments[0],
        models=treatments[1:],
        training=training.facts,
    )
    page = run(st.COMPARE, config, scores=scores)["page"]
    return RetrainOutcome(page, scores, models)


def prune_method(run: Runner, setup: Setup, wanted: PruneConfig) -> PruneOutcome:
    """Train without each dataset, one at a time and with the same steps; report which hurt (paper section 5.1).

    Raises:
        ConfigError: as `retrain_method`, or the training mix holds one dataset only, or not a named one.
    """
    done = finished_curation(run, setup)
    _check_made(setup, (wanted.treatment,))
    training = _Training.of(setup, done, wanted.seeds, wanted.steps)
    whole = done.table("instances", f"treat-{wanted.treatment}")
    datasets = _datasets_to_try(run.read(whole), wanted.datasets)
    mixes: dict[str, tuple[str, Table]] = {"complete": (wanted.treatment, whole)}
    names = {dataset: f"without {dataset}" for dataset in datasets}
    for dataset, label in labels_of(datasets).items():
        mix = run(st.LEAVE_OUT, LeaveOutConfig(dataset=dataset), label=label, instances=whole)["mix"]
        mixes[f"without-{label}"] = (names[dataset], mix)
    scores, _ = training.run_all(run, mixes)
    config = PruneStageConfig(
        complete=wanted.treatment,
        models=names,
        level=wanted.level,
        title=f"{setup.config.name}: pruning",
        training=training.facts,
    )
    made = run(st.PRUNE, config, instances=whole, scores=scores)
    return PruneOutcome(made["page"], made["pruning"], scores)


def labels_of(datasets: Iterable[str]) -> dict[str, str]:
    """Return a label per dataset, fit for names of stages and files; labels that would be equal get a digest.

    >>> labels_of(["data/MS MARCO", "fever"])
    {'data/MS MARCO': 'data_ms_marco', 'fever': 'fever'}
    """
    names = list(datasets)
    slugs = {name: re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:_SLUG] for name in names}
    shared = Counter(slugs.values())
    return {
        name: slug if slug and shared[slug] == 1 else f"{slug}_{part_keys.digest(name)[:8]}".strip("_")
        for name, slug in slugs.items()
    }


@dataclass(frozen=True)
class _Training:
    """How every model is trained and evaluated, and on which queries."""

    setup: Setup
    base: Directory
    train: TrainConfig
    seeds: tuple[int, ...]
    texts: dict[str, Any]  # queries, passages
    qrels: Table

    @classmethod
    def of(cls, setup: Setup, done: Finished, seeds: int, steps: int | None) -> "_Training":
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
        return cls(setup, setup.base_model, train, numbers, texts, qrels)

    @property
    def facts(self) -> dict[str, str | int | float]:
        """What the page says about the training."""
        facts = self.train.model_dump(include={"steps", "batch_size", "learning_rate", "num_negatives"})
        return facts | {"seeds": ", ".join(map(str, self.seeds))}

    def run_all(
        self, run: Runner, mixes: Mapping[str, tuple[str, Table]]
    ) -> tuple[Table, dict[tuple[str, int], Directory]]:
        """Train and evaluate each mix with each seed. mixes: by label, the model's name and its instances."""
        models: dict[tuple[str, int], Directory] = {}
        scores: list[Table] = []
        for label, (name, instances) in mixes.items():
            for seed in self.seeds:
                models[name, seed] = self._train(run, f"{label}_s{seed}", seed, instances)
        for label, (name, _) in mixes.items():
            scores += [self._evaluate(run, f"{label}_s{seed}", (name, seed), models[name, seed]) for seed in self.seeds]
        missing = frozenset[int]().union(*(table.missing for table in scores))
        return Table("scores", tuple(piece for table in scores for piece in table.pieces), missing), models

    def _train(self, run: Runner, label: str, seed: int, instances: Table) -> Directory:
        config = self.train.model_copy(update={"seed": seed})
        key = {"base": self.setup.base_model_key, **self.setup.software(st.TRAIN, config.device)}
        inputs = {"instances": instances, "base": self.base, **self.texts}
        made: dict[str, Any] = run(st.TRAIN, config, label=label, key=key, **inputs)
        model: Directory = made["model"]
        return model

    def _evaluate(self, run: Runner, label: str, name: tuple[str, int], model: Directory) -> Table:
        config = self.setup.config.evaluate.model_copy(update={"model_name": name[0], "seed": name[1]})
        key = self.setup.software(st.EVALUATE, config.device)
        inputs = {"model": model, "qrels": self.qrels, **self.texts}
        made: dict[str, Any] = run(st.EVALUATE, config, label=label, key=key, **inputs)
        scores: Table = made["scores"]
        return scores


def _check_made(setup: Setup, treatments: Sequence[str]) -> None:
    absent = [t for t in treatments if t not in setup.config.treatments]
    if absent or not treatments:
        made = ", ".join(setup.config.treatments)
        raise ConfigError(f"treatments: some of {made} expected, {', '.join(absent) or 'none'} came")


def _datasets_to_try(instances: pl.DataFrame, named: tuple[str, ...] | None) -> list[str]:
    present = sorted(instances["dataset"].unique())
    if len(present) < 2:  # noqa: PLR2004 - leaving the only one out leaves nothing
        held = f"only {present[0]!r}" if present else "none"
        raise ConfigError(f"pruning needs at least two datasets in the training mix, it holds {held}")
    unknown = sorted(set(named or ()) - set(present))
    if unknown:
        raise ConfigError(f"datasets: no {', '.join(map(repr, unknown))} in the mix, which holds {', '.join(present)}")
    return sorted(set(named)) if named else present
