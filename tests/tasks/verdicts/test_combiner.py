"""One P(relevant) of features and the scores of all tiers that answered."""

from functools import cache

import numpy as np
import polars as pl
import pytest

from tasks.verdicts.combiner import CombineConfig, Combiner, NotEnoughLabels, cross_fit, fit_combiner
from tasks.verdicts.fitting.folds import expit
from tasks.verdicts.fitting.regression import fit_regression
from tests.tasks.verdicts.fitting.pairs import labels_of, make_pairs

BOTH = CombineConfig(tiers=("weak", "strong"))
SIMILARITY = CombineConfig()


@cache
def fitted() -> Combiner:
    pairs = make_pairs(queries=120)
    return fit_combiner(BOTH, wide=pairs, labels=labels_of(pairs))


def brier(p: pl.Series, relevant: pl.Series) -> float:
    return float(((p - relevant.cast(pl.Float64)) ** 2).mean())  # type: ignore[arg-type]


def test_each_further_tier_makes_p_better_and_every_prefix_of_tiers_is_calibrated() -> None:
    new = make_pairs(queries=150, seed=1)
    frames = [new.drop("score_weak", "score_strong"), new.drop("score_strong"), new]
    found = [fitted().predict(frame) for frame in frames]
    errors = [brier(p, new["relevant"]) for p in found]
    assert errors[0] > errors[1] + 0.005 and errors[1] > errors[2] + 0.05
    for p in found:
        for low, high in [(0, 0.3), (0.3, 0.6), (0.6, 1)]:
            rows = (p >= low) & (p < high)
            by_chance = 1.5 / np.sqrt(rows.sum())  # three standard errors of a share
            assert p.filter(rows).mean() == pytest.approx(new["relevant"].filter(rows).mean(), abs=0.02 + by_chance)


def test_pairs_that_different_tiers_answered_are_on_one_scale() -> None:
    new = make_pairs(queries=150, seed=2)
    asked = np.random.default_rng(0).random(new.height) < 0.5
    part = new.with_columns(score_strong=pl.when(pl.Series(asked)).then("score_strong"))
    p = fitted().predict(part)
    for rows in (asked, ~asked):
        of = pl.Series(rows)
        assert p.filter(of).mean() == pytest.approx(new["relevant"].filter(of).mean(), abs=0.03)
    alone = fitted().predict(new.drop("score_weak"))  # the first tier could not be read
    assert brier(alone, new["relevant"]) < 0.1


def test_p_is_right_for_any_number_of_positives() -> None:
    """The largest of 5 cosines is larger by chance than one: P must not rise with the number of positives."""
    pairs, new = make_pairs(queries=200), make_pairs(queries=300, seed=1)
    x, relevant = (pairs.filter(pl.col("positives") == 1)[name].to_numpy() for name in ("to_positive", "relevant"))
    one = fit_regression(x[:, None], relevant, np.ones(len(x)), np.full(len(x), "d"), ["to_positive"], (1.0, 0.0))
    fixed = new.with_columns(p=pl.Series(expit(one.log_odds(new["to_positive"].to_numpy()[:, None], np.array([])))))
    means = [fixed.filter(pl.col("positives") == count)["p"].mean() for count in (1, 3, 5)]
    assert means[0] + 0.05 < means[1] < means[2] - 0.02  # type: ignore[operator] - what one weight for all would say
    found = new.with_columns(fit_combiner(SIMILARITY, wide=pairs, labels=labels_of(pairs)).predict(new))
    for count in (1, 3, 5):
        part = found.filter(pl.col("positives") == count)
        assert part["p"].mean() == pytest.approx(part["truth"].mean(), abs=0.03)  # type: ignore[arg-type]


def test_a_combiner_is_json_and_gives_the_same_p_again() -> None:
    new = make_pairs(queries=5, seed=3)
    again = Combiner.model_validate_json(fitted().model_dump_json())
    assert again == fitted()
    assert again.predict(new).equals(fitted().predict(new))


def test_fitting_is_seeded() -> None:
    pairs = make_pairs(queries=20)
    one, other = (fit_combiner(BOTH, wide=pairs, labels=labels_of(pairs)) for _ in range(2))
    assert one == other


def test_judges_from_files_need_no_cosines() -> None:
    nothing = [pl.lit(None).alias(name) for name in ("to_query", "to_positive", "to_positives", "positive_to_query")]
    pairs = make_pairs(queries=60).with_columns(nothing, positives=None, rank=None)
    new = make_pairs(queries=60, seed=4).with_columns(nothing, positives=None, rank=None)
    combiner = fit_combiner(BOTH, wide=pairs, labels=labels_of(pairs))
    assert brier(combiner.predict(new), new["relevant"]) < 0.1
    alone = combiner.predict(new.drop("score_weak", "score_strong"))
    assert alone.n_unique() == 1 and alone[0] == pytest.approx(pairs["relevant"].mean(), abs=0.01)


