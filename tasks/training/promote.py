"""Decide whether tonight's training set replaces the one that trainers read. Each reason has a figure.

Two models are compared on the same held-out queries. They are trained in the same way from the same base model: one on
the treatment, one on `against` (`default`: the original labels). The other checks stop a promotion if a judge, a source
or the set-up failed, whatever the scores are.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.formatting import percent, signed
from tasks.schemas import Treatment
from tasks.training.evaluate import ALL_DATASETS, Comparison, compare

Requirement = Literal["better", "not_worse", "none"]


class PromoteConfig(BaseModel):
    """What must hold before a training set is promoted.

    treatment: the training set to release. against: the training set whose model it is compared with.
    measure: one of `evaluate.measures`. margin: with `not_worse`, how much worse it may be.
    require: `better`: the interval of the difference is above 0; `not_worse`: it is above -margin; `none`: models are
        not compared, and only the other checks decide.
    min_queries: the least number of held-out queries; the intervals of fewer queries are too narrow.
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
    min_queries: int = Field(10, ge=2)
    max_relevant_share: float = Field(0.3, ge=0, le=1)
    max_unparsed_share: float = Field(0.05, ge=0, le=1)
    min_size_ratio: float = Field(0.8, ge=0)
    hold_on_drift: bool = True
    publish_model: bool = False

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
class Check:
    """One check before a promotion.

    figure: the measured value; None where there is none. low, high: its 95% interval, if it has one.
    threshold: the value that the figure, or the low end of the interval, is compared with.
    passed: None where the check is only reported.
    """

    name: str
    passed: bool | None
    said: str
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a record."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Decision:
    """Whether to promote, the reason in one sentence, and all checks."""

    promote: bool
    because: str
    checks: tuple[Check, ...]


def decide_promotion(
    config: PromoteConfig,
    *,
    scores: pl.DataFrame,
    summary: Mapping[str, Any],
    instances: int,
    previous: int | None = None,
    alarms: Sequence[str] = (),
) -> Decision:
    """Decide on a promotion from the results of a curation.

    Args:
        config: the requirements.
        scores: scores by model, dataset, measure, query and seed; empty if no model was trained.
        summary: the result of `summarise`, with `candidates` and `verdicts`.
        instances: number of instances of the training set to promote.
        previous: number of instances of the current release; None if there is none.
        alarms: the drift alarms of the night, one sentence each.
    """
    checks = (
        *_compare_models(config, scores),
        _check_share("relevant", int(summary["verdicts"]["relevant"]), summary, config.max_relevant_share),
        _check_share("unparsed", int(summary["verdicts"]["unparsed"]), summary, config.max_unparsed_share),
        _check_size(config, instances, previous),
        _check_drift(config, alarms),
    )
    failed = [check for check in checks if check.passed is False]
    if failed:
        return Decision(False, "; ".join(check.said for check in failed), checks)
    return Decision(True, checks[0].said, checks)


def _compare_models(config: PromoteConfig, scores: pl.DataFrame) -> list[Check]:
    """Compare the difference over all queries with what is required; those of single datasets are only reported."""
    if config.require == "none":
        return [Check("score", True, "no comparison of models is required")]
    found = [c for c in compare(scores, config.against, config.treatment) if c.measure == config.measure]
    overall = next((c for c in found if c.dataset == ALL_DATASETS), None)
    if overall is None:
        return [
            Check(
                "score",
                False,
                f"no model trained on {config.treatment!r} was compared with {config.against!r} in {config.measure}: "
                "give `train`, `train_on` and held-out queries, or promote.require: none",
            )
        ]
    single = [c for c in found if c.dataset != ALL_DATASETS]
    return [_check_difference(config, overall), *(_report_dataset(config, c) for c in single)]


def _check_difference(config: PromoteConfig, found: Comparison) -> Check:
    bound = 0.0 if config.require == "better" else -config.margin
    figures = {"figure": found.difference, "low": found.low, "high": found.high, "threshold": bound}
    if found.queries < config.min_queries:
        said = f"{config.measure} was measured on {found.queries} held-out queries, {config.min_queries} are wanted"
        return Check("score", False, said, **figures)
    if found.low is None or found.high is None:
        said = f"{config.measure} differs by {signed(found.difference)} on every query: no interval can be given"
        return Check("score", False, said, **figures)
    wanted = "better" if config.require == "better" else f"not worse by more than {config.margin:g}"
    if found.low > bound:
        said = f"{wanted} than {config.against} in {config.measure}: {_span(found)}"
        return Check("score", True, said, **figures)
    said = f"not shown to be {wanted} than {config.against} in {config.measure}: {_span(found)}{_needed(found, bound)}"
    return Check("score", False, said, **figures)


def _report_dataset(config: PromoteConfig, found: Comparison) -> Check:
    said = f"{found.dataset}: {config.measure} {_span(found)}"
    return Check(f"score of {found.dataset}", None, said, found.difference, found.low, found.high)


def _span(found: Comparison) -> str:
    interval = "" if found.low is None or found.high is None else f", {signed(found.low)} to {signed(found.high)}"
    return f"{signed(found.difference)}{interval} on {found.queries:,} held-out queries"


def _needed(found: Comparison, bound: float) -> str:
    """Say how many queries would show this difference, as the width of the interval falls with their square root."""
    distance, width = found.difference - bound, found.difference - (found.low or 0.0)
    if distance <= 0 or not width:
        return ""
    queries = math.ceil(found.queries * (width / distance) ** 2 * 1.1 / 10) * 10  # plus 10%, rounded up to tens
    return f"; a difference of this size shows on about {queries:,}"


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
