"""Detect drift: whether tonight differs from the nights before by more than chance and by enough to matter.

Four things are compared: how many answers to the gold set are right, how many of them are other than usual (churn), the
mix of verdicts on new pairs, and the share of false negatives among them. Pairs of one query change together, so every
test is clustered by query. An alarm needs a small p-value (Bonferroni-corrected over all tests of the night) and a
change of a set size. With much data the p-value of every change is small; with little data every change looks large.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.quality.gold_answers import Answers, answers_of, churn, churn_p, paired_p
from tasks.schemas import VERDICT_STATES

Floats = npt.NDArray[np.float64]

CASCADE, SIMILARITY = "cascade", "similarity"
GOLD, CHURN = "gold", "churn"  # kinds of alarms about the gold set
_QUERY = ["dataset", "query_id"]
_SPARSE = 5.0  # expected count of a cell, below which the chi-square distribution is not accurate
_FEW_QUERIES = 5
_SMOOTHING = 0.5  # added to each count before taking logarithms
_GUARD = 1e-9
_ADVICE = {
    GOLD: "The judge answers otherwise than before. An endpoint's model may have changed behind its name: pin a "
    "dated one, look at `fingerprint` in the judge's calls, and promote nothing judged tonight until it is explained.",
    CHURN: "The judge answers many gold pairs otherwise than before, perhaps with as many right ones. An endpoint's "
    "model may have changed behind its name: pin a dated one, look at `fingerprint` in the judge's calls, and promote "
    "nothing judged tonight until it is explained.",
    "mix": "Look at what the source brought tonight, and at the judge's raw answers; label the sample sheet. If the "
    "new data is meant to differ, nothing needs to be done: later nights are compared with it too.",
    "false_negatives": "Label the sample sheet before you promote: it says whether the judge or the data has changed.",
}


class DriftConfig(BaseModel):
    """When a night raises an alarm.

    min_nights: the least number of earlier nights. window: the most earlier nights that are compared.
    alpha: probability of a false alarm in one night, over all its tests.
    min_accuracy_change: least change of the accuracy on the gold set. min_churn_change: least share of the gold answers
        that are other than usual, beyond the share that is other in a usual night. min_psi: least population stability
        index of the mix of verdicts; 0.1 is usually called a small shift, 0.25 a large one. min_rate_change: least
        change of the share of false negatives.
    min_pairs: the least number of new pairs of a night.
    permutations: draws where a distribution must be sampled. seed: seed of these draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_nights: int = Field(2, ge=1)
    window: int = Field(30, ge=1)
    alpha: float = Field(0.01, gt=0, lt=1)
    min_accuracy_change: float = Field(0.03, ge=0, le=1)
    min_churn_change: float = Field(0.05, ge=0, le=1)
    min_psi: float = Field(0.1, ge=0)
    min_rate_change: float = Field(0.03, ge=0, le=1)
    min_pairs: int = Field(50, ge=1)
    permutations: int = Field(9999, ge=99)
    seed: int = 0


@dataclass(frozen=True)
class Mix:
    """How one tier judged the new pairs of one night.

    states: number of pairs by state. effect: the design effect, as pairs of one query are not independent: `n` pairs
        have as much information as `n / effect` independent ones.
    """

    judge: str
    states: Mapping[str, int]
    effect: float = 1.0

    @property
    def pairs(self) -> int:
        """Return the number of pairs."""
        return sum(self.states.values())

    @property
    def share(self) -> float:
        """Return the share of false negatives."""
        return self.states.get("relevant", 0) / self.pairs


@dataclass(frozen=True)
class Night:
    """The data of one night that is compared, by tier.

    origins: the software and processors, or the endpoints, that gave the answers; the embeddings for similarity.
    """

    gold: Mapping[str, Answers] = field(default_factory=dict)
    mix: Mapping[str, Mix] = field(default_factory=dict)
    origins: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Alarm:
    """One detected change: its kind, size and p-value, and what to do."""

    kind: str  # gold | mix | false_negatives
    tier: str
    before: float
    tonight: float
    effect: float
    p: float
    message: str
    advice: str

    def as_json(self) -> dict[str, Any]:
        """Return the fields for a JSON record."""
        return asdict(self)


@dataclass(frozen=True)
class _Test:
    """One comparison, and whether its change is large enough to matter."""

    alarm: Alarm
    matters: bool


