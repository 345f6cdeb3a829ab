"""One engine for several parts: one thread talks to it, the meter counts, a broken engine is named."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from infra.engines.answers import Answer
from infra.execution.shared_engine import EngineBroken, EngineThread, LentEngine
from infra.execution.usage_meter import Budget, BudgetReached, Meter, Price


@dataclass
class Engine:
    """Takes a moment for each request, and remembers who called it and how many at a time."""

    trouble: Exception | None = None
    meeting: threading.Barrier | None = None  # so many requests wait for each other inside
    threads: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    inside: int = 0
    most: int = 0

    def answer(self, requests: Sequence[Any]) -> list[Answer]:
        self.threads.add(threading.get_ident())
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.meeting:
            self.meeting.wait(60)
        else:
            time.sleep(0.02)
        self.inside -= 1
        self.counts["retry_429"] += 1
        if self.trouble:
            raise self.trouble
        return [Answer("Yes", {}, "stop", prompt_tokens=10, cached_tokens=4, output_tokens=1) for _ in requests]


def lend(engine: Engine, meter: Meter, threads: int = 1) -> list[LentEngine]:
    shared = EngineThread(lambda: engine, threads)
    return [LentEngine(shared, meter, "judge-llm") for _ in range(3)]


def together(parts: list[LentEngine]) -> None:
    workers = [threading.Thread(target=part.answer, args=(["a", "b"],)) for part in parts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def test_one_thread_alone_talks_to_the_engine_one_batch_at_a_time() -> None:
    engine, meter = Engine(), Meter(Budget(), {})
    parts = lend(engine, meter)
    together(parts)
    assert (len(engine.threads), engine.most) == (1, 1)
    assert threading.get_ident() not in engine.threads
    assert 0.06 <= meter.totals()["judge-llm"]["seconds"] < 60
    assert meter.totals()["judge-llm"] | {"seconds": 0} == {
        "calls": 6, "prompt_tokens": 60, "cached_tokens": 24, "output_tokens": 6, "seconds": 0, "money": 0, "priced": 0,
    }  # fmt: skip
    assert all(part.facts["engine_counts"] == {"retry_429": 1} for part in parts)


def test_an_engine_that_allows_it_is_asked_several_times_at_once() -> None:
    engine = Engine(meeting=threading.Barrier(3))
    together(lend(engine, Meter(Budget(), {}), threads=3))
    assert engine.most == 3


def test_a_cross_encoder_is_given_instructions_only_where_there_are_any() -> None:
    class Scores:
        def score(self, pairs: Sequence[tuple[str, str]], *instructions: Sequence[str]) -> list[float]:
            return [float(len(instructions))] * len(pairs)

    meter = Meter(Budget(), {})
    lent = LentEngine(EngineThread(Scores, 1), meter, "judge-llm")
    assert lent.score([("query", "passage")] * 2) == [0.0, 0.0]
    assert lent.score([("query", "passage")], ["Find the proof."]) == [1.0]
    assert lent.used.calls == 3


def test_a_used_up_budget_stops_before_anything_is_asked() -> None:
    engine, meter = Engine(), Meter(Budget(tokens=20), {})
    part = lend(engine, meter)[0]
    part.answer(["a", "b"])
    with pytest.raises(BudgetReached, match="tokens 20 used up"):
        part.answer(["c"])
    assert engine.counts["retry_429"] == 1


@pytest.mark.parametrize(
    ("trouble", "raised"),
    [
        (RuntimeError("out of memory"), EngineBroken),
        (ValueError("no such model"), ValueError),
        (OSError("away"), OSError),
    ],
)
def test_what_no_request_explains_means_that_the_engine_is_broken(trouble: Exception, raised: type[Exception]) -> None:
    with pytest.raises(raised, match=str(trouble)):
        lend(Engine(trouble), Meter(Budget(), {}))[0].answer(["a"])


def test_what_an_endpoint_encodes_is_metered_and_stops_at_the_budget() -> None:
    class Paid:
        def embed(self, texts: Sequence[str], role: str) -> Any:
            return SimpleNamespace(calls=1, prompt_tokens=10 * len(texts))

    meter = Meter(Budget(tokens=20), {"encode_passages": Price(input=5.0)})
    part = LentEngine(EngineThread(Paid), meter, "encode_passages")
    part.embed(["a", "b"], "passage")
    used = meter.totals()["encode_passages"]
    assert (used["calls"], used["prompt_tokens"], used["money"]) == (1, 20, 20 * 5.0 / 1e6)
    with pytest.raises(BudgetReached, match="tokens 20 used up"):
        part.embed(["c"], "passage")
