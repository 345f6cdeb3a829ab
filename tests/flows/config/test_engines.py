"""The settings of the encoder and of the judges: their defaults, what is refused, what follows from the engine."""

from typing import Any

import pytest
from pydantic import ValidationError

from flows.config.engines import CrossEncoderConfig, EncoderConfig, TierConfig, VLLMConfig, tokens_read
from flows.config.load import parse_config
from infra.engines.specs import OpenAIEmbeddingsSpec
from infra.stages.part_keys import semantic
from tasks.prompts.prompt import load_prompt
from tests.flows.settings import config, refuse

OPENAI = {"model": "gpt-4o-2024-11-20"}


def tier(**changes: Any) -> TierConfig:
    return TierConfig.model_validate(changes)


def test_the_defaults_are_those_of_the_demo() -> None:
    assert EncoderConfig().model_dump() == {
        "kind": "sentence_transformers", "model": "package:minilm", "dtype": "float32", "max_seq_length": 256,
        "query_prompt": "", "passage_prompt": "", "similarity": None, "device": "cpu", "batch_size": 32,
        "threads": None,
    }  # fmt: skip
    assert VLLMConfig().model_dump() == {
        "kind": "vllm", "model": "package:qwen2.5-coder-1.5b-instruct", "dtype": "bfloat16", "max_model_len": 2048,
        "quantization": None, "device": "cpu", "tensor_parallel_size": 1, "gpu_memory_utilization": 0.9,
        "cpu_kvcache_gib": 1.0, "threads": None,
    }  # fmt: skip
    assert CrossEncoderConfig(model="m").model_dump() == {
        "kind": "cross_encoder", "model": "m", "dtype": "float32", "max_seq_length": 512, "activation": "sigmoid",
        "template": None, "query_prompt": "", "passage_prompt": "", "device": "cpu", "batch_size": 32, "threads": None,
    }  # fmt: skip
    assert (tier().name, tier().engines, tier().engine.kind) == ("llm", 1, "vllm")


def test_an_engine_without_a_kind_is_vllm() -> None:
    engine = tier(engine={"model": "path:/models/judge"}).engine
    assert (engine.kind, engine.model) == ("vllm", "path:/models/judge")


def test_a_cross_encoder_is_asked_by_its_own_protocol_without_saying_so() -> None:
    assert tier(engine={"kind": "cross_encoder", "model": "m"}).judge.protocol == "cross_encoder"


@pytest.mark.parametrize("kind", ["cross_encoder", "vllm_reranker"])
def test_an_instruction_reranker_is_told_the_definition_of_relevance(kind: str) -> None:
    asked = tier(engine={"kind": kind, "model": "m", "template": "qwen3"})
    assert (asked.judge.protocol, asked.judge.instructed) == ("cross_encoder", True)
    assert TierConfig.model_validate(asked.model_dump()) == asked
    plain = {"body": "{query} {document}"}
    assert tier(engine={"kind": kind, "model": "m", "template": plain}).judge.instructed is False
    own = tier(engine={"kind": kind, "model": "m", "template": "qwen3"}, judge={"instructed": False})
    assert own.judge.instructed is False
    with pytest.raises(ValidationError, match=r"judge.instructed: the engine's `template` has no place"):
        tier(engine={"kind": kind, "model": "m", "template": plain}, judge={"instructed": True})
    with pytest.raises(ValidationError, match="one of qwen3, mxbai expected"):
        tier(engine={"kind": kind, "model": "m", "template": "qwen4"})


def test_a_cross_encoder_without_a_template_has_the_keys_it_had() -> None:
    engine = CrossEncoderConfig(model="m")
    assert not {"template", "query_prompt", "passage_prompt"} & set(semantic(engine))
    asked = CrossEncoderConfig(model="m", query_prompt="query: ")
    assert semantic(asked)["query_prompt"] == "query: "
    with pytest.raises(ValidationError, match=r"nothing expected beside `template`"):
        CrossEncoderConfig.model_validate({"model": "m", "template": "qwen3", "query_prompt": "q"})


