"""The commit of a model that names none is asked of the hub once, and kept."""

from pathlib import Path
from typing import Any

import pytest

from flows.config.load import parse_config
from flows.curation.hub_models import pin_models, recorded_commit
from flows.curation.records import open_curation
from flows.curation.workspace import Hooks, Workspace
from infra.models.resolve import ModelError
from infra.settings import Settings
from infra.storage.store import Store
from tests.flows.curation.hub import ask_hub, serving

COMMIT = "c" * 40


def config(rows: str = "/rows.jsonl", **changes: Any) -> Any:
    tier = {"engine": {"kind": "vllm_reranker", "model": "hub:owner/model"}}
    return parse_config({"name": "mine", "source": {"path": rows}, "tiers": [tier], **changes}, "test")


def workspace(folder: Path, said: list[str]) -> Workspace:
    settings = Settings(
        store=str(folder / "store"),
        home=folder / "home",
        cache=folder / "cache",
        prefect_api_url=None,
        ray_address=None,
    )
    return Workspace(settings, Store.open(settings.store), Hooks(on_message=said.append))


def test_the_hub_is_asked_once_and_the_commit_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with serving({}) as hub:
        ask_hub(monkeypatch, hub.address)
        both = config(encoder={"model": "hub:owner/model"})
        pinned = pin_models(workspace(tmp_path, said), both)
        assert pinned.encoder.model == pinned.tiers[0].engine.model == f"hub:owner/model@{COMMIT}"
        assert pinned.model_copy(update={"encoder": both.encoder, "tiers": both.tiers}) == both
        hub.model_commit = "d" * 40  # somebody pushes
        assert pin_models(workspace(tmp_path, said), both) == pinned
        assert len(hub.asked) == 1
    assert said == [f"hub:owner/model: commit {COMMIT}, the newest one; recorded, and used from now on"]
    assert recorded_commit(Store.open(str(tmp_path / "store")), "owner/model") == COMMIT


def test_the_model_that_a_reranker_starts_from_is_pinned_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as hub:
        ask_hub(monkeypatch, hub.address)
        asked = config(train_reranker={"model": "hub:owner/model"})
        assert pin_models(workspace(tmp_path, []), asked).train_reranker.model == f"hub:owner/model@{COMMIT}"


def test_other_references_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_hub(monkeypatch, "http://127.0.0.1:9")
    tiers = [
        {"name": "a", "engine": {"model": f"hub:owner/model@{COMMIT}"}},
        {"name": "b", "engine": {"kind": "openai", "model": "hub-like"}},
    ]
    asked = config(tiers=tiers)
    assert pin_models(workspace(tmp_path, []), asked) == asked


def test_an_8_bit_model_is_pinned_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as hub:
        ask_hub(monkeypatch, hub.address)
        asked = config(tiers=[{"engine": {"model": "w8a8:hub:owner/model"}}])
        assert pin_models(workspace(tmp_path, []), asked).tiers[0].engine.model == f"w8a8:hub:owner/model@{COMMIT}"


def test_a_curation_keeps_the_commit_and_is_found_again_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "q", "positive": "p"}\n')
    said: list[str] = []
    with serving({}) as hub:
        ask_hub(monkeypatch, hub.address)
        made = open_curation(workspace(tmp_path, said), config(str(tmp_path / "rows.jsonl")), own_file=True)
    again = open_curation(workspace(tmp_path, said), config(str(tmp_path / "rows.jsonl")), own_file=True)
    assert (made.id, again.id) == ("mine-000001", "mine-000001")
    assert made.config.tiers[0].engine.model == again.config.tiers[0].engine.model == f"hub:owner/model@{COMMIT}"
    record = Store.open(str(tmp_path / "store")).read_json("curations/mine-000001/curation.json") or {}
    assert record["config"]["tiers"][0]["engine"]["model"] == f"hub:owner/model@{COMMIT}"


def test_offline_a_model_that_the_store_has_not_met_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_hub(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"write hub:owner/model@<commit>, the commit with its 40 digits"):
        pin_models(workspace(tmp_path, []), config())
    assert recorded_commit(Store.open(str(tmp_path / "store")), "owner/model") is None


def test_the_model_of_an_endpoint_is_nothing_of_a_hub(tmp_path: Path) -> None:
    far = {"kind": "openai_embeddings", "model": "hub:owner/model"}
    named = config(tiers=[], encoder=far, train=None)
    assert pin_models(workspace(tmp_path, []), named) is not None
    assert pin_models(workspace(tmp_path, []), named).encoder == named.encoder


def test_the_model_of_a_reranker_is_pinned_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as hub:
        ask_hub(monkeypatch, hub.address)
        asked = config(rescore={"engine": {"kind": "cross_encoder", "model": "hub:owner/model"}})
        pinned = pin_models(workspace(tmp_path, []), asked)
        ranking = config(reranker={"model": "hub:owner/model"})
        assert pin_models(workspace(tmp_path, []), ranking).reranker.model == f"hub:owner/model@{COMMIT}"
    assert pinned.rescore.engine.model == pinned.tiers[0].engine.model == f"hub:owner/model@{COMMIT}"
