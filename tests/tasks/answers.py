"""Seeded generators of judges' answers, well-formed and not, that know which verdicts an answer still states."""

import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.judging.calls import Call, Passage, Question
from tasks.judging.config import JudgeConfig
from tasks.judging.listwise import make_calls
from tasks.prompts.prompt import quote
from tasks.texts import hash_passage, hash_text

WORDS = ("better", "equal", "worse", "none")
Verdicts = dict[str, str]


@dataclass(frozen=True)
class FakeAnswer:
    text: str = ""
    logprobs: Mapping[str, float] = field(default_factory=dict)
    finish_reason: str = "stop"
    prompt_tokens: int = 10
    cached_tokens: int = 0
    output_tokens: int = 1
    fingerprint: str = ""


def make_question(texts: Sequence[str], prompt: str, **changes: object) -> Question:
    """One query with one positive, and passages by their hashes as the judge would make them."""
    passages = [Passage(hash_passage("", text), quote(text, 900)) for text in texts]
    fields: dict[str, object] = {
        "prompt": prompt,
        "definition": "",
        "query_hash": hash_text("what is bread"),
        "positives_hash": hash_text("positives"),
        "query": "what is bread",
        "positives": ("Bread is baked dough.",),
        "subjects": (hash_text("what is bread"), hash_passage("", "Bread is baked dough.")),
        "passages": tuple(sorted(passages, key=lambda passage: passage.hash)),
    }
    return Question(**(fields | changes))  # type: ignore[arg-type]


def listwise_calls(config: JudgeConfig) -> list[Call]:
    """Calls of 1 to 25 passages."""
    return [
        call
        for size in range(1, 26)
        for call in make_calls(config, [make_question([f"passage {n}" for n in range(size)], "listwise")], 1, size)
    ]


_PROSE = (
    "Let me think step by step.",
    'The query asks for "bread"; one text says {dough}.',
    "Beispiel: a < b, 'none' and \"better\" {}.",
    "候補を比べます。",
    "Ответ: 42 ± 1e-9",
    "",
    "verdicts: none better equal worse",
    "id: c7kd => none",
    "```python\nx = {1: 2}\n```",
    "[1, 2, {3}] \\ / \t",
)
_SPACES = ("", " ", "\n", "\t", "\r\n", "  \n ")


def draw_verdicts(draw: random.Random, call: Call) -> Verdicts:
    return {id_: draw.choice(WORDS) for id_ in call.ids}


def well_formed(draw: random.Random, verdicts: Verdicts) -> str:
    """An answer that must be read in full: reasons of any kind, any spacing, order, case, escapes and fences."""
    items = list(verdicts.items())
    draw.shuffle(items)
    spelled = {id_: draw.choice([word, word, word.upper(), f" {word} ", word.title()]) for id_, word in items}
    body: object = spelled
    if draw.random() < 0.2:
        body = [{"id": id_, "preference": word} for id_, word in spelled.items()]
    fields = [("verdicts", body)]
    if draw.random() < 0.4:
        fields.insert(
            draw.randrange(2), ("reasoning", " ".join(draw.choices(_PROSE, k=3)) + '{"verdicts": {}} </think>')
        )
    indent = draw.choice([None, None, 0, 2])
    text = json.dumps(dict(fields), ensure_ascii=draw.random() < 0.5, indent=indent)
    if draw.random() < 0.1:
        text = text.replace('"worse"', '"w\\u006frse"')
    opening = draw.choice(["", "", *_PROSE])
    if draw.random() < 0.2:
        opening = (
            f"<think>{opening} maybe {json.dumps({'verdicts': dict.fromkeys(verdicts, 'none')})}?</think>{opening}"
        )
    if draw.random() < 0.2:
        text = f"```json\n{text}\n```"
    return opening + draw.choice(_SPACES) + text + draw.choice(_SPACES)


