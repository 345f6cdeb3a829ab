"""Judges that are ready to use: `preset: weak-cpu` in a tier takes the settings of a file in `flows/config/judges`.

Each file says what the judge needs and where its figures come from (`about`), and holds a tier's settings (`tier`).
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from flows.config.section import Section

FOLDER = Path(__file__).parent / "judges"


class About(Section):
    """What a judge needs and costs, in words.

    what: the model. licence: of its weights. memory: that one engine takes. offline: no hub and no endpoint is asked.
    pairs_per_second: expected; with where the figure comes from. quality: what is known of it, and from whom.
    """

    what: str
    licence: str
    memory: str
    pairs_per_second: str
    quality: str
    offline: bool = False


class Preset(Section):
    """A judge that is ready to use: what it is, and a tier's settings."""

    about: About
    tier: Mapping[str, Any] = Field(description="as in a configuration")


def names_in(folder: Path) -> list[str]:
    """List the settings of a folder by name."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_named(folder: Path, what: str, name: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Read settings of a folder by their name.

    Raises:
        ValueError: there are none of this name. what: `preset` or `recipe`, for the message.
    """
    if name not in (names := names_in(folder)):
        raise ValueError(f"{what}: one of {', '.join(names)} expected, got {name!r}")
    return yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))


def preset_names() -> list[str]:
    """List the presets by name."""
    return names_in(FOLDER)


@cache
def load_preset(name: str) -> Preset:
    """Read a preset.

    Raises:
        ValueError: there is none of this name.
    """
    return Preset.model_validate(read_named(FOLDER, "preset", name))


def with_preset(tier: Mapping[str, Any]) -> dict[str, Any]:
    """Put a preset's settings below a tier's own: what the tier says itself counts, field by field.

    An `engine` of another `kind` takes nothing of the preset's engine, because its fields are others.

    Raises:
        ValueError: there is no preset of this name.
    """
    own = {name: value for name, value in tier.items() if name != "preset"}
    if not tier.get("preset"):
        return own
    given = dict(load_preset(str(tier["preset"])).tier)
    said, preset = own.get("engine", {}), given.get("engine", {})
    if "kind" in said and said["kind"] != preset.get("kind", "vllm"):
        given = {name: value for name, value in given.items() if name in ("name", "escalate")}
    return merged(given, own)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings, however deep; the second counts where both name a value that is no mapping.

    >>> merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}, "d": {"e": 6}})
    {'a': {'b': 5, 'c': 2}, 'd': {'e': 6}}
    """
    found = dict(below)
    for name, value in above.items():
        under = found.get(name)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        found[name] = merged(under, value) if both else value  # type: ignore[arg-type]
    return found
