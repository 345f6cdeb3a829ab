"""Ask an LLM whether a candidate is relevant too, pointwise, by the log-probability of Yes against No (paper §3.1).

Where the paper spends about 1,000 output tokens on a query's chain of thought and parses prose, this spends one token a
pair and reads a probability: the score is kept, so thresholds move later without a new call. An answer that is neither
Yes nor No is `unparsed`: asked again in other words, then reported. It is never "not relevant".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.hashing import combine_hashes
from tasks.prompting import Prompt, clip, join_texts, load_prompt, neutralise, prompt_digest
from tasks.protocols import LLM, Answer
from tasks.schemas import CALLS, VERDICTS

TIER = "llm"
_PAIR = ["dataset", "query_id", "doc_id"]
_QUESTION = ["query_hash", "positives_hash", "text_hash"]
# One generated token always ends by "length": that is a whole answer here.
_FINISHED = frozenset({"stop", "length"})


class JudgeConfig(BaseModel):
    """How the LLM is asked, and where its P(relevant) becomes a state.

    judge: who answers, for the tables: model and prompt digest, short (`qwen2.5-1.5b:0123…/4567…`); set by the flow.
    prompt: name of the file in `tasks/prompts`.
    relevant_from, not_relevant_below: P(relevant) at or above, and below; between them the state is `unsure`.
    min_mass: probability that Yes and No spellings must hold together, else the answer is `unparsed`.
    max_attempts: questions asked in all; the prompt file must hold as many.
    *_chars: lengths shown, in characters; what was cut is marked with […].
    max_positives: known relevant texts shown, the first by text hash.
    top: log-probabilities asked of the engine.
    batch_size: chats handed to the engine at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str = ""
    prompt: str = "yes_no"
    relevant_from: float = Field(0.5, ge=0, le=1)
    not_relevant_below: float = Field(0.5, ge=0, le=1)
    min_mass: float = Field(0.2, ge=0, le=1)
    max_attempts: int = Field(2, ge=1)
    query_chars: int = Field(500, ge=1)
    positive_chars: int = Field(700, ge=1)
    passage_chars: int = Field(900, ge=1)
    max_positives: int = Field(3, ge=1)
    top: int = Field(20, ge=2)
    batch_size: int = Field(256, ge=1, json_schema_extra={"operational": True})

    @model_validator(mode="after")
    def _check(self) -> "JudgeConfig":
        if self.not_relevant_below > self.relevant_from:
            raise ValueError(
                f"not_relevant_below={self.not_relevant_below} must not exceed relevant_from={self.relevant_from}"
            )
        questions = len(load_prompt(self.prompt).questions)
        if self.max_attempts > questions:
            raise ValueError(
                f"max_attempts={self.max_attempts}, but prompt {self.prompt!r} holds {questions} questions; "
                "asking the same again greedily changes nothing: lower max_attempts or add a question"
            )
        return self


@dataclass(frozen=True)
class _Question:
    """What is asked about one (query, positives, passage), whatever the ids it goes by."""

    hashes: tuple[str, ...]
    query: str
    positives: list[str]
    passage: str


@dataclass(frozen=True)
class _Call:
    """One question asked once, and what came."""

    question: _Question
    attempt: int
    call_id: str
    score: float | None
    answer: Answer


def judge_llm(
    config: JudgeConfig,
    *,
    escalated: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    positives: pl.DataFrame,
    engine: LLM,
) -> dict[str, pl.DataFrame]:
    """Judge every escalated candidate once; equal texts under several ids are asked once.

    Returns:
        `verdicts` (tier "llm", one per candidate; attempt and call_id are the last call's) and `calls` (every call).

    Raises:
        ValueError: the judge has no name, a candidate comes twice, its hashes do not fit the texts, or the engine left
            a chat unanswered.
    """
    if not config.judge:
        raise ValueError("judge: a name expected (model and digests), got an empty one; calls could not be told apart")
    if escalated.select(_PAIR).is_duplicated().any():
        raise ValueError("escalated: one row per (dataset, query_id, doc_id) expected, some come twice")
    prompt = load_prompt(config.prompt)
    pairs = join_texts(escalated, queries=queries, passages=passages, positives=positives)
    calls = _ask_until_parsed(config, prompt, _questions(config, pairs), engine)
    return {"verdicts": _verdicts(config, pairs, calls), "calls": _calls_table(config, calls)}


