"""What a night is measured by: its parts, its cost, who judged, and the mix of verdicts."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.curation.lookup import look_at
from flows.curation.prepare import prepare
from flows.curation.records import load_curation
from flows.results.night_metrics import answer_keys, cost, judge_ids, judging, mixes, part_names
from infra.stages.runner import StageRun
from infra.storage.artifacts import Manifest
from tests.flows.animals import tier
from tests.flows.nightly import ENDPOINT, Nights, sources
from tests.flows.settings import config

FACTS = {"calls": 3, "recalled": 2, "prompt_tokens": 1000, "cached_tokens": 400, "output_tokens": 50}


def manifest(stage: str, key: str, attempt: int = 0, **facts: Any) -> Manifest:
    return Manifest(stage, 1, 0, key, attempt, ingredients={}, tables={}, directories={}, stats={"facts": facts})


def stage_run(name: str, *manifests: Manifest) -> StageRun:
    return StageRun(name, len(manifests), 0, len(manifests), {}, 0, frozenset(), 0, 0.0, manifests)


ASKED = (
    stage_run("mine", manifest("mine", "m0")),
    stage_run(
        "judge-llm",
        manifest("judge", "b1", 2, **FACTS, engine_seconds=1.25),
        manifest("judge", "a1", **FACTS, engine_seconds=2.25),
    ),
    stage_run("judge-gold-llm", manifest("judge", "g1", **{**FACTS, "calls": 10})),
)


def test_parts_are_named_as_their_manifests_are_in_one_order() -> None:
    assert part_names(ASKED) == ["a1-000", "b1-002", "g1-000", "m0-000"]
    assert [run.name for run in judging(ASKED)] == ["judge-llm", "judge-gold-llm"]


def test_answers_about_the_data_are_those_of_no_gold_set_and_of_no_held_out_query() -> None:
    held_out = stage_run("judge-heldout-llm", manifest("judge", "h1", **FACTS))  # of `evaluate.pool`
    assert answer_keys((*ASKED, held_out)) == ["a1", "b1"]


def test_what_earlier_nights_paid_for_is_not_counted_again() -> None:
    settings = config(tiers=[tier()])
    everything = cost(settings, ASKED, frozenset())
    assert everything == {
        "calls": 16, "recalled": 6, "prompt_tokens": 3000, "cached_tokens": 1200, "output_tokens": 150,
        "gold_calls": 10, "engine_seconds": 3.5, "money": 0.0, "currency": "USD",
    }  # fmt: skip
    tonight = cost(settings, ASKED, frozenset({"a1-000", "b1-001"}))
    assert (tonight["calls"], tonight["gold_calls"], tonight["engine_seconds"]) == (13, 10, 1.2)


def test_money_is_summed_where_every_engine_has_a_price() -> None:
    priced = config(tiers=[tier() | {"engine": {"kind": "openai", "model": "m"}}],
                    prices={"models": {"m": {"input": 10, "cached_input": 5, "output": 100}}})  # fmt: skip
    # Each of three parts: 600 fresh tokens, 400 remembered by the vendor, 50 written.
    assert cost(priced, ASKED, frozenset())["money"] == pytest.approx(3 * (600 * 10 + 400 * 5 + 50 * 100) / 1e6)
    unknown = config(tiers=[tier() | {"engine": {"kind": "openai", "model": "m"}}], prices={"models": {}})
    assert cost(unknown, ASKED, frozenset())["money"] is None
    known = frozenset(part_names(ASKED))
    assert cost(unknown, ASKED, known)["money"] == 0.0  # nothing was asked, so nothing was paid


def test_hours_of_our_own_machines_cost_their_price() -> None:
    local = config(
        tiers=[tier() | {"engine": {"device": "cuda"}}], prices={"hours": {"cuda": 3600.0}, "currency": "EUR"}
    )
    found = cost(local, ASKED, frozenset())
    assert (found["money"], found["currency"]) == (3.5, "EUR")


def test_the_hours_of_a_reranker_cost_their_price_too() -> None:
    rescore = {"engine": {"kind": "cross_encoder", "model": "path:m", "device": "cuda"}}
    settings = config(tiers=[tier()], rescore=rescore, prices={"hours": {"cuda": 3600.0}})
    done = stage_run("rescore", manifest("rescore", "r1", **FACTS, engine_seconds=4.0))
    found = cost(settings, (*ASKED, done), frozenset())
    assert (found["calls"], found["gold_calls"], found["money"]) == (19, 10, 4.0)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Two nights of one source that grew."""
    nights = Nights(tmp_path_factory.mktemp("nights"))
    for source in sources(nights.folder, 4, 7):
        nights.curate(source)
        nights.sleep()
    return nights


