"""Errors in common: seen where there are some, by kind of pair, and not where judges err on their own."""

import numpy as np
import polars as pl
import pytest

from tasks.schemas import CANDIDATES, SHARED_ERRORS, VERDICTS
from tasks.summaries import LENGTHS
from tasks.verdicts.shared_errors import kinds_of_pairs, shared_errors

PAIR = ["dataset", "query_id", "doc_id"]


def frame(relevant: np.ndarray, queries: int = 100) -> pl.DataFrame:
    ids = [("d", f"q{n % queries}", f"p{n}") for n in range(len(relevant))]
    return pl.DataFrame(ids, schema=PAIR, orient="row").with_columns(relevant=pl.Series(relevant))


def said(pairs: pl.DataFrame, called: np.ndarray) -> pl.DataFrame:
    states = ["relevant" if yes else "not_relevant" for yes in called]
    return pairs.select(PAIR).with_columns(state=pl.Series(states, dtype=pl.String))


def judges(
    rng: np.random.Generator, together: float, pairs: int = 1000
) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    """Two judges that err on a fifth of the pairs; `together`: share of the pairs on which both err by one cause."""
    relevant = rng.random(pairs) < 0.4
    shared = rng.random(pairs) < together
    wrong = [shared | (rng.random(pairs) < 0.2) for _ in range(2)]
    truth = frame(relevant)
    return truth, {name: said(truth, relevant ^ errs) for name, errs in zip(("weak", "strong"), wrong, strict=True)}


def test_the_shares_are_those_counted_by_hand() -> None:
    relevant = np.array([True] * 10 + [False] * 20)
    truth = frame(relevant, 30)
    first = np.array([False] * 4 + [True] * 6 + [True] * 5 + [False] * 15)  # misses 4 of 10, 5 of 20 false alarms
    second = np.array([False] * 2 + [True] * 8 + [True] * 10 + [False] * 10)  # misses 2, 10 false alarms
    made = shared_errors({"a": said(truth, first), "b": said(truth, second)}, truth)
    assert dict(made.schema) == SHARED_ERRORS.columns
    (row,) = made.to_dicts()
    assert (row["first"], row["second"], row["kind"], row["value"], row["pairs"], row["queries"]) == (
        "a", "b", "all", "all", 30, 30,
    )  # fmt: skip
    assert (row["first_wrong"], row["second_wrong"]) == pytest.approx((9 / 30, 12 / 30))
    assert row["both_wrong"] == pytest.approx((2 + 5) / 30)
    assert row["by_chance"] == pytest.approx((4 * 2 / 10 + 5 * 10 / 20) / 30)
    assert row["excess_low"] < row["both_wrong"] - row["by_chance"] < row["excess_high"]


def test_a_common_cause_is_seen_and_errors_of_their_own_are_not() -> None:
    seen = unseen = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, verdicts = judges(rng, 0.1)
        seen += shared_errors(verdicts, truth)["excess_low"][0] > 0
        truth, verdicts = judges(rng, 0.0)
        low, high = shared_errors(verdicts, truth).select("excess_low", "excess_high").row(0)
        unseen += low <= 0 <= high
    assert seen == 20
    assert unseen >= 16


def test_a_kind_of_pair_on_which_both_stumble_is_named() -> None:
    rng = np.random.default_rng(0)
    truth, verdicts = judges(rng, 0.0)
    long = rng.random(truth.height) < 0.2
    wrong = {name: frame.with_columns(
        state=pl.when(pl.Series(long)).then(pl.when(truth["relevant"]).then(pl.lit("unsure")).otherwise(
            pl.lit("relevant"))).otherwise("state")) for name, frame in verdicts.items()}  # fmt: skip
    mixed = {name: pl.concat([frame.filter(pl.Series(~long)), wrong[name].filter(pl.Series(long)).head(100),
                              frame.filter(pl.Series(long))[100:]]) for name, frame in verdicts.items()}  # fmt: skip
    kinds = truth.select(PAIR).with_columns(length=pl.Series(np.where(long, "long", "short")), same=pl.lit("x"))
    rows = {(r["kind"], r["value"]): r for r in shared_errors(mixed, truth, kinds).to_dicts()}
    assert set(rows) == {("all", "all"), ("length", "long"), ("length", "short")}  # `same` tells nothing apart
    assert rows["length", "long"]["both_wrong"] > 0.4
    assert rows["length", "long"]["excess_low"] > 0
    assert rows["length", "short"]["both_wrong"] < 0.1


def test_what_was_not_read_or_not_judged_is_left_out_and_few_pairs_say_nothing() -> None:
    truth = frame(np.array([True, False] * 20), 40)
    called = np.array([True, False] * 20)
    some = said(truth, called).with_columns(
        state=pl.when(pl.int_range(pl.len()) < 10).then(pl.lit("unparsed")).otherwise("state")
    )
    made = shared_errors({"a": some, "b": said(truth, called)[:35]}, truth)
    assert made["pairs"].to_list() == [25]
    assert made["both_wrong"].to_list() == made["by_chance"].to_list() == [0.0]
    assert made["excess_low"][0] <= 0 <= made["excess_high"][0]
    assert shared_errors({"a": some[:25], "b": said(truth, called)[:25]}, truth).is_empty()
    assert shared_errors({"a": some}, truth).is_empty()


def test_kinds_are_told_by_dataset_retriever_rank_length_and_whether_a_language_model_was_asked() -> None:
    ids = [("d", "q", f"p{n}") for n in range(3)]
    candidates = pl.DataFrame(
        [(*pair, "t", "h", "p", "dense", rank, 0.5) for pair, rank in zip(ids, (1, 6, 21), strict=True)],
        schema=CANDIDATES.columns,
        orient="row",
    )
    decisions = pl.DataFrame(
        [
            (*pair, "cascade", "j", "relevant", 0.5, None, None, call, 1)
            for pair, call in zip(ids, ("c", None, None), strict=True)
        ],
        schema=VERDICTS.columns,
        orient="row",
    )
    lengths = pl.DataFrame(
        [(*pair, chars) for pair, chars in zip(ids, (500, 501, 2001), strict=True)],
        schema=LENGTHS.columns,
        orient="row",
    )
    made = kinds_of_pairs(candidates, decisions, lengths)
    assert made["rank"].to_list() == ["up to 5", "6 to 20", "over 20"]
    assert made["length"].to_list() == ["up to 500", "501 to 2,000", "over 2,000"]
    assert made["language model"].to_list() == ["asked", "not asked", "not asked"]
    assert made["retriever"].to_list() == ["dense"] * 3