def test_a_prompt_that_begins_the_answer_needs_an_endpoint_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = load_prompt("yes_no").model_copy(update={"assistant": "The answer is"})
    monkeypatch.setattr("flows.config.engines.load_prompt", lambda name: begun)
    with pytest.raises(ValidationError, match=r"'yes_no' begins the answer .* set the engine's `continues`"):
        tier(engine={"kind": "openai", "model": "m"})
    assert tier(engine={"kind": "openai", "model": "m", "continues": "vllm"}).judge.prompt_name == "yes_no"
    assert tier().engine.kind == "vllm"


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": {"kind": "cross_encoder", "model": "m"}, "judge": {"protocol": "yes_no"}},
        {"judge": {"protocol": "cross_encoder"}},
    ],
)
def test_an_engine_that_cannot_be_asked_by_the_protocol_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="does not support protocol"):
        tier(**changes)


def test_batch_jobs_are_large_unless_the_configuration_says_otherwise() -> None:
    large = tier(engine={"kind": "openai_batch", **OPENAI})
    assert (large.judge.batch_size, large.escalate.pairs_per_part) == (100_000, 100_000)
    said = {"judge": {"batch_size": 10}, "escalate": {"pairs_per_part": 20}}
    small = tier(engine={"kind": "openai_batch", **OPENAI}, **said)
    assert (small.judge.batch_size, small.escalate.pairs_per_part) == (10, 20)
    single = tier(engine={"kind": "openai", **OPENAI})
    assert (single.judge.batch_size, single.escalate.pairs_per_part) == (256, 256)


@pytest.mark.parametrize(
    ("judge", "hint"),
    [
        ({"judge": "mine"}, "the judge is named after its engine and prompts"),
        ({"tier": "mine"}, "give the tier's `name`"),
        ({"engine": "mine"}, "give the tier's `engine`"),
        ({"policies": {"nq": {"skip": True}}}, "put `policies` beside `tiers`"),
    ],
)
def test_what_the_flow_sets_itself_is_refused_with_where_to_put_it(judge: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValidationError, match=f"judge.{next(iter(judge))} is set by the flow; {hint}"):
        tier(judge=judge)


@pytest.mark.parametrize("name", ["similarity", "cascade", "gold"])
def test_a_name_that_the_method_uses_itself_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"name '{name}' is taken"):
        tier(name=name)


@pytest.mark.parametrize("name", ["", "Llm", "1st", "a-b", "a" * 22])
def test_a_name_that_could_not_stand_in_a_stages_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="String should match pattern"):
        tier(name=name)
    assert tier(name="a" * 21).name == "a" * 21


@pytest.mark.parametrize(
    ("engine", "allowed", "refused"),
    [
        (EncoderConfig, {"max_seq_length": 8}, {"max_seq_length": 7}),
        (EncoderConfig, {"batch_size": 1}, {"batch_size": 0}),
        (EncoderConfig, {"threads": 1}, {"threads": 0}),
        (VLLMConfig, {"max_model_len": 128}, {"max_model_len": 127}),
        (VLLMConfig, {"tensor_parallel_size": 1}, {"tensor_parallel_size": 0}),
        (VLLMConfig, {"gpu_memory_utilization": 1.0}, {"gpu_memory_utilization": 1.01}),
        (VLLMConfig, {"gpu_memory_utilization": 0.01}, {"gpu_memory_utilization": 0.0}),
        (VLLMConfig, {"cpu_kvcache_gib": 0.1}, {"cpu_kvcache_gib": 0.0}),
        (VLLMConfig, {"threads": 1}, {"threads": 0}),
    ],
)
def test_sizes_have_bounds(engine: Any, allowed: dict[str, Any], refused: dict[str, Any]) -> None:
    engine.model_validate(allowed)
    with pytest.raises(ValidationError, match=next(iter(refused))):
        engine.model_validate(refused)


