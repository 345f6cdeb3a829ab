"""What the engines of a configuration need of a node, and which nodes have too little of it."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from flows.operations.engine_needs import Engine, ask_encoders, engines_of, look_at_keys, too_large
from infra.cluster.nodes import Node, Probe
from infra.settings import Settings
from infra.stages.stage import Resources
from tests.flows.settings import config
from tests.infra.misbehaving import SECRET, MisbehavingServer

GIB = 2**30


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A model's folder whose weights take 2,000 bytes in 16 bits; the file holds the weights' places and no weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    head = json.dumps({"w": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2000]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    return f"path:{folder}"


def listed(tmp_path: Path, **changes: Any) -> tuple[dict[str, Engine], list[str]]:
    engines, problems = engines_of(config(**changes), tmp_path / "cache")
    return {engine.stage: engine for engine in engines}, [f"{p.what}: {p.remedy}" for p in problems]


def test_an_endpoint_needs_its_key_and_nothing_else(tmp_path: Path) -> None:
    far = {"name": "far", "engine": {"kind": "openai", "model": "m-2026", "api_key_env": "OUR_KEY"}}
    engines, problems = listed(tmp_path, tiers=[far])
    assert engines["judge-far"] == Engine("m-2026", "judge-far", key_variable="OUR_KEY")
    assert problems == []


def test_a_reranker_of_the_pool_is_an_engine_with_a_stage_of_its_own(tmp_path: Path, model: str) -> None:
    engines, _ = listed(tmp_path, rescore={"engine": {"kind": "cross_encoder", "model": model}})
    assert (engines["rescore"].reference, engines["rescore"].memory > 0) == (model, True)


def test_weights_that_are_not_here_yet_have_no_size(tmp_path: Path) -> None:
    engines, _ = listed(tmp_path)
    assert set(engines) == {"encode_passages", "judge-llm"}
    judge = engines["judge-llm"]
    assert (judge.path, judge.size, judge.memory, len(judge.digest)) == ("", 0, 0, 64)


def test_an_engine_needs_its_weights_as_they_are_loaded_and_on_the_cpu_its_cache(tmp_path: Path, model: str) -> None:
    tiers = [{"engine": {"model": model, "cpu_kvcache_gib": 2.0}}]
    engines, _ = listed(tmp_path, tiers=tiers, encoder={"model": model})
    judge = engines["judge-llm"]
    assert judge.size == sum(path.stat().st_size for path in (tmp_path / "model").iterdir())
    assert (judge.memory, engines["encode_passages"].memory) == (2000 + 2 * GIB, 4000)  # the encoder's in 32 bits
    assert (judge.gpu_share, judge.gpus, judge.path) == (0.0, 1, model.removeprefix("path:"))
    gpu = {"model": model, "device": "cuda", "tensor_parallel_size": 2, "gpu_memory_utilization": 0.5}
    judge = listed(tmp_path, tiers=[{"engine": gpu}])[0]["judge-llm"]
    assert (judge.memory, judge.gpu_share, judge.gpus) == (2000, 0.5, 2)


def test_a_model_of_a_hub_without_a_commit_is_told_and_is_an_engine(tmp_path: Path) -> None:
    engines, problems = listed(tmp_path, tiers=[{"engine": {"model": "hub:owner/model"}}])
    assert engines["judge-llm"] == Engine("hub:owner/model", "judge-llm")
    (told,) = problems
    assert told.startswith("model hub:owner/model: the first run asks the hub for its newest commit and records it")


@pytest.mark.parametrize("damaged", [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"{no}"])
def test_a_model_with_damaged_weights_is_a_problem_and_no_engine(tmp_path: Path, model: str, damaged: bytes) -> None:
    (tmp_path / "model" / "model.safetensors").write_bytes(damaged)
    engines, problems = listed(tmp_path, tiers=[{"engine": {"model": model}}])
    assert set(engines) == {"encode_passages"}
    assert problems[0].startswith(f"model {model}: ")


def test_a_model_that_cannot_be_used_is_a_problem_and_no_engine(tmp_path: Path) -> None:
    engines, problems = listed(tmp_path, tiers=[{"engine": {"model": f"path:{tmp_path}/nowhere"}}])
    assert "judge-llm" not in engines
    (problem,) = problems
    assert problem.startswith(f"model path:{tmp_path}/nowhere: ")


def test_a_stage_on_a_gpu_that_asks_for_none_is_told_with_its_setting(tmp_path: Path) -> None:
    _, problems = listed(tmp_path, encoder={"device": "cuda"}, train={"device": "cuda"})
    assert problems == [
        "resources of encode_passages: set `resources: {encode_passages: {num_gpus: 1}}`",
        "resources of encode_queries: set `resources: {encode_queries: {num_gpus: 1}}`",
        "resources of train: set `resources: {train: {num_gpus: 1}}`",
    ]
    granted = {"encode_passages": {"num_gpus": 1}, "encode_queries": {"num_gpus": 0.5}, "train": {"num_gpus": 0}}
    _, problems = listed(tmp_path, encoder={"device": "cuda"}, train={"device": "cuda"}, resources=granted)
    assert problems == ["resources of train: set `resources: {train: {num_gpus: 1}}`"]
    assert listed(tmp_path, train=None)[1] == []


def node(ip: str, memory: float = 0.0, gpus: tuple[float, ...] = (), *, silent: bool = False) -> Node:
    """A node with so many GiB of memory, and GPUs of so many GiB."""
    found = Probe(
        clock=0.0,
        store_problem="",
        sees_beacon=True,
        cache_problem="",
        free_disk=0,
        memory=round(memory * GIB),
        gpu_memory=tuple(round(gpu * GIB) for gpu in gpus),
        unset=(),
    )
    return Node("a" * 8, ip, {"CPU": 4.0, "GPU": float(len(gpus))}, found=None if silent else found)


def told(engine: Engine, *nodes: Node, num_gpus: float = 0.0) -> list[tuple[str, str, str]]:
    found = too_large(engine, Resources(num_gpus=num_gpus), nodes)
    return [(finding.state, finding.found, finding.remedy) for finding in found]


LOCAL = Engine("m", "judge-llm", memory=6 * GIB)  # 8 GiB with its process


def test_a_node_with_just_enough_memory_will_do() -> None:
    assert told(LOCAL, node("one", 8)) == [("ok", "8.0 GiB of memory needed", "")]
    less = 8 - 1 / GIB
    assert told(LOCAL, node("one", less)) == [
        ("missing", "8.0 GiB of memory needed, no node has it", "take a smaller model or dtype, or larger nodes")
    ]


def test_some_nodes_that_are_too_small_are_named_with_how_ray_passes_them_by() -> None:
    remedy = "give judge-llm `memory` under `resources`, so that Ray passes these nodes by"
    ((state, found, said),) = told(LOCAL, node("10.0.0.1", 4), node("10.0.0.2", 16))
    assert (state, said) == ("note", remedy)
    assert found == "8.0 GiB of memory needed; too small: node 10.0.0.1 (aaaaaaaa)"


def test_the_smallest_gpu_counts_times_those_that_share_the_weights() -> None:
    engine = Engine("m", "judge-llm", memory=18 * GIB, gpu_share=0.5, gpus=2)  # 20 GiB with the process
    assert told(engine, node("one", 1, (20, 40)), num_gpus=2)[0][0] == "ok"
    assert told(engine, node("one", 100, (19, 40)), num_gpus=2)[0][0] == "missing"
    assert told(engine, node("one", 100), num_gpus=2) == []  # Ray puts it on no node without GPUs


def test_nodes_that_did_not_answer_and_engines_of_unknown_size_are_passed_over() -> None:
    assert told(LOCAL, node("one", silent=True)) == []
    assert told(Engine("m", "judge-llm"), node("one", 1)) == []
    assert told(LOCAL, node("one", silent=True), node("two", 9))[0][0] == "ok"


def keys(
    tmp_path: Path, *engines: dict[str, Any], ray: str | None = None, **changes: Any
) -> list[tuple[str, str, str]]:
    """Look at the keys of a configuration with one tier for each endpoint."""
    tiers = [{"name": f"t{i}", "engine": {"kind": "openai", "model": "m", **one}} for i, one in enumerate(engines)]
    settings = Settings(tmp_path, "store", tmp_path, None, ray)
    return [(f.what, f.state, f.found) for f in look_at_keys(config(tiers=tiers, **changes), settings)]


def test_doctor_tells_which_variables_are_set_and_which_a_deployment_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RENEG_ALLOWED_KEYS", "OPENAI_API_KEY", "OUR_HOOK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPU_KEY", "something")
    gpu = {"base_url": "https://gpu.example/v1", "api_key_env": "GPU_KEY"}
    near = {"base_url": "http://127.0.0.1:8000/v1", "api_key_env": "NO_KEY"}
    found = keys(tmp_path, {}, gpu, near, notify={"webhook_env": "OUR_HOOK"})
    assert found == [
        ("OPENAI_API_KEY for tier t0", "missing", "not set here"),
        ("OPENAI_API_KEY once deployed", "ok", "may be sent to api.openai.com"),
        ("GPU_KEY for tier t1", "ok", "set here"),
        ("GPU_KEY once deployed", "note", "refused"),
        ("NO_KEY for tier t2", "note", "not set here; an endpoint on loopback gets none"),
        ("NO_KEY once deployed", "note", "refused"),
        ("OUR_HOOK for notify", "note", "not set here; `reneg deploy` needs it"),
    ]
    assert keys(tmp_path, {}, ray="head:6379")[0][1] == "note"  # the Ray nodes may have it
    monkeypatch.setenv("RENEG_ALLOWED_KEYS", "GPU_KEY@gpu.example")
    assert keys(tmp_path, gpu)[1] == ("GPU_KEY once deployed", "ok", "may be sent to gpu.example")


def test_an_endpoint_that_encodes_is_asked_for_one_word_and_its_key_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_KEY", SECRET)
    settings = Settings(tmp_path / "home", "store", tmp_path / "cache", None, None)
    with MisbehavingServer(key=SECRET) as server:
        far = {"kind": "openai_embeddings", "model": "m", "base_url": server.url, "api_key_env": "OUR_KEY"}
        own = config(encoder=far, tiers=[], train=None)
        (found,) = ask_encoders(own)
        assert (found.what, found.state) == ("encoder, m", "ok")
        assert found.found.startswith("answers as m-dated: 8 numbers, 2 tokens, ")
        assert [call.body["input"] for call in server.calls] == [["reneg"]]
        assert ("OUR_KEY for encoder", "ok") in [(f.what, f.state) for f in look_at_keys(own, settings)]
        engines, _ = listed(tmp_path, encoder=far, tiers=[], train=None)
        assert engines["encode_passages"] == Engine("m", "encode_passages", key_variable="OUR_KEY")
        server.key = "sk-another-key-0123"
        (found,) = ask_encoders(own)
        assert (found.state, found.found) == ("missing", "gave no vector")
        assert "check the key in the variable OUR_KEY" in found.remedy
        assert SECRET not in found.remedy
    (found,) = ask_encoders(config(encoder={**far, "base_url": "http://gpu.example/v1"}, tiers=[], train=None))
    assert (found.state, found.found) == ("missing", "cannot be asked")
    assert list(ask_encoders(config())) == []
