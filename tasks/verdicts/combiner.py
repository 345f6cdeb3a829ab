"""Combine similarity features and the scores of all tiers that answered into one P(relevant), fitted on labels.

One ridge regression for each set of tiers that may have answered: similarity alone, similarity and the weak judge, and
so on. (Indicators of the missing tiers that interact with every other column would give the same model.) So P is sound
after each tier, and where a tier's answer could not be read. Each tier's score goes through a map of its own first.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.verdicts.features import score_column
from tasks.verdicts.fitting.design import CENTRED, matrix, similarity_columns, tier_columns
from tasks.verdicts.fitting.folds import Bools, Floats, Ints, effective, expit, is_better, single_thread, split_folds
from tasks.verdicts.fitting.maps import ScoreMap, fit_map
from tasks.verdicts.fitting.regression import Regression, choose, fit_regression
from tasks.verdicts.pairs import PAIR, check_unique

_MOST_TIERS_FOR_ALL_SETS = 3
_WHOLE = 0.9  # share of the pairs that a tier answered from which the mean of a query is one over all its pairs


class NotEnoughLabels(ValueError):
    """There are too few labels, or labels of one class only, to fit anything on them."""


class CombineConfig(BaseModel):
    """How a combiner is fitted.

    tiers: the tiers other than similarity, in the order asked. folds: into how many groups of queries the labels are
    split. seed: of the folds. partial: tiers that are asked about a part of a query's pairs only. Their log-odds are
    not centred, as the mean would depend on which part; nor are those of a tier that answered less than 90% of the
    pairs. sets: fit only these sets of tiers, beside the empty one. within: whether anything is centred within the
    query; not where the labelled pairs are no sample of its candidates. least_labels, least_of_class, least_queries:
    with fewer, nothing is fitted. most_labels: of more, whole queries are drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tiers: tuple[str, ...] = ()
    folds: int = Field(5, ge=2)
    seed: int = Field(0, ge=0)
    partial: tuple[str, ...] = ()
    sets: tuple[tuple[str, ...], ...] | None = None
    within: bool = True
    most_labels: int = Field(20_000, ge=100)
    least_labels: int = Field(20, ge=4)
    least_of_class: int = Field(5, ge=1)
    least_queries: int = Field(5, ge=2)


class Fit(BaseModel):
    """The regression for pairs that exactly these tiers answered, and the labels behind it.

    tiers: in the order asked. centred: those whose log-odds are also read minus their mean in the query.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tiers: tuple[str, ...]
    centred: tuple[str, ...]
    regression: Regression
    labels: int
    queries: int


class Combiner(BaseModel):
    """A fitted combiner; `model_dump_json` and `model_validate_json` are each other's reverse.

    tiers: all that it knows, in the order asked. maps: by tier. fits: by set of tiers, the empty set first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tiers: tuple[str, ...]
    maps: Mapping[str, ScoreMap]
    fits: tuple[Fit, ...] = Field(min_length=1)

    def predict(self, wide: pl.DataFrame) -> pl.Series:
        """Return P(relevant) of each row of the wide frame, as a series named "p"; never null.

        All candidates of a query must be in the frame, as some columns are centred within the query. Columns of tiers
        may be absent: then the tier was not asked. A pair whose set of tiers had too few labels for a fit is scored by
        the largest set of its tiers that has one, of two by the one with the later tiers.
        """
        known = [tier for tier in self.tiers if tier in self.maps]
        log_odds = {tier: self.maps[tier].log_odds(_scores(wide, tier)) for tier in known}
        answered = np.column_stack([np.empty((wide.height, 0)), *(~np.isnan(log_odds[tier]) for tier in known)])
        base, dataset = similarity_columns(wide), wide["dataset"].to_numpy()
        p = np.full(wide.height, np.nan)
        for pattern in np.unique(answered, axis=0):
            fit = self._fit_for({tier for tier, said in zip(known, pattern, strict=True) if said})
            tiers = tier_columns(wide, {tier: log_odds[tier] for tier in fit.tiers}, fit.centred)
            x = matrix(pl.concat([base, tiers], how="horizontal"), fit.regression.columns)
            rows = (answered == pattern).all(axis=1)
            p[rows] = expit(fit.regression.log_odds(x[rows], dataset[rows]))
        return pl.Series("p", p)

    def _fit_for(self, answered: set[str]) -> Fit:
        usable = [fit for fit in self.fits if answered.issuperset(fit.tiers)]
        return max(usable, key=lambda fit: (len(fit.tiers), [self.tiers.index(tier) for tier in fit.tiers][::-1]))


