"""A whole curation whose judge is a real endpoint that misbehaves: it ends complete, and every failure is counted."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.method.curate import curate_method
from flows.method.setup import Tier
from infra.engines.kinds import build_engine
from infra.engines.specs import OpenAIBatchSpec, OpenAISpec
from infra.execution.shared_engine import EngineThread, LentEngine
from infra.execution.usage_meter import Budget, Meter, Price
from infra.stages.runner import Runner
from infra.storage.artifacts import Table, read_table
from infra.storage.store import Store
from tests.flows.animals import make_setup, tier, write_source
from tests.flows.fakes import InProcess
from tests.infra.misbehaving import LASTING as LASTING_KINDS
from tests.infra.misbehaving import MisbehavingServer, as_json

PASSING = {"429": 0.1, "500": 0.05, "503": 0.03, "reset": 0.03, "bad_json": 0.03, "no_choices": 0.02, "hang": 0.01}
LASTING = {"refusal": 0.04, "content_filter": 0.03, "garbage": 0.04, "truncated": 0.03, "null_content": 0.02}


def run_with(
    tmp_path: Path, spec: OpenAISpec, judge: Mapping[str, Any], tokens: int | None = None
) -> tuple[Runner, Meter]:
    store = Store.open(str(tmp_path / "store"))
    meter = Meter(Budget(tokens=tokens), {"judge-llm": Price(input=1.0, output=2.0)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-a-secret-of-the-test")
        lent = LentEngine(EngineThread(lambda: build_engine(spec)), meter, "judge-llm")
        run = Runner(store, InProcess(store, tmp_path / "scratch", {spec.model: lent}))
        source = tmp_path / "source"
        setup = make_setup(store, source if source.exists() else write_source(source), tiers=[tier(judge=dict(judge))])
        # Named without its address: the port is another one each time, and the ids in listwise prompts follow the name.
        named = Tier.of(setup.config.tiers[0], setup.config, spec.model_copy(update={"base_url": None}), spec.model)
        curate_method(run, replace(setup, tiers=(replace(named, engine=spec),)))
    return run, meter


def table(run: Runner, stage: str, name: str) -> pl.DataFrame:
    manifests = next(r for r in run.runs if r.name == stage).manifests
    return read_table(run.store, Table(name, tuple(p for m in manifests for p in m.tables[name])))


def check_complete(run: Runner) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """Every escalated pair has one verdict, nothing failed, and unparsed means a failure that was counted."""
    assert {r.name: r.failed for r in run.runs if r.failed and r.name != "complete"} == {}
    verdicts, asked = table(run, "judge-llm", "verdicts"), table(run, "escalate-llm", "escalated")
    pairs = ["dataset", "query_id", "doc_id"]
    assert sorted(verdicts.select(pairs).rows()) == sorted(asked.select(pairs).rows())
    facts = [m.stats["facts"] for r in run.runs if r.name == "judge-llm" for m in r.manifests]
    assert sum(f["unparsed"] for f in facts) == (verdicts["state"] == "unparsed").sum()
    return verdicts, facts


def total(facts: list[dict[str, Any]], name: str) -> Counter[str]:
    return sum((Counter(f.get(name, {})) for f in facts), Counter())


def lasting_troubles(server: MisbehavingServer) -> Counter[str]:
    """Count the prompts that can never be answered well, each once, however often a busy machine made it be sent."""
    contents = {call.body["messages"][-1]["content"] for call in server.calls}
    return Counter(kinds[0] for content in contents if (kinds := server._pick(LASTING_KINDS, content, 0)))


@pytest.mark.parametrize("protocol", ["yes_no", "listwise"])
def test_a_run_against_a_misbehaving_endpoint_ends_complete_with_every_failure_counted(
    tmp_path: Path, protocol: str
) -> None:
    with MisbehavingServer({**PASSING, **LASTING}, seed=3, hang=30.0) as server:
        spec = OpenAISpec(model="judge-2026-01-01", base_url=server.url, timeout=4.0, max_retries=8)
        run, _ = run_with(tmp_path, spec, {"protocol": protocol, "per_call": 3, "batch_size": 16, "max_attempts": 1})
        served, lasting = Counter(server.counts), lasting_troubles(server)
    verdicts, facts = check_complete(run)
    assert set(verdicts["state"]) > {"unparsed"}
    counted = total(facts, "engine_counts")
    assert sum(n for name, n in counted.items() if name.startswith("retry_")) >= sum(served[name] for name in PASSING)
    failures = total(facts, "failures")
    refused = lasting["refusal"] + lasting["content_filter"]
    assert failures["refused"] == refused if protocol == "yes_no" else failures["refused"] >= refused
    # One token is a whole answer to Yes or No; of a listwise call every passage counts.
    assert sum(failures.values()) >= sum(lasting[name] for name in LASTING if name != "truncated")


def test_a_batch_run_that_loses_doubles_and_expires_rows_ends_complete(tmp_path: Path) -> None:
    fates = ("expired", "missing", "doubled", "unknown", "failed", "cancelled", "no_output")
    with MisbehavingServer(fates=fates, seed=1) as server:
        spec = OpenAIBatchSpec(
            model="judge-2026-01-01", base_url=server.url, requests_per_batch=5, poll_seconds=0.02, max_rounds=6
        )
        run, _ = run_with(tmp_path, spec, {"batch_size": 64})
        assert max(server.paid.values()) <= 2
    _, facts = check_complete(run)
    counted = total(facts, "engine_counts")
    assert counted["missing_row"] > 0
    assert counted["doubled_row"] > 0


def test_a_budget_stops_between_batches_and_the_next_run_goes_on_without_paying_twice(tmp_path: Path) -> None:
    judge = {"batch_size": 4}
    with MisbehavingServer() as server:
        spec = OpenAISpec(model="judge-2026-01-01", base_url=server.url)
        clean, _ = run_with(tmp_path / "clean", spec, judge)
        asked = len(server.calls)
    tokens = sum(m.stats["facts"]["prompt_tokens"] for r in clean.runs if r.name == "judge-llm" for m in r.manifests)
    with MisbehavingServer() as server:
        spec = OpenAISpec(model="judge-2026-01-01", base_url=server.url)
        stopped, meter = run_with(tmp_path / "store-a", spec, judge, tokens // 2)
        reason = next(r for r in stopped.runs if r.name == "judge-llm").failed
        assert all("budget: tokens" in text for text in reason.values())
        used = meter.totals()["judge-llm"]
        assert tokens // 2 <= used["prompt_tokens"] + used["output_tokens"] < tokens // 2 + tokens // 4
        assert 0 < len(server.calls) < asked
        resumed, _ = run_with(tmp_path / "store-a", spec, judge)
        check_complete(resumed)
        assert len(server.calls) == asked
        assert max(server.paid.values()) == 1


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (as_json({"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], "msg": "no"}]}, 422),
         "extra_forbidden: max_completion_tokens: no.*`max_tokens_field: max_tokens`"),
        (as_json({"choices": [{"message": {"content": "Yes"}, "finish_reason": "length", "logprobs": None}]}),
         "the endpoint gives no log-probabilities.*`protocol: listwise`"),
        (as_json({"error": {"message": "Rate limit exceeded: free-models-per-day", "code": 429}}),
         "free-models-per-day.*run again"),
    ],
    ids=["refuses_a_field", "without_logprobs", "error_in_200"],
)  # fmt: skip
def test_a_fault_of_every_request_is_met_by_one_part_and_fails_every_part_of_the_judge_with_its_remedy(
    tmp_path: Path, reply: tuple[int, str, bytes], told: str
) -> None:
    with MisbehavingServer(raw=lambda body: reply) as server:
        spec = OpenAISpec(model="judge-2026-01-01", base_url=server.url)
        run, _ = run_with(tmp_path, spec, {})
        asked = server.counts["raw"]
    judged = next(r for r in run.runs if r.name == "judge-llm")
    assert (judged.computed, len(judged.failed)) == (0, judged.parts)
    assert judged.parts > 1
    assert 1 <= asked <= 12  # a first part of six pairs, and its second attempt where the first proved nothing
    assert all(re.search(told, reason) for reason in judged.failed.values())


def test_money_is_counted_from_the_tokens_that_were_really_used(tmp_path: Path) -> None:
    with MisbehavingServer() as server:
        spec = OpenAISpec(model="judge-2026-01-01", base_url=server.url)
        _, meter = run_with(tmp_path, spec, {})
    used = meter.totals()["judge-llm"]
    fresh = used["prompt_tokens"] - used["cached_tokens"]
    cost = (fresh + used["cached_tokens"] + 2.0 * used["output_tokens"]) / 1e6
    assert used["money"] == pytest.approx(cost)
    assert used["calls"] == len(server.calls)
