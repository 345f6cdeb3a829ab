"""Define the settings of a judge, of any protocol, and the policies of datasets."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.prompts.prompt import load_definition, load_prompt
from tasks.texts import combine_hashes

Protocol = Literal["yes_no", "graded", "listwise", "snippet", "cross_encoder"]
SECOND_PROMPT = "snippet_rank"  # with which `snippet` ranks what it extracted
_LONGEST_QUERY, _SCORED_QUERY = 4000, 1000  # about 1,000 and 250 tokens; many cross-encoders read 512 in all
Preference = Literal["better", "equal", "worse", "none"]


class Policy(BaseModel):
    """How one dataset is judged. It is matched with the `dataset` field of the rows, not with a path.

    skip: do not judge it; its rows are left unchanged (ArguAna in the paper).
    definition: what relevant means: a name of `tasks/prompts/definitions.yaml`, or a sentence.
    prompts: other prompt files, by protocol.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    skip: bool = False
    definition: str | None = None
    prompts: Mapping[Protocol, str] = Field(default_factory=dict)

    @field_validator("prompts")
    @classmethod
    def _fit_their_protocols(cls, prompts: Mapping[Protocol, str]) -> Mapping[Protocol, str]:
        for protocol, name in prompts.items():
            if load_prompt(name).protocol != protocol:
                raise ValueError(f"prompt {name!r} is for {load_prompt(name).protocol!r}, not for {protocol!r}")
        return prompts

    @field_validator("definition")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is not None:
            load_definition(name)
        return name