def test_a_tier_needs_an_engine() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        tier(engines=0)
    assert "tiers.0.engine" in refuse({"tiers": [{"engine": "gpt-4o"}]})


def test_how_fast_an_engine_works_is_in_no_key() -> None:
    fast = {"gpu_memory_utilization": 0.5, "cpu_kvcache_gib": 4.0}
    assert semantic(VLLMConfig.model_validate(fast)) == semantic(VLLMConfig())
    assert semantic(EncoderConfig(batch_size=1)) == semantic(EncoderConfig())
    assert semantic(EncoderConfig(max_seq_length=128)) != semantic(EncoderConfig())


def test_whether_scores_are_calibrated_is_for_the_flow_to_say() -> None:
    with pytest.raises(ValidationError, match=r"escalate\.calibrated is set by the flow"):
        tier(escalate={"calibrated": False})


def test_the_oracle_of_a_guarantee_is_the_tier_itself() -> None:
    assert tier(name="strong", escalate={"target": {"recall": 0.9, "of": "strong"}}).escalate.target is not None
    with pytest.raises(ValidationError, match=r"escalate\.target\.of: the tier itself, 'llm', expected, got 'strong'"):
        tier(escalate={"target": {"recall": 0.9, "of": "strong"}})


FAR = {"kind": "openai_embeddings", "model": "embed-1", "base_url": "http://127.0.0.1:9/v1"}


def test_an_encoder_without_a_kind_is_a_model_and_one_of_an_endpoint_is_its_spec() -> None:
    assert config().encoder == EncoderConfig()
    assert config(encoder={"model": "tiny:encoder"}).encoder == EncoderConfig(model="tiny:encoder")
    assert "kind" not in semantic(config().encoder)  # the keys of what is stored stay as they were
    far = config(encoder=FAR, train=None)
    assert far.encoder == OpenAIEmbeddingsSpec(model="embed-1", base_url="http://127.0.0.1:9/v1")
    assert parse_config(far.model_dump(mode="json"), "stored") == far
    beside = config(encoders={"far": FAR}, mine={"retrievers": ["dense", "far"]})
    assert beside.train is not None  # from the weights of the other encoder
    assert beside.all_encoders == {"encoder": EncoderConfig(), "encoders.far": far.encoder}


def test_an_endpoint_that_encodes_cannot_be_trained_from_and_its_settings_are_its_own() -> None:
    assert "training starts from weights, and the encoder is an endpoint" in refuse({"encoder": FAR})
    told = refuse({"encoder": {**FAR, "max_seq_length": 9}, "train": None})
    assert "unknown key 'encoder.max_seq_length'; known here: allow_plain_http, " in told
    assert "unknown key 'encoder.dimensions'" in refuse({"encoder": {"dimensions": 9}})
    assert "'openai_embeddings'" in refuse({"encoder": {"kind": "openai", "model": "m"}, "train": None})
    assert "no name, password or query" in refuse(
        {"encoder": {**FAR, "base_url": "https://me:secret@host/v1"}, "train": None}
    )


def test_what_decides_no_vector_stays_out_of_an_encoders_key() -> None:
    changes = {"batch_size": 3, "concurrency": 2, "timeout": 9, "api_key_env": "MY_KEY", "encoding_format": "float"}
    spec = OpenAIEmbeddingsSpec.model_validate(FAR)
    assert semantic(spec.model_copy(update=changes)) == semantic(spec)
    for change in ({"dimensions": 9}, {"query_prompt": "q"}, {"max_chars": 99}, {"model": "m"}, {"base_url": None}):
        assert semantic(spec.model_copy(update=change)) != semantic(spec)


def test_an_encoder_reads_so_many_tokens() -> None:
    assert tokens_read(EncoderConfig(max_seq_length=99)) == 99
    assert tokens_read(OpenAIEmbeddingsSpec(model="m", max_chars=4000)) == 1000
