"""Labels that contradict a calibration raise an alarm; chance does not."""

import numpy as np
import polars as pl
import pytest

from tasks.quality.calibration_drift import find_miscalibration, observe
from tasks.quality.drift import DriftConfig


def labelled(shift: float = 0.0, queries: int = 60, per_query: int = 10, seed: int = 0) -> pl.DataFrame:
    """Pairs with a P, whose labels are drawn by P plus a shift of its log-odds; queries differ among themselves."""
    rng = np.random.default_rng(seed)
    query = np.repeat(np.arange(queries), per_query)
    log_odds = rng.normal(-1, 1.5, queries * per_query)
    of_query = rng.normal(0, 0.5, queries)[query]
    p = 1 / (1 + np.exp(-log_odds))
    relevant = rng.random(len(p)) < 1 / (1 + np.exp(-(log_odds + shift + of_query)))
    return pl.DataFrame({"query_hash": [f"q{n}" for n in query], "p": p, "relevant": relevant})


def test_labels_as_the_calibration_says_raise_no_alarm_at_more_than_the_stated_rate() -> None:
    config = DriftConfig(alpha=0.05)
    alarms = sum(bool(find_miscalibration(config, observe(labelled(seed=seed)), "people")) for seed in range(100))
    assert alarms <= 10  # 5 expected; 11 or more come once in 90


def test_a_bin_of_low_p_in_which_chance_gives_no_relevant_pair_raises_none() -> None:
    def pairs(p: float, *, relevant: bool) -> pl.DataFrame:
        return pl.DataFrame({"query_hash": [f"q{n}" for n in range(50)], "p": p, "relevant": relevant})

    assert 0.92**50 > 0.015  # the chance of such a night; the alarm's is 0.01
    assert not find_miscalibration(DriftConfig(), observe(pairs(0.08, relevant=False)), "people")
    assert not find_miscalibration(DriftConfig(), observe(pairs(0.93, relevant=True)), "people")
    (alarm,) = find_miscalibration(DriftConfig(), observe(pairs(0.3, relevant=False)), "people")
    assert alarm.p < 1e-4


def test_labels_that_contradict_it_raise_one_alarm_that_says_by_how_much() -> None:
    observed = observe(labelled(shift=1.5))
    (alarm,) = find_miscalibration(DriftConfig(), observed, "people")
    assert (alarm.kind, alarm.tier) == ("calibration", "combined")
    assert alarm.effect == pytest.approx(alarm.tonight - alarm.before)
    assert alarm.effect > 0.05
    assert "that people labelled" in alarm.message
    assert "reneg calibrate" in alarm.advice


def test_p_that_is_right_on_average_and_wrong_in_a_bin_raises_an_alarm_that_names_the_bin() -> None:
    high = pl.DataFrame(
        {"query_hash": [f"q{n // 5}" for n in range(400)], "p": [0.95] * 400, "relevant": [False, True] * 200}
    )
    low = high.with_columns(p=0.05, query_hash=pl.col("query_hash") + "b")
    both = pl.concat([high, low])
    (everything, *_) = observe(both)
    assert (everything.expected, everything.observed, everything.pairs) == (pytest.approx(0.5), 0.5, 800)
    (alarm,) = find_miscalibration(DriftConfig(), observe(both), "llm")
    assert "with P from 0 to 0.1" in alarm.message


def test_few_pairs_few_queries_and_a_small_gap_raise_none() -> None:
    wrong = labelled(shift=3)
    assert not find_miscalibration(DriftConfig(), observe(wrong.head(40)), "people")
    one_query = wrong.with_columns(query_hash=pl.lit("q"))
    assert not find_miscalibration(DriftConfig(), observe(one_query), "people")
    assert observe(wrong.clear()) == []
    slight = pl.DataFrame(
        {
            "query_hash": [f"q{n}" for n in range(20000)],
            "p": [0.5] * 20000,
            "relevant": [n % 100 < 53 for n in range(20000)],
        }
    )
    assert observe(slight)[0].p < 1e-9
    assert not find_miscalibration(DriftConfig(), observe(slight), "people")
