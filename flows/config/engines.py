"""The settings of engines: the encoder, and the judges of the cascade (one tier each)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from flows.config.presets import with_preset
from flows.config.section import KEYED_WHEN_SET, OPERATIONAL, Section
from infra.engines.kinds import KINDS, EngineKind, kind_of
from infra.engines.specs import (
    TEMPLATES,
    EndpointSpec,
    OpenAIEmbeddingsSpec,
    PairTemplate,
    ScoresSpec,
    refuse_two_ways,
    template_of,
)
from tasks.judging.config import JudgeConfig
from tasks.prompts.prompt import load_prompt
from tasks.verdicts.escalate import EscalateConfig

_INSTEAD = {
    "judge": "the judge is named after its engine and prompts",
    "tier": "give the tier's `name`",
    "engine": "give the tier's `engine`",
    "policies": "put `policies` beside `tiers`: they hold for all of them",
}


class EncoderConfig(Section):
    """The embedding model: mining and the similarity judge use its vectors, and training starts from its weights.

    model: `hub:owner/name`, with `@commit` or without (docs/judging.md), `path:folder`, or `package:minilm`. Or
        `vectors:folder`, with vectors that were computed elsewhere.
    max_seq_length: tokens read of a text; the rest is cut.
    query_prompt, passage_prompt: put before each text of that role, as the model's card asks.
    batch_size: texts at once. dtype: of the weights. device: where it runs.
    """

    kind: Literal["sentence_transformers"] = Field("sentence_transformers", json_schema_extra=KEYED_WHEN_SET)
    model: str = "package:minilm"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_seq_length: int = Field(256, ge=8)
    query_prompt: str = ""
    passage_prompt: str = ""
    similarity: Literal["cosine"] | None = Field(
        None,
        description="`cosine`: search by cosine though the model was made for dot products; otherwise it is refused",
        json_schema_extra=KEYED_WHEN_SET,
    )
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = Field(32, ge=1, json_schema_extra=OPERATIONAL)
    threads: int | None = Field(None, ge=1, description="default: the CPUs that its parts get")


def _kind_of_encoder(data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    """Take an encoder without a `kind` for a model on one's own machines."""
    return {"kind": "sentence_transformers", **data} if isinstance(data, Mapping) else data


if TYPE_CHECKING:
    AnyEncoderConfig = EncoderConfig | OpenAIEmbeddingsSpec
else:  # the settings of an endpoint are its spec
    AnyEncoderConfig = Annotated[
        EncoderConfig | OpenAIEmbeddingsSpec, Field(discriminator="kind"), BeforeValidator(_kind_of_encoder)
    ]

_IN_FILES = "vectors:"  # begins a reference to vectors that were computed elsewhere
_TOKEN = 4  # characters, about


def tokens_read(encoder: AnyEncoderConfig) -> int:
    """Return how many tokens of a text an encoder reads; of an endpoint estimated from the characters that it gets."""
    return encoder.max_chars // _TOKEN if isinstance(encoder, OpenAIEmbeddingsSpec) else encoder.max_seq_length


def refuse_without_model(encoders: Mapping[str, AnyEncoderConfig], needs_model: Mapping[str, object]) -> None:
    """Refuse what needs a model, and settings of one, where the first encoder's vectors come from elsewhere.

    encoders: by their place in the settings, the curation's own first. needs_model: by name, `train`, `train_reranker`
        and `gold`.

    Raises:
        ValueError: a setting is given that cannot have an effect.
    """
    for name, encoder in encoders.items():
        if isinstance(encoder, EndpointSpec) or not encoder.model.startswith(_IN_FILES):
            continue
        unset = EncoderConfig(model=encoder.model)
        given = [field for field in EncoderConfig.model_fields if getattr(encoder, field) != getattr(unset, field)]
        if given:
            raise ValueError(f"{name}.{given[0]} has no effect on vectors that are in files; remove it")
    encoder = encoders["encoder"]
    if isinstance(encoder, EndpointSpec):
        for setting in ("train", "train_reranker"):
            if needs_model.get(setting) is not None:
                raise ValueError(
                    f"{setting}: null expected: training starts from weights, and the encoder is an endpoint. Or name "
                    "the endpoint in `encoders` and in `mine.retrievers`: it searches then beside a model of your own"
                )
    elif encoder.model.startswith(_IN_FILES):
        for setting, value in needs_model.items():
            if value is not None:
                raise ValueError(
                    f"{setting}: null expected: it needs a model, and encoder.model names files with vectors"
                )


