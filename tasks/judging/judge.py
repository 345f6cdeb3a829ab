"""Ask a judge whether candidates are relevant: one verdict per pair, and no call is paid for twice (paper §3.1).

The modules of the protocols (`yes_no`, `graded`, `listwise`, `snippet`, `cross_encoder`) make calls and read answers.
This module does what they have in common. Copies of a text with several ids are asked about once. An answer that cannot
be read is asked for again; if that fails too, the pair is `unparsed`, and the next tier is asked. An unreadable answer
never counts as "not relevant".
"""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tasks.judging import cross_encoder, listwise, pointwise, snippet
from tasks.judging.calls import Call, Passage, Question, Reading, narrow
from tasks.judging.config import JudgeConfig
from tasks.judging.pointwise import UNAVAILABLE
from tasks.judging.votes import Tally, state_of_reading
from tasks.prompts.prompt import join_texts, quote
from tasks.protocols import LLM, Answer, CrossEncoder, Ledger
from tasks.schemas import CALLS, VERDICTS

_PAIR = ["dataset", "query_id", "doc_id"]
_QUESTION = ["query_hash", "positives_hash"]
_PROGRESS_SECONDS = 10.0  # seconds between two progress messages of a part
_log = logging.getLogger(__name__)
_QUESTIONS_PER_FAILURE = 50  # up to one question in 50 may get no answer before the engine counts as unavailable
MakeCalls = Callable[[JudgeConfig, Sequence[Question], int, int], list[Call]]
ReadAnswer = Callable[[JudgeConfig, Call, Answer], dict[str, Reading]]
# The functions of each protocol that make calls and read answers. `snippet` asks twice (`_extract_and_rank`).
_PROTOCOLS: Mapping[str, tuple[MakeCalls, ReadAnswer]] = {
    "yes_no": (pointwise.make_calls, pointwise.read_yes_no),
    "graded": (pointwise.make_calls, pointwise.read_grade),
    "listwise": (listwise.make_calls, listwise.read_answer),
    "cross_encoder": (cross_encoder.make_calls, cross_encoder.read_answer),
}
# Identifies a passage in a question: prompt, definition, and the hashes of query, positives and passage. No ids.
Key = tuple[str, str, str, str, str]


class EngineUnavailable(OSError):
    """The engine cannot answer now. The part must be run again, and then asks only for the missing answers."""


@dataclass(frozen=True)
class Kept:
    """An answer as it is stored in the ledger."""

    text: str
    logprobs: Mapping[str, float]
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    fingerprint: str
    cached_tokens: int = 0


def judge(  # noqa: PLR0913 - tables by name
    config: JudgeConfig,
    *,
    escalated: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    positives: pl.DataFrame,
    engine: LLM | CrossEncoder,
    ledger: Ledger | None,
) -> dict[str, Any]:
    """Judge each escalated candidate once.

    Returns:
        `verdicts`: one per candidate; attempt and call_id are those of the last call. `calls`: all calls needed, with
        those recalled from the ledger. `facts`: counts of calls, recalled answers, tokens and failures.

    Raises:
        ValueError: the judge has no name, a candidate comes twice, its hashes do not fit the texts, or the engine left
            a call unanswered.
        EngineUnavailable: the engine was not available for too many questions.
    """
    if not config.judge:
        raise ValueError(
            "judge: a name expected (model and digests), got an empty one; the calls of judges would be mixed up"
        )
    if escalated.select(_PAIR).is_duplicated().any():
        raise ValueError("escalated: one row per (dataset, query_id, doc_id) expected, some come twice")
    pairs = join_texts(escalated, queries=queries, passages=passages, positives=positives)
    questions = make_questions(config, pairs)
    asker = Asker(config, _as_llm(config, engine), ledger)
    tallies = _vote(config, questions, asker)
    _check_engine(tallies)
    flips = _try_other_order(config, questions, asker, tallies)
    verdicts = _verdicts(config, pairs, tallies)
    facts = asker.facts() | flips
    facts["unparsed"] = verdicts.filter(pl.col("state") == "unparsed").height
    return {"verdicts": verdicts, "calls": _calls_table(config, asker), "facts": facts}