class JudgeConfig(BaseModel):
    """How a judge is asked, and which scores give which state.

    judge, tier: names of judge and tier for the tables; set by the flow.
    engine: name of model and settings, under which answers are stored; set by the flow.
    protocol: `yes_no` and `graded` ask about one passage and read the log-probabilities of the first token; `listwise`
        asks about up to `per_call` passages at once (as the paper does); `snippet` extracts answers, then ranks them
        (ARHN); `cross_encoder` takes a score.
    prompt: name of the file in `tasks/prompts`; empty: the file named like the protocol.
    definition: what relevant means, for datasets without a policy.
    instructed: `cross_encoder`: the definition is the instruction that the engine's template takes; by default it is
        where the template has a place for one.
    policies: by dataset; set by the flow.
    relevant_from, not_relevant_below: P(relevant) at or above the first is `relevant`, below the second
        `not_relevant`, between them `unsure`.
    min_mass: least total probability of the expected spellings; with less the answer is `unparsed`.
    max_attempts: the most times a passage is asked about; an unparsed one is asked again, in other words or order.
    query_chars, query_limit: a query of at most `query_chars` characters is shown whole. So is a longer one of at most
        `query_limit`; of what is longer still, the beginning and the end are shown.
    positive_chars: characters shown of a positive. passage_chars: characters of a window. A longer passage is read in
        several windows, each in a question of its own, and the best one counts. A cut is marked with […]. In
        `query_limit` and `passage_chars`, characters of other scripts than Latin count for up to 4, as they take more
        tokens; but a passage of at most `passage_chars` characters is one window in any script.
    max_positives: the most positives shown, the first ones by text hash.
    top: number of log-probabilities requested from the engine.
    relevant_grade: `graded`: the lowest grade that counts as relevant.
    per_call: `listwise`: passages in one call.
    reasoning: `listwise`: the judge writes its reasons before the verdicts.
    max_output_tokens: `listwise` and `snippet`: the longest answer.
    relevant_preferences: `listwise`: preferences that count as relevant; the others except `none` are `unsure`.
    isolate: ask about a passage alone if it looks like an attack on the judge, so that it cannot influence others.
    order_seed: seed of the order in which passages (or positives) are shown.
    votes: the most orders asked; the majority counts, and asking stops once there is one.
    flip_share: share of the queries asked again in another order, to report how often verdicts change.
    batch_size: the most calls that are lost when the process is killed. The engine gets half of them at a time: while
        one half is being stored, the engine works on the other half, or on another part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: str = ""
    tier: str = "llm"
    engine: str = ""
    protocol: Protocol = "yes_no"
    prompt: str = ""
    definition: str = "default"
    instructed: bool = Field(False, json_schema_extra={"keyed_when_set": True})
    policies: Mapping[str, Policy] = Field(default_factory=dict)
    relevant_from: float = Field(0.5, ge=0, le=1)
    not_relevant_below: float = Field(0.5, ge=0, le=1)
    min_mass: float = Field(0.2, ge=0, le=1)
    max_attempts: int = Field(2, ge=1)
    query_chars: int = Field(500, ge=1)
    query_limit: int | None = Field(
        None,
        ge=1,
        description="default: 4,000, and 1,000 for a cross-encoder",
        json_schema_extra={"keyed_when_set": True},
    )
    positive_chars: int = Field(700, ge=1)
    passage_chars: int = Field(900, ge=1)
    max_positives: int = Field(3, ge=1)
    top: int = Field(20, ge=2)
    relevant_grade: int = Field(2, ge=1, le=3)
    per_call: int = Field(25, ge=1)
    reasoning: bool = False
    max_output_tokens: int = Field(1024, ge=1)
    relevant_preferences: tuple[Preference, ...] = ("better", "equal")
    isolate: bool = True
    order_seed: int = Field(0, ge=0)
    votes: int = Field(1, ge=1)
    flip_share: float = Field(0.0, ge=0, le=1)
    batch_size: int = Field(256, ge=2, json_schema_extra={"operational": True})

    @property
    def asked(self) -> str:
        """Return the name of model and settings. Prompts are in the call ids, so a new one changes no other call."""
        return self.engine or self.judge

    @property
    def longest_query(self) -> int:
        """Return the most characters of a query that are shown, counted in Latin letters."""
        usual = _SCORED_QUERY if self.protocol == "cross_encoder" else _LONGEST_QUERY
        return max(self.query_chars, usual if self.query_limit is None else self.query_limit)

    @property
    def ledger_name(self) -> str:
        """Return the name of this judge's part of the ledger."""
        return combine_hashes([self.asked])

    @property
    def prompt_name(self) -> str:
        """Return the prompt file for datasets whose policy names no other."""
        return self.prompt or self.protocol

    @property
    def prompt_names(self) -> tuple[str, ...]:
        """Return the names of all prompt files that may be used, sorted."""
        if self.protocol == "cross_encoder":
            return ()
        named = {self.prompt_name, *(self.prompt_of(dataset) for dataset in self.policies)}
        return tuple(sorted(named | ({SECOND_PROMPT} if self.protocol == "snippet" else set())))

    @property
    def definition_names(self) -> tuple[str, ...]:
        """Return all definitions of relevance that may be used, by name or sentence, sorted."""
        return tuple(sorted({self.definition, *(p.definition for p in self.policies.values() if p.definition)}))

    def prompt_of(self, dataset: str) -> str:
        """Return the name of the prompt file for one dataset."""
        policy = self.policies.get(dataset)
        return (policy.prompts.get(self.protocol) if policy else None) or self.prompt_name

    def definition_of(self, dataset: str) -> str:
        """Return what relevant means in one dataset, as the judge reads it."""
        policy = self.policies.get(dataset)
        return load_definition((policy.definition if policy else None) or self.definition)

    @model_validator(mode="after")
    def _check(self) -> "JudgeConfig":
        load_definition(self.definition)
        if self.not_relevant_below > self.relevant_from:
            raise ValueError(
                f"not_relevant_below={self.not_relevant_below} must not exceed relevant_from={self.relevant_from}"
            )
        if self.votes % 2 == 0:
            raise ValueError(f"votes={self.votes}: an odd number expected, so that a majority exists")
        if self.protocol == "cross_encoder":
            return self
        for name in self.prompt_names:
            prompt = load_prompt(name)
            if name != SECOND_PROMPT and prompt.protocol != self.protocol:
                raise ValueError(
                    f"prompt {name!r} is for protocol {prompt.protocol!r}, the judge's is {self.protocol!r}"
                )
            if self.protocol == "listwise" and self.reasoning and not prompt.reasoned:
                raise ValueError(f"prompt {name!r} has no `reasoned` question, which `reasoning: true` asks")
            if self.protocol in ("yes_no", "graded") and self.max_attempts > len(prompt.questions):
                raise ValueError(
                    f"max_attempts={self.max_attempts}, but prompt {name!r} holds {len(prompt.questions)} questions; "
                    "asking the same question again gives the same answer: lower max_attempts or add a question"
                )
        return self
