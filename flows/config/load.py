"""Reading the settings from one YAML file: validated, unknown keys refused with the nearest known one named."""

import difflib
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from flows.config.curation import CurationConfig
from flows.config.section import ConfigError


def load_config(path: Path) -> CurationConfig:
    """Read and validate one YAML file; relative paths in it are taken from its folder.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or does not fit; every problem on its own line.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a mapping of settings expected, {type(data).__name__} came")
    config = parse_config(data, str(path))
    source = config.source.model_copy(update={"path": _beside(path, config.source.path)})
    gold = config.gold and config.gold.model_copy(update={"path": _beside(path, config.gold.path)})
    prices = _beside(path, config.prices) if isinstance(config.prices, str) else config.prices
    return config.model_copy(update={"source": source, "prices": prices, "gold": gold})


def _beside(config: Path, name: str | None) -> str | None:
    """Resolve a relative path against the configuration's folder."""
    if name is None or "://" in name or Path(name).is_absolute():
        return name
    return str((config.parent / name).resolve())


def parse_config(data: dict[str, Any], origin: str) -> CurationConfig:
    """Validate settings; `origin` names them in errors.

    Raises:
        ConfigError: every problem on its own line.
    """
    try:
        return CurationConfig.model_validate(data)
    except ValidationError as error:
        lines = [f"{origin}: {_explain(problem)}" for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def _explain(problem: Any) -> str:  # noqa: ANN401 - pydantic's error details
    where = ".".join(str(step) for step in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"unknown key {where!r}; {hint}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


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
