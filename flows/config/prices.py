"""The prices of judges and encoders, from a file that users edit. A model that is not in the file has no price."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.config.curation import CurationConfig
from flows.config.engines import AnyEncoderConfig, EngineConfig
from flows.config.section import ConfigError
from flows.config.yaml_files.read import YamlError, read_yaml
from flows.config.yaml_files.traps import Lookup, describe
from flows.guarantee_stages import audited
from flows.stage_names import check_stage, encode_stages, held_out_stage, judge_stage
from flows.stages import RESCORE
from infra.engines.kinds import kind_of, on_gpu
from infra.engines.specs import OpenAIEmbeddingsSpec
from infra.execution.usage_meter import Price

_BUILT_IN = Path(__file__).with_name("prices.yaml")


class TokenPrice(BaseModel):
    """Prices per million tokens. cached_input: None means the price of any other input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0)
    output: float = Field(ge=0)


class Prices(BaseModel):
    """A price file: tokens by the endpoint's name of the model, and hours of your own machines by device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = "USD"
    models: Mapping[str, TokenPrice] = Field(default_factory=dict)
    batch: float = Field(0.5, ge=0, le=1)
    hours: Mapping[str, float] = Field(default_factory=dict)

    def of(self, engine: EngineConfig | AnyEncoderConfig) -> Price | None:
        """Return the price of one engine; None if the file does not hold its model."""
        kind = kind_of(engine)
        if kind.is_file:
            return Price()
        if not kind.is_endpoint:
            return Price(hour=self.hours.get("cuda" if on_gpu(engine) else "cpu", 0.0))
        found = self.models.get(engine.model)
        if found is None:
            return None
        share = self.batch if kind.jobs else 1.0
        cached = None if found.cached_input is None else found.cached_input * share
        return Price(input=found.input * share, cached_input=cached, output=found.output * share)

    def of_stages(self, config: CurationConfig) -> dict[str, Price]:
        """Return the price of every stage that judges, or that asks an endpoint for vectors, by the stage's name.

        Raises:
            ConfigError: the budget is in money, and an endpoint has no price, or a tier has none or a price of 0: it
                could not be kept.
        """
        asked = [tier for tier in config.tiers if not tier.reads_file]
        prices = {tier.name: self.of(tier.engine) for tier in asked}
        encoding = {stage: (encoder.model, self.of(encoder)) for stage, encoder in encoding_endpoints(config).items()}
        unknown = sorted(
            {tier.engine.model for tier in asked if prices[tier.name] is None}
            | {model for model, price in encoding.values() if price is None}
        )
        if unknown and config.budget.money is not None:
            raise ConfigError(f"budget.money: no price for {', '.join(unknown)} in {_place_of(config)}; add it there")
        free = [f"tier {tier.name}" for tier in asked if prices[tier.name] == Price()]
        if config.rescore is not None and self.of(config.rescore.engine) == Price():
            free.append("`rescore`")
        if free and config.budget.money is not None:
            raise ConfigError(
                f"budget.money: the price of {', '.join(free)} is 0 in {_place_of(config)}, so the "
                "budget would never be used up; give `hours` of its device a price there, or use budget.hours"
            )
        priced = {name: price for name, price in prices.items() if price is not None}
        found = {judge_stage(name): price for name, price in priced.items()}
        found |= {stage: price for stage, (_, price) in encoding.items() if price is not None}
        if config.evaluate.pool is not None:
            found |= {held_out_stage(name): price for name, price in priced.items()}
        last = [tier.name for tier in config.tiers if tier.escalate.target is not None]
        guaranteed = [stage for name in last for stage in (judge_stage(name), held_out_stage(name))]
        found |= {audited(stage): found[stage] for stage in guaranteed if stage in found}
        found |= {check_stage(name): price for name, price in priced.items()} if config.check.positives else {}
        if config.rescore is not None and (price := self.of(config.rescore.engine)) is not None:
            found[RESCORE.name] = price
        return found | ({judge_stage(name, gold=True): price for name, price in priced.items()} if config.gold else {})


def encoding_endpoints(config: CurationConfig) -> dict[str, OpenAIEmbeddingsSpec]:
    """Return the encoders that are endpoints, by the name of each stage in which they are asked."""
    found: dict[str, OpenAIEmbeddingsSpec] = {}
    for place, encoder in config.all_encoders.items():
        if isinstance(encoder, OpenAIEmbeddingsSpec):
            of_gold = encode_stages(place, gold=True) if place == "encoder" and config.gold else ()
            found |= dict.fromkeys((*encode_stages(place), *of_gold), encoder)
    return found


def load_prices(config: CurationConfig) -> Prices:
    """Read the configuration's prices or its price file, or the built-in one.

    Raises:
        ConfigError: it cannot be read, or is not a price file.
    """
    prices, place = config.prices, _place_of(config)
    lookup: Lookup = lambda _: None  # noqa: E731 - typed, and replaced where there is a file
    try:
        if not isinstance(prices, dict):
            prices, lookup = read_yaml(Path(place))
        return Prices.model_validate(prices)
    except OSError as error:
        raise ConfigError(f"prices: {place} cannot be read ({error.strerror})") from error
    except (YamlError, ValidationError) as error:
        lines = str(error).splitlines()
        if isinstance(error, ValidationError):
            lines = [describe(problem, prices, lookup) for problem in error.errors()]
        told = f"prices: {place} is not a price file like {_BUILT_IN}"
        raise ConfigError("\n".join(f"{told}: {line}" for line in lines)) from error


def with_prices(config: CurationConfig) -> CurationConfig:
    """Put the content of the price file into the configuration, for machines that do not have the file.

    Raises:
        ConfigError: as `load_prices`.
    """
    if not isinstance(config.prices, str):
        return config
    return config.model_copy(update={"prices": load_prices(config).model_dump(mode="json")})


def _place_of(config: CurationConfig) -> str:
    return "the configuration" if isinstance(config.prices, dict) else config.prices or str(_BUILT_IN)
