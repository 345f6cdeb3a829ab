"""Extract from each passage the words that answer the query, then rank these against the positives (ARHN).

Pass 1 asks about one passage at a time. A snippet that does not occur in the passage is a failure. Pass 2 is
`tasks.judging.listwise`, with the question that `ranked_question` makes of the snippets.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.judging.calls import Call, Question, Reading, unread
from tasks.judging.config import JudgeConfig
from tasks.judging.pointwise import Wanted, ask_each, read_object
from tasks.prompts.prompt import CUT, neutralise
from tasks.protocols import Answer

RANK_PROMPT = "snippet_rank"
NO_ANSWER = "NO_ANSWER"
_SNIPPET = "snippet"
_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {_SNIPPET: {"type": ["string", "null"]}},
    "required": [_SNIPPET],
    "additionalProperties": False,
}


def make_calls(config: JudgeConfig, questions: Sequence[Question], attempt: int, seed: int) -> list[Call]:
    """Make the calls of the first pass, one per passage. `seed` orders the positives."""
    return ask_each(config, questions, attempt, seed, Wanted(max_tokens=config.max_output_tokens, schema=_SCHEMA))


def read_answer(config: JudgeConfig, call: Call, answer: Answer) -> dict[str, Reading]:
    """Read the snippet as it is written in the passage, or preference `none` where the passage has no answer.

    Failures: those of a whole call in `tasks.judging.listwise`, `bad_value`, and `not_verbatim` for words that are not
    in the passage. Spacing and case make no difference.
    """
    found = read_object(answer)
    if isinstance(found, str):
        return unread(call, found)
    if [name for name, _ in found] != [_SNIPPET]:
        return unread(call, "bad_shape")
    texts = {passage.key: passage.text for passage in call.question.passages}
    return {passage: _reading(found.only(_SNIPPET), texts[passage]) for passage in call.ids.values()}


def _reading(value: object, passage: str) -> Reading:
    if value is None or value == NO_ANSWER:
        return Reading(preference="none")
    if not isinstance(value, str):
        return Reading(failure="bad_value")
    snippet = _locate(value, passage)
    return Reading(snippet=snippet) if snippet else Reading(failure="not_verbatim")


def _locate(snippet: str, passage: str) -> str | None:
    """Return the snippet as written in the passage; None where the passage does not contain it.

    >>> _locate("the  QUICK fox", "See: The quick fox runs.")
    'The quick fox'
    """
    words = neutralise(snippet).strip().removesuffix(CUT.strip()).split()
    if not re.search(r"\w", "".join(words)) or len(words) > len(passage.split()):
        return None
    if sum(len(word) for word in words) > len(passage):
        return None
    found = re.search(r"\s+".join(re.escape(word) for word in words), passage, re.IGNORECASE)
    return found.group() if found else None


def ranked_question(question: Question, readings: Mapping[str, Reading]) -> Question | None:
    """Make the question of the second pass: snippets instead of passages, without the passages that have none.

    `readings` are those of the first pass, by passage key. Returns None where no passage has a snippet.
    """
    snippets = ((passage, readings[passage.key].snippet) for passage in question.passages)
    passages = tuple(replace(passage, text=snippet, window=None) for passage, snippet in snippets if snippet)
    return replace(question, prompt=RANK_PROMPT, passages=passages) if passages else None
