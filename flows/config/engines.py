"""The settings of engines: the encoder, and the judges of the cascade (one tier each)."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import Field, model_validator

from flows.config.section import OPERATIONAL, Section
from infra.engines.kinds import KINDS, kind_of
from infra.engines.specs import EndpointSpec
from tasks.judging.cascade import EscalateConfig
from tasks.judging.config import JudgeConfig

_INSTEAD = {
    "judge": "the judge is named after its engine and prompts",
    "tier": "give the tier's `name`",
    "engine": "give the tier's `engine`",
    "policies": "put `policies` beside `tiers`: they hold for all of them",
}


class EncoderConfig(Section):
    """The embedding model: mining and the similarity judge use its vectors, and training starts from its weights.

    model: `hub:owner/name@commit` (all 40 digits), `path:folder`, or `package:minilm`.
    max_seq_length: tokens read of a text; the rest is cut.
    query_prompt, passage_prompt: put before each text of that role, as the model's card asks.
    batch_size: texts at once. dtype: of the weights. device: where it runs.
    """

    model: str = "package:minilm"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_seq_length: int = Field(256, ge=8)
    query_prompt: str = ""
    passage_prompt: str = ""
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = Field(32, ge=1, json_schema_extra=OPERATIONAL)
    threads: int | None = Field(None, ge=1, description="default: the CPUs that its parts get")


class VLLMConfig(Section):
    """A language model under vLLM.

    model: `hub:owner/name@commit`, `path:folder`, `path:file.gguf` or `package:…`; `w8a8:` in front quantises it.
    max_model_len: tokens of prompt and answer together.
    quantization: as vLLM names it; null takes what the model's own configuration says.
    dtype: of the weights. device: where it runs. gpu_memory_utilization: share of a GPU's memory taken.
    cpu_kvcache_gib: memory for the key-value cache on a CPU.
    """

    kind: Literal["vllm"] = "vllm"
    model: str = "package:qwen2.5-coder-1.5b-instruct"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    max_model_len: int = Field(2048, ge=128)
    quantization: str | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs per engine")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, json_schema_extra=OPERATIONAL)
    cpu_kvcache_gib: float = Field(1.0, gt=0, json_schema_extra=OPERATIONAL)
    threads: int | None = Field(None, ge=1, description="default: the CPUs that its parts get")


class CrossEncoderConfig(Section):
    """A cross-encoder under sentence-transformers, as a judge.

    model: `hub:owner/name@commit` or `path:folder`. max_seq_length: tokens read of a pair; the rest is cut.
    activation: turns the model's output into a probability; `none` if the output is one already.
    batch_size: pairs at once. dtype: of the weights. device: where it runs.
    """

    kind: Literal["cross_encoder"] = "cross_encoder"
    model: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_seq_length: int = Field(512, ge=8)
    activation: Literal["sigmoid", "none"] = "sigmoid"
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = Field(32, ge=1, json_schema_extra=OPERATIONAL)
    threads: int | None = Field(None, ge=1, description="default: the CPUs that its parts get")


# Settings of engines with weights: a reference to a model stands in place of the spec's folder and digest.
_WITH_WEIGHTS: dict[str, type[Section]] = {"vllm": VLLMConfig, "cross_encoder": CrossEncoderConfig}

if TYPE_CHECKING:
    EngineConfig = VLLMConfig | CrossEncoderConfig | EndpointSpec
else:  # every kind of infra.engines.kinds that can judge; the settings of an endpoint are its spec
    _JUDGES = [_WITH_WEIGHTS.get(name, kind.spec) for name, kind in KINDS.items() if kind.does != "encode"]
    EngineConfig = Annotated[Union[tuple(_JUDGES)], Field(discriminator="kind")]  # noqa: UP007 - made from a table


class TierConfig(Section):
    """One judge of the cascade, after similarity: its engine, its prompts, and which pairs it judges.

    name: any but `similarity`, `cascade` and `gold`. engines: how many run side by side.
    """

    name: str = Field("llm", pattern=r"^[a-z][a-z0-9_]{0,20}$", description="lower-case letters, digits, underscores")
    engine: EngineConfig = VLLMConfig()
    engines: int = Field(1, ge=1, json_schema_extra=OPERATIONAL)
    judge: JudgeConfig = JudgeConfig()
    escalate: EscalateConfig = EscalateConfig()

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """Fill in what follows from the engine: vLLM without a kind, the cross-encoder's protocol, large batch jobs."""
        if not isinstance(data, dict) or not isinstance(data.get("engine", {}), dict):
            return data
        engine = {"kind": "vllm", **data.get("engine", {})}
        judge, escalate = data.get("judge", {}), data.get("escalate", {})
        kind = KINDS.get(str(engine["kind"]))
        if kind is not None and kind.does == "score" and isinstance(judge, dict):
            judge = {"protocol": "cross_encoder", **judge}
        if kind is not None and kind.part_rows and isinstance(judge, dict) and isinstance(escalate, dict):
            # A job takes hours whatever its size, and one that was submitted is found again after a kill.
            judge = {"batch_size": kind.part_rows, **judge}
            escalate = {"pairs_per_part": kind.part_rows, **escalate}
        return {**data, "engine": engine, "judge": judge, "escalate": escalate}

    @model_validator(mode="after")
    def _engine_fits_protocol(self) -> Self:
        """Refuse a protocol that the engine does not support."""
        if (kind_of(self.engine).does == "score") != (self.judge.protocol == "cross_encoder"):
            raise ValueError(f"engine {self.engine.kind!r} does not support protocol {self.judge.protocol!r}")
        unset = JudgeConfig()
        for name in ("judge", "tier", "engine", "policies"):
            if getattr(self.judge, name) != getattr(unset, name):
                raise ValueError(f"judge.{name} is set by the flow; " + _INSTEAD[name])
        if self.name in ("similarity", "cascade", "gold"):
            raise ValueError(f"name {self.name!r} is taken")
        return self
