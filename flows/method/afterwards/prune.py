"""Trains on a finished curation without each dataset in turn, and without those that hurt (`prune`).

It first reads the curation's manifests and then runs its own stages; finished parts are reused.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows import stages as st
from flows.config.section import ConfigError
from flows.method.afterwards.retrain import Training, check_made
from flows.method.curate import finished_curation
from flows.method.evaluating import Scored, join_scores
from flows.method.setup import Setup
from infra.stages import part_keys
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Table
from tasks.schemas import Treatment
from tasks.training.evaluate import DEV
from tasks.training.prune import HURTS, TEACHES_NOTHING, LeaveOutConfig, gain_without, judge_datasets
from tasks.training.prune import PruneConfig as PruneStageConfig

_SLUG = 40  # characters of a dataset's name in the name of a stage
_LONGEST = 90  # of the names of several datasets there


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
    greedy: bool = Field(
        False,
        description="Drop the dataset without which the development queries of the others are best, then the next, as "
        "long as they get better. Else the pruned mix leaves out what is shown to hurt.",
    )
    margin: float = Field(
        0.05, gt=0, lt=1, description="A dataset teaches nothing if all queries are shown to lose less without it."
    )
    idle: bool = Field(False, description="The pruned mix also leaves out what is shown to teach nothing.")


@dataclass(frozen=True)
class PruneOutcome:
    """The results of pruning.

    page: pruning.json and pruning.md. pruning: a row per dataset left out, held-out set and measure. scores: of the
    queries that decided. dropped: the datasets that the pruned mix leaves out.
    """

    page: Directory
    pruning: Table
    scores: Table
    dropped: tuple[str, ...]


def prune_method(run: Runner, setup: Setup, wanted: PruneConfig) -> PruneOutcome:
    """Train without each dataset, one at a time and with the same steps; report which hurt (paper section 5.1).

    Then train without those that hurt (and, with `idle`, those that teach nothing), or without those that the greedy
    way drops, and compare with the complete mix. The development queries choose, if there are any, and the page shows
    the test queries beside them, if `evaluate.split` scores them.

    Raises:
        ConfigError: as `retrain_method`, or the training mix holds one dataset only, or not a named one.
    """
    done = finished_curation(run, setup)
    check_made(setup, (wanted.treatment,))
    training = Training.of(setup, done, wanted.seeds, wanted.steps)
    whole = done.table("instances", f"treat-{wanted.treatment}")
    present = sorted(run.read(whole, ["dataset"])["dataset"].unique())
    datasets = _datasets_to_try(present, wanted.datasets)
    pruning = _Pruning(run, training, wanted, labels_of(datasets))
    complete = _Mix((), "complete", wanted.treatment, whole)
    alone = {dataset: pruning.leave_out(complete, dataset) for dataset in datasets}
    scored = pruning.score([complete, *alone.values()])
    evaluated = setup.config.evaluate
    config = PruneStageConfig(
        chosen_by=DEV if scored.dev_scores.rows else evaluated.split,
        reports_test=evaluated.split != DEV,
        complete=complete.name,
        models={dataset: mix.name for dataset, mix in alone.items()},
        level=wanted.level,
        margin=wanted.margin,
        title=f"{setup.config.name}: pruning",
        training=training.facts,
        greedy=wanted.greedy,
    )
    page, table = pruning.compare(config, whole, scored)
    mix = complete
    if not table.incomplete:
        order = pruning.order(table, evaluated.measures[0])[: len(present) - 1]  # something is trained on
        drop = pruning.drop_greedily if wanted.greedy else pruning.drop_all
        mix, scored = drop(config, [alone[dataset] for dataset in order], whole, scored)
    if mix.without:
        config = config.model_copy(update={"pruned": mix.name, "dropped": mix.without})
        page, table = pruning.compare(config, whole, scored, "mix")
    return PruneOutcome(page, table, _decisive(config, scored), mix.without)


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
class _Mix:
    """A training mix: what it leaves out, its label in the names of stages, its model's name, and its rows."""

    without: tuple[str, ...]
    label: str
    name: str
    instances: Table


