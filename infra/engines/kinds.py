"""The kinds of engines, one row each: everything that the rest of the program must know of a kind.

A new kind of endpoint is one new file in this folder and one row of `KINDS`. The file holds the spec, a subclass of
`EndpointSpec`, and the engine; it imports the vendor's client inside its functions, because the driver reads the spec
and needs no client. `docs/extending.md` shows an example.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel

from infra.engines.specs import (
    CrossEncoderSpec,
    EndpointSpec,
    OpenAIBatchSpec,
    OpenAIEmbeddingsSpec,
    OpenAISpec,
    PinnedSpec,
    ScoresSpec,
    SentenceTransformersSpec,
    VectorsSpec,
    VLLMRerankerSpec,
    VLLMSpec,
)
from infra.key_rules import KeyRules, credential_in, plain_http_refusal
from infra.provenance import Origin, declared, here

_GIB = 2**30
_LANES = 2  # the engine works for one part while another is read or written
_MODELS = ("torch", "transformers", "tokenizers")  # packages below every engine with weights of its own
_JOB_SECONDS = 7 * 24 * 3600.0  # a batch job may take a day, and a request may be in several jobs

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


# The functions of a row take the settings of an engine: its spec, or a configuration that has the same fields.


def _one(settings: Any) -> int:  # noqa: ANN401 - settings of any kind
    return 1


def _jobs(settings: Any) -> int:  # noqa: ANN401 - settings of a batch interface
    """Count the jobs under way at a time: each takes hours whatever its size."""
    return max(_LANES, int(settings.parallel))


def _no_bytes(settings: Any) -> int:  # noqa: ANN401 - settings of any kind
    return 0


def _cache_bytes(settings: Any) -> int:  # noqa: ANN401 - settings of vLLM
    """Count the bytes of vLLM's key-value cache; on a GPU it is part of the share that vLLM takes."""
    return int(settings.cpu_kvcache_gib * _GIB) if settings.device == "cpu" else 0


def _nothing_further(settings: Any) -> Mapping[str, str]:  # noqa: ANN401 - settings of any kind
    return {}


def _few_arenas(settings: Any) -> Mapping[str, str]:  # noqa: ANN401 - settings of an encoder
    """Let the threads of glibc share their memory: each of many threads would keep what it freed of a part's texts."""
    return {"MALLOC_ARENA_MAX": "2"}


def _vllm_variables(settings: Any) -> Mapping[str, str]:  # noqa: ANN401 - settings of vLLM
    variables = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        # PyTorch's ports, which ask for no token, would be on the address that the machine's name stands for.
        "GLOO_SOCKET_IFNAME": "lo",
        # One process: killed with one signal, and nothing is left behind. Several devices need the children.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if settings.tensor_parallel_size == 1 else "1",
    }
    if settings.enforce_eager:
        # vLLM's sampler compiles one small function even then: 20 s with a cold cache, 3 s with a warm one.
        variables["TORCH_COMPILE_DISABLE"] = "1"
    return variables


