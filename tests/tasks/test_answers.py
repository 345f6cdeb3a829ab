"""Hundreds of thousands of answers: nothing raises, and nothing is read that was not said."""

import math
import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.judging import listwise, pointwise, snippet
from tasks.judging.config import JudgeConfig
from tests.tasks.answers import (
    FakeAnswer,
    draw_logprobs,
    draw_verdicts,
    listwise_calls,
    make_question,
    malformed,
    well_formed,
)

LISTWISE = JudgeConfig(judge="fake", protocol="listwise")
CALLS = listwise_calls(LISTWISE)
MANY = 100_000


def test_of_malformed_answers_only_what_they_state_is_read() -> None:
    read = 0
    for seed in range(MANY):
        draw = random.Random(seed)
        call = draw.choice(CALLS)
        answer, kept = malformed(draw, draw_verdicts(draw, call))
        readings = listwise.read_answer(LISTWISE, call, answer)
        assert list(readings) == list(call.ids.values()), f"seed {seed}"
        for id_, passage in call.ids.items():
            reading = readings[passage]
            assert (reading.preference is None) == (reading.failure is not None), f"seed {seed}"
            if reading.preference is not None:
                assert reading.preference == kept.get(id_), f"seed {seed}: {answer.text!r}"
                read += 1
    assert read > MANY  # what stays intact in a broken answer is still of use


def test_well_formed_answers_are_read_in_full() -> None:
    for seed in range(MANY):
        draw = random.Random(seed)
        call = draw.choice(CALLS)
        verdicts = draw_verdicts(draw, call)
        text = well_formed(draw, verdicts)
        readings = listwise.read_answer(LISTWISE, call, FakeAnswer(text))
        read = {id_: readings[passage].preference for id_, passage in call.ids.items()}
        assert read == verdicts, f"seed {seed}: {text!r}"


def test_log_probabilities_of_any_kind_give_a_share_or_a_named_failure() -> None:
    protocols = [
        (pointwise.read_yes_no, JudgeConfig(judge="fake", protocol="yes_no"), "yes_no"),
        (pointwise.read_grade, JudgeConfig(judge="fake", protocol="graded"), "graded"),
    ]
    for read, config, prompt in protocols:
        call = pointwise.make_calls(config, [make_question(["a passage"], prompt)], 1, 0)[0]
        (passage,) = call.ids.values()
        parsed = 0
        for seed in range(MANY // 2):
            draw = random.Random(seed)
            logprobs = draw_logprobs(draw)
            reason = draw.choice(["stop", "length", "length", "refused", "error: x", "odd"])
            reading = read(config, call, FakeAnswer("No", logprobs, reason))[passage]
            assert (reading.score is None) == (reading.failure is not None)
            if reading.score is not None:
                assert reason in ("stop", "length")
                assert 0 <= reading.score <= 1
                assert reading.grade is None or 0 <= reading.grade <= 3
                assert not any(math.isnan(value) or value > 0.01 for value in logprobs.values())
                parsed += 1
        assert parsed > 1000


@given(st.text(max_size=400))
@settings(max_examples=500, deadline=None)
def test_no_text_makes_a_reader_raise(text: str) -> None:
    call = CALLS[4]
    for reading in listwise.read_answer(LISTWISE, call, FakeAnswer(text)).values():
        assert reading.failure is not None
    config = JudgeConfig(judge="fake", protocol="snippet")
    call = snippet.make_calls(config, [make_question(["a passage"], "snippet")], 1, 0)[0]
    assert len(snippet.read_answer(config, call, FakeAnswer(text))) == 1


def test_a_megabyte_of_nonsense_is_refused_within_a_second() -> None:
    started = time.process_time()  # of this process alone, however busy the machine is
    for part in ("{", '{"', '{"a":', '{"verdicts":{', "[", '{ "', "</think>{", '"'):
        text = part * (1_000_000 // len(part)) + "}"
        readings = listwise.read_answer(LISTWISE, CALLS[0], FakeAnswer(text))
        assert {reading.failure for reading in readings.values()} == {"no_json"}
    assert time.process_time() - started < 8
