"""Counts the calls that a judge would send, by running it with an engine that answers nothing."""

import heapq
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from flows.planning.expected_pairs import Asked, Texts
from tasks.judging.calls import Call
from tasks.judging.config import JudgeConfig
from tasks.judging.judge import judge
from tasks.protocols import Ledger

SAMPLE = 200  # calls that are tokenised
_PAIRS_AT_ONCE = 20_000
_TEXTS_AT_ONCE = 200_000  # pairs whose texts are in memory
_NO_SCORE = -1.0  # is not read; one that is not a number would stand for a pair that is too long
_DIGITS = 8  # of a hash, enough to split queries evenly


@dataclass(frozen=True)
class Unanswered:
    """An empty answer, or one with only what the next question needs."""

    text: str = ""
    finish_reason: str = "error: only planned"
    logprobs: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    fingerprint: str = ""


@dataclass
class Census:
    """Counts calls and their characters, and keeps a sample; `known`: calls whose answers the ledger holds."""

    only_counts: ClassVar[bool] = True  # no answer means nothing of the judge
    calls: int = 0
    known: int = 0
    characters: int = 0
    sample: list[Call] = field(default_factory=list)

    def answer(self, requests: Sequence[Call]) -> list[Unanswered]:
        """Count calls. The sample holds those with the lowest ids; ids are hashes, so it is the same each time."""
        self.calls += len(requests)
        self.characters += sum(_length(call) for call in requests)
        self.sample = heapq.nsmallest(SAMPLE, [*self.sample, *requests], key=lambda call: call.call_id)
        return [_answer_to(call) for call in requests]

    def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> list[float]:
        """Count pairs that a cross-encoder would score."""
        self.calls += len(pairs)
        return [_NO_SCORE] * len(pairs)

    def scale_up(self, counts: Sequence[int]) -> float:
        """Estimate the tokens of all calls from those of the sample, in proportion to the characters."""
        characters = sum(_length(call) for call in self.sample)
        return sum(counts) * self.characters / characters if characters else 0.0


@dataclass(frozen=True)
class _ReadOnly:
    """The ledger, for reading only."""

    ledger: Ledger

    def recall(self, judge: str, entries: Mapping[str, str]) -> Mapping[str, str]:
        """Look entries up."""
        return self.ledger.recall(judge, entries)

    def remember(self, judge: str, rows: Sequence[tuple[str, Sequence[str], str]]) -> None:
        """Do nothing: a plan writes no answers."""

    def flush(self) -> None:
        """Do nothing: there is nothing to write."""


def take_census(config: JudgeConfig, asked: Asked, texts: Texts, ledger: Ledger) -> Census:
    """Count the first attempt at every open pair, all votes included.

    Only answers in the ledger count as read, so no vote and no order is left out. Estimated pairs are not looked up in
    the ledger: they were drawn at random.
    """
    census = Census()
    once = config.model_copy(update={"max_attempts": 1})
    tables = {"queries": texts.queries, "positives": texts.positives}
    lent = None if asked.basis == "estimated" else _ReadOnly(ledger)
    for share in _shares(asked.open, _TEXTS_AT_ONCE):
        labelled = texts.positives.join(share, on=["dataset", "query_id"], how="semi")
        passages = texts.passages.named_in(share, labelled)
        for pairs in _shares(share, _PAIRS_AT_ONCE):
            facts = judge(once, escalated=pairs, passages=passages, **tables, engine=census, ledger=lent)["facts"]
            census.known += facts["recalled"]
    return census


def _shares(pairs: pl.DataFrame, most: int) -> Iterator[pl.DataFrame]:
    """Split pairs into shares of about `most` that keep each query's pairs together."""
    count = math.ceil(pairs.height / most)
    share = pl.col("query_hash").str.head(_DIGITS).str.to_integer(base=16) % max(1, count)
    for number in range(count):
        yield pairs.filter(share == number)


def _answer_to(call: Call) -> Unanswered:
    """Answer a question for a snippet with the whole passage (the longest snippet), any other with nothing."""
    if "snippet" not in (call.schema or {}).get("properties", {}):
        return Unanswered()
    (passage,) = (p.text for p in call.question.passages if p.key in call.ids.values())
    return Unanswered(json.dumps({"snippet": passage}), "stop")


def _length(call: Call) -> int:
    return sum(len(message["content"]) for message in call.chat)
