"""Use a cross-encoder as a judge: it reads query and passage together and gives a score, without a prompt (§4.5).

An instruction reranker also reads what relevant means in the dataset; how it is asked is the engine's template.

For the rest of the judge this is a protocol like the others: a call is a pair, and an answer is a score. `AsLLM` wraps
the cross-encoder so that it answers calls like an LLM.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.judging.calls import Call, Passage, Question, Reading, unread
from tasks.judging.config import JudgeConfig
from tasks.protocols import Answer, CrossEncoder, Request
from tasks.texts import combine_hashes, hash_text

_TOO_LONG = "too_long"


@dataclass(frozen=True)
class Scored:
    """A score in the form of an answer: `text` is the score as JSON."""

    text: str
    finish_reason: str = "stop"
    logprobs: dict[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    fingerprint: str = ""


@dataclass(frozen=True)
class AsLLM:
    """Wraps a cross-encoder as an LLM: each answer is a score."""

    encoder: CrossEncoder

    def answer(self, requests: Sequence[Request]) -> list[Scored]:
        """Score one pair per request. Its messages are query, passage and, for an instructed judge, the instruction.

        A score that is not a number stands for a pair that is too long: it is asked again in smaller pieces.
        """
        pairs = [(request.chat[0]["content"], request.chat[1]["content"]) for request in requests]
        instructions = [message["content"] for request in requests for message in request.chat[2:]]
        scores = self.encoder.score(pairs, instructions) if instructions else self.encoder.score(pairs)
        return [Scored(json.dumps(score), _TOO_LONG if math.isnan(score) else "stop") for score in scores]


def make_calls(config: JudgeConfig, questions: Sequence[Question], attempt: int, seed: int) -> list[Call]:
    """Make one call per passage. There is no second attempt, as it would give the same score."""
    if attempt > 1:
        return []
    key = combine_hashes([config.asked, "cross_encoder", str(config.query_chars), str(config.passage_chars)])
    return [
        Call(
            call_id=combine_hashes(
                [key, question.query_hash, passage.hash, *_more(config, question, passage)],
            ),
            chat=(
                {"role": "query", "content": question.query},
                {"role": "passage", "content": passage.text},
                *({"role": "instruction", "content": text} for text in _instruction(config, question)),
            ),
            question=question,
            ids={"": passage.key},
            attempt=attempt,
        )
        for question in questions
        for passage in question.passages
    ]


def _more(config: JudgeConfig, question: Question, passage: Passage) -> list[str]:
    """Return what more a call id covers: the instruction, and what is shown where a text is cut.

    Whole texts are named by their hashes.
    """
    is_cut = bool(passage.mark) or len(question.query) > config.query_chars
    shown = (question.query, passage.text) if is_cut else ()
    return [hash_text(text) for text in (*_instruction(config, question), *shown)]


def _instruction(config: JudgeConfig, question: Question) -> tuple[str, ...]:
    """Return the dataset's definition of relevance, where the judge is asked with it; empty: the template's own."""
    return (question.definition.strip(),) if config.instructed else ()


def read_answer(config: JudgeConfig, call: Call, answer: Answer) -> dict[str, Reading]:
    """Read the score, a number in 0..1. Anything else is the failure `too_long` or `no_score`.

    >>> from types import SimpleNamespace
    >>> call = SimpleNamespace(ids={"": "hash"})
    >>> read_answer(None, call, Scored("0.25"))["hash"].score
    0.25
    """
    if answer.finish_reason == _TOO_LONG:
        return unread(call, _TOO_LONG)
    try:
        score = float(json.loads(answer.text))
    except (ValueError, TypeError):
        return unread(call, "no_score")
    if not 0 <= score <= 1:
        return unread(call, "no_score")
    return {passage: Reading(score=score) for passage in call.ids.values()}
