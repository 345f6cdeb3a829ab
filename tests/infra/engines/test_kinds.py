"""One row for each kind of engine: what the process, the scheduler and the price list must know."""

import re
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from infra.engines.kinds import (
    KINDS,
    EngineKind,
    build_engine,
    environment,
    kind_of,
    on_gpu,
    origin_of,
    software_of,
)
from infra.engines.specs import (
    CrossEncoderSpec,
    EndpointSpec,
    OpenAIBatchSpec,
    OpenAISpec,
    ScoresSpec,
    SentenceTransformersSpec,
    VLLMSpec,
)
from infra.stages.part_keys import semantic


def vllm_spec(**changes: Any) -> VLLMSpec:
    return VLLMSpec(**{"model": "/models/judge", "digest": "d1", **changes})


def encoder_spec(**changes: Any) -> SentenceTransformersSpec:
    return SentenceTransformersSpec(**{"model": "/models/encoder", "digest": "e1", **changes})


def cross_encoder_spec(**changes: Any) -> CrossEncoderSpec:
    return CrossEncoderSpec(**{"model": "/models/cross-encoder", "digest": "c1", **changes})


LOCAL = [vllm_spec(), encoder_spec(), cross_encoder_spec()]


@pytest.mark.parametrize("spec", LOCAL, ids=lambda spec: spec.kind)
def test_a_spec_survives_json_and_its_kind_says_which_it_is(spec: BaseModel) -> None:
    assert kind_of(spec).spec.model_validate_json(spec.model_dump_json()) == spec


def test_every_engine_starts_offline_and_without_telemetry() -> None:
    for spec in LOCAL:
        variables = environment(spec)
        assert variables["HF_HUB_OFFLINE"] == "1"
        assert variables["HF_HUB_DISABLE_TELEMETRY"] == "1"
        assert variables["DO_NOT_TRACK"] == "1"
    assert environment(vllm_spec())["VLLM_NO_USAGE_STATS"] == "1"


