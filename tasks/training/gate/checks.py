"""The checks of the promotion gate that compare models.

Promoting needs evidence: of a gain over all queries, and, for each dataset, that it loses less than a bound. All of
these must be shown at the level of the night. So a training set for which one of them is false is promoted with the
chance of that level at most, whatever the number of datasets (an intersection-union test: Berger 1982). No correction
over datasets is needed for that. It is needed where *one of several* datasets is called better or worse: that goes by
the p-value after Holm's correction.

Against the release, a dataset refuses only if its loss is shown, as equal training sets would otherwise seldom pass:
each small dataset that cannot exclude a loss would hold them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from tasks.formatting import signed
from tasks.statistics import CONFIDENCE, holm
from tasks.training.gate.differences import Difference, differences, seeds_of

Requirement = Literal["better", "not_worse", "none"]
UNTRAINED = "base"  # one model, so it has no seeds
_SHOWN = 1 - CONFIDENCE  # two-sided: a dataset is called better or worse below this


@dataclass(frozen=True)
class Check:
    """One check before a promotion.

    figure: the measured value; None where there is none. low, high: its interval, if it has one.
    threshold: the value that the figure, or the low end of the interval, is compared with.
    passed: None where the check is only reported.
    effect: a difference in standard deviations of the queries' differences.
    better, worse: number of queries on which the treatment scores higher, or lower.
    shown: `better` or `worse` where the difference of a dataset is shown, after Holm's correction.
    """

    name: str
    passed: bool | None
    said: str
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    effect: float | None = None
    queries: int | None = None
    better: int | None = None
    worse: int | None = None
    shown: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for a record; those of a comparison only where there is one."""
        fields = dict(self.__dict__)
        return fields if self.queries is not None else {name: fields[name] for name in _OF_ALL}


_OF_ALL = ("name", "passed", "said", "figure", "low", "high", "threshold")


@dataclass(frozen=True)
class Rule:
    """What one comparison must show.

    name: begins the names of its checks. treatment, baseline: names of systems in the scores.
    said: the baseline in words.
    margin: with `not_worse`, how much worse it may be. max_loss: how much worse each dataset may be.
    min_queries: the least number of queries of a comparison; datasets with fewer are compared as one.
    seeds: the least number of trainings of each system. level: one-sided, of each test.
    needs_proof: whether each dataset must be shown to lose less than `max_loss`; else it refuses only if it is shown to
        lose, and losing `max_loss` cannot be excluded.
    """

    name: str
    treatment: str
    baseline: str
    said: str
    measure: str
    require: Requirement
    margin: float
    max_loss: float
    min_queries: int
    seeds: int
    level: float
    needs_proof: bool = True

    @property
    def bound(self) -> float:
        """What the difference over all queries must exceed."""
        return 0.0 if self.require == "better" else -self.margin

    @property
    def wanted(self) -> str:
        """What is required, in words."""
        return "better" if self.require == "better" else f"not worse by more than {self.margin:g}"


def compare_systems(rule: Rule, scores: pl.DataFrame) -> list[Check]:
    """Check all queries together, then each dataset if there are several; empty if the systems have no common query."""
    found = differences(scores, rule.treatment, rule.baseline, rule.measure, rule.min_queries)
    return [*_check_seeds(rule, scores), *check_differences(rule, found)] if found else []


def check_differences(rule: Rule, found: Sequence[Difference]) -> list[Check]:
    """Check the difference over all queries, which is the first, and those of the datasets, if there are several."""
    shown = _shown(found[1:])
    single = [_check_dataset(rule, each, said) for each, said in zip(found[1:], shown, strict=True)]
    return [_check_all(rule, found[0]), *single]


def report_difference(rule: Rule, scores: pl.DataFrame, name: str, said: str) -> list[Check]:
    """Show the difference over all queries without deciding by it."""
    found = differences(scores, rule.treatment, rule.baseline, rule.measure)[:1]
    level = rule.level
    return [_check(name, None, f"{said}: {rule.measure} {_span(each, level)}", each, level=level) for each in found]


def sum_up(checks: Sequence[Check]) -> str:
    """Say in how many datasets the treatment scores higher, and name those where it scores lower; empty for one."""
    single = [check for check in checks if check.name.startswith("score of ") and check.figure is not None]
    if not single:
        return ""
    lower = [check for check in single if (check.figure or 0.0) < 0]
    higher = len([check for check in single if (check.figure or 0.0) > 0])
    named = ", ".join(
        f"{check.name.removeprefix('score of ')} {signed(check.figure or 0.0)}"
        f"{' (shown)' if check.shown == 'worse' else ''}"
        for check in sorted(lower, key=lambda check: check.figure or 0.0)
    )
    return f"higher in {higher} of {len(single)} datasets, lower in {len(lower)}{': ' + named if named else ''}"


