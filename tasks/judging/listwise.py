"""Ask about many passages at once, each compared with the positives: better, equal, worse or none (paper §3.1).

Each passage is in exactly one call. Passages that do not fit into one call are split into calls of nearly equal size.
Ids are random per call and do not occur in any text shown, so no text can name itself or move the verdict of another.
Answers are read strictly. A passage about which an answer says nothing is a named failure, not "none".
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, get_args

from tasks.judging.calls import Call, Passage, Question, Reading, name_call, unread
from tasks.judging.config import JudgeConfig, Preference
from tasks.judging.json_answer import Pairs
from tasks.judging.pointwise import question_of, read_object
from tasks.prompts.injection import looks_hostile
from tasks.prompts.prompt import load_prompt
from tasks.protocols import Answer
from tasks.texts import combine_hashes

PREFERENCES: Mapping[str, Preference] = {word: word for word in get_args(Preference)}
_ALPHABET = "cdfghjkmnpqrtvwx34679"  # no vowels, so no words; no characters that look alike
_ID_LENGTH = 4
_VERDICTS, _REASONING = "verdicts", "reasoning"


def make_calls(config: JudgeConfig, questions: Sequence[Question], attempt: int, seed: int) -> list[Call]:
    """Make the fewest calls of at most `per_call` passages, in an order drawn by `seed` and `attempt`.

    With `isolate`, a passage that looks like an attack has a call of its own. It does not change the other calls. Nor
    do the windows of a long passage after its first one: they are in further calls.

    Raises:
        ValueError: `reasoning` is on and the prompt has no question that asks for reasons.
    """
    return [
        _call(config, question, group, attempt, seed)
        for question in questions
        for group in _groups(config, question, attempt, seed)
    ]


def _groups(config: JudgeConfig, question: Question, attempt: int, seed: int) -> list[list[Passage]]:
    drawn = [str(seed), str(attempt), question.query_hash, question.positives_hash]
    shuffled = sorted(question.passages, key=lambda passage: combine_hashes([*drawn, passage.key]))
    # Windows that do not begin their passage have calls of their own: the others are asked as without them.
    beginnings, further = ([p for p in shuffled if p.is_further == is_further] for is_further in (False, True))
    return [*_apart(config, beginnings), *_apart(config, further)]


def _apart(config: JudgeConfig, passages: Sequence[Passage]) -> list[list[Passage]]:
    """Group passages for calls. One that looks like an attack is alone."""
    together: list[Passage] = []
    alone: list[list[Passage]] = []
    for passage in passages:
        if config.isolate and looks_hostile(passage.text):
            alone.append([passage])
        else:
            together.append(passage)
    return _split(together, config.per_call) + alone


def _split(passages: Sequence[Passage], most: int) -> list[list[Passage]]:
    """Split into the fewest groups of at most `most`, whose sizes differ by at most one."""
    groups = -(-len(passages) // most)
    cuts = [round(group * len(passages) / groups) for group in range(groups + 1)] if groups else []
    return [list(passages[start:end]) for start, end in pairwise(cuts)]


def _call(config: JudgeConfig, question: Question, passages: Sequence[Passage], attempt: int, seed: int) -> Call:
    call_id = name_call(config, question, passages, attempt, seed)
    ids = _draw_ids(call_id, question, passages)
    prompt = load_prompt(question.prompt)
    content = prompt.render(
        definition=question.definition,
        query=question.query,
        positives=question.positives,
        candidates=[(id_, passage.text) for id_, passage in zip(ids, passages, strict=True)],
        ask=_ask(config, question.prompt, attempt),
    )
    return Call(
        call_id=call_id,
        chat=prompt.chat(content),
        question=question,
        ids={id_: passage.key for id_, passage in zip(ids, passages, strict=True)},
        attempt=attempt,
        max_tokens=config.max_output_tokens,
        schema=_schema(ids, config.reasoning),
        order_seed=seed,
    )


def _ask(config: JudgeConfig, name: str, attempt: int) -> str:
    if not config.reasoning:
        return question_of(name, attempt)
    reasoned = load_prompt(name).reasoned
    if not reasoned:
        raise ValueError(f"prompt {name!r}: `reasoned` expected, as the judge's `reasoning` is on, got none; add it")
    return reasoned


def _draw_ids(call_id: str, question: Question, passages: Sequence[Passage]) -> list[str]:
    """Draw distinct ids from the content of the call. An id that occurs in a text shown is drawn again."""
    shown = "\n".join([question.query, *question.positives, *(passage.text for passage in passages)]).lower()
    ids: list[str] = []
    for position, passage in enumerate(passages):
        draw = 0
        while (id_ := _draw_id([call_id, passage.key, str(position), str(draw)])) in ids or id_ in shown:
            draw += 1
        ids.append(id_)
    return ids


def _draw_id(drawn_from: Sequence[str]) -> str:
    number = int(combine_hashes(drawn_from), 16)
    letters = []
    for _ in range(_ID_LENGTH):
        number, letter = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[letter])
    return "".join(letters)


def _schema(ids: Sequence[str], reasoning: bool) -> dict[str, Any]:
    """Return the JSON schema of the answer: each id once, in the order shown, with one of the four words."""
    verdicts = {
        "type": "object",
        "properties": {id_: {"type": "string", "enum": list(PREFERENCES)} for id_ in ids},
        "required": list(ids),
        "additionalProperties": False,
    }
    properties = ({_REASONING: {"type": "string"}} if reasoning else {}) | {_VERDICTS: verdicts}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_answer(config: JudgeConfig, call: Call, answer: Answer) -> dict[str, Reading]:
    """Read the verdict on each passage, or why there is none.

    The answer must hold one JSON object, `{"verdicts": {"c7kd": "worse", …}}`. The list form
    `{"verdicts": [{"id": "c7kd", "preference": "worse"}, …]}` is read too. Failures of a whole call: `length`,
    `too_long`, `refused`, `error`, `empty`, `no_json`, `bad_shape`. Failures of one passage: `missing_id` (`unknown_id`
    if the answer names ids that were not asked about, as one may be misspelt), `doubled_id`, `bad_value`.
    """
    found = read_object(answer)
    if isinstance(found, str):
        return unread(call, found)
    stated = _stated(found)
    if stated is None:
        return unread(call, "bad_shape")
    values: dict[str, list[object]] = defaultdict(list)
    for id_, value in stated:
        values[id_].append(value)
    missing = "unknown_id" if any(id_ not in call.ids for id_ in values) else "missing_id"
    return {passage: _reading(values.get(id_, []), missing) for id_, passage in call.ids.items()}


def _reading(values: Sequence[object], missing: str) -> Reading:
    if len(values) != 1:
        return Reading(failure="doubled_id" if values else missing)
    word = values[0].strip().lower() if isinstance(values[0], str) else ""
    return Reading(preference=PREFERENCES[word]) if word in PREFERENCES else Reading(failure="bad_value")


def _stated(found: Pairs) -> list[tuple[str, object]] | None:
    """Return the (id, value) pairs of an answer's object; None where it does not have the form asked for."""
    names = [name for name, _ in found]
    if len(set(names)) != len(names) or not set(names) <= {_VERDICTS, _REASONING}:
        return None
    if _REASONING in names and not isinstance(found.only(_REASONING), str):
        return None
    verdicts = found.only(_VERDICTS)
    if isinstance(verdicts, Pairs):
        return list(verdicts)
    return [pair for item in verdicts for pair in _item(item)] if isinstance(verdicts, list) else None


def _item(item: object) -> Iterator[tuple[str, object]]:
    """Yield the (id, value) pairs of one item of the list form. An id without exactly one value has the value None."""
    pairs = item if isinstance(item, Pairs) else Pairs()
    named = [value for name, value in pairs if name == "id" and isinstance(value, str)]
    value = pairs.only("preference") if len(named) == 1 else None
    for id_ in named or [""]:
        yield id_, value