def fit_combiner(config: CombineConfig, *, wide: pl.DataFrame, labels: pl.DataFrame) -> Combiner:
    """Fit a combiner on labelled pairs.

    Args:
        config: see CombineConfig.
        wide: features and scores, as `join_scores` gives them, with all candidates of each query.
        labels: dataset, query_id, doc_id, `relevant` (Boolean), and optionally `weight` (1 / inclusion probability of
            the sample). Labels of pairs that are not in `wide` are ignored.

    Raises:
        NotEnoughLabels: fewer labels than the configuration asks for, in all or of one class, or too few queries.
        ValueError: a pair comes twice, or a weight is not positive.
    """
    with single_thread():
        return _fit_all(config, wide, labels)


def _fit_all(config: CombineConfig, wide: pl.DataFrame, labels: pl.DataFrame) -> Combiner:
    data = _labelled(config, wide, labels)
    _check_enough(config, data)
    maps: dict[str, ScoreMap] = {}
    crossed: dict[str, Floats] = {}
    for tier in config.tiers:
        score = _scores(wide, tier)
        rows = data.rows[~np.isnan(score[data.rows])]
        part = data.only(np.isin(data.rows, rows))
        if not part.enough(config):
            continue
        maps[tier], out = fit_map(score[part.rows], part.relevant, part.groups, part.weights)
        crossed[tier] = maps[tier].log_odds(score)
        crossed[tier][part.rows] = out
    base = similarity_columns(wide)
    fits = []
    whole = {tier for tier, values in crossed.items() if tier not in config.partial and _share(values) >= _WHOLE}
    whole = whole if config.within else set()
    for tiers in _sets(config, maps):
        answered = np.all([np.full(len(data.rows), True), *(~np.isnan(crossed[t][data.rows]) for t in tiers)], axis=0)
        part = data.only(answered)
        if part.enough(config):
            fits.append(_fit(config, wide, base, {tier: crossed[tier] for tier in tiers}, part, whole))
    return Combiner(tiers=config.tiers, maps=maps, fits=tuple(fits))


