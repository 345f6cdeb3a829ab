"""Ask a judge whether candidates are relevant: one verdict per pair, and no call is paid for twice (paper §3.1).

The modules of the protocols (`yes_no`, `graded`, `listwise`, `snippet`, `cross_encoder`) make calls and read answers.
This module does what they have in common. Copies of a text with several ids are asked about once. An answer that cannot
be read is asked for again; if that fails too, the pair is `unparsed`, and the next tier is asked. An unreadable answer
never counts as "not relevant". A long passage is read in windows, each in a question of its own; the best one counts.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from tasks.judging import cross_encoder, listwise, pointwise, snippet
from tasks.judging.asker import Asker, Key, MakeCalls, ReadAnswer, key_of
from tasks.judging.calls import Call, Passage, Question, Reading, hash_of, make_questions, narrow, place_of
from tasks.judging.config import JudgeConfig
from tasks.judging.pointwise import UNAVAILABLE
from tasks.judging.votes import Heard, Tally, best_of, state_of_reading
from tasks.prompts.prompt import drop_invisible, join_texts
from tasks.prompts.windows import estimate_tokens
from tasks.protocols import LLM, CrossEncoder, Ledger
from tasks.schemas import CALLS, VERDICTS, WINDOWS

_PAIR = ["dataset", "query_id", "doc_id"]
_QUESTIONS_PER_FAILURE = 50  # up to one question in 50 may get no answer before the engine counts as unavailable
# The functions of each protocol that make calls and read answers. `snippet` asks twice (`_extract_and_rank`).
_PROTOCOLS: Mapping[str, tuple[MakeCalls, ReadAnswer]] = {
    "yes_no": (pointwise.make_calls, pointwise.read_yes_no),
    "graded": (pointwise.make_calls, pointwise.read_grade),
    "listwise": (listwise.make_calls, listwise.read_answer),
    "cross_encoder": (cross_encoder.make_calls, cross_encoder.read_answer),
}


class EngineUnavailable(OSError):
    """The engine cannot answer now. The part must be run again, and then asks only for the missing answers."""


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
    """Judge each escalated candidate once. An engine with a true `only_counts` may answer nothing.

    Returns:
        `verdicts`: one per candidate; attempt and call_id are those of the last call. `calls`: all calls needed, with
        those recalled from the ledger. `windows`: where in its passage the window stands that decided. `facts`: counts
        of calls, recalled answers, tokens, windows and failures.

    Raises:
        ValueError: the judge has no name, a candidate comes twice, its hashes do not fit the texts, or the engine left
            a call unanswered.
        EngineUnavailable: the engine was not available for too many questions.
        UnreadableAnswers: no answer of the part could be read.
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
    asker.first.any_read = getattr(engine, "only_counts", False)
    tallies = _vote(config, questions, asker)
    _check_engine(tallies, asker)
    asker.first.check(whole_part=True)
    flips = _try_other_order(config, questions, asker, tallies)
    verdicts = _verdicts(config, pairs, tallies)
    facts = asker.facts() | flips
    facts["unparsed"] = verdicts.filter(pl.col("state") == "unparsed").height
    facts["windows"] = sum(len(question.passages) for question in questions)
    windows = _windows(config, pairs, questions, tallies)
    return {"verdicts": verdicts, "calls": _calls_table(config, asker), "windows": windows, "facts": facts}


def _as_llm(config: JudgeConfig, engine: LLM | CrossEncoder) -> Any:  # noqa: ANN401 - an LLM by shape
    return cross_encoder.AsLLM(engine) if config.protocol == "cross_encoder" else engine  # type: ignore[arg-type]


def _ask_protocol(config: JudgeConfig, asker: Asker, questions: Sequence[Question], seed: int) -> dict[Key, Any]:
    if config.protocol == "snippet":
        return _extract_and_rank(config, asker, questions, seed)
    return asker.ask(*_PROTOCOLS[config.protocol], questions, seed)


def _extract_and_rank(
    config: JudgeConfig, asker: Asker, questions: Sequence[Question], seed: int
) -> dict[Key, tuple[Reading, Call]]:
    """Extract the answer of each passage, then rank those that have one against the positives (ARHN)."""
    readings = asker.ask(snippet.make_calls, snippet.read_answer, questions, seed)
    found: dict[Key, dict[str, tuple[Reading, Call]]] = defaultdict(dict)
    for key, answered in readings.items():
        found[_of_question(key)][key[-1]] = answered
    ranked: list[Question] = []
    back: dict[Key, Key] = {}
    for question in questions:
        answers = found[key_of(question, "")]
        asked = replace(question, passages=tuple(_passage(question, key, call) for key, (_, call) in answers.items()))
        second = snippet.ranked_question(asked, {key: reading for key, (reading, _) in answers.items()})
        if second is not None:
            ranked.append(second)
            back |= {key_of(second, p.key): key_of(question, p.key) for p in second.passages}
    second_readings = asker.ask(listwise.make_calls, listwise.read_answer, ranked, seed)
    return readings | {back[key]: value for key, value in second_readings.items()}


