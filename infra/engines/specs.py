"""Engines that are costly to build: what they are made of, what their process needs, and how one is built."""

import importlib
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

# A setting that does not decide the content of what the engine answers: it stays out of the keys.
_OPERATIONAL: dict[str, Any] = {"operational": True}

# Set before the worker's process starts: each of these is read when its library is imported.
_QUIET_AND_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True)


class _Spec(_Base):
    """What every engine with weights of its own has.

    model: folder of the weights, as safetensors, with the tokenizer; a path, so not in the key.
    digest: digest of that folder's content, which is.
    device: where it runs.
    threads: OpenMP threads; None leaves it to Ray, which sets them to the actor's `num_cpus`.
    """

    model: str = Field(json_schema_extra=_OPERATIONAL)
    digest: str
    device: Literal["cpu", "cuda"] = Field("cpu", json_schema_extra=_OPERATIONAL)
    threads: int | None = Field(None, ge=1, json_schema_extra=_OPERATIONAL)


class VLLMSpec(_Spec):
    """A language model under vLLM, in process on one device.

    quantization: as vLLM names it; None takes what the model's own configuration says.
    head_dtype: precision of the last layer; bfloat16 logits come in steps of 1/8, so scores would tie by the dozen.
    max_model_len: tokens of prompt and answer together.
    tensor_parallel_size: devices; more than one costs child processes.
    gpu_memory_utilization: share of a GPU's memory taken; on a CPU `cpu_kvcache_gib` says it.
    cpu_kvcache_gib: memory for the key-value cache on a CPU.
    max_num_seqs, max_num_batched_tokens: the most prompts and tokens in one step.
    block_size: tokens per cache block, the grain in which prompts share a prefix; None is vLLM's own (128 on a CPU).
    enforce_eager: no compilation; it costs a minute at each start on a CPU and saves little there.
    """

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    head_dtype: Literal["float32", "model"] = "float32"
    quantization: str | None = None
    max_model_len: int = Field(2048, ge=64)
    seed: int = Field(0, ge=0)
    tensor_parallel_size: int = Field(1, ge=1, json_schema_extra=_OPERATIONAL)
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, json_schema_extra=_OPERATIONAL)
    cpu_kvcache_gib: float = Field(1.0, gt=0, json_schema_extra=_OPERATIONAL)
    max_num_seqs: int = Field(64, ge=1, json_schema_extra=_OPERATIONAL)
    max_num_batched_tokens: int = Field(2048, ge=64, json_schema_extra=_OPERATIONAL)
    block_size: int | None = Field(32, ge=16, multiple_of=16, json_schema_extra=_OPERATIONAL)
    enforce_eager: bool = Field(True, json_schema_extra=_OPERATIONAL)


class SentenceTransformersSpec(_Spec):
    """An embedding model under sentence-transformers; a longer text is cut at `max_seq_length` tokens.

    query_prompt, passage_prompt: put before each text of that role.
    """

    kind: Literal["sentence_transformers"] = "sentence_transformers"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_seq_length: int = Field(256, ge=8)
    query_prompt: str = ""
    passage_prompt: str = ""
    batch_size: int = Field(32, ge=1, json_schema_extra=_OPERATIONAL)


class CrossEncoderSpec(_Spec):
    """A cross-encoder under sentence-transformers; a longer pair is cut at `max_seq_length` tokens.

    activation: makes a probability of the model's output; `none` where the model gives one itself.
    """

    kind: Literal["cross_encoder"] = "cross_encoder"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_seq_length: int = Field(512, ge=8)
    activation: Literal["sigmoid", "none"] = "sigmoid"
    batch_size: int = Field(32, ge=1, json_schema_extra=_OPERATIONAL)


