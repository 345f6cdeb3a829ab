"""Specs of engines: what an engine is made of, and which of it decides its answers (`kinds` has the rest)."""

import re
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

# A setting that does not change what the engine answers, so it is left out of the keys.
OPERATIONAL: dict[str, JsonValue] = {"operational": True}
# A setting that was added later: at its default it is left out of the keys, so that these stay as they were.
KEYED_WHEN_SET: dict[str, JsonValue] = {"keyed_when_set": True}


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True)


class PairTemplate(_Base):
    """How an instruction reranker is asked about a pair: the text it reads, and the two tokens it answers with.

    prefix: before the body; never cut.
    body: holds {query}, {document} and, if it takes one, {instruction}; cut at its end where the model's length is
        reached. A line with {instruction} is left out where there is no instruction.
    suffix: after the body, up to where the model answers; never cut.
    instruction: where the dataset's definition of relevance is empty.
    yes_token, no_token: the two answers, each one token of the model. P(relevant) is the softmax over their two logits.
    """

    prefix: str = ""
    body: str = "{query}\n{document}"
    suffix: str = ""
    instruction: str = ""
    yes_token: str = Field("yes", min_length=1)
    no_token: str = Field("no", min_length=1)

    @property
    def takes_instruction(self) -> bool:
        """Whether the body has a place for an instruction."""
        return "{instruction}" in self.body

    @model_validator(mode="after")
    def _check(self) -> "PairTemplate":
        found = sorted(re.findall(r"\{(\w*)\}", self.body))
        if found not in (["document", "query"], ["document", "instruction", "query"]):
            raise ValueError(
                "body: {query} and {document}, each once, and at most one {instruction} expected, "
                f"got {', '.join(found) or 'none'}"
            )
        if self.yes_token == self.no_token:
            raise ValueError(f"yes_token, no_token: two different tokens expected, both are {self.yes_token!r}")
        return self


TEMPLATES: dict[str, PairTemplate] = {
    # The template of the Qwen3-Reranker family (QwenLM/Qwen3-Embedding, README.md at f4ad0c4).
    "qwen3": PairTemplate(
        prefix="<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
        body="<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
        suffix="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        instruction="Given a web search query, retrieve relevant passages that answer the query",
    ),
    # The template of mxbai-rerank v2 (mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py).
    "mxbai": PairTemplate(
        prefix="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n",
        body="instruction: {instruction}\nquery: {query}\ndocument: {document}",
        suffix="\nYou are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n",
        yes_token="1",  # noqa: S106 - an answer
        no_token="0",  # noqa: S106 - an answer
    ),
}


def template_of(said: Any) -> Any:  # noqa: ANN401 - whatever a file holds
    """Put a template for its name: `qwen3`, or a mapping that changes fields of the template named by `like`.

    >>> template_of({"like": "qwen3", "instruction": "Find the proof."})["yes_token"]
    'yes'
    """
    named = said.get("like") if isinstance(said, dict) else said
    if not isinstance(named, str):
        return said
    if named not in TEMPLATES:
        raise ValueError(f"one of {', '.join(TEMPLATES)} expected, or a mapping with body and suffix, got {named!r}")
    changes = {name: value for name, value in said.items() if name != "like"} if isinstance(said, dict) else {}
    return TEMPLATES[named].model_dump() | changes


def refuse_two_ways(settings: Any) -> None:  # noqa: ANN401 - the spec of a cross-encoder, or its configuration
    """Refuse prompts beside a template.

    Raises:
        ValueError: both are set.
    """
    if settings.template is not None and (settings.query_prompt or settings.passage_prompt):
        raise ValueError("query_prompt, passage_prompt: nothing expected beside `template`; put them into its body")


class PinnedSpec(_Base):
    """An engine with weights of its own, pinned by a digest.

    model: folder of the weights, as safetensors, with the tokenizer; a path, so not in the key.
    digest: digest of that folder's content, which is.
    device: where it runs.
    threads: OpenMP threads; None leaves it to Ray, which sets them to the actor's `num_cpus`.
    software: versions and the kind of processor that the key is to cover; with none the key does not depend on them.
    """

    model: str = Field(json_schema_extra=OPERATIONAL)
    digest: str
    device: Literal["cpu", "cuda"] = Field("cpu", json_schema_extra=OPERATIONAL)
    threads: int | None = Field(None, ge=1, json_schema_extra=OPERATIONAL)
    software: dict[str, str] = Field(default_factory=dict, json_schema_extra={"keyed_when_set": True})


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


