"""The whole method with the vectors of a real endpoint on loopback: paid once, counted, and the same as any others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import infra.engines.openai_endpoint
from flows.config.prices import load_prices
from flows.config.section import ConfigError
from flows.method.curate import curate_method, ingest
from flows.method.retrieving import encode
from flows.method.setup import Setup
from flows.planning.encoding import plan_encoders
from flows.planning.expected_pairs import Prospects
from infra.engines.kinds import build_engine
from infra.engines.specs import OpenAIEmbeddingsSpec
from infra.execution.shared_engine import EngineThread, LentEngine
from infra.execution.usage_meter import Budget, Meter, Price
from infra.stages.part_keys import digest, semantic
from infra.stages.runner import Runner
from infra.storage.artifacts import Table, read_table
from tests.flows.ahead import Place
from tests.flows.fakes import InProcess
from tests.infra.misbehaving import SECRET, MisbehavingServer

PASSING = {"429": 0.02, "500": 0.01, "reset": 0.01, "no_choices": 0.01}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setattr(infra.engines.openai_endpoint, "_FIRST_DELAY", 0.01)


def _spec(server: MisbehavingServer, **changes: Any) -> OpenAIEmbeddingsSpec:
    settings = {"batch_size": 8, "max_retries": 30, "timeout": 20.0, "query_prompt": "query: ", **changes}
    return OpenAIEmbeddingsSpec(model="embed-1", base_url=server.url, **settings)


def _setup(place: Place, spec: OpenAIEmbeddingsSpec, **changes: Any) -> Setup:
    return replace(place.setup(**changes), encoder=spec, encoder_key=digest(semantic(spec)))


def _runner(
    place: Place, spec: OpenAIEmbeddingsSpec, meter: Meter | None = None, engine: Any = None
) -> tuple[Runner, InProcess]:
    meter = meter or Meter(Budget(), {})
    lent = engine or LentEngine(EngineThread(lambda: build_engine(spec)), meter, "encode_passages")
    executor = InProcess(place.store, place.scratch, encoder=lent)
    return Runner(place.store, executor), executor


def _encode(place: Place, spec: OpenAIEmbeddingsSpec, label: str = "", **how: Any) -> Runner:
    """Ingest and encode, and nothing after it."""
    run, _ = _runner(place, spec, **how)
    encode(run, ingest(run, _setup(place, spec)), spec, label)
    return run


def _failed(run: Runner) -> dict[str, str]:
    return {done.name: next(iter(done.failed.values())) for done in run.runs if done.failed}


def _candidates(run: Runner) -> pl.DataFrame:
    pieces = [p for done in run.runs if done.name == "mine" for m in done.manifests for p in m.tables["candidates"]]
    return read_table(run.store, Table("candidates", tuple(pieces)))


def test_a_curation_pays_for_each_text_once_and_its_second_run_asks_nothing(tmp_path: Path) -> None:
    place, meter = Place(tmp_path), Meter(Budget(), {"encode_passages": Price(input=2.0)})
    with MisbehavingServer(PASSING, seed=2) as server:
        spec = _spec(server)
        run, _ = _runner(place, spec, meter)
        curate_method(run, _setup(place, spec))
        asked, paid = len(server.calls), sum(len(text) // 4 + 1 for text in server.embedded)
        again, executor = _runner(place, spec, meter)
        curate_method(again, _setup(place, spec))
        assert len(server.calls) == asked
        assert set(server.embedded.values()) == {1}
        assert sum(text.startswith("query: where") for text in server.embedded) == 9  # those that are trained on
    assert _failed(run) == _failed(again) == {}
    assert executor.computed == []
    assert set(_candidates(run)["retriever"]) == {"dense"}
    used = meter.totals()["encode_passages"]
    assert used["prompt_tokens"] == paid
    assert used["money"] == pytest.approx(paid * 2.0 / 1e6)
    facts = [m.stats["facts"] for done in run.runs if done.name.startswith("encode") for m in done.manifests]
    assert sum(fact["prompt_tokens"] for fact in facts) == paid
    assert {fact["model"] for fact in facts} == {"embed-1-dated"}
    kept = b"".join(place.store.read(key) or b"" for key in place.store.list(""))
    assert SECRET.encode() not in kept


def test_other_parts_and_what_decides_no_vector_ask_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with MisbehavingServer() as server:
        _encode(place, _spec(server))
        asked, spec = len(server.calls), _spec(server, batch_size=3, encoding_format="float")
        run, executor = _runner(place, spec)
        cut = {"query_parts": 1, "passage_parts": 3, "known_split": "known"}
        encode(run, ingest(run, _setup(place, spec, ingest=cut)), spec)
        assert len([name for name in executor.computed if name.startswith("encode")]) == 4
        assert len(server.calls) == asked
        _encode(place, _spec(server, revision="new"))
        assert set(server.embedded.values()) == {2}


def test_a_failed_part_loses_no_vector_that_was_paid(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with MisbehavingServer() as server:
        bad = "the heron lives near the forest"
        server.raw = lambda body: (  # one text is refused, whatever it is sent with
            (400, "application/json", b'{"error": {"message": "not this one", "code": "content_filter"}}')
            if any(bad in text.lower() for text in body["input"]) else None
        )  # fmt: skip
        told = _failed(_encode(place, _spec(server)))
        assert list(told) == ["encode_passages"]
        assert "1 of 2" in told["encode_passages"]
        assert "heron-forest: refused: not this one" in told["encode_passages"]
        server.raw = None
        assert _failed(_encode(place, _spec(server))) == {}
        assert set(server.embedded.values()) == {1}


def test_a_budget_stops_between_shares_and_the_next_run_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with MisbehavingServer() as server:
        spec = _spec(server, batch_size=1, concurrency=1)
        run = _encode(place, spec, meter=Meter(Budget(tokens=300), {}))
        assert "budget: tokens" in _failed(run)["encode_passages"]
        assert 0 < len(server.embedded) < 48
        assert _failed(_encode(place, _spec(server))) == {}
        assert set(server.embedded.values()) == {1}


def test_parts_that_another_model_answered_are_not_mixed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with MisbehavingServer() as server:
        spec = _spec(server)
        lent = LentEngine(EngineThread(lambda: build_engine(spec)), Meter(Budget(), {}), "encode_passages")

        class Renamed:
            """The same endpoint, which names its model anew for queries."""

            noted = True

            def embed(self, texts: Any, role: str) -> Any:
                came = lent.embed(texts, role)
                if not self.noted:
                    _forget_model(place)
                return replace(came, model="embed-2") if role == "query" else came

        engine = Renamed()
        told = _failed(_encode(place, spec, engine=engine))
        assert list(told) == ["encode_queries"]
        assert "answered as 'embed-1-dated' before, and as 'embed-2' now" in told["encode_queries"]
        assert not [key for key in place.store.list("vectors") if "-query-" in key]
        engine.noted = False  # as in a store from before names were noted
        with pytest.raises(ConfigError, match=r"answered as 'embed-1-dated' and as 'embed-2'.*set encoder\.revision"):
            _encode(place, spec, engine=engine)


def _forget_model(place: Place) -> None:
    for key in place.store.list("vectors"):
        if "-model-" in key:
            place.store.delete(key)


def test_texts_that_are_too_long_for_the_endpoint_are_noted(tmp_path: Path) -> None:
    place, said = Place(tmp_path), list[str]()
    with MisbehavingServer(longest=80) as server:
        spec = _spec(server)
        run, _ = _runner(place, spec)
        run.on_note = said.append
        encode(run, ingest(run, _setup(place, spec)), spec, "far")
    assert _failed(run) == {}
    assert [done.name for done in run.runs[-2:]] == ["encode_passages-far", "encode_queries-far"]
    assert any(note.startswith("encoders.far: ") and "sent shorter" in note for note in said)


def test_a_plan_counts_what_is_paid_and_nothing_once_it_is(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with MisbehavingServer() as server:
        spec, prices = _spec(server), {"models": {"embed-1": {"input": 2.0, "output": 0}}}
        setup = _setup(place, spec, prices=prices)
        (plan,) = plan_encoders(Prospects(place.workspace, setup, {}), load_prices(setup.config))
        run = _encode(place, spec)
        sent = sum(len(text) for text in server.embedded)
        (known,) = plan_encoders(Prospects(place.workspace, setup, {}), load_prices(setup.config))
        runs = {done.name: done for done in run.runs}
        (finished,) = plan_encoders(Prospects(place.workspace, setup, runs), load_prices(setup.config))
        assert plan.requests is not None
        assert plan.requests <= len(server.calls) <= plan.requests + 2  # two parts of each kind
    assert (plan.encoder, plan.basis, plan.texts, plan.known) == ("encoder", "exact", 57, 0)
    assert plan.prompt_tokens == sent // 4
    assert plan.money == pytest.approx(plan.prompt_tokens * 2.0 / 1e6)
    for later in (known, finished):
        assert (later.texts, later.known, later.requests, later.prompt_tokens, later.money) == (57, 57, 0, 0, 0.0)