def _check_seeds(rule: Rule, scores: pl.DataFrame) -> list[Check]:
    """Refuse systems with fewer trainings than wanted: without several, how much chance is in a training is unknown."""
    trained = {name: seeds_of(scores, name) for name in (rule.treatment, rule.baseline) if name != UNTRAINED}
    least = min(trained.values())
    name = f"seeds{_of(rule)}"
    if least < rule.seeds:
        said = (
            f"{rule.seeds} trainings of each are wanted to tell a gain from the chance of one training, "
            f"{', '.join(f'{model} has {count}' for model, count in trained.items())}: run `reneg curate` or the "
            "nightly run, which train the others, or set promote.seeds"
        )
        return [Check(name, False, said, float(least), threshold=float(rule.seeds))]
    if least == 1:
        said = "one seed was trained (promote.seeds: 1), so the intervals do not cover how much another would change"
        return [Check(name, None, said, 1.0, threshold=1.0)]
    return [Check(name, True, f"{least} seeds of each", float(least), threshold=float(rule.seeds))]


def _check_all(rule: Rule, found: Difference) -> Check:
    def check(said: str, *, passed: bool) -> Check:
        return _check(rule.name, passed, said, found, level=rule.level, threshold=rule.bound)

    if found.queries < rule.min_queries:
        said = f"{rule.measure} was measured on {found.queries} held-out queries, {rule.min_queries} are wanted"
        return check(said, passed=False)
    if not found.is_defined:
        said = f"{rule.measure} differs by {signed(found.difference)} on every query: no interval can be given"
        return check(said, passed=False)
    span = f"than {rule.said} in {rule.measure}: {_span(found, rule.level)}"
    if found.difference - found.reach(rule.level) > rule.bound:
        return check(f"{rule.wanted} {span}", passed=True)
    return check(f"not shown to be {rule.wanted} {span}{_needed(found, rule.bound, rule.level)}", passed=False)


def _check_dataset(rule: Rule, found: Difference, shown: str | None) -> Check:
    """Check that a dataset loses less than `max_loss`; of too few queries nothing is required."""
    few = found.queries < rule.min_queries
    is_within = found.is_defined and found.difference - found.reach(rule.level) > -rule.max_loss
    passed = None if few or rule.require == "none" else is_within or not (rule.needs_proof or shown == "worse")
    said = f"{found.name}: {rule.measure} {_span(found, rule.level)}, against {rule.said}"
    if shown:
        said += f", shown {shown}"
    if few:
        said += f"; fewer than {rule.min_queries} queries, so it is only reported"
    elif not is_within:
        needed = _needed(found, -rule.max_loss, rule.level)
        said += f"; not shown to lose less than {rule.max_loss:g} (promote.max_loss){needed}"
    name, bound = f"{rule.name} of {found.name}", -rule.max_loss
    return _check(name, passed, said, found, level=rule.level, threshold=bound, shown=shown)


def _check(  # noqa: PLR0913 - the two last have defaults
    name: str,
    passed: bool | None,
    said: str,
    found: Difference,
    *,
    level: float,
    threshold: float | None = None,
    shown: str | None = None,
) -> Check:
    reach = found.reach(level) if found.is_defined else None
    return Check(
        name,
        passed,
        said,
        found.difference,
        None if reach is None else found.difference - reach,
        None if reach is None else found.difference + reach,
        threshold,
        found.effect,
        found.queries,
        found.better,
        found.worse,
        shown,
    )


def _shown(found: Sequence[Difference]) -> list[str | None]:
    """Return for each dataset whether it is shown to be better or worse, corrected over the datasets."""
    above = [each.p_value() for each in found if each.is_defined]
    two_sided = iter(holm([2 * min(p, 1 - p) for p in above]))
    corrected = [next(two_sided) if each.is_defined else 1.0 for each in found]
    return [
        None if p >= _SHOWN else ("better" if each.difference > 0 else "worse")
        for each, p in zip(found, corrected, strict=True)
    ]


def _of(rule: Rule) -> str:
    return "" if rule.name == "score" else f" of {rule.name}"


def _span(found: Difference, level: float) -> str:
    interval = ""
    if found.is_defined:
        reach = found.reach(level)
        interval = f", {signed(found.difference - reach)} to {signed(found.difference + reach)}"
    return f"{signed(found.difference)}{interval} on {found.queries:,} held-out queries"


def _needed(found: Difference, bound: float, level: float) -> str:
    """Say how many queries would show this difference with these seeds, or that more seeds are needed."""
    distance = found.difference - bound
    if distance <= 0 or not found.is_defined:
        return ""
    of_queries, of_seeds = found.reaches(level)
    if of_seeds >= distance**2:
        return f"; with {found.seeds[0]} seeds it does not show on any number of queries, raise promote.seeds"
    needed = found.queries * of_queries / (distance**2 - of_seeds)
    queries = math.ceil(needed * 1.1 / 10) * 10  # plus 10%, rounded up to tens
    return f"; a difference of this size shows on about {queries:,}"