class VLLMRerankerSpec(VLLMSpec):
    """An instruction reranker under vLLM: a language model whose next token is its judgement of a pair.

    template: how a pair is put to it. A pair longer than `max_model_len` is cut in the template's body.
    """

    kind: Literal["vllm_reranker"] = "vllm_reranker"  # type: ignore[assignment]
    template: PairTemplate = TEMPLATES["qwen3"]

    _named = field_validator("template", mode="before")(template_of)


class SentenceTransformersSpec(PinnedSpec):
    """An embedding model under sentence-transformers; a longer text is cut at `max_seq_length` tokens.

    query_prompt, passage_prompt: put before each text of that role.
    similarity: `cosine` gives unit vectors, `dot` leaves their lengths; None: unit vectors, of a model made for cosine.
    """

    kind: Literal["sentence_transformers"] = "sentence_transformers"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_seq_length: int = Field(256, ge=8)
    query_prompt: str = ""
    passage_prompt: str = ""
    similarity: Literal["cosine", "dot"] | None = Field(None, json_schema_extra=KEYED_WHEN_SET)
    batch_size: int = Field(32, ge=1, json_schema_extra=OPERATIONAL)


class VectorsSpec(PinnedSpec):
    """Vectors that were computed elsewhere; `model` is the folder with their files (`infra.engines.vector_files`)."""

    kind: Literal["vectors"] = "vectors"


class CrossEncoderSpec(PinnedSpec):
    """A cross-encoder under sentence-transformers; a longer pair is cut at `max_seq_length` tokens.

    activation: makes a probability of the model's output; `none` where the model gives one itself.
    template: how an instruction reranker is asked; None for a cross-encoder that reads the two texts as they are.
    query_prompt, passage_prompt: put before each text of that role; without a template.
    """

    kind: Literal["cross_encoder"] = "cross_encoder"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_seq_length: int = Field(512, ge=8)
    activation: Literal["sigmoid", "none"] = "sigmoid"
    template: PairTemplate | None = Field(None, json_schema_extra=KEYED_WHEN_SET)
    query_prompt: str = Field("", json_schema_extra=KEYED_WHEN_SET)
    passage_prompt: str = Field("", json_schema_extra=KEYED_WHEN_SET)
    batch_size: int = Field(32, ge=1, json_schema_extra=OPERATIONAL)

    _named = field_validator("template", mode="before")(template_of)

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> "CrossEncoderSpec":
        refuse_two_ways(self)
        return self


class EndpointSpec(_Base):
    """An engine that is somebody else's server; a subclass sets the default of `kind` and adds fields of its own.

    allow_plain_http: the key and the texts may go to another machine unencrypted; for a private network.
    vendor: the address of a kind whose `base_url` may be left out.
    """

    vendor: ClassVar[str] = ""
    kind: str
    model: str = Field(min_length=1)
    revision: str = ""
    allow_plain_http: bool = Field(False, json_schema_extra=OPERATIONAL)

    @property
    def address(self) -> str:
        """Where the requests go, with the key."""
        return str(getattr(self, "base_url", None) or self.vendor)


class OpenAIAddress(EndpointSpec):
    """Where an OpenAI-compatible endpoint is, Azure's included.

    base_url: None for the vendor's default. api_version: given, the endpoint is Azure's.
    """

    vendor: ClassVar[str] = "https://api.openai.com/v1"
    base_url: str | None = None
    api_version: str | None = None

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


class OpenAIAccess(OpenAIAddress):
    """How such an endpoint may be asked, whatever it is asked for.

    api_key_env: the variable that holds the key, read in the worker; the key itself is never in a spec.
    allow_plain_http: the key may go to another machine over http://, in a private network.
    extra_body: further fields of the request; a credential among them is refused, because specs are kept.
    concurrency: requests in flight, over all engines of this process that share the key.
    requests_per_minute, tokens_per_minute: limits over all engines of the cluster that share the key; None for none.
    timeout: seconds for one request. max_retries: further tries of a request that may succeed later.
    """

    extra_body: dict[str, Any] = Field(default_factory=dict)
    api_key_env: str = Field("OPENAI_API_KEY", json_schema_extra=OPERATIONAL)
    concurrency: int = Field(16, ge=1, json_schema_extra=OPERATIONAL)
    requests_per_minute: float | None = Field(None, gt=0, json_schema_extra=OPERATIONAL)
    tokens_per_minute: float | None = Field(None, gt=0, json_schema_extra=OPERATIONAL)
    timeout: float = Field(120.0, gt=0, json_schema_extra=OPERATIONAL)
    max_retries: int = Field(6, ge=0, json_schema_extra=OPERATIONAL)


