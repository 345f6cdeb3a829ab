"""The prices of judges, from a file that users edit. A model that is not in the file has no price."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.config.curation import CurationConfig
from flows.config.engines import EngineConfig
from flows.config.section import ConfigError
from flows.config.yaml_file import YamlError, read_yaml
from flows.config.yaml_traps import Lookup, describe
from flows.guarantee_stages import audited
from flows.stage_names import check_stage, judge_stage
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
        """Return the price of every judging stage, by the stage's name.

        Raises:
            ConfigError: the budget is in money, and a tier has no price or a price of 0: it could not be kept.
        """
        asked = [tier for tier in config.tiers if not tier.reads_file]
        prices = {tier.name: self.of(tier.engine) for tier in asked}
        unknown = sorted({tier.engine.model for tier in asked if prices[tier.name] is None})
        if unknown and config.budget.money is not None:
            raise ConfigError(f"budget.money: no price for {', '.join(unknown)} in {_place_of(config)}; add it there")
        free = [tier.name for tier in asked if (price := prices[tier.name]) is not None and price == Price()]
        if free and config.budget.money is not None:
            raise ConfigError(
                f"budget.money: the price of tier {', '.join(free)} is 0 in {_place_of(config)}, so the "
                "budget would never be used up; give `hours` of its device a price there, or use budget.hours"
            )
        priced = {name: price for name, price in prices.items() if price is not None}
        found = {judge_stage(name): price for name, price in priced.items()}
        guaranteed = [judge_stage(tier.name) for tier in config.tiers if tier.escalate.target is not None]
        found |= {audited(stage): found[stage] for stage in guaranteed if stage in found}
        found |= {check_stage(name): price for name, price in priced.items()} if config.check.positives else {}
        return found | ({judge_stage(name, gold=True): price for name, price in priced.items()} if config.gold else {})


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
