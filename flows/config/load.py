"""Reading the settings from one YAML file: validated, unknown keys refused with the nearest known one named."""

import difflib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from flows.config.curation import PREVIEW, CurationConfig, is_no_file
from flows.config.engines import TierConfig
from flows.config.section import ConfigError
from flows.config.training_recipes import refuse_other_reading
from flows.config.yaml_files.read import YamlError, read_yaml
from flows.config.yaml_files.traps import Lookup, describe, places
from infra.engines.kinds import refusal_of
from infra.engines.specs import ScoresSpec
from infra.token_patterns import hide_tokens
from tasks.evaluation.measures import refuse_deep


def load_config(path: Path) -> CurationConfig:
    """Read and validate one YAML file; relative paths in it are taken from its folder.

    Raises:
        ConfigError: the file cannot be read, is not YAML, does not fit, holds a secret, has the name of a preview,
            would send a key to another machine unencrypted, trains on other prompts than it mines with, or measures
            deeper than it ranks; every problem on its own line.
    """
    try:
        data, lookup = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except YamlError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a mapping of settings expected, {type(data).__name__} came")
    config = parse_config(data, str(path), lookup)
    if config.name.endswith(PREVIEW):
        raise ConfigError(f"{path}: name: names that end in {PREVIEW} are those of `reneg preview`; choose another")
    _refuse_secrets(config, path)
    told = refuse_other_reading(config.encoder, config.train, config.evaluate)
    try:
        refuse_deep(config.evaluate.measures, config.evaluate.depth)
    except ValueError as error:
        told.append(f"evaluate.{error}")
    if told:
        raise ConfigError("\n".join(f"{path}: {line}" for line in told))
    source = config.source.model_copy(update={"path": _beside(path, config.source.path)})
    imported = config.imported and config.imported.model_copy(update={"path": _beside(path, config.imported.path)})
    tiers = tuple(_with_file_beside(path, tier) for tier in config.tiers)
    gold = config.gold and config.gold.model_copy(update={"path": _beside(path, config.gold.path)})
    calibration = config.calibration if is_no_file(config.calibration) else _beside(path, config.calibration)
    prices = _beside(path, config.prices) if isinstance(config.prices, str) else config.prices
    evaluation = tuple(filter(None, (_beside(path, address) for address in config.guards.evaluation)))
    guards = config.guards.model_copy(update={"evaluation": evaluation})
    sets = tuple(s.model_copy(update={"path": _beside(path, s.path)}) for s in config.evaluate.collections)
    evaluate = config.evaluate.model_copy(update={"collections": sets})
    found = {"source": source, "prices": prices, "gold": gold, "imported": imported, "tiers": tiers, "guards": guards}
    return config.model_copy(update={**found, "calibration": calibration, "evaluate": evaluate})


def _with_file_beside(config: Path, tier: TierConfig) -> TierConfig:
    if not isinstance(tier.engine, ScoresSpec):
        return tier
    engine = tier.engine.model_copy(update={"path": _beside(config, tier.engine.path)})
    return tier.model_copy(update={"engine": engine})


def _refuse_secrets(config: CurationConfig, path: Path) -> None:
    """Refuse what must not be written into the store and into reports, and keys that others could read on their way.

    This is looked at in files only: what a store holds already can still be read.

    Raises:
        ConfigError: a line for each such setting; it does not repeat the value.
    """
    told = [
        f"{path}: {field}: this looks like a secret, and a configuration is kept in the store and shown in reports; "
        "put it into a variable of the environment"
        for field in _secrets_in(config.model_dump(mode="json"))
    ]
    asked = {f"tiers.{number}.engine": tier.engine for number, tier in enumerate(config.tiers)} | config.all_encoders
    refusals = [(place, refusal_of(engine)) for place, engine in asked.items()]
    told += [f"{path}: {place}.{refusal}" for place, refusal in refusals if refusal]
    if told:
        raise ConfigError("\n".join(told))


def _secrets_in(value: Any, field: str = "") -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Yield the fields whose text has the form of a secret: a token, an address with a password or a signature."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _secrets_in(inner, f"{field}.{name}" if field else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _secrets_in(inner, f"{field}.{number}")
    elif isinstance(value, str) and hide_tokens(value) != value:
        yield field


def _beside(config: Path, name: str | None) -> str | None:
    """Resolve a relative path against the configuration's folder."""
    if name is None or "://" in name or Path(name).is_absolute():
        return name
    return str((config.parent / name).resolve())


def parse_config(data: dict[str, Any], origin: str, lookup: Lookup = lambda _: None) -> CurationConfig:
    """Validate settings; `origin` names them in errors, `lookup` says how a value stands in their file.

    Raises:
        ConfigError: every problem on its own line.
    """
    try:
        return CurationConfig.model_validate(data)
    except ValidationError as error:
        problems = error.errors()
        if any(problem["loc"] == ("name",) for problem in problems):  # the dataset is named by it
            problems = [problem for problem in problems if problem["loc"] != ("ingest", "dataset")]
        lines = dict.fromkeys(f"{origin}: {_explain(problem, data, lookup)}" for problem in problems)
        raise ConfigError("\n".join(lines)) from error


def _explain(problem: Any, data: Any, lookup: Lookup) -> str:  # noqa: ANN401 - pydantic's error details; any settings
    where = ".".join(places(problem["loc"], data))
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
        told = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown key {where!r}; {told}"
    return f"{where} is missing" if problem["type"] == "missing" else describe(problem, data, lookup)


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Return the keys a section knows, walking down the models by field name."""
    models: list[Any] = [CurationConfig]
    for step in path:
        fields = [m.model_fields[step] for m in models if isinstance(step, str) and step in m.model_fields]
        if fields:
            models = models_in(fields[0].annotation)
        else:  # a place in a list, or the kind that chose among several models
            models = [
                m for m in models if "kind" not in m.model_fields or m.model_fields["kind"].default == step
            ] or models
    return [name for model in models for name in model.model_fields]


def models_in(annotation: Any) -> list[Any]:  # noqa: ANN401 - any type expression
    """List the models that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in models_in(inner)]