class OpenAIChats(OpenAIAddress):
    """How a chat is put to such an endpoint.

    structured: how an answer's schema is enforced. max_tokens_field: what the endpoint calls the limit.
    temperature, seed: None leaves it out, for models that refuse it.
    continues: how the endpoint is told to go on with an answer that a prompt begins: `message` if it does so whenever
        the last message is the assistant's; `vllm` by `continue_final_message`, as servers of vLLM and SGLang; `prefix`
        by a mark in that message, as DeepSeek and Mistral. `never`: such prompts are refused.
    """

    seed: int | None = 0
    temperature: float | None = Field(0.0, ge=0)
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    continues: Literal["never", "message", "vllm", "prefix"] = Field("never", json_schema_extra=KEYED_WHEN_SET)


class OpenAISpec(OpenAIAccess, OpenAIChats):
    """Any OpenAI-compatible endpoint, Azure's included.

    model: the dated name the endpoint knows it by. revision: free text, for a change that the name does not show.
    """

    kind: Literal["openai"] = "openai"


class OpenAIEmbeddingsSpec(OpenAIAccess):
    """The embeddings of any OpenAI-compatible endpoint: vLLM, TEI, Infinity, OpenAI, Azure.

    model: the name the endpoint knows it by. revision: free text, for a change that the name does not show.
    dimensions: numbers of a vector that are asked for; None leaves it out, and the model's own number comes.
    query_prompt, passage_prompt: put before each text of that role, as the model's card asks.
    max_chars: characters of a text that are sent; the rest is cut. What the endpoint then still finds too long is sent
        shorter, and counted.
    encoding_format: how the vectors come; `base64` takes a third of the bytes of `float`.
    batch_size: texts in one request.
    """

    kind: Literal["openai_embeddings"] = "openai_embeddings"
    dimensions: int | None = Field(None, ge=1)
    query_prompt: str = ""
    passage_prompt: str = ""
    max_chars: int = Field(8000, ge=16)
    encoding_format: Literal["base64", "float"] = Field("base64", json_schema_extra=OPERATIONAL)
    batch_size: int = Field(64, ge=1, le=2048, json_schema_extra=OPERATIONAL)


class OpenAIBatchSpec(OpenAISpec):
    """The batch interface of such an endpoint: half the price, hours instead of seconds.

    requests_per_batch: the most in one job. parallel: jobs at a time. poll_seconds: between two looks at a job.
    completion_window: what is asked of the vendor. max_rounds: jobs a request may be part of before it has failed.
    not_before: jobs that were submitted earlier are not found again, in seconds since the epoch; set where a judge is
        to be asked again.
    """

    kind: Literal["openai_batch"] = "openai_batch"  # type: ignore[assignment]
    requests_per_batch: int = Field(5000, ge=1, json_schema_extra=OPERATIONAL)
    parallel: int = Field(8, ge=1, json_schema_extra=OPERATIONAL)
    poll_seconds: float = Field(30.0, gt=0, json_schema_extra=OPERATIONAL)
    completion_window: str = Field("24h", json_schema_extra=OPERATIONAL)
    max_rounds: int = Field(3, ge=1, json_schema_extra=OPERATIONAL)
    not_before: float = Field(0.0, ge=0, json_schema_extra=OPERATIONAL)


class ScoreColumns(_Base):
    """The columns of a file of verdicts. A TREC run needs none.

    query_id, doc_id: of the ids, as in the source. score: of the score or grade.
    dataset: default: `dataset` where the file has it; without such a column every row is of `ingest.dataset`.
    """

    query_id: str = Field("query_id", json_schema_extra=OPERATIONAL)
    doc_id: str = Field("doc_id", json_schema_extra=OPERATIONAL)
    score: str = "score"
    dataset: str | None = Field(None, json_schema_extra=OPERATIONAL)


class ScoresSpec(_Base):
    """A file with the verdicts of a judge that was asked elsewhere. Nothing is started and nothing is asked.

    path: a file or an address: .tsv, .csv, .jsonl, .parquet, or a TREC run (.run, .trec, .txt); text may be packed with
        gzip or zstd. Its content is part of the keys, the path is not.
    scale: what a score is. `probability`: P(relevant), 0 to 1. `logit`: its log-odds. `grade`: 0 to `max_grade`.
    max_grade: the highest grade.
    name: of the judge; default: the name of the score's column. A calibration holds for files of the same judge and
        scale.
    """

    kind: Literal["scores"] = "scores"
    path: str = Field(min_length=1, json_schema_extra=OPERATIONAL)
    columns: ScoreColumns = ScoreColumns()
    scale: Literal["probability", "logit", "grade"] = "probability"
    max_grade: int = Field(3, ge=1)
    name: str = ""

    @property
    def model(self) -> str:
        """The file, for messages that name the model of an engine."""
        return self.path