class VLLMConfig(Section):
    """A language model under vLLM.

    model: `hub:owner/name`, with `@commit` or without, `path:folder`, `path:file.gguf` or `package:…`; `w8a8:` in
        front quantises it.
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


class VLLMRerankerConfig(VLLMConfig):
    """An instruction reranker under vLLM: a language model whose next token, yes or no, judges a pair.

    model: `hub:owner/name`, with `@commit` or without, or `path:folder`.
    template: how a pair is put to the model: `qwen3`, `mxbai`, one of these with changes (`{like: qwen3, …}`), or
        `{prefix, body, suffix, yes_token, no_token}`. A long pair is cut in the body.
    max_num_seqs, max_num_batched_tokens: the most pairs and tokens in one step; more keep a large GPU busy.
    """

    kind: Literal["vllm_reranker"] = "vllm_reranker"  # type: ignore[assignment]
    model: str
    template: PairTemplate = TEMPLATES["qwen3"]
    max_num_seqs: int = Field(64, ge=1, json_schema_extra=OPERATIONAL)
    max_num_batched_tokens: int = Field(2048, ge=64, json_schema_extra=OPERATIONAL)

    _named = field_validator("template", mode="before")(template_of)


class CrossEncoderConfig(Section):
    """A cross-encoder under sentence-transformers, as a judge.

    model: `hub:owner/name`, with `@commit` or without, or `path:folder`. max_seq_length: tokens read of a pair; the
        rest is cut.
    activation: turns the model's output into a probability; `none` if the output is one already.
    template: how an instruction reranker is asked, as `template` of `vllm_reranker`; null for a cross-encoder.
    query_prompt, passage_prompt: put before each text of that role, as the model's card asks; without a template.
    batch_size: pairs at once. dtype: of the weights. device: where it runs.
    """

    kind: Literal["cross_encoder"] = "cross_encoder"
    model: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_seq_length: int = Field(512, ge=8)
    activation: Literal["sigmoid", "none"] = "sigmoid"
    template: PairTemplate | None = Field(None, json_schema_extra=KEYED_WHEN_SET)
    query_prompt: str = Field("", json_schema_extra=KEYED_WHEN_SET)
    passage_prompt: str = Field("", json_schema_extra=KEYED_WHEN_SET)
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = Field(32, ge=1, json_schema_extra=OPERATIONAL)
    threads: int | None = Field(None, ge=1, description="default: the CPUs that its parts get")

    _named = field_validator("template", mode="before")(template_of)

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> Self:
        """Refuse prompts beside a template."""
        refuse_two_ways(self)
        return self


# What the `judge` section of a tier says where the verdicts come from a file.
_OF_A_FILE = ("relevant_from", "not_relevant_below", "relevant_grade")

# Settings of engines with weights: a reference to a model stands in place of the spec's folder and digest.
_WITH_WEIGHTS: dict[str, type[Section]] = {
    "vllm": VLLMConfig,
    "vllm_reranker": VLLMRerankerConfig,
    "cross_encoder": CrossEncoderConfig,
}

if TYPE_CHECKING:
    EngineConfig = VLLMConfig | VLLMRerankerConfig | CrossEncoderConfig | EndpointSpec | ScoresSpec
else:  # every kind of infra.engines.kinds that can judge; the settings of an endpoint are its spec
    _JUDGES = [_WITH_WEIGHTS.get(name, kind.spec) for name, kind in KINDS.items() if kind.does != "encode"]
    EngineConfig = Annotated[Union[tuple(_JUDGES)], Field(discriminator="kind")]  # noqa: UP007 - made from a table


class TierConfig(Section):
    """One judge of the cascade, after similarity: its engine, its prompts, and which pairs it judges.

    name: any but `similarity`, `cascade`, `gold` and `heldout`. engines: how many run side by side.
    """

    preset: str = Field(
        "",
        exclude=True,
        description="a judge that is ready to use (`reneg judges` lists them); what the tier says itself counts more",
        json_schema_extra=KEYED_WHEN_SET,
    )
    name: str = Field("llm", pattern=r"^[a-z][a-z0-9_]{0,20}$", description="lower-case letters, digits, underscores")
    engine: EngineConfig = VLLMConfig()
    engines: int = Field(1, ge=1, json_schema_extra=OPERATIONAL)
    judge: JudgeConfig = JudgeConfig()
    escalate: EscalateConfig = EscalateConfig()

    @property
    def reads_file(self) -> bool:
        """Whether the verdicts are read from a file (`kind: scores`) instead of asking an engine."""
        return kind_of(self.engine).is_file

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """Fill in a preset, and what follows from the engine: vLLM without a kind, a protocol, large batch jobs."""
        if not isinstance(data, dict) or not isinstance(data.get("engine", {}), dict):
            return data
        data = with_preset(data)
        engine = {"kind": "vllm", **data.get("engine", {})}
        judge, escalate = data.get("judge", {}), data.get("escalate", {})
        kind = KINDS.get(str(engine["kind"]))
        if kind is not None and kind.does == "score" and isinstance(judge, dict):
            instructed = {"instructed": True} if _takes_instruction(engine, kind) else {}
            judge = {"protocol": "cross_encoder", **instructed, **judge}
        if kind is not None and kind.part_rows and isinstance(judge, dict) and isinstance(escalate, dict):
            # A job takes hours whatever its size, and one that was submitted is found again after a kill.
            judge = {**({"batch_size": kind.part_rows} if kind.jobs else {}), **judge}
            escalate = {"pairs_per_part": kind.part_rows, **escalate}  # has no effect; recorded curations have it
        return {**data, "engine": engine, "judge": judge, "escalate": escalate}

    @model_validator(mode="after")
    def _engine_fits_protocol(self) -> Self:
        """Refuse a protocol that the engine does not support."""
        if (kind_of(self.engine).does == "score") != (self.judge.protocol == "cross_encoder"):
            raise ValueError(f"engine {self.engine.kind!r} does not support protocol {self.judge.protocol!r}")
        if self.judge.instructed and not getattr(getattr(self.engine, "template", None), "takes_instruction", False):
            raise ValueError("judge.instructed: the engine's `template` has no place for an {instruction}")
        refuse_begun_answers(self.engine, self.judge)
        unset = JudgeConfig()
        for name in ("judge", "tier", "engine", "policies"):
            if getattr(self.judge, name) != getattr(unset, name):
                raise ValueError(f"judge.{name} is set by the flow; " + _INSTEAD[name])
        if isinstance(self.engine, ScoresSpec):
            self._fits_a_file(self.engine, unset)
        if not self.escalate.calibrated:
            raise ValueError("escalate.calibrated is set by the flow; remove it")
        target = self.escalate.target
        if target is not None and target.of not in (None, self.name):
            raise ValueError(f"escalate.target.of: the tier itself, {self.name!r}, expected, got {target.of!r}")
        if self.name in ("similarity", "cascade", "gold", "heldout"):
            raise ValueError(f"name {self.name!r} is taken")
        return self

    def _fits_a_file(self, file: ScoresSpec, unset: JudgeConfig) -> None:
        """Refuse settings of a prompt or a call where nothing is asked, and a grade that the file cannot hold."""
        for name in JudgeConfig.model_fields:
            if name not in _OF_A_FILE and getattr(self.judge, name) != getattr(unset, name):
                raise ValueError(
                    f"judge.{name} has no effect where verdicts come from a file (engine.kind: scores); remove it. "
                    f"These have: {', '.join(_OF_A_FILE)}"
                )
        if file.scale == "grade" and self.judge.relevant_grade > file.max_grade:
            raise ValueError(
                f"judge.relevant_grade={self.judge.relevant_grade} must not exceed engine.max_grade={file.max_grade}"
            )


def _takes_instruction(engine: dict[str, Any], kind: EngineKind) -> bool:
    """Tell whether an engine's settings, as a file gives them, have a template with a place for an instruction."""
    field = kind.spec.model_fields.get("template")
    if field is None:
        return False
    try:
        said = template_of(engine.get("template", field.default))
        return said is not None and PairTemplate.model_validate(said).takes_instruction
    except ValueError:
        return False  # it is refused where the engine's settings are read


def refuse_begun_answers(engine: BaseModel, judge: JudgeConfig) -> None:
    """Refuse prompts that begin the answer, for an endpoint of which nobody said how it goes on with one.

    Raises:
        ValueError: a prompt of the judge has `assistant`, and the engine's `continues` is `never`.
    """
    if getattr(engine, "continues", "") == "never":
        begun = [name for name in judge.prompt_names if load_prompt(name).assistant]
        if begun:
            raise ValueError(
                f"prompt {begun[0]!r} begins the answer (`assistant`), and this endpoint would answer anew: set the "
                "engine's `continues` to what the endpoint knows (message, vllm or prefix), or take another prompt"
            )
