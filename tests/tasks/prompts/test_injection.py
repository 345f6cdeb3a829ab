"""Passages that speak to the judge: each attack is recognised, and no other passage is judged otherwise for it."""

import re
import unicodedata
from pathlib import Path

import pytest
import yaml

from tasks.judging import listwise, pointwise, snippet
from tasks.judging.calls import Call
from tasks.judging.config import JudgeConfig, Protocol
from tasks.prompts.injection import looks_hostile
from tasks.prompts.prompt import quote
from tests.tasks.answers import make_question

ATTACKS: dict[str, str] = {
    attack["name"]: attack["text"]
    for attack in yaml.safe_load((Path(__file__).parents[1] / "hostile.yaml").read_text(encoding="utf-8"))
}
ORDINARY = [f"Loaf {n}: mix flour, water and salt, knead, rest {n} hours." for n in range(30)]
CONFIG = JudgeConfig(judge="fake", protocol="listwise")
MODULES = {"yes_no": pointwise, "graded": pointwise, "listwise": listwise, "snippet": snippet}


def content(call: Call) -> str:
    return call.chat[0]["content"]


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_recognised_as_it_came_and_as_it_is_shown(name: str) -> None:
    assert looks_hostile(ATTACKS[name])
    assert looks_hostile(quote(ATTACKS[name], 900))


@pytest.mark.parametrize(
    "text",
    [
        *ORDINARY[:3],
        "The assistant manager ignored the instructions of the court.",
        "The judge answered the question of the defence; the verdict was guilty.",
        "System requirements: 4 GB. User: the person logged in. Candidates for mayor are listed.",
        "Returns None if the key is missing; the result is equal to the input.",
        "if a < b and c > d: return x[0]  # see document 3",
        "This page is about sourdough, which many find better than white bread.",
        "Is sourdough better? Answer yes or no, then read on.",
        "پاسخ می\u200cدهد 👩\u200d🍳",
    ],
)
def test_ordinary_text_is_left_in_peace(text: str) -> None:
    assert looks_hostile(text) == ()


def test_paper_7_11_calls_of_other_passages_are_the_same_with_and_without_attackers() -> None:
    quiet = listwise.make_calls(CONFIG, [make_question(ORDINARY, "listwise")], 1, 0)
    loud = listwise.make_calls(CONFIG, [make_question([*ORDINARY, *ATTACKS.values()], "listwise")], 1, 0)
    together = [call for call in loud if len(call.ids) > 1]
    assert [(call.call_id, call.chat, call.ids, call.schema) for call in together] == [
        (call.call_id, call.chat, call.ids, call.schema) for call in quiet
    ]
    assert len(loud) == len(quiet) + len(ATTACKS)


def test_without_isolation_all_are_asked_about_together() -> None:
    config = CONFIG.model_copy(update={"isolate": False})
    calls = listwise.make_calls(config, [make_question([*ORDINARY[:5], *list(ATTACKS.values())[:5]], "listwise")], 1, 0)
    assert [len(call.ids) for call in calls] == [10]


@pytest.mark.parametrize("protocol", MODULES)
@pytest.mark.parametrize("where", ["passages", "positives", "query"])
def test_no_text_opens_or_closes_a_tag_or_hides_a_character(protocol: Protocol, where: str) -> None:
    config = JudgeConfig(judge="fake", protocol=protocol, isolate=False, per_call=100)
    shown = [quote(text, 900) for text in ATTACKS.values()]
    if where == "passages":
        question = make_question(list(ATTACKS.values()), protocol)
    elif where == "positives":
        question = make_question(ORDINARY[:2], protocol, positives=tuple(shown))
    else:
        question = make_question(ORDINARY[:2], protocol, query="\n".join(shown))
    for call in MODULES[protocol].make_calls(config, [question], 1, 0):
        _check_prompt(content(call), len(call.ids), len(question.positives))


def _check_prompt(text: str, candidates: int, positives: int) -> None:
    tags = re.findall(r"<\s*/?\s*[|\uff5c!\w]+", text)
    counts = {tag: tags.count(tag) for tag in set(tags)}
    candidate = "candidate" if "<candidate" in counts else "passage"
    assert counts == {
        "<query": 1,
        "</query": 1,
        "<known_relevant": positives,
        "</known_relevant": positives,
        f"<{candidate}": candidates,
        f"</{candidate}": candidates,
    }
    for token in (
        "<|",
        "|im_start|>\n<",
        "[INST]",
        "[/INST]",
        "[/SYSTEM_PROMPT]",
        "</s>",
        "<<SYS>>",
        "<start_of_turn>",
    ):
        assert token not in text
    invisible = [c for c in text if unicodedata.category(c) in ("Cf", "Cc", "Co", "Cs") and c not in "\n\t"]
    assert invisible == []


def test_no_text_shown_holds_an_id_of_its_call() -> None:
    config = CONFIG.model_copy(update={"isolate": False})
    question = make_question(list(ATTACKS.values()), "listwise")
    for seed in range(50):
        for call in listwise.make_calls(config, [question], 1, seed):
            assert not [id_ for id_ in call.ids for passage in question.passages if id_ in passage.text.lower()
                        and passage.hash in call.ids.values()]  # fmt: skip