@dataclass(frozen=True)
class _Pruning:
    """The work of one pruning. labels: of the datasets that are tried."""

    run: Runner
    training: Training
    wanted: PruneConfig
    labels: Mapping[str, str]

    def leave_out(self, mix: _Mix, dataset: str) -> _Mix:
        """Return the mix without one more dataset."""
        without = (*mix.without, dataset)
        label = "-and-".join(self.labels[name] for name in without)  # the label of one dataset has no dash
        if len(label) > _LONGEST:
            label = f"{len(without)}-with-{part_keys.digest(list(without))[:16]}"
        rows = self.run(st.LEAVE_OUT, LeaveOutConfig(dataset=dataset), label=label, instances=mix.instances)["mix"]
        return _Mix(without, f"without-{label}", f"without {', '.join(without)}", rows)

    def score(self, mixes: Sequence[_Mix]) -> Scored:
        """Train and evaluate each mix with each seed."""
        named = {mix.label: (mix.name, mix.instances) for mix in mixes}
        return self.training.run_all(self.run, named, self.wanted.treatment)[0]

    def compare(
        self, config: PruneStageConfig, whole: Table, scored: Scored, label: str = ""
    ) -> tuple[Directory, Table]:
        """Compare the models; returns the page and the table."""
        inputs: dict[str, Any] = {"scores": _decisive(config, scored), "reported": scored.scores}
        made = self.run(st.PRUNE, config, label=label, instances=whole, **inputs)
        return made["page"], made["pruning"]

    def order(self, table: Table, measure: str) -> list[str]:
        """Return the datasets that may be dropped, those first without which the others gain most."""
        read, wanted = self.run.read(table), self.wanted
        said = judge_datasets(read, wanted.level, wanted.margin).get(measure, {})
        gains = {dataset: gain_without(read, measure, dataset, wanted.level) or 0.0 for dataset in said}
        worse = {dataset for dataset in said if gains[dataset] > 0 and (wanted.greedy or said[dataset] == HURTS)}
        idle = {dataset for dataset in said if wanted.idle and said[dataset] == TEACHES_NOTHING}
        return sorted(worse | idle, key=lambda dataset: (-gains[dataset], dataset))

    def drop_all(
        self, config: PruneStageConfig, alone: Sequence[_Mix], whole: Table, scored: Scored
    ) -> tuple[_Mix, Scored]:
        """Return the mix without all that the mixes of `alone` leave out, and the scores with those of its models."""
        mix = _Mix((), "", config.complete, whole)
        for number, one in enumerate(alone):
            mix = self.leave_out(mix, one.without[0]) if number else one
        return mix, join_scores([scored, self.score([mix])]) if len(alone) > 1 else scored

    def drop_greedily(
        self, config: PruneStageConfig, alone: Sequence[_Mix], whole: Table, scored: Scored
    ) -> tuple[_Mix, Scored]:
        """Return the mix from which one dataset after the other is dropped, as long as the others get better.

        The order is that of `alone`. So k datasets cost k trainings more for each seed, and not a round of all.
        """
        mix = _Mix((), "", config.complete, whole)
        for number, one in enumerate(alone, 1):
            dataset = one.without[0]
            if number == 1:
                mix = one
                continue
            smaller = self.leave_out(mix, dataset)
            scored = join_scores([scored, self.score([smaller])])
            changes = {"complete": mix.name, "models": {dataset: smaller.name}, "already_out": mix.without}
            _, table = self.compare(config.model_copy(update=changes), whole, scored, f"step{number}")
            if table.incomplete or not self.order(table, self.training.setup.config.evaluate.measures[0]):
                break
            mix = smaller
        return mix, scored


def _decisive(config: PruneStageConfig, scored: Scored) -> Table:
    return scored.dev_scores if config.chosen_by == DEV and scored.dev_scores.rows else scored.scores


def _datasets_to_try(present: Sequence[str], named: tuple[str, ...] | None) -> list[str]:
    if len(present) < 2:  # noqa: PLR2004 - leaving the only one out leaves nothing
        held = f"only {present[0]!r}" if present else "none"
        raise ConfigError(f"pruning needs at least two datasets in the training mix, it holds {held}")
    unknown = sorted(set(named or ()) - set(present))
    if unknown:
        raise ConfigError(f"datasets: no {', '.join(map(repr, unknown))} in the mix, which holds {', '.join(present)}")
    return sorted(set(named or present))