def cross_fit(config: CombineConfig, *, wide: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Return P(relevant) of each labelled pair by a combiner that was fitted on other queries.

    Returns:
        dataset, query_id, doc_id, `relevant`, `weight`, `group` (the query, by its text where the features have it),
        `fold`, `p`, and where there are tiers `p_after_similarity`, `p_after_<tier>` for all but the last: P without
        the tiers that come later. In the order of `wide`.

    Raises:
        NotEnoughLabels, ValueError: as `fit_combiner`, for all labels or for those of the other folds.
    """
    data = _labelled(config, wide, labels)
    _check_enough(config, data)
    fold = split_folds(data.groups, data.relevant, config.folds, config.seed)
    found = (
        wide[data.rows.tolist()]
        .select(PAIR)
        .with_columns(
            relevant=pl.Series(data.relevant),
            weight=pl.Series(data.raw_weights),
            group=pl.Series(data.groups),
            fold=fold,
        )
    )
    stages = [f"p_after_{tier}" for tier in ("similarity", *config.tiers)[: len(config.tiers)]]
    p = {name: np.full(len(data.rows), np.nan) for name in (*stages, "p")}
    for one in np.unique(fold):
        out = fold == one
        combiner = fit_combiner(config, wide=wide, labels=found.filter(pl.col("fold") != one))
        for place, name in enumerate(p):
            asked = wide.drop([score_column(tier) for tier in config.tiers[place:]], strict=False)
            p[name][out] = combiner.predict(asked).to_numpy()[data.rows[out]]
    crossed: pl.DataFrame = found.with_columns([pl.Series(name, values) for name, values in p.items()])
    return crossed


@dataclass(frozen=True)
class _Labelled:
    """Labelled pairs: their rows in the wide frame, labels, weights, query and dataset, arrays of one length."""

    rows: Ints
    relevant: Bools
    raw_weights: Floats
    groups: npt.NDArray[Any]
    datasets: npt.NDArray[Any]

    @property
    def weights(self) -> Floats:
        return effective(self.raw_weights)

    def only(self, chosen: Bools) -> "_Labelled":
        return _Labelled(**{one.name: getattr(self, one.name)[chosen] for one in fields(self)})

    def counts(self) -> tuple[int, int, int]:
        """Labels, those of the rarer class, queries."""
        positive = int(self.relevant.sum())
        return len(self.rows), min(positive, len(self.rows) - positive), len(np.unique(self.groups))

    def enough(self, config: CombineConfig) -> bool:
        labels, rarer, queries = self.counts()
        return labels >= config.least_labels and rarer >= config.least_of_class and queries >= config.least_queries


def _labelled(config: CombineConfig, wide: pl.DataFrame, labels: pl.DataFrame) -> _Labelled:
    check_unique(wide, "the wide frame")
    check_unique(labels, "labels")
    weight = pl.col("weight").cast(pl.Float64) if "weight" in labels.columns else pl.lit(1.0).alias("weight")
    by_id = pl.format("{}/{}", "dataset", "query_id")
    group = pl.coalesce("query_hash", by_id) if "query_hash" in wide.columns else by_id
    joined = (
        wide.select(*PAIR, group=group)
        .with_row_index("row")
        .join(labels.select(*PAIR, "relevant", weight), on=PAIR, maintain_order="left")
        .filter(pl.col("relevant").is_not_null())
    )
    weights = joined["weight"].to_numpy()
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError("labels: positive weights expected (1 / inclusion probability)")
    data = _Labelled(
        rows=joined["row"].to_numpy().astype(np.int64),
        relevant=joined["relevant"].to_numpy().astype(bool),
        raw_weights=weights,
        groups=joined["group"].to_numpy(),
        datasets=joined["dataset"].to_numpy(),
    )
    return _draw(config, data)


def _draw(config: CombineConfig, data: _Labelled) -> _Labelled:
    """Draw whole queries until the next one would give more labels than are wanted."""
    if len(data.rows) <= config.most_labels:
        return data
    names, place, size = np.unique(data.groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(config.seed).permutation(len(names))
    return data.only(np.isin(place, order[np.cumsum(size[order]) <= config.most_labels]))


def _check_enough(config: CombineConfig, data: _Labelled) -> None:
    if not data.enough(config):
        labels, rarer, queries = data.counts()
        raise NotEnoughLabels(
            f"at least {config.least_labels} labels expected, {config.least_of_class} of each class, of "
            f"{config.least_queries} queries; {labels} came, {rarer} of the rarer class, of {queries} queries; "
            "label more pairs, or fit on a tier's verdicts or on the data itself"
        )


def _scores(wide: pl.DataFrame, tier: str) -> Floats:
    name = score_column(tier)
    if name not in wide.columns:
        return np.full(wide.height, np.nan)
    return wide[name].cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()


def _share(values: Floats) -> float:
    return float(np.mean(~np.isnan(values))) if len(values) else 0.0


def _sets(config: CombineConfig, maps: Mapping[str, ScoreMap]) -> list[tuple[str, ...]]:
    """List the sets of tiers that may have answered: all of them, or with many tiers what comes first or misses one."""
    tiers = [tier for tier in config.tiers if tier in maps]
    if config.sets is not None:
        return [(), *(found for found in config.sets if set(found) <= set(tiers))]
    if len(tiers) <= _MOST_TIERS_FOR_ALL_SETS:
        return [found for size in range(len(tiers) + 1) for found in combinations(tiers, size)]
    prefixes = [tuple(tiers[:size]) for size in range(len(tiers) + 1)]
    without = [tuple(one for one in prefix if one != left) for prefix in prefixes for left in prefix]
    return sorted(dict.fromkeys([*prefixes, *without, *((tier,) for tier in tiers)]), key=len)


def _fit(
    config: CombineConfig,
    wide: pl.DataFrame,
    base: pl.DataFrame,
    log_odds: Mapping[str, Floats],
    data: _Labelled,
    whole: Set[str],
) -> Fit:
    """Fit the regression of one set of tiers; C and the pooling are those of the least loss on queries left out.

    The tiers are centred only if the loss is lower by more than its standard error over queries.
    """
    fold = split_folds(data.groups, data.relevant, config.folds, config.seed + 1)
    best: tuple[tuple[str, ...], list[str], Floats, tuple[float, float], Floats] | None = None
    for centred in dict.fromkeys([(), tuple(tier for tier in log_odds if tier in whole)]):
        columns = pl.concat([base, tier_columns(wide, log_odds, centred)], how="horizontal")[data.rows.tolist()]
        names = [name for name in columns.columns if columns[name].null_count() < columns.height]
        names = [name for name in names if config.within or not name.endswith(CENTRED)]
        x = matrix(columns, names)
        how, p = choose(x, data.relevant, data.weights, data.datasets, fold)
        if best is None or is_better(p, best[4], data.relevant, data.weights, data.groups):
            best = (centred, names, x, how, p)
    assert best is not None
    centred, names, x, how, _ = best
    regression = fit_regression(x, data.relevant, data.weights, data.datasets, names, how)
    labels, _, queries = data.counts()
    return Fit(tiers=tuple(log_odds), centred=centred, regression=regression, labels=labels, queries=queries)
