"""The tests on the gold set's answers: exact, clustered by query, on states where they are known."""

import itertools

import numpy as np
import pytest

from tasks.quality import gold_answers
from tasks.quality.gold_answers import Answers, answers_of, churn, churn_p, paired_p
from tests.tasks.records import mutable_records


def test_with_one_earlier_night_the_paired_test_is_mcnemars() -> None:
    from scipy.stats import binomtest

    before = np.array([[True] * 9 + [False] * 3 + [True] * 20])
    tonight = np.array([False] * 9 + [True] * 3 + [True] * 20)
    assert paired_p(before, tonight) == pytest.approx(binomtest(9, 12).pvalue)


def test_the_paired_test_is_exact_where_pairs_of_a_query_change_together() -> None:
    """Two queries of 2 and 3 pairs, three nights: the chances counted over all nine choices of a night each."""
    nights = np.array([[1, 1, 1, 1, 0], [1, 0, 1, 1, 1], [0, 0, 0, 1, 0]])
    totals = [nights[:, :2].sum(axis=1), nights[:, 2:].sum(axis=1)]
    sums = [int(a + b) for a, b in itertools.product(*totals)]
    expected = float(np.mean(sums))
    extreme = [abs(value - expected) >= abs(nights[2].sum() - expected) - 1e-9 for value in sums]
    assert paired_p(nights[:2].astype(bool), nights[2].astype(bool), (2, 3)) == pytest.approx(np.mean(extreme))


def test_an_answer_is_unusual_where_most_other_nights_give_another_one() -> None:
    nights = np.array([[0, 0, 1, 1], [0, 0, 1, 2], [0, 1, 0, 3], [0, 1, 0, 0], [1, 1, 0, 0]])
    assert churn(nights) == (0.75, 0.5)  # before: all but the first item, whose halves differ; tonight: first and last
    assert churn(np.array([[0, 0], [0, 1]])) == (0.0, 0.5)


def test_the_chance_of_churn_is_exact() -> None:
    """Five answers that were the same in three nights change in the fourth: each is tonight's with a chance of 1/4."""
    nights = np.zeros((4, 8), dtype=np.int64)
    nights[3, :5] = 1
    assert churn_p(nights) == pytest.approx(0.25**5)
    assert churn_p(nights, (5, 3)) == pytest.approx(0.25)
    assert churn_p(np.zeros((3, 4), dtype=np.int64)) == 1.0


def test_states_are_compared_where_every_night_has_them_and_right_and_wrong_otherwise() -> None:
    one = Answers("j", "g", (True, False), ("relevant", "unsure"))
    two = Answers("j", "g", (True, False), ("relevant", "unparsed"))
    old = Answers("j", "g", (True, False))
    assert churn(answers_of([one, two]))[1] == 0.5
    assert churn(answers_of([one, old]))[1] == 0.0
    assert one.accuracy == 0.5


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(gold_answers) == set()
