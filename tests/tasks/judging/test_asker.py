"""The judge reads the whole passage, in windows, smaller ones where a prompt is too long, and pays nothing twice."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
import pytest

from tasks.judging import asker as asker_module
from tasks.judging.calls import Call, hash_of
from tasks.judging.config import JudgeConfig
from tasks.judging.judge import judge
from tasks.schemas import WINDOWS
from tests.tasks.judging.parts import FakeAnswer, Memory, config, frames, states
from tests.tasks.records import mutable_records

SHORT = "Bread is baked from dough, which rests for an hour."
NEAR = "Dough rises when yeast makes gas. " * 26  # 884 characters
LONG = "The oven has to be hot before the loaf goes in. " * 30  # 1,440 characters
CHINESE = "面包由面粉、水和酵母制成。" * 60  # 780 characters
POSITIVES = {"q": ["Flour, water and yeast make bread.", "Bread needs an oven. " * 60]}
FILLER = "".join(f"Sentence {number} of a text about the weather. " for number in range(40))  # 1,630 characters
ANSWER = "The loaf bakes for forty minutes."
PROTOCOLS = ("yes_no", "graded", "listwise", "snippet", "cross_encoder")

# Ids of calls by the code before windows, with the default settings.
OLD_SHORT: Mapping[str, list[str]] = {
    "yes_no": [
        "4703539da9cfe2a8ad49ed680da6c608", "535733a961a4653a9d7fb6205d11f43d", "c2beb356617fffe81364c008090b220b",
    ],
    "graded": [
        "7dd4501f0008e2f7c21aa64a48ccf742", "b7fd30cdd968cf926f558192a43ea148", "d1b7eff2af2e0a13159e9c0b039c5986",
    ],
    "listwise": ["c552d4c3cebbb8b140fa68da24389044"],
    "snippet": [
        "36a7095268605b4ec49d07d8d54eec34", "85555d38566f140ead2853b03c7c79ec", "c38a350be37e88a885f9cfef5c242c1a",
        "ecf753c92d7db80eb1a0a02817e935bc",
    ],
    "cross_encoder": [
        "5c170915f9ab6d402a4da216770c9682", "97c560be55cad94794450ab1616c6549", "9e254810811a76104bbb962aa43a9cd4",
    ],
}  # fmt: skip
OLD_WITH_A_LONG_ONE: Mapping[str, list[str]] = {
    "yes_no": ["4703539da9cfe2a8ad49ed680da6c608", "680f9bc78a9bc0643ce721bc539f9624"],
    "graded": ["0a52fca2a1a3932c0e0df5bfcfc01b89", "7dd4501f0008e2f7c21aa64a48ccf742"],
    "listwise": ["a908548c151964e3c1bc887dd66ec37d"],
    "snippet": ["6fb4c996c6cb6445db10cbca79830af7", "ecf753c92d7db80eb1a0a02817e935bc"],
    "cross_encoder": ["36d19e18d9e4d08737f0c48ae1535186", "97c560be55cad94794450ab1616c6549"],
}


def shown_to(call: Call, key: str) -> str:
    return next(passage.text for passage in call.question.passages if passage.key == key)


class Reader:
    """A judge of any protocol: relevant is what `finds` says of the text shown. Notes what it is asked.

    room: the most characters of a prompt; a longer one is `too_long`.
    """

    def __init__(self, finds: Callable[[str], bool], room: int = 10**9) -> None:
        self.finds, self.room = finds, room
        self.asked: list[Call] = []

    def answer(self, requests: Sequence[Any]) -> list[FakeAnswer]:
        self.asked += requests
        return [self._of(call) for call in requests]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked += [None] * len(pairs)  # type: ignore[list-item] # only counted
        return [0.9 if self.finds(passage) else 0.1 for _, passage in pairs]

    def _of(self, call: Call) -> FakeAnswer:
        if len(call.chat[-1]["content"]) > self.room:
            return FakeAnswer({}, "too_long", "")
        texts = {id_: shown_to(call, key) for id_, key in call.ids.items()}
        names = (call.schema or {}).get("properties", {})
        if "verdicts" in names:
            said = {id_: "equal" if self.finds(text) else "none" for id_, text in texts.items()}
            return FakeAnswer({}, "stop", json.dumps({"verdicts": said}))
        found = self.finds(texts[""])
        if "snippet" in names:
            return FakeAnswer({}, "stop", json.dumps({"snippet": ANSWER if found else None}))
        yes, no = ("3", "0") if call.question.prompt == "graded" else ("Yes", "No")
        return FakeAnswer({yes: -0.1 if found else -3.0, no: -3.0 if found else -0.1})


def says_anything(protocol: str) -> Any:
    """The judge with which the old ids were made."""

    class Old(Reader):
        def _of(self, call: Call) -> FakeAnswer:
            if "snippet" in (call.schema or {}).get("properties", {}):
                return FakeAnswer({}, "stop", json.dumps({"snippet": shown_to(call, call.ids[""])[:12]}))
            return super()._of(call)

    return Old(lambda text: False)


def run(engine: Any, texts: Sequence[str], ledger: Memory | None = None, **changes: Any) -> dict[str, Any]:
    tables = frames([("q", f"d{number}", text) for number, text in enumerate(texts)], POSITIVES)
    return judge(config(**changes), **tables, engine=engine, ledger=ledger)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_shown_as_before_is_asked_under_its_old_id(protocol: str) -> None:
    calls = run(says_anything(protocol), [SHORT, NEAR, CHINESE], protocol=protocol)["calls"]
    assert calls["call_id"].to_list() == OLD_SHORT[protocol]
    calls = run(says_anything(protocol), [SHORT, LONG], protocol=protocol)["calls"]
    assert set(OLD_WITH_A_LONG_ONE[protocol]) < set(calls["call_id"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_at_the_end_of_a_long_passage_is_read(protocol: str) -> None:
    engine = Reader(lambda text: ANSWER in text)
    result = run(engine, [FILLER + ANSWER, FILLER, SHORT], protocol=protocol)
    assert states(result) == {"d0": "relevant", "d1": "not_relevant", "d2": "not_relevant"}
    assert result["facts"]["windows"] == 5
    assert dict(result["windows"].schema) == WINDOWS.columns
    first, second, third = result["windows"].sort("doc_id").rows(named=True)
    assert (first["windows"], second["windows"], third["windows"]) == (2, 2, 1)
    assert first["start"] > 700
    assert (first["end"], first["chars"]) == (len(FILLER + ANSWER),) * 2
    assert (second["start"], second["end"]) == (0, 900)
    assert (first["start_tokens"], third["end_tokens"]) == (-(-first["start"] // 4), -(-len(SHORT) // 4))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_passage_of_any_length_is_asked_about_once_per_window_and_never_twice(protocol: str) -> None:
    memory, texts = Memory(), [FILLER + ANSWER, SHORT]
    first = run(Reader(lambda text: ANSWER in text), texts, memory, protocol=protocol)
    again = run(Reader(lambda text: pytest.fail("asked twice")), texts, memory, protocol=protocol)
    assert (again["facts"]["calls"], again["facts"]["recalled"]) == (0, first["calls"].height)
    assert all(again[name].equals(first[name]) for name in ("verdicts", "calls", "windows"))
    assert all("@" not in subject for subjects in memory.subjects for subject in subjects)


def test_the_old_answer_about_the_beginning_is_recalled_and_only_the_rest_is_asked() -> None:
    memory = Memory()
    run(Reader(lambda text: False), [FILLER], memory, protocol="yes_no")
    (name,) = memory.rows
    kept = run(Reader(lambda text: False), [FILLER], protocol="yes_no")["calls"]
    (beginning,) = set(kept["call_id"]) & {call.call_id for call in kept_calls(FILLER) if call.ids == plain(FILLER)}
    memory.rows[name] = {beginning: memory.rows[name][beginning]}
    facts = run(Reader(lambda text: False), [FILLER], memory, protocol="yes_no")["facts"]
    assert (facts["calls"], facts["recalled"]) == (1, 1)


def kept_calls(text: str) -> list[Call]:
    engine = Reader(lambda text: False)
    run(engine, [text], protocol="yes_no")
    return engine.asked


def plain(text: str) -> dict[str, str]:
    return {"": hash_of(next(iter(kept_calls(text)[0].ids.values())))}


def test_a_window_that_cannot_be_read_leaves_the_pair_open_unless_another_is_relevant() -> None:
    class Silent(Reader):
        def _of(self, call: Call) -> FakeAnswer:
            if "Sentence 39" in shown_to(call, call.ids[""]):
                return FakeAnswer({"Hm": -0.1})
            return super()._of(call)

    result = run(Silent(lambda text: ANSWER in text), [ANSWER + " " + FILLER, FILLER], protocol="yes_no")
    assert states(result) == {"d0": "relevant", "d1": "unparsed"}
    assert result["windows"]["doc_id"].to_list() == ["d0"]
    assert result["facts"]["failures"] == {"neither": 4}


@pytest.mark.parametrize("protocol", ["yes_no", "graded", "listwise", "snippet"])
def test_a_prompt_that_is_too_long_is_asked_again_in_smaller_windows(protocol: str) -> None:
    room = {"listwise": 2450, "snippet": 2000}.get(protocol, 1700)
    engine = Reader(lambda text: ANSWER in text, room)
    result = run(engine, [FILLER + ANSWER, FILLER, SHORT], protocol=protocol)
    assert states(result) == {"d0": "relevant", "d1": "not_relevant", "d2": "not_relevant"}
    assert result["facts"]["failures"]["too_long"] > 0
    decided = result["windows"].filter(doc_id="d0").row(0, named=True)
    assert decided["end"] == decided["chars"]


def test_a_call_with_many_passages_is_first_asked_with_fewer() -> None:
    engine = Reader(lambda text: False, 3300)
    result = run(engine, [f"{number}. {NEAR}" for number in range(8)], protocol="listwise")
    assert set(states(result).values()) == {"not_relevant"}
    assert len(engine.asked[0].ids) == 8
    assert all(len(shown_to(call, key)) > 800 for call in engine.asked for key in call.ids.values())


def test_what_stays_too_long_is_unparsed_after_few_requests() -> None:
    engine = Reader(lambda text: False, room=10)
    result = run(engine, [FILLER, SHORT], protocol="yes_no")
    assert set(states(result).values()) == {"unparsed"}
    assert 0 < len(engine.asked) < 400


def test_a_very_long_query_is_shown_with_its_beginning_and_its_end_and_made_shorter_where_it_does_not_fit() -> None:
    turns = "".join(f"User: question {number}? Baker: answer {number}. " for number in range(200))
    query = turns + "User: and how long does the loaf bake?"

    def asked(room: int) -> list[str]:
        tables = frames([("q", "d", SHORT)], POSITIVES)
        tables["queries"] = tables["queries"].with_columns(text=pl.lit(query))
        engine = Reader(lambda text: True, room)
        assert states(judge(config(protocol="yes_no"), **tables, engine=engine, ledger=None)) == {"d": "relevant"}
        return [call.question.query for call in engine.asked]

    (shown,) = asked(10**9)
    assert shown.startswith("User: question 0?")
    assert shown.endswith("User: and how long does the loaf bake?")
    assert 3500 < len(shown) < 4010
    *_, last = asked(2500)
    assert last.endswith("User: and how long does the loaf bake?")
    assert len(last) < 2010


def test_votes_and_other_orders_ask_every_window_and_give_one_verdict_per_pair() -> None:
    def finds(text: str) -> bool:
        return ANSWER in text

    engine = Reader(finds)
    result = run(engine, [FILLER + ANSWER, SHORT], protocol="yes_no", votes=3, flip_share=1.0)
    assert states(result) == {"d0": "relevant", "d1": "not_relevant"}
    assert (result["facts"]["flip_pairs"], result["facts"]["flips"]) == (2, 0)
    assert len(engine.asked) == 9  # three windows in two votes, which agree, and in one more order
    assert len({call.call_id for call in engine.asked}) == 9


def test_a_settled_passage_is_not_asked_about_again_and_an_open_one_with_all_its_windows() -> None:
    class Wavering(Reader):
        def _of(self, call: Call) -> FakeAnswer:
            self.finds = lambda text: ANSWER in text and (call.order_seed or 0) != 1
            return super()._of(call)

    engine = Wavering(lambda text: False)
    result = run(engine, [FILLER + ANSWER, SHORT], protocol="yes_no", votes=3)
    assert states(result) == {"d0": "relevant", "d1": "not_relevant"}
    assert [call.order_seed for call in engine.asked] == [0] * 3 + [1] * 3 + [2] * 2
    assert result["verdicts"].filter(doc_id="d0")["score"][0] == pytest.approx((2 * 0.948 + 0.052) / 3, abs=0.01)


def test_windows_that_show_the_same_are_asked_once() -> None:
    engine = Reader(lambda text: False)
    assert run(engine, ["x" * 5000], protocol="yes_no")["facts"]["windows"] <= 3
    assert len(engine.asked) == len({call.call_id for call in engine.asked})


def test_the_number_of_windows_grows_with_the_length_only() -> None:
    for pieces in (1, 10, 100):
        asked = run(Reader(lambda text: False), [FILLER * pieces], protocol="yes_no")["facts"]["windows"]
        assert asked <= 1 + len(FILLER) * pieces / 500


@pytest.mark.parametrize(
    ("sentence", "last", "answer", "windows"),
    [
        ("面包店早上{}点开门。", "面包要烤四十分钟。", "四十分钟", 6),
        ("يفتح المخبز في {}. ", "يخبز الرغيف أربعين دقيقة.", "أربعين دقيقة", 6),
        ("बेकरी {} बजे खुलती है। ", "रोटी चालीस मिनट पकती है।", "चालीस मिनट", 9),
        ("ร้านขนมปังเปิดตอน{}โมง ", "ขนมปังใช้เวลาอบสี่สิบนาที", "สี่สิบนาที", 9),
        ("Die Bäckerei öffnet um {}. ", "Das Brot bäckt vierzig Minuten.", "vierzig Minuten", 4),
        ("🍞🥐{}🏪🌅", "⏲️ 40 👩‍🍳", "40 👩‍🍳", 3),
    ],
    ids=["Chinese", "Arabic", "Hindi", "Thai", "German", "emoji"],
)
def test_an_answer_at_the_end_is_read_in_every_script(sentence: str, last: str, answer: str, windows: int) -> None:
    text = "".join(sentence.format(number) for number in range(150)) + last
    result = run(Reader(lambda shown: answer in shown), [text], protocol="yes_no")
    assert states(result) == {"d0": "relevant"}
    assert windows <= result["facts"]["windows"] <= 2 * windows
    assert result["windows"]["end"][0] == result["windows"]["chars"][0]


def test_the_limit_of_a_query_can_be_set_and_is_shorter_for_a_cross_encoder() -> None:
    assert JudgeConfig().longest_query == 4000
    assert JudgeConfig(protocol="cross_encoder").longest_query == 1000
    assert JudgeConfig(query_limit=100).longest_query == 500
    assert JudgeConfig(query_chars=20000).longest_query == 20000


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(asker_module) == {"Asker"}