def find_drift(config: DriftConfig, tonight: Night, before: Sequence[Night]) -> list[Alarm]:
    """Compare tonight with the nights before (oldest first), and return the alarms, smallest p-value first.

    With too few nights before, or too few new pairs, there is no alarm.
    """
    before = before[-config.window :]
    tests = [*_gold_tests(config, tonight, before), *_mix_tests(config, tonight, before)]
    alarms = [
        _with_cause(test.alarm, tonight, before[-1])
        for test in tests
        if test.matters and test.alarm.p < config.alpha / len(tests)
    ]
    return sorted(alarms, key=lambda alarm: (alarm.p, alarm.kind, alarm.tier))


def _with_cause(alarm: Alarm, tonight: Night, last: Night) -> Alarm:
    """Name other software or another processor than in the last night as a possible cause.

    The decision of the cascade depends on every tier, and so on what computed any of them.
    """
    tiers = sorted(tonight.origins.keys() & last.origins.keys())
    changed = [tier for tier in tiers if tonight.origins[tier] != last.origins[tier] and alarm.tier in (tier, CASCADE)]
    if not changed:
        return alarm
    cause = f"other software, another processor or another endpoint computed {', '.join(changed)}: it may be the cause"
    return replace(alarm, advice=f"{alarm.advice} Since the night before, {cause}.")


def _gold_tests(config: DriftConfig, tonight: Night, before: Sequence[Night]) -> Iterator[_Test]:
    for tier, answers in sorted(tonight.gold.items()):
        earlier = [night.gold[tier] for night in before if tier in night.gold]
        alike = [a for a in earlier if (a.judge, a.items) == (answers.judge, answers.items)]
        if len(alike) < config.min_nights or not answers.right:
            continue
        was = float(np.mean([a.accuracy for a in alike]))
        change = answers.accuracy - was
        p = paired_p(np.array([a.right for a in alike]), np.array(answers.right), answers.queries)
        message = (
            f"gold set, {tier}: {answers.accuracy:.0%} of {len(answers.right)} right tonight, {was:.0%} over the "
            f"{len(alike)} nights before (p = {p:.2g})"
        )
        alarm = Alarm(GOLD, tier, was, answers.accuracy, change, p, message, _ADVICE[GOLD])
        yield _Test(alarm, abs(change) >= config.min_accuracy_change - _GUARD)
        yield _churn_test(config, tier, answers, alike)


def _churn_test(config: DriftConfig, tier: str, answers: Answers, alike: Sequence[Answers]) -> _Test:
    """Test whether more answers are other than usual than in a usual night."""
    nights = answers_of([*alike, answers])
    was, now = churn(nights)
    p = churn_p(nights, answers.queries)
    message = (
        f"gold set, {tier}: {now:.0%} of {len(answers.right)} answers are other than usual tonight, {was:.0%} in the "
        f"{len(alike)} nights before (p = {p:.2g})"
    )
    alarm = Alarm(CHURN, tier, was, now, now - was, p, message, _ADVICE[CHURN])
    return _Test(alarm, now - was >= config.min_churn_change - _GUARD)


def _mix_tests(config: DriftConfig, tonight: Night, before: Sequence[Night]) -> Iterator[_Test]:
    for tier, mix in sorted(tonight.mix.items()):
        earlier = [night.mix[tier] for night in before if tier in night.mix and night.mix[tier].pairs]
        alike = [m for m in earlier if m.judge == mix.judge]
        if len(alike) < config.min_nights or mix.pairs < config.min_pairs:
            continue
        pooled = pool(alike)
        if pooled.pairs < config.min_pairs:
            continue
        psi = stability_index(pooled.states, mix.states)
        p = mix_p(pooled, mix, VERDICT_STATES, config.permutations, config.seed)
        message = (
            f"verdicts of {tier}: another mix over {mix.pairs:,} new pairs than over {pooled.pairs:,} of {len(alike)} "
            f"nights before ({_changed(pooled, mix)}; PSI {psi:.2f}, p = {p:.2g})"
        )
        alarm = Alarm("mix", tier, pooled.share, mix.share, psi, p, message, _ADVICE["mix"])
        yield _Test(alarm, psi >= config.min_psi)
        if tier == CASCADE:
            yield _rate_test(config, pooled, mix)


def _rate_test(config: DriftConfig, pooled: Mix, mix: Mix) -> _Test:
    change = mix.share - pooled.share
    p = mix_p(_two(pooled), _two(mix), ("relevant", "other"), config.permutations, config.seed)
    message = (
        f"false negatives: {mix.share:.1%} of {mix.pairs:,} new pairs, {pooled.share:.1%} of {pooled.pairs:,} before "
        f"(p = {p:.2g})"
    )
    alarm = Alarm("false_negatives", CASCADE, pooled.share, mix.share, change, p, message, _ADVICE["false_negatives"])
    return _Test(alarm, abs(change) >= config.min_rate_change - _GUARD)


