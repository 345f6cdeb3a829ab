"""Decide whether tonight's training set replaces the one that trainers read. Each reason has a figure.

Models are compared on the same held-out queries, over several seeds. They are trained in the same way from the same
base model: on the treatment, and on `against` (`default`: the original labels). Where there is a release, its models
are compared too. The other checks stop a promotion if a judge, a source or the set-up failed, whatever the scores are.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.formatting import percent
from tasks.schemas import Treatment
from tasks.statistics import CONFIDENCE
from tasks.training.evaluate import DEV
from tasks.training.gate.checks import Check, Requirement, Rule, compare_systems, report_difference, sum_up
from tasks.training.gate.differences import level_of_night, seeds_of

TEST = "test"
RELEASED = "released"  # the name of the current release's models in the scores


class PromoteConfig(BaseModel):
    """What must hold before a training set is promoted.

    treatment: the training set to release. against: the training set whose model it is compared with.
    measure: one of `evaluate.measures`. margin: with `not_worse`, how much worse it may be.
    require: `better`: the interval of the difference is above 0; `not_worse`: it is above -margin; `none`: models are
        not compared, and only the other checks decide.
    max_loss: how much a dataset may lose at most. Against `against` it must be shown for each dataset; against the
        release a dataset refuses if it is shown to lose and such a loss cannot be excluded.
    seeds: trainings of each system that is compared. With 1, the interval does not cover how much another seed changes.
    against_release: what must be shown against the models of the current release, on tonight's queries: as `require`.
    release_margin: with `against_release: not_worse`, how much worse it may be.
    alpha: the chance to promote without a gain, in `nights` nights together.
    nights: so many nights without a promotion share `alpha`; then it begins anew. 1: each night has `alpha`.
    min_queries: the least number of held-out queries; datasets with fewer are compared as one.
    max_relevant_share: the largest share of candidates judged relevant, so that a judge that accepts everything is
        noticed.
    max_unparsed_share: the largest share of candidates without a verdict.
    min_size_ratio: the least number of instances, relative to the current release.
    hold_on_drift: whether a drift alarm of the night prevents the promotion.
    publish_model: whether the model trained on the treatment is published with the training set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    treatment: Treatment = "relabel"
    against: Literal["base"] | Treatment = "default"
    measure: str = "nDCG@10"
    require: Requirement = "better"
    margin: float = Field(0.01, ge=0, le=1)
    max_loss: float = Field(0.05, ge=0, le=1)
    seeds: int = Field(3, ge=1)
    against_release: Requirement = "not_worse"
    release_margin: float = Field(0.02, ge=0, le=1)
    alpha: float = Field(0.025, gt=0, lt=0.5)
    nights: int = Field(7, ge=1)
    min_queries: int = Field(10, ge=2)
    max_relevant_share: float = Field(0.3, ge=0, le=1)
    max_unparsed_share: float = Field(0.05, ge=0, le=1)
    min_size_ratio: float = Field(0.8, ge=0)
    hold_on_drift: bool = True
    publish_model: bool = False

    def rule(self, level: float) -> Rule:
        """Return what the comparison with `against` must show at a level."""
        return Rule(
            name="score",
            treatment=self.treatment,
            baseline=self.against,
            said=self.against,
            measure=self.measure,
            require=self.require,
            margin=self.margin,
            max_loss=self.max_loss,
            min_queries=self.min_queries,
            seeds=self.seeds,
            level=level,
        )

    def release_rule(self, level: float) -> Rule:
        """Return what the comparison with the current release must show at a level."""
        return replace(
            self.rule(level),
            name=RELEASED,
            baseline=RELEASED,
            said="the release",
            require=self.against_release,
            margin=self.release_margin,
            needs_proof=False,
        )

    def check(self, treatments: Collection[str], trained: Collection[str], measures: Collection[str]) -> None:
        """Refuse requirements that cannot be met.

        Args:
            treatments: the training sets that are made.
            trained: the training sets on which a model is trained.
            measures: the measures of the scores.

        Raises:
            ValueError: a requirement cannot be met; the message says what to set instead.
        """
        if self.treatment not in treatments:
            raise ValueError(
                f"promote.treatment is {self.treatment!r}, which treatments {list(treatments)} do not make"
            )
        if self.require == "none":
            return
        untrained = sorted({self.treatment, self.against} - {"base", *trained})
        if untrained:
            raise ValueError(
                f"promote.require: {self.require} compares models, and none is trained on {', '.join(untrained)}: give "
                "`train` and `train_on`, or promote.require: none"
            )
        if self.treatment == self.against:
            raise ValueError(
                f"promote compares {self.treatment!r} with itself: give another promote.against, or require: none"
            )
        if self.measure not in measures:
            raise ValueError(f"promote.measure is {self.measure!r}; evaluate.measures are {', '.join(measures)}")


@dataclass(frozen=True)
class Decision:
    """Whether to promote, the reason in one sentence, and all checks."""

    promote: bool
    because: str
    checks: tuple[Check, ...]


