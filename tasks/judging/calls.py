"""Make questions, define calls and readings, which all protocols use, and compute the id of a call.

The id is a hash of everything that decides the answer. Calls with equal ids are the same call, also when they are made
for another dataset, part or run.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import polars as pl

from tasks.judging.config import JudgeConfig, Preference
from tasks.prompts.prompt import drop_invisible, prompt_digest, quote
from tasks.prompts.windows import Window, cut_windows, measure, shorten, split_window
from tasks.texts import combine_hashes, hash_text

MARK = "@"  # between the hash of a passage and the place of a window
_PAIR = ["dataset", "query_id", "doc_id"]
_QUESTION = ["query_hash", "positives_hash"]
_SHORT = 64  # what is shorter, in Latin letters, is not made shorter
_WRITES = frozenset({"listwise", "snippet"})  # protocols whose answer is a text instead of one token


@dataclass(frozen=True)
class Passage:
    """A passage, or a window of a long one, as it is shown to the judge.

    hash: of the whole text. text: what is shown, cut and neutralised. window: its place in the whole text; None for a
    passage that is not cut by `tasks.judging.questions`. mark: tells the windows of a passage apart; it is empty for a
    short passage and for the beginning of a long one as it was shown when the rest was not read: the answers that were
    given then are still found.
    """

    hash: str
    text: str
    window: Window | None = None
    mark: str = ""

    @property
    def key(self) -> str:
        """Return what names the passage in a question and its readings: the hash, and the mark."""
        return self.hash + self.mark

    @property
    def is_further(self) -> bool:
        """Tell whether this is a window that does not begin the passage, or a snippet of one."""
        return bool(self.mark) and not self.mark.startswith(f"{MARK}0-")


def hash_of(key: str) -> str:
    """Return the hash of the passage that a key belongs to.

    >>> hash_of("0123@900-1750"), hash_of("0123")
    ('0123', '0123')
    """
    return key.partition(MARK)[0]


def place_of(key: str) -> tuple[int, int] | None:
    """Return where a window stands in its passage, by its key; None for a passage that is not marked.

    >>> place_of("0123@900-1750"), place_of("0123")
    ((900, 1750), None)
    """
    mark = key.partition(MARK)[2]
    if not mark:
        return None
    start, end = map(int, mark.split("-"))
    return start, end


@dataclass(frozen=True)
class Question:
    """One query with its positives and the passages to be judged. It refers to texts by hash, not by id.

    prompt, definition: by the policy of the dataset. positives: as shown. subjects: hashes of the query and of all
    positives. passages: distinct by key, in the order of their hashes, the windows of a long one in their order.
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

    call_id: hash of everything that decides the answer. ids: id in this call → key of the passage, in the order shown.
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


def narrow(question: Question, passages: Collection[str]) -> Question:
    """Return the question with only the passages of these keys."""
    wanted = frozenset(passages)
    return replace(question, passages=tuple(passage for passage in question.passages if passage.key in wanted))


def make_questions(config: JudgeConfig, pairs: pl.DataFrame) -> list[Question]:
    """Make one question per distinct (prompt, definition, query, positives), the longest ones first."""
    found: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for row in pairs.sort(*_QUESTION, "text_hash", *_PAIR).iter_rows(named=True):
        key = (config.prompt_of(row["dataset"]), config.definition_of(row["dataset"]), *(row[n] for n in _QUESTION))
        question = found.setdefault(key, {"row": row, "passages": {}})
        if row["text_hash"] not in question["passages"]:
            question["passages"][row["text_hash"]] = _windows(config, row["text_hash"], row["passage"], row["title"])
    questions = [_question(config, key, made["row"], made["passages"]) for key, made in found.items()]
    # Long ones first, so that no batch waits for one long prompt at its end. Prompts of a query stay together.
    return sorted(questions, key=lambda q: (-max(len(p.text) for p in q.passages) // 256, q.query_hash, q.prompt))


def _question(
    config: JudgeConfig,
    key: tuple[str, str, str, str],
    row: Mapping[str, Any],
    passages: Mapping[str, Sequence[Passage]],
) -> Question:
    prompt, definition, query_hash, positives_hash = key
    return Question(
        prompt=prompt,
        definition=definition,
        query_hash=query_hash,
        positives_hash=positives_hash,
        query=_show_query(config, row["query"]),
        positives=tuple(quote(text, config.positive_chars) for text in row["positives"][: config.max_positives]),
        subjects=(query_hash, *row["subjects"]),
        passages=tuple(window for windows in passages.values() for window in windows),
    )


def _show_query(config: JudgeConfig, query: str) -> str:
    """Show a query whole, or a very long one's beginning and end."""
    if len(drop_invisible(query)) <= config.query_chars:
        return quote(query, config.query_chars)
    return shorten(query, config.longest_query)


def _windows(config: JudgeConfig, text_hash: str, text: str, title: str) -> list[Passage]:
    """Cut a passage into windows. Of windows that show the same, as of a repeated line, the first one is enough."""
    found: dict[str, Passage] = {}
    before = quote(text, config.passage_chars)  # what was shown when the rest was not read
    for window in cut_windows(text, config.passage_chars, title):
        mark = "" if window.text == before else _mark(window)
        found.setdefault(window.text, Passage(text_hash, window.text, window, mark))
    return list(found.values())


def _mark(window: Window) -> str:
    return f"{MARK}{window.start}-{window.end}"


@dataclass(frozen=True)
class Smaller:
    """A question whose prompt is shorter than before, and the keys of the passages that it replaces."""

    question: Question
    of: tuple[str, ...]


def shrink(config: JudgeConfig, question: Question) -> list[Smaller]:
    """Make the prompts of a question shorter, one passage a call: halve what is longest in each.

    That is the window, which is split in two; the query, of which the middle is left out; or the positives, whose ends
    are. A passage is left out where nothing is long.
    """
    query = measure(question.query)
    positives = 0 if config.protocol == "cross_encoder" else sum(map(measure, question.positives))
    made: list[Smaller] = []
    shorter: list[str] = []
    for passage in question.passages:
        body = measure(passage.window.body) if passage.window else 0
        if max(query, positives, body) < _SHORT:
            continue
        if passage.window and body >= max(query, positives):
            parts = tuple(Passage(passage.hash, w.text, w, _mark(w)) for w in split_window(passage.window))
            made.append(Smaller(replace(question, passages=parts), (passage.key,)))
        else:
            shorter.append(passage.key)
    if shorter:
        if query >= positives:
            question = replace(question, query=shorten(question.query, query // 2))
        else:
            halves = tuple(quote(text, max(1, len(text) // 2)) for text in question.positives)
            question = replace(question, positives=halves)
        made.append(Smaller(narrow(question, shorter), tuple(shorter)))
    return made


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