def _two(mix: Mix) -> Mix:
    relevant = mix.states.get("relevant", 0)
    return Mix(mix.judge, {"relevant": relevant, "other": mix.pairs - relevant}, mix.effect)


def _changed(pooled: Mix, mix: Mix) -> str:
    """Describe the state whose share changed most."""
    shares = {
        state: (pooled.states.get(state, 0) / pooled.pairs, mix.states.get(state, 0) / mix.pairs)
        for state in VERDICT_STATES
    }
    state, (was, now) = max(shares.items(), key=lambda item: abs(item[1][1] - item[1][0]))
    return f"{state} {was:.0%} → {now:.0%}"


def pool(mixes: Sequence[Mix]) -> Mix:
    """Add up the pairs of several nights. The design effect is the mean, weighted by pairs."""
    states = {state: sum(mix.states.get(state, 0) for mix in mixes) for state in VERDICT_STATES}
    pairs = sum(mix.pairs for mix in mixes)
    effect = sum(mix.effect * mix.pairs for mix in mixes) / pairs if pairs else 1.0
    return Mix(mixes[0].judge if mixes else "", states, effect)


def design_effect(states: pl.DataFrame) -> float:
    """Compute the mean design effect of Rao and Scott (at least 1), the dependence of the pairs of a query.

    Args:
        states: dataset, query_id, state; one row per pair.
    """
    counts = states.group_by(*_QUERY, "state").len().pivot(on="state", index=_QUERY, values="len").fill_null(0)
    if counts.height < _FEW_QUERIES:
        return float(max(1, states.height / max(1, counts.height)))
    table = counts.sort(_QUERY).drop(_QUERY).to_numpy().astype(np.float64)
    sizes, total = table.sum(axis=1), table.sum()
    shares = table.sum(axis=0) / total
    if len(shares) == 1:
        return 1.0
    between = ((table - sizes[:, None] * shares) ** 2).sum(axis=0) * len(table) / (len(table) - 1) / total**2
    alone = shares * (1 - shares) / total
    # Rao and Scott: the mean of the states' effects, weighted by 1 - share.
    mean = float(((1 - shares) * between / alone).sum() / (len(shares) - 1))
    return max(1.0, mean)


def mix_p(before: Mix, tonight: Mix, states: Sequence[str], permutations: int, seed: int) -> float:
    """Return the p-value that two mixes are of one population, by chi-square over the design effect (Rao and Scott).

    If a cell has a small expected count, the distribution is sampled instead, with fixed margins.
    """
    table = np.array([[mix.states.get(state, 0) for state in states] for mix in (before, tonight)], dtype=np.int64)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:  # noqa: PLR2004 - with one state the mixes are equal
        return 1.0
    effect = max(1.0, (before.effect * before.pairs + tonight.effect * tonight.pairs) / table.sum())
    effect = max(effect, tonight.effect)
    observed = float(_chi_square(table[1:], table.sum(axis=0), table.sum(axis=1))[0]) / effect
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    if expected.min() >= _SPARSE:
        from scipy.stats import chi2

        return float(chi2.sf(observed, table.shape[1] - 1))
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_hypergeometric(
        table.sum(axis=0), int(table[1].sum()), size=permutations, method="marginals"
    )
    extreme = _chi_square(drawn, table.sum(axis=0), table.sum(axis=1)) >= observed - _GUARD
    return float((1 + extreme.sum()) / (1 + permutations))


def _chi_square(tonight: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> Floats:
    """Return Pearson's statistic for each row of `tonight`, as the second row of a table with the given margins."""
    expected = columns * rows[1] / rows.sum()
    squared = (tonight - expected) ** 2
    result: Floats = (squared / expected + squared / (columns * rows[0] / rows.sum())).sum(axis=1)
    return result


def stability_index(before: Mapping[str, int], tonight: Mapping[str, int]) -> float:
    """Return the population stability index (PSI) of two mixes: 0 for equal shares, independent of their sizes.

    >>> round(stability_index({"relevant": 100, "not_relevant": 900}, {"relevant": 250, "not_relevant": 750}), 2)
    0.16
    """
    states = [state for state in VERDICT_STATES if before.get(state, 0) or tonight.get(state, 0)]
    shares = []
    for mix in (before, tonight):
        counts = np.array([mix.get(state, 0) + _SMOOTHING for state in states])
        shares.append(counts / counts.sum())
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
