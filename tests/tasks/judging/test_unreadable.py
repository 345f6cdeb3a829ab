"""A judge of which no answer can be read stops after one batch and says why; single bad answers do not stop it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tasks.judging import unreadable as module
from tasks.judging.judge import judge
from tasks.judging.unreadable import FirstAnswers, UnreadableAnswers
from tests.tasks.judging.parts import FakeAnswer, Memory, config, frames
from tests.tasks.records import mutable_records


class Scripted:
    """Answers each chat by a function of its number, and counts the chats."""

    def __init__(self, answer: Callable[[int, str], FakeAnswer]) -> None:
        self.answered: list[str] = []
        self._answer = answer

    def answer(self, requests: Sequence[Any]) -> list[FakeAnswer]:
        begun = len(self.answered)
        self.answered += [request.chat[-1]["content"] for request in requests]
        return [self._answer(begun + number, content) for number, content in enumerate(self.answered[begun:])]


def says(text: str, finish_reason: str = "stop") -> Scripted:
    return Scripted(lambda number, content: FakeAnswer({}, finish_reason, text))


def tables(queries: int, passages: int) -> Any:
    pairs = [(f"q{q}", f"d{q}-{p}", f"the text {p} of query {q}") for q in range(queries) for p in range(passages)]
    return frames(pairs, {f"q{q}": [f"what is known of {q}"] for q in range(queries)})


def run(engine: Scripted, *, queries: int = 10, passages: int = 4, ledger: Any = None, **changes: Any) -> Any:
    settings = {"protocol": "yes_no", "batch_size": 24, **changes}
    return judge(config(**settings), **tables(queries, passages), engine=engine, ledger=ledger)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("protocol", "text", "finish_reason", "told"),
    [
        ("yes_no", "Yes", "length", r"no log-probabilities \(`no_logprobs`, 12 of 12 answers; one begins: Yes\); set "
                                    r"`protocol: listwise`"),
        ("graded", "", "length", r"no log-probabilities \(`no_logprobs`, 12 of 12 answers\); set `protocol: listwise`"),
        ("listwise", "They are all fine.", "stop", r"no JSON object .*one begins: They are all fine\.\); set "
                                                   r"`structured: json_schema`"),
        ("listwise", '{"answer": 1}', "stop", r"another form .*`bad_shape`.*`structured: json_schema`"),
        ("listwise", '{"verdicts": {', "length", r"`length`.*`max_output_tokens`"),
        ("snippet", "", "stop", r"the answer is empty"),
        ("yes_no", "", "error: status 400: odd", r"cannot answer .*; error: status 400: odd\); correct the tier's"),
    ],
)  # fmt: skip
def test_a_part_stops_after_one_batch_none_of_which_can_be_read(
    protocol: str, text: str, finish_reason: str, told: str
) -> None:
    engine = says(text, finish_reason)
    with pytest.raises(UnreadableAnswers, match=told):
        run(engine, queries=30, protocol=protocol)
    assert len(engine.answered) == 12  # half of a batch, as the engine gets it


def test_an_error_of_this_kind_ends_the_other_parts_of_the_stage_too() -> None:
    assert UnreadableAnswers("x").of_every_part


def test_a_mixture_goes_on_and_what_cannot_be_read_is_unparsed() -> None:
    engine = Scripted(lambda number, _: FakeAnswer({"Yes": -0.1} if number == 11 else {}, "length"))
    states = run(engine, max_attempts=1)["verdicts"]["state"].to_list()
    assert (len(engine.answered), states.count("relevant"), states.count("unparsed")) == (40, 1, 39)


def test_one_readable_answer_that_is_remembered_is_enough() -> None:
    memory = Memory()
    run(Scripted(lambda number, _: FakeAnswer({"Yes": -0.1}, "length")), queries=1, ledger=memory)
    engine = says("Yes", "length")
    verdicts = run(engine, ledger=memory)["verdicts"]
    assert verdicts.filter(state="unparsed").height == len(set(engine.answered)) // 2 == 36


@pytest.mark.parametrize(("queries", "passages"), [(2, 20), (3, 1), (1, 1)])
def test_few_answers_or_few_queries_prove_nothing(queries: int, passages: int) -> None:
    engine = says("Yes", "length")
    verdicts = run(engine, queries=queries, passages=passages)["verdicts"]
    assert verdicts["state"].to_list() == ["unparsed"] * queries * passages
    assert len(engine.answered) == 2 * queries * passages


def test_a_part_that_is_smaller_than_a_batch_is_judged_by_both_its_attempts() -> None:
    engine = says("Yes", "length")
    with pytest.raises(UnreadableAnswers, match="8 of 8 answers"):
        run(engine, queries=4, passages=1)
    assert len(engine.answered) == 8


def test_refusals_stay_with_their_pairs() -> None:
    states = run(says("", "refused"))["verdicts"]["state"].to_list()
    assert states == ["unparsed"] * 40


def test_prompts_that_are_too_long_stop_a_part_only_where_all_of_it_is() -> None:
    with pytest.raises(UnreadableAnswers, match=r"too long .*`max_model_len`.*`passage_chars`"):
        run(says("", "too_long"))
    longest = Scripted(lambda number, _: FakeAnswer({"Yes": -0.1}, "too_long" if number < 30 else "length"))
    states = run(longest, max_attempts=1)["verdicts"]["state"].to_list()
    assert (states.count("unparsed"), states.count("relevant")) == (30, 10)


def test_several_reasons_need_more_answers_than_one() -> None:
    engine = Scripted(lambda number, _: FakeAnswer({}, "stop", "" if number % 2 else "prose"))
    with pytest.raises(UnreadableAnswers, match="of 36 answers"):
        run(engine, protocol="listwise", queries=60, passages=1)
    assert len(engine.answered) == 36


def test_everything_that_was_read_is_remembered_before_a_later_part_can_stop() -> None:
    memory = Memory()
    run(Scripted(lambda number, _: FakeAnswer({"Yes": -0.1}, "length")), queries=3, ledger=memory)
    assert sum(len(rows) for rows in memory.rows.values()) == 12


def test_the_message_quotes_no_text_and_holds_no_character_that_a_terminal_obeys() -> None:
    engine = Scripted(lambda number, content: FakeAnswer({}, "stop", f"\x1b[31mWell:\n the text 2 of query {number}"))
    with pytest.raises(UnreadableAnswers) as caught:
        run(engine, protocol="listwise", queries=20)
    assert "the text" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "one begins: [31mWell:[…]" in str(caught.value)
    assert module._without_quotes("so: salt, it says", ["salt", "another"]) == "so: […], it says"


def test_a_long_answer_is_cut() -> None:
    with pytest.raises(UnreadableAnswers) as caught:
        run(says("word " * 500), protocol="listwise", queries=20)
    assert len(str(caught.value)) < 450


def test_nothing_is_counted_after_the_first_answer_that_can_be_read() -> None:
    assert mutable_records(module) == {"FirstAnswers"}
    first = FirstAnswers(config(), any_read=True)
    first.check(whole_part=True)
    assert not first.failures