@dataclass(frozen=True)
class EngineKind:
    """What the rest of the program must know of one kind of engine.

    spec: the class of its settings; the default of its field `kind` is the kind's name.
    engine: `module:class` of the engine, imported only in the process that builds it.
    does: the engine's method that a stage calls. `answer` takes chats, `score` pairs of texts, `encode` texts (`find`
        where the vectors are in files, `embed` where an endpoint is paid for them). `read`: there is no engine, because
        the verdicts are in a file.
    tokens: how the tokens of a chat are counted before it is asked. `model`: by the tokenizer in the model's folder.
        `vendor`: by the vendor's tokenizer where it is on this machine, else by an estimate. `none`: not at all.
    jobs: calls are put into jobs that take hours. They cost the share of the price that the price file calls `batch`.
    part_rows: rows of one part where the configuration does not say; None leaves it to the stage.
    libraries: the packages that decide the numbers of its answers; none for somebody else's server.
    num_cpus, deadline: what the engine's actor is granted where the configuration does not say; None leaves it to the
        stage.
    threads: how many parts the engine itself works for at a time.
    extra_bytes: memory that the engine takes beside its weights.
    further_variables: what its process must be started with, beside what every engine has.
    """

    spec: type[PinnedSpec] | type[EndpointSpec] | type[ScoresSpec]
    engine: str
    does: Literal["answer", "score", "encode", "read"]
    tokens: Literal["model", "vendor", "none"]
    jobs: bool = False
    part_rows: int | None = None
    libraries: tuple[str, ...] = ()
    num_cpus: float | None = None
    deadline: float | None = None
    threads: Callable[[Any], int] = _one
    extra_bytes: Callable[[Any], int] = _no_bytes
    further_variables: Callable[[Any], Mapping[str, str]] = _nothing_further

    @property
    def name(self) -> str:
        """The kind's name, as specs and configurations give it in their field `kind`."""
        return str(self.spec.model_fields["kind"].default)

    @property
    def is_endpoint(self) -> bool:
        """Whether somebody else's server answers."""
        return issubclass(self.spec, EndpointSpec)

    @property
    def is_file(self) -> bool:
        """Whether the verdicts are read from a file, and no engine is there."""
        return self.does == "read"

    @property
    def has_weights(self) -> bool:
        """Whether it has weights of its own, pinned by a digest."""
        return issubclass(self.spec, PinnedSpec)

    def lanes(self, settings: BaseModel) -> int:
        """Count the parts that share one actor at a time."""
        return max(_LANES, self.threads(settings))

    def resources(self, settings: BaseModel) -> dict[str, float]:
        """Name the fields of `Resources` that this kind sets: `num_cpus`, `num_gpus`, `deadline`; the others stay."""
        gpus = float(getattr(settings, "tensor_parallel_size", 1)) if on_gpu(settings) else None
        wanted = {"num_cpus": self.num_cpus, "num_gpus": gpus, "deadline": self.deadline}
        return {name: value for name, value in wanted.items() if value is not None}

    def key_variable(self, settings: BaseModel) -> str:
        """Name the environment variable that holds an endpoint's key; empty where the engine needs none."""
        return str(getattr(settings, "api_key_env", "")) if self.is_endpoint else ""


_ROWS = (
    EngineKind(
        VLLMSpec,
        "infra.engines.vllm:VLLMEngine",
        does="answer",
        tokens="model",
        libraries=("vllm", *_MODELS),
        extra_bytes=_cache_bytes,
        further_variables=_vllm_variables,
    ),
    EngineKind(
        VLLMRerankerSpec,
        "infra.engines.rerankers.under_vllm:VLLMReranker",
        does="score",
        tokens="none",
        libraries=("vllm", *_MODELS),
        extra_bytes=_cache_bytes,
        further_variables=_vllm_variables,
    ),
    EngineKind(
        SentenceTransformersSpec,
        "infra.engines.encoder:EncoderEngine",
        does="encode",
        tokens="none",
        libraries=("sentence-transformers", *_MODELS, "numpy"),
        further_variables=_few_arenas,
    ),
    EngineKind(
        VectorsSpec,
        "infra.engines.vector_files:VectorFilesEngine",
        does="encode",
        tokens="none",
        libraries=("numpy",),
        num_cpus=1.0,
    ),
    EngineKind(
        OpenAIEmbeddingsSpec,
        "infra.engines.embeddings.endpoint:OpenAIEmbeddings",
        does="encode",
        tokens="vendor",
        num_cpus=0.1,
    ),
    EngineKind(
        CrossEncoderSpec,
        "infra.engines.rerankers.cross_encoder:CrossEncoderEngine",
        does="score",
        tokens="none",
        libraries=("sentence-transformers", *_MODELS),
    ),
    EngineKind(
        OpenAISpec,
        "infra.engines.openai_endpoint:OpenAIEngine",
        does="answer",
        tokens="vendor",
        num_cpus=0.1,
    ),
    EngineKind(
        OpenAIBatchSpec,
        "infra.engines.openai_batch:OpenAIBatchEngine",
        does="answer",
        tokens="vendor",
        jobs=True,
        part_rows=100_000,
        num_cpus=0.1,
        deadline=_JOB_SECONDS,
        threads=_jobs,
    ),
    EngineKind(ScoresSpec, "", does="read", tokens="none", part_rows=100_000),
)
KINDS: dict[str, EngineKind] = {row.name: row for row in _ROWS}


