"""Engines that cost nothing, of the same shape as the real ones, and an executor without Prefect and Ray."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from infra.execution.usage_meter import BudgetReached
from infra.provenance import Origin
from infra.stages.compute_part import compute_part
from infra.stages.runner import Failure, PartSpec
from infra.storage.artifacts import Manifest
from infra.storage.store import Store
from tasks.judging.calls import Call

_DIMENSION = 64


class HashEncoder:
    """Bags of hashed words: texts that share words are near each other."""

    def encode(self, texts: Sequence[str], role: str) -> pl.Series:
        vectors = np.zeros((len(texts), _DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, int(hashlib.md5(word.encode()).hexdigest(), 16) % _DIMENSION] += 1
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return pl.Series(vectors / np.maximum(norms, 1), dtype=pl.Array(pl.Float32, _DIMENSION))


@dataclass(frozen=True)
class FakeAnswer:
    text: str
    logprobs: Mapping[str, float]
    finish_reason: str = "length"
    prompt_tokens: int = 10
    cached_tokens: int = 0
    output_tokens: int = 1
    fingerprint: str = ""


class OverlapLLM:
    """Says Yes as far as the passage shares words with the known relevant text; says neither for one in sixteen."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.origin: Origin | None = None  # as an engine that is lent to a part has one

    def answer(self, requests: Sequence[Any]) -> Sequence[FakeAnswer]:
        contents = [request.chat[-1]["content"] for request in requests]
        self.asked += contents
        return [self.answer_to(content) for content in contents]

    def answer_to(self, content: str) -> FakeAnswer:
        if hashlib.md5(content.encode()).hexdigest()[0] == "0":
            return FakeAnswer("Maybe", {"Maybe": -0.01})
        known, passage = (
            set(re.findall(r"\w+", " ".join(re.findall(rf"<{tag}>(.*?)</{tag}>", content, re.DOTALL)).lower()))
            for tag in ("known_relevant", "passage")
        )
        share = min(0.99, max(0.01, len(known & passage) / max(1, len(passage))))
        return FakeAnswer("Yes", {"Yes": math.log(share), "No": math.log(1 - share)})


class Both(OverlapLLM):
    """Answers as `OverlapLLM`, and scores pairs as a reranker: by the length of the passage."""

    def __init__(self) -> None:
        super().__init__()
        self.scored: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> list[float]:
        self.scored += pairs
        return [len(passage) / 1000 for _, passage in pairs]


class ScriptedListwise:
    """A listwise judge whose opinion of each passage stands in the passage, as `weak=none strong=better`."""

    def __init__(self, tier: str) -> None:
        self.tier = tier
        self.asked: list[list[str]] = []

    def answer(self, requests: Sequence[Call]) -> Sequence[FakeAnswer]:
        return [self._answer(request) for request in requests]

    def _answer(self, call: Call) -> FakeAnswer:
        texts = {passage.hash: passage.text for passage in call.question.passages}
        self.asked.append([texts[passage] for passage in call.ids.values()])
        said = {id_: texts[passage].partition(f"{self.tier}=")[2].split()[0] for id_, passage in call.ids.items()}
        return FakeAnswer(json.dumps({"reasoning": "As scripted.", "verdicts": said}), {}, "stop", output_tokens=50)


class InProcess:
    """Computes parts here and now; a part whose stage refuses its input has failed. Judges by the model's name."""

    def __init__(
        self, store: Store, scratch: Path, judges: Mapping[str, object] | None = None, encoder: object | None = None
    ) -> None:
        self.store, self.scratch = store, scratch
        self._judges = judges or {}
        self.computed: list[str] = []
        self.llm = OverlapLLM()
        self._engines: dict[str | None, object] = {"encoder": encoder or HashEncoder(), "judge": self.llm, None: None}

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        results: dict[int, Manifest | Failure] = dict(finished)
        for spec in specs:
            if spec.number not in finished:
                self.computed.append(spec.name)
                engine = self._judges.get(getattr(spec.engine, "model", ""), self._engines[spec.stage.engine])
                try:
                    results[spec.number] = compute_part(self.store.url, spec, self.scratch, engine)
                except (ValueError, BudgetReached) as error:
                    results[spec.number] = Failure(str(error))
        return results
