"""The prices of judges, from a file that users edit. A model that is not in the file has no price."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.config.curation import CurationConfig
from flows.config.engines import EngineConfig
from flows.config.section import ConfigError
from flows.stages import judge_stage
from infra.engines.kinds import kind_of, on_gpu
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

    def of(self, engine: EngineConfig) -> Price | None:
        """Return the price of one engine; None if the file does not hold its model."""
        kind = kind_of(engine)
        if not kind.is_endpoint:
            return Price(hour=self.hours.get("cuda" if on_gpu(engine) else "cpu", 0.0))
        found = self.models.get(engine.model)
        if found is None:
            return None
        share = self.batch if kind.jobs else 1.0
        cached = None if found.cached_input is None else found.cached_input * share
        return Price(input=found.input * share, cached_input=cached, output=found.output * share)

    def of_stages(self, config: CurationConfig) -> dict[str, Price]:
        """Return the price of every judging stage, by the stage's name.

        Raises:
            ConfigError: the budget is in money, and a tier has no price or a price of 0: it could not be kept.
        """
        prices = {tier.name: self.of(tier.engine) for tier in config.tiers}
        unknown = sorted({tier.engine.model for tier in config.tiers if prices[tier.name] is None})
        if unknown and config.budget.money is not None:
            raise ConfigError(f"budget.money: no price for {', '.join(unknown)} in {_place_of(config)}; add it there")
        free = [tier.name for tier in config.tiers if (price := prices[tier.name]) is not None and price == Price()]
        if free and config.budget.money is not None:
            raise ConfigError(
                f"budget.money: the price of tier {', '.join(free)} is 0 in {_place_of(config)}, so the "
                "budget would never be used up; give `hours` of its device a price there, or use budget.hours"
            )
        priced = {name: price for name, price in prices.items() if price is not None}
        found = {judge_stage(name): price for name, price in priced.items()}
        return found | ({judge_stage(name, gold=True): price for name, price in priced.items()} if config.gold else {})


def load_prices(config: CurationConfig) -> Prices:
    """Read the configuration's prices or its price file, or the built-in one.

    Raises:
        ConfigError: it cannot be read, or is not a price file.
    """
    prices, place = config.prices, _place_of(config)
    try:
        if not isinstance(prices, dict):
            prices = yaml.safe_load(Path(place).read_text(encoding="utf-8"))
        return Prices.model_validate(prices)
    except OSError as error:
        raise ConfigError(f"prices: {place} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"prices: {place} is not a price file like {_BUILT_IN}: {error}") from error


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
