"""A part for the judge and a fake LLM to judge it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tasks.judging.calls import Call
from tasks.judging.config import JudgeConfig
from tasks.protocols import Request
from tasks.schemas import CANDIDATES
from tasks.texts import combine_hashes, hash_passage, hash_text


@dataclass(frozen=True)
class FakeAnswer:
    logprobs: Mapping[str, float]
    finish_reason: str = "length"
    text: str = "Yes"
    prompt_tokens: int = 10
    cached_tokens: int = 4
    output_tokens: int = 1
    fingerprint: str = ""


def says(finish_reason: str = "length", **probabilities: float) -> FakeAnswer:
    logprobs = {token: math.log(probability) for token, probability in probabilities.items()}
    return FakeAnswer(logprobs, finish_reason)


@dataclass
class FakeLLM:
    """Answers by the first substring that the chat holds; records what it was asked."""

    answers: Mapping[str, FakeAnswer]
    asked: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def answer(self, requests: Sequence[Request]) -> list[FakeAnswer]:
        contents = [request.chat[-1]["content"] for request in requests]
        self.asked += contents
        self.batches.append(len(contents))
        return [next(answer for part, answer in self.answers.items() if part in content) for content in contents]


def frames(pairs: Sequence[tuple[str, str, str]], positives: Mapping[str, Sequence[str]]) -> dict[str, pl.DataFrame]:
    """Tables of (query, doc_id, text) pairs and each query's positive texts; a query's text is its id and "?"."""
    docs = {doc_id: text for _, doc_id, text in pairs}
    labelled = [(q, f"{q}-p{n}", text) for q, texts in positives.items() for n, text in enumerate(texts)]
    docs |= {doc_id: text for _, doc_id, text in labelled}
    hashes = {q: combine_hashes(sorted(hash_passage("", text) for text in texts)) for q, texts in positives.items()}
    return {
        "escalated": pl.DataFrame(
            [
                ("d", q, doc_id, hash_passage("", text), hash_text(f"{q}?"), hashes[q], "dense", 1, 0.5)
                for q, doc_id, text in pairs
            ],
            schema=CANDIDATES.columns,
            orient="row",
        ),
        "queries": pl.DataFrame(
            [("d", q, f"{q}?", hash_text(f"{q}?"), "train") for q in positives],
            schema=["dataset", "query_id", "text", "text_hash", "split"],
            orient="row",
        ),
        "passages": pl.DataFrame(
            [("d", doc_id, "", text, hash_passage("", text)) for doc_id, text in docs.items()],
            schema=["dataset", "doc_id", "title", "text", "text_hash"],
            orient="row",
        ),
        "positives": pl.DataFrame(
            [("d", q, doc_id, hash_passage("", text), "label") for q, doc_id, text in labelled],
            schema=["dataset", "query_id", "doc_id", "text_hash", "source"],
            orient="row",
        ),
    }


Opinion = Callable[[Call, str], str]


@dataclass
class Listwise:
    """A listwise judge: `opinion` says what it thinks of a passage's text in a call."""

    opinion: Opinion
    asked: list[Call] = field(default_factory=list)

    def answer(self, requests: Sequence[Any]) -> list[FakeAnswer]:
        self.asked += requests
        return [FakeAnswer({}, "stop", json.dumps({"verdicts": self._say(call)})) for call in requests]

    def _say(self, call: Call) -> dict[str, str]:
        texts = {passage.key: passage.text for passage in call.question.passages}
        return {id_: said for id_, h in call.ids.items() if (said := self.opinion(call, texts[h]))}


class Memory:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {}
        self.subjects: list[Sequence[str]] = []

    def recall(self, judge: str, entries: Mapping[str, str]) -> Mapping[str, str]:
        return {entry: self.rows[judge][entry] for entry in entries if entry in self.rows.get(judge, {})}

    def remember(self, judge: str, rows: Sequence[tuple[str, Sequence[str], str]]) -> None:
        self.rows.setdefault(judge, {}).update({entry: payload for entry, _, payload in rows})
        self.subjects += [subjects for _, subjects, _ in rows]

    def flush(self) -> None:
        pass


def config(**changes: Any) -> JudgeConfig:
    return JudgeConfig.model_validate({"judge": "fake:0/1", "protocol": "listwise", **changes})


def states(result: dict[str, Any]) -> dict[str, str]:
    return dict(result["verdicts"].select("doc_id", "state").iter_rows())