def _as_llm(config: JudgeConfig, engine: LLM | CrossEncoder) -> Any:  # noqa: ANN401 - an LLM by shape
    return cross_encoder.AsLLM(engine) if config.protocol == "cross_encoder" else engine  # type: ignore[arg-type]


def make_questions(config: JudgeConfig, pairs: pl.DataFrame) -> list[Question]:
    """Make one question per distinct (prompt, definition, query, positives), the longest ones first."""
    found: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for row in pairs.sort(*_QUESTION, "text_hash", *_PAIR).iter_rows(named=True):
        key = (config.prompt_of(row["dataset"]), config.definition_of(row["dataset"]), *(row[n] for n in _QUESTION))
        question = found.setdefault(key, {"row": row, "passages": {}})
        question["passages"].setdefault(row["text_hash"], quote(row["passage"], config.passage_chars))
    questions = [_question(config, key, made["row"], made["passages"]) for key, made in found.items()]
    # Long ones first, so that no batch waits for one long prompt at its end. Prompts of a query stay together.
    return sorted(questions, key=lambda q: (-max(len(p.text) for p in q.passages) // 256, q.query_hash, q.prompt))


def _question(
    config: JudgeConfig, key: tuple[str, str, str, str], row: Mapping[str, Any], passages: Mapping[str, str]
) -> Question:
    prompt, definition, query_hash, positives_hash = key
    return Question(
        prompt=prompt,
        definition=definition,
        query_hash=query_hash,
        positives_hash=positives_hash,
        query=quote(row["query"], config.query_chars),
        positives=tuple(quote(text, config.positive_chars) for text in row["positives"][: config.max_positives]),
        subjects=(query_hash, *row["subjects"]),
        passages=tuple(Passage(text_hash, text) for text_hash, text in passages.items()),
    )


@dataclass
class Asker:
    """Sends calls to the engine in batches, except those that the ledger has, and counts them."""

    config: JudgeConfig
    engine: Any
    ledger: Ledger | None
    calls: dict[str, tuple[Call, Answer]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    queries: set[tuple[str, str]] = field(default_factory=set)

    def ask(
        self, make: MakeCalls, read: ReadAnswer, questions: Sequence[Question], seed: int
    ) -> dict[Key, tuple[Reading, Call]]:
        """Ask about each passage until it is read or `max_attempts` is reached."""
        readings: dict[Key, tuple[Reading, Call]] = {}
        pending = list(questions)
        for attempt in range(1, self.config.max_attempts + 1):
            made = make(self.config, pending, attempt, seed)
            for call, answer in zip(made, self._answers(made, read), strict=True):
                for passage, reading in read(self.config, call, answer).items():
                    readings[key_of(call.question, passage)] = (reading, call)
                    if reading.failure:
                        self.failures[reading.failure] += 1
            pending = _unread(pending, readings)
            if not pending:
                break
        return readings

    def _answers(self, calls: Sequence[Call], read: ReadAnswer) -> list[Answer]:
        """Return the answers in the order of the calls.

        The batches do not depend on what the ledger has. A run that was killed and resumed sends the same lists to the
        engine as an undisturbed run, so scores are equal to the last bit.
        """
        known = {call.call_id: self.calls[call.call_id][1] for call in calls if call.call_id in self.calls}
        known |= self._recall([call for call in calls if call.call_id not in known])
        _log.info("%d calls, %d of them remembered", len(calls), len(known))
        half, logged = self.config.batch_size // 2, time.monotonic()
        for start in range(0, len(calls), half):
            batch = calls[start : start + half]
            unknown = [call for call in batch if call.call_id not in known]
            fresh = self._engine_answers(unknown)
            self._remember(unknown, fresh, read)
            known |= {call.call_id: answer for call, answer in zip(unknown, fresh, strict=True)}
            if time.monotonic() - logged >= _PROGRESS_SECONDS:
                logged = time.monotonic()
                _log.info("%d of %d calls answered", start + len(batch), len(calls))
        self.calls |= {call.call_id: (call, known[call.call_id]) for call in calls}
        return [known[call.call_id] for call in calls]

    def _engine_answers(self, calls: Sequence[Call]) -> list[Answer]:
        if not calls:
            return []
        if self.ledger is not None:
            self.ledger.flush()  # the engine works for another part meanwhile; a kill loses at most both halves
        answers = list(self.engine.answer(calls))
        if len(answers) != len(calls):
            raise ValueError(
                f"engine: {len(calls)} answers expected, {len(answers)} came; the part must be judged again"
            )
        self.counts["calls"] += len(calls)
        self.queries |= {(call.question.query_hash, call.question.positives_hash) for call in calls}
        for name in ("prompt_tokens", "cached_tokens", "output_tokens"):
            self.counts[name] += sum(getattr(answer, name) for answer in answers)
        return answers

    def _recall(self, calls: Sequence[Call]) -> dict[str, Answer]:
        if self.ledger is None or not calls:
            return {}
        found = self.ledger.recall(self.config.ledger_name, {call.call_id: call.question.query_hash for call in calls})
        self.counts["recalled"] += len(found)
        return {call_id: Kept(**json.loads(payload)) for call_id, payload in found.items()}

    def _remember(self, calls: Sequence[Call], answers: Sequence[Answer], read: ReadAnswer) -> None:
        """Store the answers in the ledger, except those of which nothing could be read."""
        if self.ledger is None:
            return
        rows = []
        for call, answer in zip(calls, answers, strict=True):
            if any(not reading.failure for reading in read(self.config, call, answer).values()):
                subjects = [*call.question.subjects, *call.ids.values()]
                rows.append((call.call_id, subjects, _payload(answer)))
        if rows:
            self.ledger.remember(self.config.ledger_name, rows)

    def facts(self) -> dict[str, Any]:
        """Return the counts of calls, recalled answers, tokens and queries, and of failures by reason."""
        names = ("calls", "recalled", "prompt_tokens", "cached_tokens", "output_tokens")
        counts: dict[str, Any] = {name: self.counts[name] for name in names}
        return counts | {"queries": len(self.queries), "failures": dict(sorted(self.failures.items()))}


def key_of(question: Question, passage: str) -> Key:
    """Return the key of a passage in a question. It does not depend on ids."""
    return (question.prompt, question.definition, question.query_hash, question.positives_hash, passage)


def _payload(answer: Answer) -> str:
    kept = {name: getattr(answer, name) for name in Kept.__dataclass_fields__ if name != "cached_tokens"}
    return json.dumps(
        kept | {"logprobs": dict(answer.logprobs)}
    )  # ASCII, as the text of an endpoint may contain lone surrogates


def _unread(questions: Iterable[Question], readings: Mapping[Key, tuple[Reading, Call]]) -> list[Question]:
    narrowed = (
        narrow(question, [p.hash for p in question.passages if readings[key_of(question, p.hash)][0].failure])
        for question in questions
    )
    return [question for question in narrowed if question.passages]


def _ask_protocol(config: JudgeConfig, asker: Asker, questions: Sequence[Question], seed: int) -> dict[Key, Any]:
    if config.protocol == "snippet":
        return _extract_and_rank(config, asker, questions, seed)
    return asker.ask(*_PROTOCOLS[config.protocol], questions, seed)


def _extract_and_rank(
    config: JudgeConfig, asker: Asker, questions: Sequence[Question], seed: int
) -> dict[Key, tuple[Reading, Call]]:
    """Extract the answer of each passage, then rank those that have one against the positives (ARHN)."""
    readings = asker.ask(snippet.make_calls, snippet.read_answer, questions, seed)
    ranked: list[Question] = []
    back: dict[Key, Key] = {}
    for question in questions:
        of_passage = {p.hash: readings[key_of(question, p.hash)][0] for p in question.passages}
        second = snippet.ranked_question(question, of_passage)
        if second is not None:
            ranked.append(second)
            back |= {key_of(second, p.hash): key_of(question, p.hash) for p in second.passages}
    second_readings = asker.ask(listwise.make_calls, listwise.read_answer, ranked, seed)
    return readings | {back[key]: value for key, value in second_readings.items()}


def _vote(config: JudgeConfig, questions: Sequence[Question], asker: Asker) -> dict[Key, Tally]:
    """Ask once per vote, each time in another order. A passage with a settled majority is not asked about again."""
    tallies = {key_of(q, p.hash): Tally(config.votes) for q in questions for p in q.passages}
    pending = list(questions)
    for vote in range(config.votes):
        for key, (reading, call) in _ask_protocol(config, asker, pending, config.order_seed + vote).items():
            tallies[key].add(config, reading, call)
        open_ = (narrow(q, [p.hash for p in q.passages if not tallies[key_of(q, p.hash)].is_settled]) for q in pending)
        pending = [question for question in open_ if question.passages]
        if not pending:
            break
    return tallies


def _try_other_order(
    config: JudgeConfig, questions: Sequence[Question], asker: Asker, tallies: Mapping[Key, Tally]
) -> dict[str, int]:
    """Ask a sample of the queries again in another order, and count the verdicts that change."""
    sample = [q for q in questions if _draw(q.query_hash) < config.flip_share]
    if not sample:
        return {}
    other = _ask_protocol(config, asker, sample, config.order_seed + config.votes)
    # With one positive, or with a cross-encoder, there is no other order: the call is the same and is not counted.
    asked = {key: reading for key, (reading, call) in other.items() if call.call_id != tallies[key].last.call_id}
    states = {key: state_of_reading(config, reading) for key, reading in asked.items()}
    both = {k: s for k, s in states.items() if s != "unparsed" and tallies[k].state != "unparsed"}
    return {"flip_pairs": len(both), "flips": sum(state != tallies[key].state for key, state in both.items())}


def _draw(text_hash: str) -> float:
    return int(hashlib.sha256(f"flip:{text_hash}".encode()).hexdigest()[:8], 16) / 16**8


def _check_engine(tallies: Mapping[Key, Tally]) -> None:
    """Fail the part if the engine was unavailable: an outage must not become verdicts. Answers are already stored."""
    missing = sum(tally.readings[-1].failure == UNAVAILABLE for tally in tallies.values())
    # Single questions that always time out are a fault of the question.
    if missing > max(1, len(tallies) // _QUESTIONS_PER_FAILURE):
        raise EngineUnavailable(
            f"{missing} of {len(tallies)} questions got no answer because the engine was not available (limits, "
            "outage, timeouts); every answer that came is remembered: run again when it is back"
        )


def _verdicts(config: JudgeConfig, pairs: pl.DataFrame, tallies: Mapping[Key, Tally]) -> pl.DataFrame:
    rows = []
    for pair in pairs.sort(_PAIR).iter_rows(named=True):
        prompt, definition = config.prompt_of(pair["dataset"]), config.definition_of(pair["dataset"])
        tally = tallies[(prompt, definition, pair["query_hash"], pair["positives_hash"], pair["text_hash"])]
        rows.append(
            {name: pair[name] for name in _PAIR}
            | {
                "tier": config.tier,
                "judge": config.judge,
                "state": tally.state,
                "score": tally.score,
                "grade": tally.grade,
                "preference": tally.preference,
                "call_id": tally.last.call_id,
                "attempt": tally.last.attempt,
            }
        )
    return pl.DataFrame(rows, schema=VERDICTS.columns)


def _calls_table(config: JudgeConfig, asker: Asker) -> pl.DataFrame:
    rows = [
        {
            "call_id": call_id,
            "judge": config.judge,
            "order_seed": call.order_seed,
            "raw": answer.text.encode(errors="replace").decode(),
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "output_tokens": answer.output_tokens,
            "fingerprint": answer.fingerprint or None,
        }
        for call_id, (call, answer) in asker.calls.items()
    ]
    return pl.DataFrame(rows, schema=CALLS.columns).sort("call_id")
