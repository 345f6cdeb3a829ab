"""Define questions, calls and readings, which all protocols use, and compute the id of a call.

The id is a hash of everything that decides the answer. Calls with equal ids are the same call, also when they are made
for another dataset, part or run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tasks.judging.config import JudgeConfig, Preference
from tasks.prompts.prompt import prompt_digest
from tasks.texts import combine_hashes, hash_text

_WRITES = frozenset({"listwise", "snippet"})  # protocols whose answer is a text instead of one token


@dataclass(frozen=True)
class Passage:
    """A passage as it is shown to the judge: the hash of its text, and the text cut and neutralised."""

    hash: str
    text: str


@dataclass(frozen=True)
class Question:
    """One query with its positives and the passages to be judged. It refers to texts by hash, not by id.

    prompt, definition: by the policy of the dataset. positives: as shown. subjects: hashes of the query and of all
    positives. passages: distinct by hash, in the order of their hashes.
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
    """One chat made of a question: the request to an engine, and what is needed to read its answer.

    call_id: hash of everything that decides the answer. ids: id in this call → hash of the passage, in the order shown.
    A pointwise call has one passage, with the empty id.
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
    """What an answer says about one passage; `failure` is the reason if nothing could be read (`length`, …)."""

    score: float | None = None
    grade: float | None = None
    preference: Preference | None = None
    snippet: str | None = None
    failure: str | None = None


def unread(call: Call, failure: str) -> dict[str, Reading]:
    """Return a reading with this failure for each passage of a call."""
    return {passage: Reading(failure=failure) for passage in call.ids.values()}


def narrow(question: Question, passages: Sequence[str]) -> Question:
    """Return the question with only the passages of these hashes."""
    wanted = set(passages)
    kept = tuple(passage for passage in question.passages if passage.hash in wanted)
    return Question(**{**question.__dict__, "passages": kept})


def call_key(config: JudgeConfig, question: Question) -> str:
    """Hash what decides an answer, apart from the texts: judge, prompt, definition and lengths.

    Thresholds, votes and batch size are not in it, as they only decide how an answer is used. Nor is the dataset.
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
    """Return the `call_id` of one attempt at `passages`, in the order shown and with the order seed `seed`.

    It covers the hash of each passage and the hash of what is shown of it, as a passage may be shown whole or as a
    snippet.
    """
    shown = [part for passage in passages for part in (passage.hash, hash_text(passage.text))]
    shown += [hash_text(text) for text in (question.query, *question.positives)]
    question_hashes = [question.query_hash, question.positives_hash]
    return combine_hashes([call_key(config, question), *question_hashes, *shown, str(attempt), str(seed)])


@cache
def _digest(name: str) -> str:
    return prompt_digest(name)
