"""Questions, calls and readings, the types that all protocols share; and the id of a call.

The id hashes what decides an answer: equal ids are the same call, in whatever dataset, part or run it is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tasks.judging.config import JudgeConfig, Preference
from tasks.prompts.prompt import prompt_digest
from tasks.texts import combine_hashes, hash_text

_WRITES = frozenset({"listwise", "snippet"})  # protocols whose answer is a text, not one token


@dataclass(frozen=True)
class Passage:
    """A passage as the judge is shown it: by its text's hash, cut and neutralised."""

    hash: str
    text: str


@dataclass(frozen=True)
class Question:
    """One query with its positives and the passages to be judged, whatever the ids they go by.

    prompt, definition: after the dataset's policy. positives: as shown. subjects: hashes of the query and of every
    positive. passages: distinct by hash, in the order of their hashes.
    """

    prompt: str
    definition: str
    query_hash: str
    positives_hash: str
    query: str
    positives: tuple[str, ...]
    subjects: tuple[str, ...]
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Call:
    """One chat made of a question: what an engine is given, and what is needed to read its answer.

    call_id: hash of everything that decides the answer. ids: the passages' ids in this call, in the order shown, to
    their hashes; a pointwise call has one, under the empty id.
    """

    call_id: str
    chat: tuple[Mapping[str, str], ...]
    question: Question
    ids: Mapping[str, str]
    attempt: int
    max_tokens: int = 1
    top: int = 0
    schema: Mapping[str, Any] | None = None
    order_seed: int | None = None


@dataclass(frozen=True)
class Reading:
    """What an answer says of one passage; `failure` names why nothing could be read (`length`, `missing_id`, …)."""

    score: float | None = None
    grade: float | None = None
    preference: Preference | None = None
    snippet: str | None = None
    failure: str | None = None


def unread(call: Call, failure: str) -> dict[str, Reading]:
    """Say of every passage of a call that nothing could be read."""
    return {passage: Reading(failure=failure) for passage in call.ids.values()}


def narrow(question: Question, passages: Sequence[str]) -> Question:
    """Keep of a question the passages of these hashes."""
    wanted = set(passages)
    kept = tuple(passage for passage in question.passages if passage.hash in wanted)
    return Question(**{**question.__dict__, "passages": kept})


def call_key(config: JudgeConfig, question: Question) -> str:
    """Hash what decides an answer besides the texts: judge, prompt, definition and lengths.

    Not thresholds, votes or batches, which only decide what is made of an answer; and not the dataset's name.
    """
    fields = [
        config.protocol,
        config.asked,
        question.prompt,
        _digest(question.prompt),
        hash_text(question.definition),
        str(config.query_chars),
        str(config.positive_chars),
        str(config.passage_chars),
        str(config.max_positives),
        str(config.top),
    ]
    if config.protocol in _WRITES:
        fields += [str(config.max_output_tokens), str(config.reasoning)]
    return combine_hashes(fields)


def name_call(config: JudgeConfig, question: Question, passages: Sequence[Passage], attempt: int, seed: int) -> str:
    """Give the `call_id` of one attempt at `passages`, in the order shown and in the order of that seed.

    Texts go in by their own hash and by what is shown of them: a passage is shown whole, and as its snippet.
    """
    shown = [part for passage in passages for part in (passage.hash, hash_text(passage.text))]
    shown += [hash_text(text) for text in (question.query, *question.positives)]
    question_hashes = [question.query_hash, question.positives_hash]
    return combine_hashes([call_key(config, question), *question_hashes, *shown, str(attempt), str(seed)])


@cache
def _digest(name: str) -> str:
    return prompt_digest(name)
