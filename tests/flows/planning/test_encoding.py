"""What encoding by endpoints will cost; tests/flows/method/test_embeddings.py compares it with a real run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.curation import BudgetConfig
from flows.config.prices import load_prices
from flows.planning.encoding import EncoderPlan, scale_up
from flows.planning.plan import compare_with_budget
from infra.engines.specs import OpenAIEmbeddingsSpec
from infra.ledger.vectors import Vectors
from infra.stages.part_keys import digest, semantic
from infra.stages.runner import StageRun
from infra.storage.artifacts import Manifest
from tasks.texts import hash_text
from tests.flows.ahead import Place, configure, make_plan, make_workspace
from tests.flows.animals import write_source

FAR = {"kind": "openai_embeddings", "model": "text-embedding-3-small", "max_chars": 40, "passage_prompt": "p: "}


def _plan(tmp_path: Path, **encoder: Any) -> Any:
    source = tmp_path / "source"
    source = source if source.exists() else write_source(source)
    workspace = make_workspace(tmp_path, tmp_path / "empty")
    return make_plan(workspace, configure(source, encoder={**FAR, **encoder}, tiers=[]))


def test_texts_are_counted_with_their_prompts_and_cut_where_they_are_sent(tmp_path: Path) -> None:
    plan = _plan(tmp_path, batch_size=10)
    (encoder,) = plan.encoders
    queries = [
        f"where does the {animal} live" for animal in ("otter heron lynx beaver raven viper hare boar stork".split())
    ]
    assert (encoder.texts, encoder.known, encoder.requests) == (48 + 9, 0, 5 + 1)
    assert encoder.prompt_tokens == (48 * 43 + sum(map(len, queries))) // 4
    assert encoder.money == pytest.approx(encoder.prompt_tokens * 0.02 / 1e6)
    assert encoder.hours is None
    assert "tokens estimated from characters (4 per token)" in encoder.notes
    assert plan.as_json()["encoders"][0]["texts"] == 57


def test_remembered_vectors_are_known_and_a_model_without_a_price_is_told(tmp_path: Path) -> None:
    spec = OpenAIEmbeddingsSpec.model_validate({**FAR, "model": "mine"})
    workspace = make_workspace(tmp_path, tmp_path / "empty")
    (unpriced,) = _plan(tmp_path, model="mine").encoders
    assert unpriced.money is None
    assert "money: no price for mine in flows/config/prices.yaml" in unpriced.notes
    hashes = [hash_text("where does the otter live"), hash_text("where does the heron live")]
    with Vectors(workspace.store, digest(semantic(spec)), 1) as vectors:
        rows = {"text_hash": hashes, "vector": pl.Series([[1.0], [1.0]], dtype=pl.Array(pl.Float32, 1))}
        vectors.remember("query", pl.DataFrame(rows))
    (known,) = _plan(tmp_path, model="mine").encoders
    assert (known.texts, known.known) == (57, 2)


def test_a_source_that_cannot_be_read_is_no_plan(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "rows.jsonl").write_text("")
    (plan,) = _plan(tmp_path).encoders
    assert plan.basis == "unknown"
    assert plan.notes


def test_what_encoding_costs_counts_against_the_budget() -> None:
    paid = EncoderPlan("encoder", "exact", texts=9, prompt_tokens=1000, money=2.0)
    assert list(compare_with_budget(BudgetConfig(tokens=500, money=3.0), [paid])) == [
        "budget.tokens: 500 are used up after about 50% of 1,000; the run would stop there and can be continued",
        "budget.money: 3 are enough for 2",
    ]
    assert list(compare_with_budget(BudgetConfig(hours=1.0), [paid])) == [
        "budget.hours: 1 cannot be compared while an encoder's hours are unknown"
    ]


def _encoded(stage: str, rows: int, **facts: Any) -> StageRun:
    manifest = Manifest(stage, 1, 0, "k", 0, ingredients={}, tables={}, directories={}, stats={"facts": facts})
    return StageRun(stage, 1, 0, 1, {}, 0, frozenset(), rows, 0.0, (manifest,))


def test_a_previews_texts_stand_for_the_whole(tmp_path: Path) -> None:
    setup = Place(tmp_path).setup(encoder={**FAR, "batch_size": 10}, tiers=[])
    setup = replace(setup, encoder=setup.config.encoder)
    stages = {
        "encode_passages": _encoded("encode_passages", 100, encoded=80, remembered=20, prompt_tokens=800),
        "encode_queries": _encoded("encode_queries", 5, encoded=5, prompt_tokens=20),
    }
    (plan,) = scale_up(setup, load_prices(setup.config), stages, {"passage": 1100, "query": 5})
    assert (plan.basis, plan.texts, plan.known, plan.requests) == ("estimated", 1105, 105, 100)
    assert plan.prompt_tokens == 10_000
    assert plan.money == pytest.approx(10_000 * 0.02 / 1e6)
    assert scale_up(setup, load_prices(setup.config), {}, {"passage": 1100, "query": 5}) == ()  # nothing was mined
    stages["encode_passages"] = _encoded("encode_passages", 100, remembered=100)
    (unknown,) = scale_up(setup, load_prices(setup.config), stages, {"passage": 1100, "query": 5})
    assert (unknown.requests, unknown.prompt_tokens) == (100, None)