def test_an_unknown_dataset_gets_the_pooled_coefficients() -> None:
    pairs = make_pairs(queries=90, datasets=("a", "b"), shift=2.0)
    combiner = fit_combiner(SIMILARITY, wide=pairs, labels=labels_of(pairs))
    new = make_pairs(queries=30, seed=5)
    known = {name: combiner.predict(new.with_columns(dataset=pl.lit(name))).mean() for name in ("a", "b", "c", "d")}
    assert known["a"] < known["c"] < known["b"]  # type: ignore[operator]
    assert known["c"] == known["d"]


def test_no_pair_is_scored_by_a_fit_that_saw_its_query() -> None:
    pairs = make_pairs(queries=20)
    out = cross_fit(CombineConfig(tiers=("weak",)), wide=pairs, labels=labels_of(pairs))
    assert out["p"].null_count() == 0 and out.height == pairs.height
    mine = pl.col("query_id") == "q3"
    turned = pl.when(mine).then(pl.col("relevant").reverse().over("query_id")).otherwise("relevant")  # folds stay
    again = cross_fit(CombineConfig(tiers=("weak",)), wide=pairs, labels=labels_of(pairs).with_columns(relevant=turned))
    assert again.filter(mine)["relevant"].to_list() != out.filter(mine)["relevant"].to_list()
    assert again.filter(mine)["p"].equals(out.filter(mine)["p"])
    assert not again.filter(~mine)["p"].equals(out.filter(~mine)["p"])


def test_other_columns_of_the_frame_are_not_read() -> None:
    pairs = make_pairs(queries=10)
    one, other = (
        fit_combiner(SIMILARITY, wide=wide, labels=labels_of(pairs)) for wide in (pairs, pairs.drop("relevant"))
    )
    assert one == other


def test_weights_undo_a_sample_with_more_relevant_pairs() -> None:
    pairs = make_pairs(queries=200)
    rng = np.random.default_rng(0)
    chance = np.where(pairs["relevant"].to_numpy(), 0.9, 0.2)
    drawn = pl.Series(rng.random(pairs.height) < chance)
    labels = labels_of(pairs).with_columns(weight=pl.Series(1 / chance)).filter(drawn)
    weighted = fit_combiner(SIMILARITY, wide=pairs, labels=labels).predict(pairs).mean()
    plain = fit_combiner(SIMILARITY, wide=pairs, labels=labels.drop("weight")).predict(pairs).mean()
    assert weighted == pytest.approx(pairs["relevant"].mean(), abs=0.03)
    assert plain > weighted + 0.2  # type: ignore[operator]


@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        (lambda found: found.head(19), "19 came"),
        (lambda found: found.with_columns(relevant=True), "0 of the rarer class"),
        (lambda found: found.filter(pl.col("query_id").is_in(["q0", "q1"])), "of 2 queries"),
    ],
)
def test_too_few_labels_are_an_error_that_says_what_to_do(labels, counts: str) -> None:  # noqa: ANN001
    pairs = make_pairs(queries=10)
    with pytest.raises(NotEnoughLabels, match=f"{counts}.*label more pairs"):
        fit_combiner(BOTH, wide=pairs, labels=labels(labels_of(pairs)))


def test_a_tier_with_too_few_labelled_answers_is_not_used() -> None:
    pairs = make_pairs(queries=20).with_row_index()
    few = pairs.with_columns(score_strong=pl.when(pl.col("index") < 10).then("score_strong"))
    combiner = fit_combiner(BOTH, wide=few, labels=labels_of(pairs))
    assert [fit.tiers for fit in combiner.fits] == [(), ("weak",)]
    assert combiner.predict(pairs).equals(combiner.predict(pairs.drop("score_strong")))


def test_a_tier_that_was_asked_about_a_part_is_not_centred() -> None:
    pairs = make_pairs(queries=30)
    part = pairs.with_columns(score_strong=pl.when(pl.col("rank") < 10).then("score_strong"))
    named = CombineConfig(tiers=("weak", "strong"), partial=("weak",))
    for config, wide in [(BOTH, part), (named, pairs)]:
        left = config.partial or ("strong",)
        fits = fit_combiner(config, wide=wide, labels=labels_of(pairs)).fits
        assert all(not set(fit.centred) & set(left) for fit in fits)


def test_only_the_sets_that_are_named_are_fitted() -> None:
    pairs = make_pairs(queries=10)
    config = CombineConfig(tiers=("weak", "strong"), sets=(("weak", "strong"),))
    combiner = fit_combiner(config, wide=pairs, labels=labels_of(pairs))
    assert [fit.tiers for fit in combiner.fits] == [(), ("weak", "strong")]


def test_of_many_labels_whole_queries_are_drawn() -> None:
    pairs = make_pairs(queries=30)
    config = CombineConfig(most_labels=150)
    out = cross_fit(config, wide=pairs, labels=labels_of(pairs))
    assert out.height == 140 and out["query_id"].n_unique() == 7  # of 20 pairs each
    assert fit_combiner(config, wide=pairs, labels=labels_of(pairs)).fits[0].labels == 140


def test_a_weight_that_is_not_positive_is_refused() -> None:
    pairs = make_pairs(queries=10)
    with pytest.raises(ValueError, match="positive weights expected"):
        fit_combiner(BOTH, wide=pairs, labels=labels_of(pairs).with_columns(weight=pl.lit(0.0)))