def decided(nights: Nights, curation: str) -> StageRun:
    _, runs = look_at(nights.workspace, load_curation(nights.workspace.store, curation))
    return next(run for run in runs if run.name == "decide")


def total(states: Any) -> int:
    return sum(states.values())


def test_every_pair_is_new_in_the_first_night_and_only_the_added_ones_in_the_second(nights: Nights) -> None:
    store = nights.workspace.store
    first, second = decided(nights, "animals-000001"), decided(nights, "animals-000002")
    alone = mixes(store, first, ())
    assert set(alone.every) == {"similarity", "llm", "cascade"}
    assert alone.new is not None
    assert {tier: total(mix["states"]) for tier, mix in alone.new.items()} == dict.fromkeys(alone.every, first.rows)
    assert alone.new["cascade"]["states"] == alone.every["cascade"]
    grown = mixes(store, second, part_names([first]))
    assert grown.new is not None
    assert total(grown.every["cascade"]) == second.rows
    assert {total(mix["states"]) for mix in grown.new.values()} == {second.rows - first.rows}
    assert grown.new["llm"]["queries"] == (second.rows - first.rows) // 6  # six candidates for each query
    assert all(mix["effect"] >= 1.0 for mix in grown.new.values())
    same = mixes(store, second, part_names([second]))
    assert same.new is not None
    assert {tier: (mix["states"], mix["queries"], mix["effect"]) for tier, mix in same.new.items()} == dict.fromkeys(
        same.every, ({}, 0, 1.0)
    )


def test_where_the_earlier_nights_tables_are_gone_nobody_says_which_pairs_are_new(nights: Nights) -> None:
    store, second = nights.workspace.store, decided(nights, "animals-000002")
    assert mixes(store, second, ["purged-000"]).new is None
    assert mixes(store, second, ["purged-000"]).every == mixes(store, second, ()).every


def test_only_the_same_judge_by_the_same_method_is_compared(nights: Nights) -> None:
    workspace = nights.workspace
    curation = load_curation(workspace.store, "animals-000002")

    def ids(**changes: Any) -> dict[str, str]:
        source = Path(str(curation.config.source.path))
        other = type(curation)(curation.id, nights.config(source, **changes), curation.source)
        return judge_ids(prepare(workspace, other))

    usual = ids()
    assert set(usual) == {"similarity", "llm", "cascade"}
    assert ids(treatments=["default"], sample={"size": 3}, export={}) == usual  # they decide no label
    deeper = ids(mine={"range_max": 5, "num_negatives": 3})
    assert [tier for tier in usual if deeper[tier] != usual[tier]] == ["similarity", "cascade"]
    far = ids(tiers=[{**tier(), "engine": ENDPOINT}])
    assert [tier for tier in usual if far[tier] != usual[tier]] == ["similarity", "llm", "cascade"]
    assert len(set(usual.values())) == 3


def test_the_texts_of_pairs_tell_them_apart_whatever_their_ids(nights: Nights) -> None:
    store, first = nights.workspace.store, decided(nights, "animals-000001")
    pieces = [p for m in first.manifests for p in m.tables["decisions"]]
    pairs = pl.concat([pl.read_parquet(store.read(p.object) or b"") for p in pieces])
    assert pairs.select("dataset", "query_id", "doc_id").is_duplicated().sum() == 0
    assert total(mixes(store, first, ()).every["llm"]) == pairs.height


def test_what_an_endpoint_was_paid_for_vectors_is_part_of_a_nights_cost() -> None:
    far = {"kind": "openai_embeddings", "model": "m"}
    settings = {"encoder": far, "train": None, "tiers": [], "prices": {"models": {"m": {"input": 10, "output": 0}}}}
    encoded = (
        stage_run("encode_passages", manifest("encode_passages", "e1", calls=2, prompt_tokens=900, engine_seconds=1.5)),
        stage_run("encode_queries", manifest("encode_queries", "e2", remembered=9)),
    )
    found = cost(config(**settings), encoded, frozenset())
    assert (found["calls"], found["prompt_tokens"], found["engine_seconds"]) == (2, 900, 1.5)
    assert found["money"] == pytest.approx(900 * 10 / 1e6)
    assert cost(config(tiers=[]), encoded, frozenset())["calls"] == 0  # a model of our own
