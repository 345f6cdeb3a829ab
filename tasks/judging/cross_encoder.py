"""Use a cross-encoder as a judge: it reads query and passage together and gives a score, without a prompt (§4.5).

For the rest of the judge this is a protocol like the others: a call is a pair, and an answer is a score. `AsLLM` wraps
the cross-encoder so that it answers calls like an LLM.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.judging.calls import Call, Question, Reading, unread
from tasks.judging.config import JudgeConfig
from tasks.protocols import Answer, CrossEncoder, Request
from tasks.texts import combine_hashes


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
        """Score one pair per request. Its first message is the query, the second the passage."""
        pairs = [(request.chat[0]["content"], request.chat[1]["content"]) for request in requests]
        return [Scored(json.dumps(score)) for score in self.encoder.score(pairs)]


def make_calls(config: JudgeConfig, questions: Sequence[Question], attempt: int, seed: int) -> list[Call]:
    """Make one call per passage. There is no second attempt, as it would give the same score."""
    if attempt > 1:
        return []
    key = combine_hashes([config.asked, "cross_encoder", str(config.query_chars), str(config.passage_chars)])
    return [
        Call(
            call_id=combine_hashes([key, question.query_hash, passage.hash]),
            chat=({"role": "query", "content": question.query}, {"role": "passage", "content": passage.text}),
            question=question,
            ids={"": passage.hash},
            attempt=attempt,
        )
        for question in questions
        for passage in question.passages
    ]


def read_answer(config: JudgeConfig, call: Call, answer: Answer) -> dict[str, Reading]:
    """Read the score, a number in 0..1. Anything else is the failure `no_score`.

    >>> from types import SimpleNamespace
    >>> call = SimpleNamespace(ids={"": "hash"})
    >>> read_answer(None, call, Scored("0.25"))["hash"].score
    0.25
    """
    try:
        score = float(json.loads(answer.text))
    except (ValueError, TypeError):
        return unread(call, "no_score")
    if not 0 <= score <= 1:
        return unread(call, "no_score")
    return {passage: Reading(score=score) for passage in call.ids.values()}
