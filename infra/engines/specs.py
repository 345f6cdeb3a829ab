"""Specs of engines: what an engine is made of, and which of it decides its answers (`kinds` has the rest)."""

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

# A setting that does not change what the engine answers, so it is left out of the keys.
OPERATIONAL: dict[str, Any] = {"operational": True}


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True)


class PinnedSpec(_Base):
    """An engine with weights of its own, pinned by a digest.

    model: folder of the weights, as safetensors, with the tokenizer; a path, so not in the key.
    digest: digest of that folder's content, which is.
    device: where it runs.
    threads: OpenMP threads; None leaves it to Ray, which sets them to the actor's `num_cpus`.
    """

    model: str = Field(json_schema_extra=OPERATIONAL)
    digest: str
    device: Literal["cpu", "cuda"] = Field("cpu", json_schema_extra=OPERATIONAL)
    threads: int | None = Field(None, ge=1, json_schema_extra=OPERATIONAL)


class VLLMSpec(PinnedSpec):
    """A language model under vLLM, in process on one device.

    quantization: as vLLM names it; None takes what the model's own configuration says.
    head_dtype: precision of the last layer; in bfloat16 logits are multiples of 1/8, so many scores would be equal.
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
    tensor_parallel_size: int = Field(1, ge=1, json_schema_extra=OPERATIONAL)
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, json_schema_extra=OPERATIONAL)
    cpu_kvcache_gib: float = Field(1.0, gt=0, json_schema_extra=OPERATIONAL)
    max_num_seqs: int = Field(64, ge=1, json_schema_extra=OPERATIONAL)
    max_num_batched_tokens: int = Field(2048, ge=64, json_schema_extra=OPERATIONAL)
    block_size: int | None = Field(32, ge=16, multiple_of=16, json_schema_extra=OPERATIONAL)
    enforce_eager: bool = Field(True, json_schema_extra=OPERATIONAL)


class SentenceTransformersSpec(PinnedSpec):
    """An embedding model under sentence-transformers; a longer text is cut at `max_seq_length` tokens.

    query_prompt, passage_prompt: put before each text of that role.
    """

    kind: Literal["sentence_transformers"] = "sentence_transformers"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_seq_length: int = Field(256, ge=8)
    query_prompt: str = ""
    passage_prompt: str = ""
    batch_size: int = Field(32, ge=1, json_schema_extra=OPERATIONAL)


class CrossEncoderSpec(PinnedSpec):
    """A cross-encoder under sentence-transformers; a longer pair is cut at `max_seq_length` tokens.

    activation: makes a probability of the model's output; `none` where the model gives one itself.
    """

    kind: Literal["cross_encoder"] = "cross_encoder"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_seq_length: int = Field(512, ge=8)
    activation: Literal["sigmoid", "none"] = "sigmoid"
    batch_size: int = Field(32, ge=1, json_schema_extra=OPERATIONAL)


class EndpointSpec(_Base):
    """An engine that is somebody else's server; a subclass sets the default of `kind` and adds fields of its own."""

    kind: str
    model: str = Field(min_length=1)
    revision: str = ""


class OpenAISpec(EndpointSpec):
    """Any OpenAI-compatible endpoint, Azure's included.

    model: the dated name the endpoint knows it by. revision: free text, for a change that the name does not show.
    base_url: None for the vendor's default. api_version: given, the endpoint is Azure's.
    api_key_env: the variable that holds the key, read in the worker; the key itself is never in a spec.
    structured: how an answer's schema is enforced. max_tokens_field: what the endpoint calls the limit.
    temperature, seed: None leaves it out, for models that refuse it. extra_body: further fields of the request.
    concurrency: requests in flight, over all engines of this process that share the key.
    requests_per_minute, tokens_per_minute: limits over all engines of the cluster that share the key; None for none.
    timeout: seconds for one request. max_retries: further tries of a request that may succeed later.
    """

    kind: Literal["openai"] = "openai"
    base_url: str | None = None
    api_version: str | None = None
    seed: int | None = 0
    temperature: float | None = Field(0.0, ge=0)
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    extra_body: dict[str, Any] = Field(default_factory=dict)
    api_key_env: str = Field("OPENAI_API_KEY", json_schema_extra=OPERATIONAL)
    concurrency: int = Field(16, ge=1, json_schema_extra=OPERATIONAL)
    requests_per_minute: float | None = Field(None, gt=0, json_schema_extra=OPERATIONAL)
    tokens_per_minute: float | None = Field(None, gt=0, json_schema_extra=OPERATIONAL)
    timeout: float = Field(120.0, gt=0, json_schema_extra=OPERATIONAL)
    max_retries: int = Field(6, ge=0, json_schema_extra=OPERATIONAL)

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
    requests_per_batch: int = Field(5000, ge=1, json_schema_extra=OPERATIONAL)
    parallel: int = Field(8, ge=1, json_schema_extra=OPERATIONAL)
    poll_seconds: float = Field(30.0, gt=0, json_schema_extra=OPERATIONAL)
    completion_window: str = Field("24h", json_schema_extra=OPERATIONAL)
    max_rounds: int = Field(3, ge=1, json_schema_extra=OPERATIONAL)