def decide_promotion(  # noqa: PLR0913 - what the checks look at, by name
    config: PromoteConfig,
    *,
    scores: pl.DataFrame,
    summary: Mapping[str, Any],
    instances: int,
    previous: int | None = None,
    alarms: Sequence[str] = (),
    reported: pl.DataFrame | None = None,
    decided_by: Literal["dev", "test"] | None = None,
    night: int = 1,
    missing: str = "",
) -> Decision:
    """Decide on a promotion from the results of a curation.

    Args:
        config: the requirements.
        scores: by model, dataset, measure, query and seed, of the queries that decide: those for development, if there
            are any; empty if no model was trained. `RELEASED` names the models of the current release.
        summary: the result of `summarise`, with `candidates` and `verdicts`.
        instances: number of instances of the training set to promote.
        previous: number of instances of the current release; None if there is none.
        alarms: the drift alarms of the night, one sentence each.
        reported: the scores of the test queries, where others decide; they are only shown.
        decided_by: the split of `scores`; default: `test`, or `dev` where test queries are reported.
        night: which night since the last promotion it is, from 1; earlier ones have used a part of `alpha`.
        missing: why the models of the current release are not among the scores.
    """
    level = level_of_night(config.alpha, night, config.nights)
    checks = (
        *_compare_models(config, scores, level),
        *_compare_release(config, scores, level, missing if previous else None),
        *_report_test(config, scores, reported, decided_by or (TEST if reported is None else DEV)),
        *_report_night(config, scores, level, night),
        _check_share("relevant", int(summary["verdicts"]["relevant"]), summary, config.max_relevant_share),
        _check_share("unparsed", int(summary["verdicts"]["unparsed"]), summary, config.max_unparsed_share),
        _check_size(config, instances, previous),
        _check_drift(config, alarms),
    )
    failed = [check for check in checks if check.passed is False]
    first = next((check for check in checks if check.name == "score"), checks[0])
    said = [check.said for check in failed] or [first.said]
    return Decision(not failed, "; ".join([*said, *filter(None, [sum_up(checks)])]), checks)


def _compare_models(config: PromoteConfig, scores: pl.DataFrame, level: float) -> list[Check]:
    """Compare with `against`: all queries together, and each dataset."""
    if config.require == "none":
        return [Check("score", True, "no comparison of models is required")]
    return compare_systems(config.rule(level), scores) or [
        Check(
            "score",
            False,
            f"no model trained on {config.treatment!r} was compared with {config.against!r} in {config.measure}: "
            "give `train`, `train_on` and held-out queries, or promote.require: none",
        )
    ]


def _compare_release(config: PromoteConfig, scores: pl.DataFrame, level: float, missing: str | None) -> list[Check]:
    """Compare with the models of the current release on tonight's queries; where they are not there, say why."""
    if "none" in (config.require, config.against_release):
        return []
    found = compare_systems(config.release_rule(level), scores) if seeds_of(scores, RELEASED) >= config.seeds else []
    if found or missing is None:
        return found
    return [Check(RELEASED, None, f"not compared with the current release: {missing or 'its models have no scores'}")]


def _report_test(
    config: PromoteConfig, scores: pl.DataFrame, reported: pl.DataFrame | None, decided_by: str
) -> list[Check]:
    """Show the test queries where they did not decide; say so where they did, for then they are no test."""
    if config.require == "none" or scores.is_empty():
        return []
    if decided_by == DEV and reported is None:
        said = "the development queries decided, and no test queries were scored; evaluate.split is dev"
        return [Check("test", None, said)]
    if reported is None:
        said = "the test queries decided, as none is held out for development; set ingest.dev, or ingest.dev_split"
        return [Check("test", None, said)]
    return report_difference(config.rule((1 - CONFIDENCE) / 2), reported, "test", "on the test queries")


def _report_night(config: PromoteConfig, scores: pl.DataFrame, level: float, night: int) -> list[Check]:
    """Say at which level the night is tested."""
    if config.require == "none" or scores.is_empty():
        return []
    said = (
        f"night {night} since the last promotion; each test has the one-sided level {level:.2g}, which is its share of "
        f"{config.alpha:g} for {config.nights} nights"
    )
    return [Check("night", None, said, float(night), threshold=level)]


def _check_share(name: str, count: int, summary: Mapping[str, Any], limit: float) -> Check:
    candidates = int(summary["candidates"])
    share = count / candidates if candidates else 0.0
    said = f"{count:,} of {candidates:,} candidates ({percent(share)}) {name}, at most {percent(limit)} allowed"
    return Check(name, share <= limit, said, share, threshold=limit)


def _check_size(config: PromoteConfig, instances: int, previous: int | None) -> Check:
    if not instances:
        return Check("size", False, "the training set is empty", 0.0, threshold=config.min_size_ratio)
    if not previous:
        return Check("size", True, f"{instances:,} instances, no release before", threshold=config.min_size_ratio)
    ratio = instances / previous
    said = (
        f"{instances:,} instances after {previous:,} in the current release, "
        f"at least {percent(config.min_size_ratio)} wanted"
    )
    return Check("size", ratio >= config.min_size_ratio, said, ratio, threshold=config.min_size_ratio)


def _check_drift(config: PromoteConfig, alarms: Sequence[str]) -> Check:
    said = f"drift: {'; '.join(alarms)}" if alarms else "no drift"
    return Check("drift", (not alarms) if config.hold_on_drift else None, said, float(len(alarms)), threshold=0.0)