def parse_answer(answer: Answer, prompt: Prompt, min_mass: float) -> float | None:
    """Read P(relevant) off the first token's log-probabilities; None where the answer is neither Yes nor No.

    P = mass of the Yes spellings / (mass of Yes + mass of No): `{"Yes": log 0.6, " no": log 0.2, "The": log 0.2}` is
    0.75. None also for `too_long` and `error: …`, and when both masses together are below `min_mass`.
    """
    if answer.finish_reason not in _FINISHED:
        return None
    yes, no = _mass(answer.logprobs, prompt.yes), _mass(answer.logprobs, prompt.no)
    total = yes + no
    if not total > 0 or total < min_mass:  # `not >` also catches NaN
        return None
    return yes / total


def call_key(config: JudgeConfig) -> str:
    """Hash what decides an answer besides the texts: judge, prompt and lengths; not the thresholds."""
    shown = (config.query_chars, config.positive_chars, config.passage_chars, config.max_positives, config.top)
    return combine_hashes([config.judge, prompt_digest(config.prompt), *map(str, shown)])


def state_of(score: float | None, relevant_from: float, not_relevant_below: float) -> str:
    """Name the verdict state of a score; no score is `unparsed`."""
    if score is None:
        return "unparsed"
    if score >= relevant_from:
        return "relevant"
    return "not_relevant" if score < not_relevant_below else "unsure"


def _mass(logprobs: Mapping[str, float], spellings: frozenset[str]) -> float:
    return math.fsum(math.exp(logprobs[spelling]) for spelling in sorted(spellings) if spelling in logprobs)


def _questions(config: JudgeConfig, pairs: pl.DataFrame) -> list[_Question]:
    """Distinct questions, those of one query adjacent, so that the engine's prefix cache serves all but the first."""
    rows = pairs.unique(_QUESTION, keep="any").sort(_QUESTION)
    return [
        _Question(
            hashes=tuple(row[name] for name in _QUESTION),
            query=_quote(row["query"], config.query_chars),
            positives=[_quote(text, config.positive_chars) for text in row["positives"][: config.max_positives]],
            passage=_quote(row["passage"], config.passage_chars),
        )
        for row in rows.iter_rows(named=True)
    ]


def _quote(text: str, chars: int) -> str:
    return neutralise(clip(text, chars))


def _ask_until_parsed(config: JudgeConfig, prompt: Prompt, questions: Sequence[_Question], engine: LLM) -> list[_Call]:
    """Ask all, then the unparsed ones again in other words; the calls of every attempt, in the order made."""
    calls: list[_Call] = []
    pending = list(questions)
    for attempt in range(1, config.max_attempts + 1):
        made = [
            call
            for start in range(0, len(pending), config.batch_size)
            for call in _ask(config, prompt, pending[start : start + config.batch_size], attempt, engine)
        ]
        calls += made
        pending = [call.question for call in made if call.score is None]
    return calls


def _ask(config: JudgeConfig, prompt: Prompt, questions: Sequence[_Question], attempt: int, engine: LLM) -> list[_Call]:
    chats = [
        [{"role": "user", "content": prompt.render(asked.query, asked.positives, asked.passage, attempt)}]
        for asked in questions
    ]
    answers = engine.answer(chats, max_tokens=1, top=config.top)
    if len(answers) != len(chats):
        raise ValueError(f"engine: {len(chats)} answers expected, {len(answers)} came; the part must be judged again")
    key = call_key(config)
    return [
        _Call(
            question=asked,
            attempt=attempt,
            call_id=combine_hashes([key, *asked.hashes, str(attempt)]),
            score=parse_answer(answer, prompt, config.min_mass),
            answer=answer,
        )
        for asked, answer in zip(questions, answers, strict=True)
    ]


def _verdicts(config: JudgeConfig, pairs: pl.DataFrame, calls: Sequence[_Call]) -> pl.DataFrame:
    last = {call.question.hashes: call for call in calls}  # a later attempt replaces the earlier one
    rows = []
    for pair in pairs.sort(_PAIR).iter_rows(named=True):
        call = last[tuple(pair[name] for name in _QUESTION)]
        rows.append(
            {name: pair[name] for name in _PAIR}
            | {
                "tier": TIER,
                "judge": config.judge,
                "state": state_of(call.score, config.relevant_from, config.not_relevant_below),
                "score": call.score,
                "call_id": call.call_id,
                "attempt": call.attempt,
            }
        )
    return pl.DataFrame(rows, schema=VERDICTS.columns)


def _calls_table(config: JudgeConfig, calls: Sequence[_Call]) -> pl.DataFrame:
    rows = [
        {
            "call_id": call.call_id,
            "judge": config.judge,
            "raw": call.answer.text,
            "finish_reason": call.answer.finish_reason,
            "prompt_tokens": call.answer.prompt_tokens,
            "output_tokens": call.answer.output_tokens,
        }
        for call in calls
    ]
    return pl.DataFrame(rows, schema=CALLS.columns).sort("call_id")