def _of_question(key: Key) -> Key:
    return (*key[:-1], "")


def _passage(question: Question, key: str, call: Call) -> Passage:
    """Find a passage of a question, or the smaller window that replaced it because the prompt was too long."""
    return next(p for p in (*question.passages, *call.question.passages) if p.key == key)


def _hear(config: JudgeConfig, asker: Asker, questions: Sequence[Question], seed: int) -> dict[Key, Heard]:
    """Ask about each window of each passage. Returns what counts, by passage."""
    windows: dict[Key, list[Heard]] = defaultdict(list)
    for key, (reading, call) in _ask_protocol(config, asker, questions, seed).items():
        windows[(*key[:-1], hash_of(key[-1]))].append(Heard(reading, call, key[-1]))
    return {key: best_of(config, heard) for key, heard in windows.items()}


def _vote(config: JudgeConfig, questions: Sequence[Question], asker: Asker) -> dict[Key, Tally]:
    """Ask once per vote, each time in another order. A passage with a settled majority is not asked about again."""
    tallies = {key_of(q, p.hash): Tally(config.votes) for q in questions for p in q.passages}
    pending = list(questions)
    for vote in range(config.votes):
        for key, heard in _hear(config, asker, pending, config.order_seed + vote).items():
            tallies[key].add(config, heard)
        open_ = (narrow(q, [p.key for p in q.passages if not tallies[key_of(q, p.hash)].is_settled]) for q in pending)
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
    other = _hear(config, asker, sample, config.order_seed + config.votes)
    # With one positive, or with a cross-encoder, there is no other order: the call is the same and is not counted.
    asked = {key: heard for key, heard in other.items() if heard.call.call_id != tallies[key].last.call_id}
    states = {key: state_of_reading(config, heard.reading) for key, heard in asked.items()}
    both = {k: s for k, s in states.items() if s != "unparsed" and tallies[k].state != "unparsed"}
    return {"flip_pairs": len(both), "flips": sum(state != tallies[key].state for key, state in both.items())}


def _draw(text_hash: str) -> float:
    return int(hashlib.sha256(f"flip:{text_hash}".encode()).hexdigest()[:8], 16) / 16**8


def _check_engine(tallies: Mapping[Key, Tally], asker: Asker) -> None:
    """Fail the part if the engine was unavailable: an outage must not become verdicts. Answers are already stored."""
    missing = sum(tally.readings[-1].failure == UNAVAILABLE for tally in tallies.values())
    # Single questions that always time out are a fault of the question.
    if missing > max(1, len(tallies) // _QUESTIONS_PER_FAILURE):
        reasons = Counter(answer.finish_reason for _, answer in asker.calls.values())
        most = max((r for r in reasons if r.startswith(UNAVAILABLE)), key=lambda r: reasons[r], default=UNAVAILABLE)
        raise EngineUnavailable(
            f"{missing} of {len(tallies)} questions got no answer because the engine was not available ({most}); "
            "every answer that came is remembered: run again when it is back"
        )


def _verdicts(config: JudgeConfig, pairs: pl.DataFrame, tallies: Mapping[Key, Tally]) -> pl.DataFrame:
    rows = []
    for pair in pairs.sort(_PAIR).iter_rows(named=True):
        tally = tallies[_key_of_pair(config, pair)]
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


def _key_of_pair(config: JudgeConfig, pair: Mapping[str, Any]) -> Key:
    prompt, definition = config.prompt_of(pair["dataset"]), config.definition_of(pair["dataset"])
    return (prompt, definition, pair["query_hash"], pair["positives_hash"], pair["text_hash"])


def _windows(
    config: JudgeConfig, pairs: pl.DataFrame, questions: Sequence[Question], tallies: Mapping[Key, Tally]
) -> pl.DataFrame:
    """Return where the window stands on which each verdict rests. A pair without a verdict has no row."""
    made: dict[Key, list[Passage]] = defaultdict(list)
    for question in questions:
        for passage in question.passages:
            made[key_of(question, passage.hash)].append(passage)
    rows = []
    for pair in pairs.sort(_PAIR).iter_rows(named=True):
        key = _key_of_pair(config, pair)
        if tallies[key].state == "unparsed":
            continue
        text, first = drop_invisible(pair["passage"]), made[key][0].window
        start, end = place_of(tallies[key].decided_by) or (0, first.end if first else len(text))
        places = {"start": start, "end": end, "chars": len(text)}
        tokens = {"start_tokens": estimate_tokens(text[:start]), "end_tokens": estimate_tokens(text[:end])}
        pair_of = {name: pair[name] for name in _PAIR}
        rows.append(pair_of | {"tier": config.tier, "windows": len(made[key])} | places | tokens)
    return pl.DataFrame(rows, schema=WINDOWS.columns)


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
