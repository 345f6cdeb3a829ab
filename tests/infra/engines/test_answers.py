"""Log-probabilities of tokens that are spelled alike are added."""

import math

import pytest

from infra.engines.answers import merge_logprobs


def test_tokens_that_decode_to_the_same_text_add_their_probabilities() -> None:
    merged = merge_logprobs([("Yes", math.log(0.25)), ("No", math.log(0.6)), ("Yes", math.log(0.15))])
    assert list(merged) == ["No", "Yes"]
    assert merged["Yes"] == pytest.approx(math.log(0.4), abs=1e-15)


def test_a_log_probability_of_minus_infinity_stays_one() -> None:
    assert merge_logprobs([("a", -math.inf), ("b", -0.5)]) == {"b": -0.5, "a": -math.inf}