def kind_of(settings: BaseModel) -> EngineKind:
    """Return the row of an engine, given its spec or a configuration with the same `kind`.

    Raises:
        ValueError: `settings` has no kind that is known.
    """
    kind = KINDS.get(str(getattr(settings, "kind", "")))
    if kind is None:
        raise ValueError(f"an engine's spec expected ({', '.join(sorted(KINDS))}), got {type(settings).__name__}")
    return kind


def on_gpu(settings: BaseModel) -> bool:
    """Tell whether an engine runs on a GPU of the node that it is on; endpoints never do."""
    return getattr(settings, "device", "cpu") == "cuda"


def refusal_of(settings: BaseModel, rules: KeyRules | None = None) -> str:
    """Say why an endpoint may not be asked as its spec says; empty if it may, and for engines with weights.

    rules: which keys may be used, for a configuration from the store; None for one from a file of the user's own.
    """
    if not isinstance(settings, EndpointSpec):
        return ""
    if field := credential_in(getattr(settings, "extra_body", {})):
        return f"extra_body: no credential expected in a request, {field} looks like one; put the key into api_key_env"
    refusal = plain_http_refusal(settings.address, allowed=settings.allow_plain_http)
    if refusal or rules is None:
        return refusal
    refusal = rules.refusal(kind_of(settings).key_variable(settings), settings.address)
    return refusal and f"api_key_env: {refusal}"


def origin_of(spec: BaseModel) -> Origin:
    """Return the origin of an engine's answers, in the process that has built it."""
    kind = kind_of(spec)
    if not kind.is_endpoint:
        return here(kind.libraries, getattr(spec, "device", "cpu"), with_threads=True)
    address = urlsplit(getattr(spec, "base_url", None) or "")
    port = f":{address.port}" if address.port else ""
    at = f" at {address.hostname}{port}" if address.hostname else ""
    return Origin(endpoint=f"{kind.name} {getattr(spec, 'model', '')}{at}")


def software_of(settings: BaseModel) -> dict[str, str]:
    """Return the versions and the kind of processor that a key can cover for an engine with weights of its own."""
    return declared(kind_of(settings).libraries, getattr(settings, "device", "cpu"))


def environment(spec: BaseModel) -> dict[str, str]:
    """Name the environment variables that the engine's process must be started with: offline, silent, its threads.

    Raises:
        ValueError: `spec` is not an engine's.
    """
    kind = kind_of(spec)
    threads = getattr(spec, "threads", None)
    given = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**_QUIET_AND_OFFLINE, **given, **kind.further_variables(spec)}


def build_engine(spec: BaseModel) -> Any:  # noqa: ANN401 - what it answers depends on the spec's kind
    """Build the engine a spec describes, in a process that was started with `environment(spec)`.

    Returns an engine that has the method `kind_of(spec).does`, and `close`.

    Raises:
        ValueError: `spec` is not an engine's, the model's folder is missing or cannot be loaded this way.
    """
    kind = kind_of(spec)
    if not isinstance(spec, kind.spec) or kind.is_file:
        raise ValueError(f"the spec of an engine expected ({kind.spec.__name__}), got {type(spec).__name__}")
    module, _, name = kind.engine.partition(":")
    return getattr(importlib.import_module(module), name)(spec)
