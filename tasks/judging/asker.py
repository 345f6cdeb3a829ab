"""Send the calls of a judge to its engine, except those that the ledger has, and count them."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.judging.calls import Call, Question, Reading, hash_of, narrow, shrink
from tasks.judging.config import JudgeConfig
from tasks.judging.unreadable import FirstAnswers
from tasks.protocols import Answer, Ledger

_PROGRESS_SECONDS = 10.0  # seconds between two progress messages of a part
_FINGERPRINTS, _OTHERS = 20, "others"  # the most fingerprints that a part names, and the name of all others
_TIMES_SMALLER = 8  # how often a prompt that is too long is made smaller
_FEWER = 4  # so many times fewer passages in a call whose prompt was too long
_TOO_LONG = "too_long"
_log = logging.getLogger(__name__)
MakeCalls = Callable[[JudgeConfig, Sequence[Question], int, int], list[Call]]
ReadAnswer = Callable[[JudgeConfig, Call, Answer], dict[str, Reading]]
# Identifies a passage, or a window of it, in a question: prompt, definition, the hashes of query and positives, and the
# key of the passage. No ids.
Key = tuple[str, str, str, str, str]


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
    first: FirstAnswers = field(init=False)

    def __post_init__(self) -> None:
        """Begin with no answer."""
        self.first = FirstAnswers(self.config)

    def ask(
        self, make: MakeCalls, read: ReadAnswer, questions: Sequence[Question], seed: int
    ) -> dict[Key, tuple[Reading, Call]]:
        """Ask about each passage until it is read or `max_attempts` is reached.

        What is too long for the engine is asked again at once: fewer passages in a call, then smaller windows, or less
        of the query or of the positives, whichever is longest. The readings are then those of the smaller windows.
        """
        readings: dict[Key, tuple[Reading, Call]] = {}
        pending = list(questions)
        for attempt in range(1, self.config.max_attempts + 1):
            unread, asked, config = list[Question](), pending, self.config
            for times in range(_TIMES_SMALLER + 1):
                made = make(config, asked, attempt, seed)
                self._put(made, read, readings)
                may_be_smaller = bool(made) and times < _TIMES_SMALLER
                asked, left = _make_smaller(config, asked, readings, may_be_smaller=may_be_smaller)
                unread += left
                if not asked:
                    break
                config = config.model_copy(update={"per_call": max(1, config.per_call // _FEWER)})
            pending = unread
            if not pending:
                break
        return readings

    def _put(self, made: Sequence[Call], read: ReadAnswer, readings: dict[Key, tuple[Reading, Call]]) -> None:
        """Ask calls and add what the answers say."""
        for call, answer in zip(made, self._answers(made, read), strict=True):
            for passage, reading in read(self.config, call, answer).items():
                readings[key_of(call.question, passage)] = (reading, call)
                if reading.failure:
                    self.failures[reading.failure] += 1

    def _answers(self, calls: Sequence[Call], read: ReadAnswer) -> list[Answer]:
        """Return the answers in the order of the calls.

        The batches do not depend on what the ledger has. A run that was killed and resumed sends the same lists to the
        engine as an undisturbed run, so scores are equal to the last bit.
        """
        known = {call.call_id: self.calls[call.call_id][1] for call in calls if call.call_id in self.calls}
        recalled = self._recall([call for call in calls if call.call_id not in known])
        self.first.any_read |= bool(recalled)  # only an answer that could be read is remembered
        known |= recalled
        _log.info("%d calls, %d of them remembered", len(calls), len(known))
        half, logged = self.config.batch_size // 2, time.monotonic()
        for start in range(0, len(calls), half):
            batch = calls[start : start + half]
            unknown = [call for call in batch if call.call_id not in known]
            fresh = self._engine_answers(unknown)
            self._remember(unknown, fresh, read)
            self._check_first([*zip(unknown, fresh, strict=True)], read)
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

    def _check_first(self, answered: Sequence[tuple[Call, Answer]], read: ReadAnswer) -> None:
        """Fail the part if not one answer so far could be read."""
        for call, answer in answered:
            if self.first.any_read:
                return
            self.first.add(call, answer, read(self.config, call, answer))
        self.first.check()

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
                subjects = [*call.question.subjects, *dict.fromkeys(hash_of(key) for key in call.ids.values())]
                rows.append((call.call_id, subjects, _payload(answer)))
        if rows:
            self.ledger.remember(self.config.ledger_name, rows)

    def facts(self) -> dict[str, Any]:
        """Return the counts of calls, recalled answers, tokens and queries, of failures by reason, of fingerprints.

        Fingerprints are counted over all answers, recalled ones included, if the endpoint gives any.
        """
        names = ("calls", "recalled", "prompt_tokens", "cached_tokens", "output_tokens")
        counts: dict[str, Any] = {name: self.counts[name] for name in names}
        counts |= {"queries": len(self.queries), "failures": dict(sorted(self.failures.items()))}
        found = Counter(answer.fingerprint for _, answer in self.calls.values())
        if any(found):
            named = dict(found.most_common(_FINGERPRINTS))
            others = found.total() - sum(named.values())
            counts["fingerprints"] = dict(sorted(named.items())) | ({_OTHERS: others} if others else {})
        return counts


def key_of(question: Question, passage: str) -> Key:
    """Return the key of a passage in a question. It does not depend on ids."""
    return (question.prompt, question.definition, question.query_hash, question.positives_hash, passage)


def _payload(answer: Answer) -> str:
    kept = {name: getattr(answer, name) for name in Kept.__dataclass_fields__ if name != "cached_tokens"}
    return json.dumps(
        kept | {"logprobs": dict(answer.logprobs)}
    )  # ASCII, as the text of an endpoint may contain lone surrogates


def _make_smaller(
    config: JudgeConfig,
    questions: Iterable[Question],
    readings: dict[Key, tuple[Reading, Call]],
    *,
    may_be_smaller: bool,
) -> tuple[list[Question], list[Question]]:
    """Return what was too long, made smaller, and the rest of what was not read.

    A window that is made smaller loses its reading: its parts get one each.
    """
    smaller: list[Question] = []
    unread: list[Question] = []
    for question in questions:
        found = {p.key: readings[key_of(question, p.key)] for p in question.passages}
        failed = [key for key, (reading, _) in found.items() if reading.failure]
        too_long = [key for key in failed if found[key][0].failure == _TOO_LONG] if may_be_smaller else []
        together = [key for key in too_long if len(found[key][1].ids) > 1]
        shrunk = shrink(config, narrow(question, set(too_long) - set(together)))
        replaced = {key for made in shrunk for key in made.of}
        for key in replaced:
            del readings[key_of(question, key)]
        smaller += [narrow(question, together), *(made.question for made in shrunk)]
        unread.append(narrow(question, set(failed) - set(together) - replaced))
    return [q for q in smaller if q.passages], [q for q in unread if q.passages]