class OpenAISpec(_Base):
    """Any OpenAI-compatible endpoint, Azure's included.

    model: the dated name the endpoint knows it by. revision: a word of the user's own, for what the name does not tell.
    base_url: None for the vendor's default. api_version: given, the endpoint is Azure's.
    api_key_env: the variable that holds the key, read in the worker; the key itself is never in a spec.
    structured: how an answer's schema is enforced. max_tokens_field: what the endpoint calls the limit.
    temperature, seed: None leaves it out, for models that refuse it. extra_body: further fields of the request.
    concurrency: requests in flight, over all engines of this process that share the key.
    requests_per_minute, tokens_per_minute: limits over all engines of the cluster that share the key; None for none.
    timeout: seconds for one request. max_retries: further tries of a request that may succeed later.
    """

    kind: Literal["openai"] = "openai"
    model: str = Field(min_length=1)
    revision: str = ""
    base_url: str | None = None
    api_version: str | None = None
    seed: int | None = 0
    temperature: float | None = Field(0.0, ge=0)
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    extra_body: dict[str, Any] = Field(default_factory=dict)
    api_key_env: str = Field("OPENAI_API_KEY", json_schema_extra=_OPERATIONAL)
    concurrency: int = Field(16, ge=1, json_schema_extra=_OPERATIONAL)
    requests_per_minute: float | None = Field(None, gt=0, json_schema_extra=_OPERATIONAL)
    tokens_per_minute: float | None = Field(None, gt=0, json_schema_extra=_OPERATIONAL)
    timeout: float = Field(120.0, gt=0, json_schema_extra=_OPERATIONAL)
    max_retries: int = Field(6, ge=0, json_schema_extra=_OPERATIONAL)

    @field_validator("base_url")
    @classmethod
    def _no_secrets(cls, base_url: str | None) -> str | None:
        """Refuse an address with a name, a password or a query in it: specs are kept in manifests."""
        parts = urlsplit(base_url or "")
        if "@" in parts.netloc or parts.query:
            raise ValueError(
                "no name, password or query expected in an address; put the key into api_key_env's variable"
            )
        return base_url


class OpenAIBatchSpec(OpenAISpec):
    """The batch interface of such an endpoint: half the price, hours instead of seconds.

    requests_per_batch: the most in one job. parallel: jobs at a time. poll_seconds: between two looks at a job.
    completion_window: what is asked of the vendor. max_rounds: jobs a request may be part of before it has failed.
    """

    kind: Literal["openai_batch"] = "openai_batch"  # type: ignore[assignment]
    requests_per_batch: int = Field(5000, ge=1, json_schema_extra=_OPERATIONAL)
    parallel: int = Field(8, ge=1, json_schema_extra=_OPERATIONAL)
    poll_seconds: float = Field(30.0, gt=0, json_schema_extra=_OPERATIONAL)
    completion_window: str = Field("24h", json_schema_extra=_OPERATIONAL)
    max_rounds: int = Field(3, ge=1, json_schema_extra=_OPERATIONAL)


Spec = VLLMSpec | SentenceTransformersSpec | CrossEncoderSpec | OpenAISpec | OpenAIBatchSpec
EngineSpec = Annotated[Spec, Field(discriminator="kind")]

_SPECS: TypeAdapter[Spec] = TypeAdapter(EngineSpec)
_ENGINES = {
    "vllm": ("infra.engines.vllm", "VLLMEngine"),
    "sentence_transformers": ("infra.engines.encoder", "EncoderEngine"),
    "cross_encoder": ("infra.engines.cross_encoder", "CrossEncoderEngine"),
    "openai": ("infra.engines.openai_endpoint", "OpenAIEngine"),
    "openai_batch": ("infra.engines.openai_batch", "OpenAIBatchEngine"),
}


def parse_spec(data: str | bytes) -> Spec:
    """Read a spec from its JSON (`spec.model_dump_json()`); `kind` says which."""
    return _SPECS.validate_json(data)


def environment(spec: BaseModel) -> dict[str, str]:
    """Name the environment variables that the engine's process must be started with: offline, silent, its threads.

    Raises:
        ValueError: `spec` is not an engine's.
    """
    checked = _check(spec)
    variables = dict(_QUIET_AND_OFFLINE)
    if isinstance(checked, _Spec) and checked.threads is not None:
        variables["OMP_NUM_THREADS"] = str(checked.threads)
    if isinstance(checked, VLLMSpec):
        variables["VLLM_NO_USAGE_STATS"] = "1"
        variables["VLLM_DO_NOT_TRACK"] = "1"
        variables["VLLM_LOGGING_LEVEL"] = "ERROR"
        # One process: killed with one signal, and nothing is left behind. Several devices need the children.
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if checked.tensor_parallel_size == 1 else "1"
        if checked.enforce_eager:
            # vLLM's sampler compiles one small function even then: 20 s with a cold cache, 3 s with a warm one.
            variables["TORCH_COMPILE_DISABLE"] = "1"
    return variables


def build_engine(spec: BaseModel) -> Any:  # noqa: ANN401 - what it answers depends on the spec's kind
    """Build the engine a spec describes, in a process that was started with `environment(spec)`.

    Returns an engine that can `answer` (vLLM, endpoints), `encode` or `score`; all have `provenance` and `close`.

    Raises:
        ValueError: `spec` is not an engine's, the model's folder is missing or cannot be loaded this way.
    """
    module, name = _ENGINES[_check(spec).kind]
    return getattr(importlib.import_module(module), name)(spec)


def _check(spec: BaseModel) -> Spec:
    if isinstance(spec, Spec):
        return spec
    raise ValueError(f"an engine's spec expected ({', '.join(sorted(_ENGINES))}), got {type(spec).__name__}")
