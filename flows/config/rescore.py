"""The settings of a reranker that scores the pool of mined candidates before negatives are picked from it."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from flows.config.engines import CrossEncoderConfig, TierConfig, VLLMRerankerConfig
from flows.config.presets import with_preset
from flows.config.section import KEYED_WHEN_SET, OPERATIONAL, Section
from flows.stages import RESCORE
from infra.engines.kinds import KINDS
from tasks.judging.config import JudgeConfig
from tasks.mining.mine import MineConfig

# What a reranker takes of a judge's settings; thresholds, votes and prompts have no effect on a score.
_OF_A_JUDGE = ("definition", "query_chars", "query_limit", "passage_chars", "batch_size")


class RescoreConfig(Section):
    """A reranker that scores the pool of mined candidates and the positives; what is picked goes by its scores.

    engine: as in a tier. A tier with the same engine and the same three lengths shares its answers.
    engines: how many run side by side.
    definition: what relevant means, for datasets without a policy; read by an instruction reranker.
    query_chars, query_limit, passage_chars, batch_size: as in a tier's `judge`.
    """

    preset: str = Field(
        "",
        exclude=True,
        description="takes the engine of a judge that is ready to use (`reneg judges` lists them), if it is a reranker",
        json_schema_extra=KEYED_WHEN_SET,
    )
    engine: Annotated[CrossEncoderConfig | VLLMRerankerConfig, Field(discriminator="kind")]
    engines: int = Field(1, ge=1, json_schema_extra=OPERATIONAL)
    depth: int | None = Field(
        None,
        ge=1,
        description="the nearest passages of each query that are scored, `mine.range_max` to `mine.depth`; "
        "default: `mine.range_max`",
    )
    definition: str = "default"
    query_chars: int = Field(500, ge=1)
    query_limit: int | None = Field(None, ge=1)
    passage_chars: int = Field(900, ge=1)
    batch_size: int = Field(256, ge=2, json_schema_extra=OPERATIONAL)

    @property
    def tier(self) -> TierConfig:
        """The reranker as a judge, for what builds engines."""
        judge = {name: getattr(self, name) for name in _OF_A_JUDGE}
        asked = {"name": RESCORE.name, "engine": self.engine.model_dump(), "engines": self.engines, "judge": judge}
        return TierConfig.model_validate(asked)

    def check(self, mine: MineConfig) -> None:
        """Refuse a depth that leaves candidates of the pool without a score, or reads ranks that are not exact.

        Raises:
            ValueError: with both bounds.
        """
        if self.depth is not None and not mine.range_max <= self.depth <= mine.depth:
            raise ValueError(
                f"rescore.depth: {mine.range_max} (mine.range_max) to {mine.depth} (mine.depth) expected, got "
                f"{self.depth}"
            )

    @model_validator(mode="before")
    @classmethod
    def _of_a_preset(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """Fill in the engine of a preset, and how its judge is asked."""
        if not isinstance(data, dict) or not data.get("preset") or not isinstance(data.get("engine", {}), dict):
            return data
        given = with_preset({"preset": data["preset"], "engine": data.get("engine", {})})
        kind = KINDS.get(str(given.get("engine", {}).get("kind", "vllm")))
        if kind is not None and kind.does != "score":
            raise ValueError(f"preset: a reranker expected (kind cross_encoder or vllm_reranker), {kind.name} is none")
        judge = {name: value for name, value in given.get("judge", {}).items() if name in _OF_A_JUDGE}
        own = {name: value for name, value in data.items() if name != "preset"}
        return {**judge, **own, "engine": given["engine"]}

    @model_validator(mode="after")
    def _can_be_asked(self) -> "RescoreConfig":
        """Refuse settings that no judge could have."""
        JudgeConfig.model_validate({"protocol": "cross_encoder", "definition": self.definition})
        return self
