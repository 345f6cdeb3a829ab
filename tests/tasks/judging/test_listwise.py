"""Protocol `listwise`: how passages are shown together, and which answers are read."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.judging import listwise
from tasks.judging.calls import Call, Reading, narrow
from tasks.judging.config import JudgeConfig
from tasks.judging.listwise import make_calls, read_answer
from tasks.prompts.prompt import Prompt, load_prompt
from tasks.texts import show_passage
from tests.tasks.answers import (
    FakeAnswer,
    draw_verdicts,
    listwise_calls,
    make_question,
    malformed,
    well_formed,
)

CONFIG = JudgeConfig(judge="fake", protocol="listwise")
TEXTS = [f"passage number {n}" for n in range(60)]
QUESTION = make_question(TEXTS, "listwise")
CALL = make_calls(CONFIG, [make_question(TEXTS[:4], "listwise")], 1, 0)[0]
IDS = list(CALL.ids)


def content(call: Call) -> str:
    return call.chat[0]["content"]


def shown(calls: list[Call]) -> list[str]:
    return [passage for call in calls for passage in call.ids.values()]


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (25, [25]), (26, [13, 13]), (60, [20, 20, 20]), (51, [17, 17, 17]), (0, [])]
)
def test_every_passage_is_in_exactly_one_call_and_calls_are_of_like_size(count: int, sizes: list[int]) -> None:
    question = make_question(TEXTS[:count], "listwise")
    calls = make_calls(CONFIG, [question], 1, 0)
    assert [len(call.ids) for call in calls] == sizes
    assert sorted(shown(calls)) == [passage.hash for passage in question.passages]


@pytest.mark.parametrize("per_call", [1, 2, 7, 59, 60, 100])
def test_no_call_is_larger_than_it_may_be(per_call: int) -> None:
    calls = make_calls(CONFIG.model_copy(update={"per_call": per_call}), [QUESTION], 1, 0)
    sizes = [len(call.ids) for call in calls]
    assert max(sizes) <= per_call
    assert max(sizes) - min(sizes) <= 1
    assert sorted(shown(calls)) == [passage.hash for passage in QUESTION.passages]


def test_the_same_seed_makes_the_same_calls_and_another_another_order_of_the_same() -> None:
    first, again, other = (make_calls(CONFIG, [QUESTION], 1, seed) for seed in (3, 3, 4))
    assert first == again
    assert shown(first) != shown(other)
    assert sorted(shown(first)) == sorted(shown(other))
    assert {call.order_seed for call in other} == {4}
    assert not {call.call_id for call in first} & {call.call_id for call in other}


def test_a_second_attempt_shows_another_order() -> None:
    assert shown(make_calls(CONFIG, [QUESTION], 1, 0)) != shown(make_calls(CONFIG, [QUESTION], 2, 0))


def test_the_order_of_a_pair_does_not_depend_on_what_else_is_asked() -> None:
    few = narrow(QUESTION, [passage.hash for passage in QUESTION.passages[::3]])
    kept = {passage.hash for passage in few.passages}
    assert shown(make_calls(CONFIG, [few], 1, 0)) == [
        p for p in shown(make_calls(CONFIG, [QUESTION], 1, 0)) if p in kept
    ]


def test_prompts_of_one_query_share_everything_before_the_candidates() -> None:
    calls = make_calls(CONFIG, [QUESTION], 1, 0)
    shared = {content(call)[: content(call).index("<candidate")] for call in calls}
    assert len(shared) == 1
    assert "<query>\nwhat is bread\n</query>\n<known_relevant>\nBread is baked dough." in shared.pop()


def test_candidates_stand_between_tags_in_the_order_of_their_ids() -> None:
    texts = {passage.hash: passage.text for passage in CALL.question.passages}
    expected = "".join(f'<candidate id="{id_}">\n{texts[hash_]}\n</candidate>\n' for id_, hash_ in CALL.ids.items())
    assert expected in content(CALL)


def test_titles_are_shown_and_a_cut_is_marked() -> None:
    call = make_calls(CONFIG, [make_question([show_passage("Sourdough", "x" * 2000)], "listwise")], 1, 0)[0]
    assert f"\nSourdough {'x' * 890} […]\n</candidate>" in content(call)


def test_ids_are_distinct_short_and_differ_from_call_to_call() -> None:
    calls = make_calls(CONFIG, [QUESTION], 1, 0)
    for call in calls:
        assert all(len(id_) == 4 and set(id_) <= set("cdfghjkmnpqrtvwx34679") for id_ in call.ids)
    assert len({id_ for call in calls for id_ in call.ids}) > 58  # a chance of one in 200,000 for each pair


def test_an_id_that_stands_in_a_text_shown_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listwise, "_draw_id", lambda parts: ["c7kd", "w3xt", "k9kg", "m4m4"][int(parts[-1])])
    call = make_calls(CONFIG, [make_question(["I am C7KD", "so am I"], "listwise")], 1, 0)[0]
    assert list(call.ids) == ["w3xt", "k9kg"]


def test_the_schema_asks_for_every_id_once_in_the_order_shown() -> None:
    assert CALL.schema == {
        "type": "object",
        "properties": {
            "verdicts": {
                "type": "object",
                "properties": {id_: {"type": "string", "enum": ["better", "equal", "worse", "none"]} for id_ in IDS},
                "required": IDS,
                "additionalProperties": False,
            }
        },
        "required": ["verdicts"],
        "additionalProperties": False,
    }
    assert (CALL.max_tokens, CALL.top) == (1024, 0)


def test_reasons_come_before_the_verdicts_where_they_are_wanted() -> None:
    config = CONFIG.model_copy(update={"reasoning": True})
    call = make_calls(config, [make_question(TEXTS[:2], "listwise")], 1, 0)[0]
    assert call.schema is not None
    assert list(call.schema["properties"]) == call.schema["required"] == ["reasoning", "verdicts"]
    assert "Reason first" in content(call)


def test_reasons_wanted_of_a_prompt_that_has_no_question_for_them_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Prompt.model_validate(load_prompt("listwise").model_dump() | {"reasoned": ""})
    monkeypatch.setattr(listwise, "load_prompt", lambda _: bare)
    with pytest.raises(ValueError, match="`reasoned` expected"):
        make_calls(CONFIG.model_copy(update={"reasoning": True}), [QUESTION], 1, 0)


@pytest.mark.parametrize("reasoning", [False, True])
@pytest.mark.parametrize("count", [1, 25])
def test_the_schema_compiles_and_accepts_only_whole_answers(reasoning: bool, count: int) -> None:
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.testing import _is_grammar_accept_string as accepts

    config = CONFIG.model_copy(update={"reasoning": reasoning})
    call = make_calls(config, [make_question(TEXTS[:count], "listwise")], 1, 0)[0]
    grammar = xgrammar.Grammar.from_json_schema(json.dumps(call.schema))
    verdicts = dict.fromkeys(call.ids, "none")
    answer = ({"reasoning": 'as "said"'} if reasoning else {}) | {"verdicts": verdicts}
    assert accepts(grammar, json.dumps(answer))
    assert not accepts(grammar, json.dumps(answer | {"verdicts": dict(list(verdicts.items())[1:])}))
    assert not accepts(grammar, json.dumps(answer | {"verdicts": verdicts | {"zzzz": "none"}}))
    assert not accepts(grammar, json.dumps(answer | {"verdicts": dict.fromkeys(call.ids, "maybe")}))


def test_the_prompt_does_not_anchor_the_judge() -> None:
    for name in ("listwise", "snippet_rank"):
        prompt = load_prompt(name)
        words = " ".join([prompt.opening, *prompt.questions, prompt.reasoned]).lower()
        assert "unrelated" not in words
        assert "most relevant" not in words
        assert all(f'"{word}":' in words for word in ("better", "equal", "worse", "none"))


def read(text: str | None, finish_reason: str = "stop") -> dict[str, Reading]:
    readings = read_answer(CONFIG, CALL, FakeAnswer(text, finish_reason=finish_reason))  # type: ignore[arg-type]
    return {id_: readings[hash_] for id_, hash_ in CALL.ids.items()}


def verdicts(**changes: object) -> str:
    return json.dumps({"verdicts": dict(zip(IDS, ["better", "equal", "worse", "none"], strict=True)) | changes})


ALL_READ = dict(zip(IDS, [Reading(preference=w) for w in ("better", "equal", "worse", "none")], strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        verdicts(),
        f"  {verdicts()}\n",
        f"```json\n{verdicts()}\n```",
        f'I compare {{bread}} with "dough".\n{verdicts()}',
        f"<think>{verdicts(zzzz='none')} or not?</think>\n{verdicts()}",
        f'no opening tag {{"a": 1}} </think>{verdicts()}',
        verdicts().replace("better", " BETTER\\n"),
        json.dumps({"reasoning": 'x </think> {"verdicts": {}}', **json.loads(verdicts())}),
        json.dumps(
            {"verdicts": [{"id": id_, "preference": word} for id_, word in json.loads(verdicts())["verdicts"].items()]}
        ),
    ],
    ids=["bare", "spaced", "fenced", "prose", "thoughts", "thoughts_unopened", "case", "reasoning", "list"],
)
def test_an_answer_in_any_honest_form_is_read_in_full(text: str) -> None:
    assert read(text) == ALL_READ


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (None, "empty"),
        (" \n", "empty"),
        ("I'm sorry, I can't help with that.", "no_json"),
        (verdicts()[:-1], "no_json"),
        (verdicts() + " Or {}, I hope this helps!", "no_json"),
        (f"{verdicts()} or {verdicts()}", "no_json"),
        (f'{{"final": {verdicts()}', "no_json"),
        (f"[{verdicts()}", "no_json"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "no_json"),
        ("<verdict><better>[Doc (1)]</better><worse>[]</worse></verdict>", "no_json"),
        (f'{{"result": {verdicts()}}}', "bad_shape"),
        ('{"verdicts": "none"}', "bad_shape"),
        (json.dumps({"verdicts": {}, "reasoning": 5}), "bad_shape"),
    ],
)
def test_paper_7_1_an_answer_that_cannot_be_read_is_a_named_failure_for_all(text: str | None, failure: str) -> None:
    assert set(read(text).values()) == {Reading(failure=failure)}


@pytest.mark.parametrize(
    ("finish_reason", "failure"),
    [("length", "length"), ("too_long", "too_long"), ("refused", "refused"), ("error: gone", "error"), ("", "error")],
)
def test_paper_7_1_an_answer_that_did_not_end_by_itself_is_not_read(finish_reason: str, failure: str) -> None:
    assert set(read(verdicts(), finish_reason).values()) == {Reading(failure=failure)}


def test_paper_7_3_an_id_that_was_not_asked_about_shifts_nothing_and_a_missing_one_may_be_it() -> None:
    said = json.loads(verdicts(zzzz="none"))
    assert read(json.dumps(said)) == ALL_READ
    del said["verdicts"][IDS[3]]
    assert read(json.dumps(said)) == ALL_READ | {IDS[3]: Reading(failure="unknown_id")}


def test_an_id_that_is_left_out_is_missing_and_the_others_hold() -> None:
    said = json.loads(verdicts())
    del said["verdicts"][IDS[3]]
    assert read(json.dumps(said)) == ALL_READ | {IDS[3]: Reading(failure="missing_id")}


def test_paper_7_4_an_id_that_comes_twice_is_unread_whatever_is_said() -> None:
    for word in ("none", "better"):
        text = verdicts().replace("}}", f', "{IDS[3]}": "{word}"}}}}')
        assert read(text) == ALL_READ | {IDS[3]: Reading(failure="doubled_id")}


@pytest.mark.parametrize("value", ["no", "", "none of them", None, 0, ["none"], {"none": 1}, True, float("nan")])
def test_a_value_that_is_not_one_of_the_four_words_is_a_failure_and_never_none(value: object) -> None:
    assert read(verdicts(**{IDS[3]: value})) == ALL_READ | {IDS[3]: Reading(failure="bad_value")}


CALLS = listwise_calls(CONFIG)  # of 1 to 25 passages
MANY = 20_000


def test_of_malformed_answers_only_what_they_state_is_read() -> None:
    read = 0
    for seed in range(MANY):
        draw = random.Random(seed)
        call = draw.choice(CALLS)
        answer, kept = malformed(draw, draw_verdicts(draw, call))
        readings = listwise.read_answer(CONFIG, call, answer)
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
        readings = listwise.read_answer(CONFIG, call, FakeAnswer(text))
        read = {id_: readings[passage].preference for id_, passage in call.ids.items()}
        assert read == verdicts, f"seed {seed}: {text!r}"


@given(st.text(max_size=400))
@settings(max_examples=500, deadline=None, derandomize=True, database=None)
def test_no_text_makes_the_reader_raise(text: str) -> None:
    call = CALLS[4]
    for reading in listwise.read_answer(CONFIG, call, FakeAnswer(text)).values():
        assert reading.failure is not None