def _truncated(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    text = json.dumps({"reasoning": draw.choice(_PROSE), "verdicts": verdicts})
    return text[: draw.randrange(len(text))], {}


def _truncated_inside(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    """A complete object of verdicts inside one that never ends."""
    return draw.choice(['{"final": ', '{"reasoning": "', '[{"a": [', '{"x": {']) + json.dumps(
        {"verdicts": verdicts}
    ), {}


def _dropped(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    kept = {id_: word for id_, word in verdicts.items() if draw.random() < 0.5}
    return json.dumps({"verdicts": kept}), kept


def _doubled(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    twice = {id_ for id_ in verdicts if draw.random() < 0.5}
    pairs = [*verdicts.items(), *((id_, draw.choice(WORDS)) for id_ in sorted(twice))]
    draw.shuffle(pairs)
    text = ", ".join(f'"{id_}": "{word}"' for id_, word in pairs)
    return f'{{"verdicts": {{{text}}}}}', {id_: word for id_, word in verdicts.items() if id_ not in twice}


def _renamed(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    odd = [str.upper, str.title, lambda i: i + " ", lambda i: i[:3], lambda i: f"candidate {i}", lambda _: "Doc (1)"]
    stated, kept = {}, {}
    for id_, word in verdicts.items():
        name = draw.choice(odd)(id_) if draw.random() < 0.5 else id_
        stated[name] = word
        if name in verdicts:
            kept[name] = word
    return json.dumps({"verdicts": stated}), kept


def _wrong_values(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    numbers = (True, False, 0, 3, -1, 1e308, float("nan"), float("inf"), 10**400)
    nested = (None, [], ["none"], {}, {"verdict": "none"}, {"none": "none"})
    words = ("", "None of them", "n/a", "not none", "better or equal", "irrelevant", "０", "n one", "none.")
    odd = numbers + nested + words
    bad = {id_ for id_ in verdicts if draw.random() < 0.5}
    stated = {id_: draw.choice(odd) if id_ in bad else word for id_, word in verdicts.items()}
    return json.dumps({"verdicts": stated}), {id_: word for id_, word in verdicts.items() if id_ not in bad}


def _odd_items(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    """The list form, with items that lack or double something."""
    texts, kept = [], {}
    for id_, word in verdicts.items():
        kind = draw.randrange(7)
        forms = (
            f'{{"id": "{id_}", "preference": "{word}"}}',
            f'{{"id": "{id_}"}}',
            f'{{"preference": "{word}"}}',
            f'"{id_}"',
            f'["{id_}", "{word}"]',
            f'{{"id": "{id_}", "id": "zzzz", "preference": "{word}"}}',
            f'{{"id": "{id_}", "preference": "none", "preference": "{word}"}}',
        )
        texts.append(forms[kind])
        if kind == 0:
            kept[id_] = word
    return f'{{"verdicts": [{", ".join(texts)}]}}', kept


def _prose(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    """Verdicts in prose, twice, or in no JSON at all; and some in text that goes on."""
    stated = json.dumps({"verdicts": verdicts})
    id_ = next(iter(verdicts))
    if draw.random() < 0.2:  # these are read
        nearly = (f"{stated} I hope this helps.", stated.replace('"', "'"), f"<answer>{stated[:-2]},}}}}</answer>")
        return draw.choice(nearly), verdicts
    return draw.choice(
        [
            f"Earlier I said {stated} but on reflection {json.dumps({'verdicts': dict.fromkeys(verdicts, 'none')})}",
            f"{stated}\n{stated}",
            f"{stated}}}",
            stated.replace('"', "'", 1),
            stated.replace(":", "="),
            stated[1:],
            f"All candidates are none. {id_}: none",
            "I'm sorry, but I can't help with that.",
            "Es tut mir leid, das kann ich nicht beantworten: none.",
            "<verdict><better>[Doc (1)]</better><worse>[Doc (2), Doc (3)]</worse></verdict>",
            "<verdict><better>[]</better><worse>[]</worse></verdict>",
            "[] (Doc (4) was considered but rejected)",
            "none",
            "null",
            '"none"',
            "",
            " \n\t",
        ]
    ), {}


def _shape(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    """JSON of another form."""
    forms: list[object] = [
        verdicts,
        [verdicts],
        {"verdicts": {"verdicts": verdicts}},
        {"result": {"verdicts": verdicts}},
        {"Verdicts": verdicts},
        {"verdicts": verdicts, "note": "x"},
        {"verdicts": verdicts, "reasoning": {"why": "none"}},
        {"verdicts": verdicts, "reasoning": None},
        {"verdicts": json.dumps(verdicts)},
        {"verdicts": None},
        {"verdicts": "none"},
        {"verdicts": 5},
        {},
        {"reasoning": json.dumps({"verdicts": verdicts})},
    ]
    if draw.random() < 0.1:
        return f'{{"verdicts": {json.dumps(verdicts)}, "verdicts": {json.dumps(verdicts)}}}', {}
    return json.dumps(draw.choice(forms)), {}


def _scribbled(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    """Characters replaced, inserted and removed anywhere; a verdict holds only where it still stands as written."""
    letters = list(json.dumps({"verdicts": verdicts}))
    for _ in range(draw.randint(1, 4)):
        where = draw.randrange(len(letters))
        letter = draw.choice(['"', "{", "}", ":", ",", "\\", "\ud800", "\x00", "\u202e", "none", " ", "n", "е", "\x1b"])
        letters[where : where + draw.randrange(2)] = draw.choice([[letter], []])
    text = "".join(letters)
    stated = {id_: re.findall(rf'"{id_}"\s*:\s*"\s*({"|".join(WORDS)})\s*"', text) for id_ in verdicts}
    return text, {id_: found[0] for id_, found in stated.items() if len(found) == 1}


def _absurd(draw: random.Random, verdicts: Verdicts) -> tuple[str, Verdicts]:
    size = draw.choice([10, 300, 3000])
    stated = json.dumps({"verdicts": verdicts})
    return draw.choice(["{" * size, '{"a":' * size, "[" * size + stated, '{"verdicts":' * size + stated + "}" * size,
                        '{"verdicts": {"c7kd": ' + "9" * size + "}}", "\ud800" * size, '"' * size, "}" * size,
                        "<think>" * size, stated[:-1] + " " * size]), {}  # fmt: skip


Mutation = Callable[[random.Random, Verdicts], tuple[str, Verdicts]]
MUTATIONS: tuple[Mutation, ...] = (
    _truncated, _truncated_inside, _dropped, _doubled, _renamed, _wrong_values, _odd_items, _prose, _shape, _scribbled,
    _absurd,
)  # fmt: skip


def malformed(draw: random.Random, verdicts: Verdicts) -> tuple[FakeAnswer, Verdicts]:
    """An answer with something wrong, and the verdicts it states all the same."""
    text, kept = draw.choice(MUTATIONS)(draw, verdicts)
    reason = draw.choices(["stop", "length", "refused", "too_long", "error: lost"], weights=[30, 1, 1, 1, 1])[0]
    return FakeAnswer(text, finish_reason=reason), kept if reason == "stop" else {}


def draw_logprobs(draw: random.Random) -> dict[str, float]:
    """Log-probabilities of spellings and other tokens, some of them impossible."""
    tokens = ["Yes", " yes", "No", " no", "0", "1", " 2", "3", "The", "", "\n", "\ud800", "Yes."]
    odd = [math.nan, math.inf, -math.inf, 0.0, 1e-9, 5.0, 1e9, -1e9]
    chosen = draw.sample(tokens, draw.randint(0, 6))
    return {token: draw.choice(odd) if draw.random() < 0.15 else -draw.expovariate(0.5) for token in chosen}