def test_one_device_runs_in_one_process_and_several_in_children() -> None:
    assert environment(vllm_spec())["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment(vllm_spec(tensor_parallel_size=2))["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1"


def test_no_port_of_an_engine_is_on_another_address_than_loopback() -> None:
    for devices in (1, 2):
        assert environment(vllm_spec(tensor_parallel_size=devices))["GLOO_SOCKET_IFNAME"] == "lo"


def test_threads_are_left_to_ray_unless_they_are_given() -> None:
    assert "OMP_NUM_THREADS" not in environment(encoder_spec())
    assert environment(encoder_spec(threads=2))["OMP_NUM_THREADS"] == "2"


def test_the_threads_of_an_encoder_share_their_memory() -> None:
    assert environment(encoder_spec())["MALLOC_ARENA_MAX"] == "2"
    assert "MALLOC_ARENA_MAX" not in environment(vllm_spec())


def test_an_unknown_spec_is_refused_by_name() -> None:
    class Other(BaseModel):
        pass

    with pytest.raises(
        ValueError, match=r"engine's spec expected \(.*cross_encoder, .*vllm, vllm_reranker\), got Other"
    ):
        build_engine(Other())


@pytest.mark.parametrize("spec", LOCAL, ids=lambda spec: spec.kind)
def test_a_missing_model_folder_is_named(spec: VLLMSpec | SentenceTransformersSpec | CrossEncoderSpec) -> None:
    with pytest.raises(ValueError, match=re.escape(spec.model)):
        build_engine(spec)


def test_the_kinds_are_these_and_each_row_has_the_name_that_its_spec_gives() -> None:
    ours = {
        "vllm": ("answer", "model", False, False),
        "sentence_transformers": ("encode", "none", False, False),
        "cross_encoder": ("score", "none", False, False),
        "openai": ("answer", "vendor", True, False),
        "openai_batch": ("answer", "vendor", True, True),
        "scores": ("read", "none", False, False),
    }
    found = {name: (row.does, row.tokens, row.is_endpoint, row.jobs) for name, row in KINDS.items()}
    assert found.items() >= ours.items()


def test_a_file_with_verdicts_has_no_weights_and_builds_no_engine_and_its_path_is_in_no_key() -> None:
    spec = ScoresSpec(path="a.tsv")
    assert (kind_of(spec).is_file, kind_of(spec).has_weights, KINDS["vllm"].has_weights) == (True, False, True)
    assert semantic(spec) == semantic(ScoresSpec(path="b.tsv")) != semantic(ScoresSpec(path="a.tsv", scale="logit"))
    assert spec.model == "a.tsv"
    with pytest.raises(ValueError, match="the spec of an engine expected"):
        build_engine(spec)


def test_two_parts_share_an_actor_and_batch_jobs_as_many_as_run_at_a_time() -> None:
    rows = {name: KINDS[name] for name in ("openai", "openai_batch")}
    assert [rows["openai"].lanes(OpenAISpec(model="m")), rows["openai"].threads(OpenAISpec(model="m"))] == [2, 1]
    for parallel, lanes in ((1, 2), (8, 8)):
        spec = OpenAIBatchSpec(model="m", parallel=parallel)
        assert (rows["openai_batch"].lanes(spec), rows["openai_batch"].threads(spec)) == (lanes, lanes)


def test_an_engine_is_granted_the_gpus_it_spreads_over_and_an_endpoint_next_to_nothing() -> None:
    on_two = vllm_spec(device="cuda", tensor_parallel_size=2)
    assert (on_gpu(on_two), on_gpu(vllm_spec()), on_gpu(OpenAISpec(model="m"))) == (True, False, False)
    assert kind_of(on_two).resources(on_two) == {"num_gpus": 2.0}
    assert KINDS["cross_encoder"].resources(cross_encoder_spec(device="cuda")) == {"num_gpus": 1.0}
    assert KINDS["vllm"].resources(vllm_spec()) == {}
    assert KINDS["openai"].resources(OpenAISpec(model="m")) == {"num_cpus": 0.1}
    assert KINDS["openai_batch"].resources(OpenAIBatchSpec(model="m")) == {"num_cpus": 0.1, "deadline": 604_800.0}


def test_vllm_takes_its_cache_beside_the_weights_on_a_cpu_and_from_its_share_on_a_gpu() -> None:
    assert KINDS["vllm"].extra_bytes(vllm_spec(cpu_kvcache_gib=0.5)) == 2**29
    assert KINDS["vllm"].extra_bytes(vllm_spec(device="cuda")) == 0
    assert KINDS["cross_encoder"].extra_bytes(cross_encoder_spec()) == 0


def test_the_variable_of_the_key_is_named_by_endpoints_alone() -> None:
    assert KINDS["openai"].key_variable(OpenAISpec(model="m", api_key_env="JUDGE_KEY")) == "JUDGE_KEY"
    assert KINDS["vllm"].key_variable(vllm_spec()) == ""


class LikeVLLM(BaseModel):
    kind: str = "vllm"


def test_settings_that_are_like_a_spec_have_its_kind_but_build_no_engine() -> None:
    assert kind_of(LikeVLLM()) is KINDS["vllm"]
    with pytest.raises(ValueError, match=r"VLLMSpec\), got LikeVLLM"):
        build_engine(LikeVLLM())


class NewSpec(EndpointSpec):
    kind: Literal["new"] = "new"


class NewEngine:
    def __init__(self, spec: NewSpec) -> None:
        self.model = spec.model


def test_a_new_kind_of_endpoint_is_a_file_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = EngineKind(NewSpec, f"{__name__}:NewEngine", does="answer", tokens="vendor", num_cpus=0.5)
    monkeypatch.setitem(KINDS, row.name, row)
    spec = NewSpec(model="new-2026-01-01")
    assert build_engine(spec).model == "new-2026-01-01"
    assert (row.is_endpoint, row.lanes(spec), row.resources(spec)) == (True, 2, {"num_cpus": 0.5})
    assert environment(spec)["HF_HUB_OFFLINE"] == "1"


def test_the_origin_of_an_engine_names_its_packages_and_its_device() -> None:
    assert set(origin_of(encoder_spec()).software) == {
        "sentence-transformers", "torch", "transformers", "tokenizers", "numpy",
    }  # fmt: skip
    assert "vllm" in origin_of(vllm_spec()).software
    assert origin_of(cross_encoder_spec(device="cuda")).processor["device"] == "cuda"


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (OpenAISpec(model="gpt-4o"), "endpoint openai gpt-4o"),
        (
            OpenAIBatchSpec(model="m", base_url="https://api.example:8443/v1"),
            "endpoint openai_batch m at api.example:8443",
        ),
    ],
)
def test_the_origin_of_an_endpoint_names_its_model_and_its_address(spec: BaseModel, line: str) -> None:
    assert origin_of(spec).line == line
    assert (origin_of(spec).software, origin_of(spec).processor) == ({}, {})


def test_a_key_can_cover_the_packages_of_an_engine_and_the_kind_of_its_processor() -> None:
    found = software_of(vllm_spec(device="cuda"))
    assert set(found) == {"vllm", "torch", "transformers", "tokenizers", "processor"}
    assert found["processor"] == "cuda"
    assert semantic(vllm_spec()) == semantic(vllm_spec(software={}))
    assert "software" not in semantic(vllm_spec())
    assert semantic(vllm_spec(software=found))["software"] == found
