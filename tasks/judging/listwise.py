"""Ask about many passages at once, each against the known relevant text: better, equal, worse or none (paper §3.1).

Every passage is in exactly one call: what does not fit into one is split into calls of like size, never cut off. Ids
are random per call and stand in no text shown, so no text can name itself or shift another's verdict. An answer is read
strictly, and what it does not say of a passage is a failure with a name: never "none".
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
_ALPHABET = "cdfghjkmnpqrtvwx34679"  # no vowels, so no words; nothing that looks like another
_ID_LENGTH = 4
_VERDICTS, _REASONING = "verdicts", "reasoning"


def make_calls(config: JudgeConfig, questions: Sequence[Question], attempt: int, seed: int) -> list[Call]:
    """Make as few calls of at most `per_call` passages as hold all, in an order drawn by `seed` and `attempt`.

    Passages that look like an attack are asked about alone (`isolate`): the other calls are those made without them.

    Raises:
        ValueError: reasons are wanted of a prompt that has no question for them.
    """
    return [
        _call(config, question, group, attempt, seed)
        for question in questions
        for group in _groups(config, question, attempt, seed)
    ]


def _groups(config: JudgeConfig, question: Question, attempt: int, seed: int) -> list[list[Passage]]:
    drawn = [str(seed), str(attempt), question.query_hash, question.positives_hash]
    shuffled = sorted(question.passages, key=lambda passage: combine_hashes([*drawn, passage.hash]))
    together: list[Passage] = []
    alone: list[list[Passage]] = []
    for passage in shuffled:
        if config.isolate and looks_hostile(passage.text):
            alone.append([passage])
        else:
            together.append(passage)
    return _split(together, config.per_call) + alone


def _split(passages: Sequence[Passage], most: int) -> list[list[Passage]]:
    """Split into as few groups of at most `most` as can be, their sizes differing by one at most."""
    groups = -(-len(passages) // most)
    cuts = [round(group * len(passages) / groups) for group in range(groups + 1)] if groups else []
    return [list(passages[start:end]) for start, end in pairwise(cuts)]


def _call(config: JudgeConfig, question: Question, passages: Sequence[Passage], attempt: int, seed: int) -> Call:
    call_id = name_call(config, question, passages, attempt, seed)
    ids = _draw_ids(call_id, question, passages)
    content = load_prompt(question.prompt).render(
        definition=question.definition,
        query=question.query,
        positives=question.positives,
        candidates=[(id_, passage.text) for id_, passage in zip(ids, passages, strict=True)],
        ask=_ask(config, question.prompt, attempt),
    )
    return Call(
        call_id=call_id,
        chat=({"role": "user", "content": content},),
        question=question,
        ids={id_: passage.hash for id_, passage in zip(ids, passages, strict=True)},
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
    """Draw distinct ids from the call's content; one that stands in a text shown is drawn again."""
    shown = "\n".join([question.query, *question.positives, *(passage.text for passage in passages)]).lower()
    ids: list[str] = []
    for position, passage in enumerate(passages):
        draw = 0
        while (id_ := _draw_id([call_id, passage.hash, str(position), str(draw)])) in ids or id_ in shown:
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
    """Describe the answer: every id once, in the order shown, with one of four words."""
    verdicts = {
        "type": "object",
        "properties": {id_: {"type": "string", "enum": list(PREFERENCES)} for id_ in ids},
        "required": list(ids),
        "additionalProperties": False,
    }
    properties = ({_REASONING: {"type": "string"}} if reasoning else {}) | {_VERDICTS: verdicts}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_answer(config: JudgeConfig, call: Call, answer: Answer) -> dict[str, Reading]:
    """Read each passage's verdict, or why there is none.

    The answer must end with one JSON object, `{"verdicts": {"c7kd": "worse", …}}`; the list form
    `{"verdicts": [{"id": "c7kd", "preference": "worse"}, …]}` is read too. Of the whole call: `length`, `too_long`,
    `refused`, `error`, `empty`, `no_json`, `bad_shape`. Of one passage: `missing_id` (`unknown_id` if the answer names
    ids that were not asked about, so that one may have been misspelt), `doubled_id`, `bad_value`.
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
    """List what an answer's object says, as (id, value); None where it is not of the form asked for."""
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
    """Read one item of the list form; whatever it names without saying one thing of it has no value."""
    pairs = item if isinstance(item, Pairs) else Pairs()
    named = [value for name, value in pairs if name == "id" and isinstance(value, str)]
    value = pairs.only("preference") if len(named) == 1 else None
    for id_ in named or [""]:
        yield id_, value
