"""Recipes of training, ready to use: `recipe: e5-base` takes the settings of a file in `flows/config/recipes`.

And the one place for what a model reads: training and evaluation take prompts and lengths from `encoder`.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from flows.config.engines import EncoderConfig
from flows.config.presets import merged, names_in, read_named
from flows.config.section import Section
from tasks.training.evaluate import EvaluateConfig
from tasks.training.train_config import TrainConfig

FOLDER = Path(__file__).parent / "recipes"
_READING = ("query_prompt", "passage_prompt", "max_seq_length")  # what a model reads: one setting of `encoder`
_READERS = ("train", "evaluate")
SAID = (
    "how models are trained, ready to use: one name, or several, of which a later one counts more (docs/methods.md "
    "lists them); what the configuration says itself counts most"
)


class About(Section):
    """What a recipe trains, the licence of the weights, what it needs, and where its figures come from, in words."""

    what: str
    licence: str
    needs: str
    source: str


class Recipe(Section):
    """A way to train that is ready to use: what it is, and sections of the settings."""

    about: About
    settings: Mapping[str, Mapping[str, Any]] = Field(description="as in a configuration")


def recipe_names() -> list[str]:
    """List the recipes by name."""
    return names_in(FOLDER)


@cache
def load_recipe(name: str) -> Recipe:
    """Read a recipe.

    Raises:
        ValueError: there is none of this name.
    """
    return Recipe.model_validate(read_named(FOLDER, "recipe", name))


def with_recipe(data: Any) -> Any:  # noqa: ANN401 - whatever a file holds
    """Put a recipe's sections below the configuration's own, and the encoder's reading into training and evaluation.

    What the configuration says itself counts, field by field. `train: null` stays. Of several recipes the later counts.

    Raises:
        ValueError: there is no recipe of this name.
    """
    if not isinstance(data, dict):
        return data
    given: dict[str, Any] = dict(data)
    named = given.get("recipe") or ()
    below: dict[str, Any] = {}
    for name in named if isinstance(named, list | tuple) else (named,):
        below = merged(below, load_recipe(str(name)).settings)
    given = merged(below, data)
    encoder = given.get("encoder", {})
    if not isinstance(encoder, Mapping | EncoderConfig):
        return given
    said = encoder if isinstance(encoder, Mapping) else encoder.model_dump()
    unset = EncoderConfig()
    reading = {name: said.get(name, getattr(unset, name)) for name in _READING}
    if any(type(value) is not type(getattr(unset, name)) for name, value in reading.items()):
        return given  # the encoder is refused
    for section in _READERS:
        if isinstance(own := given.get(section, {}), Mapping):
            given[section] = {**reading, **own}
    return given


def refuse_other_reading(encoder: BaseModel, train: TrainConfig | None, evaluate: EvaluateConfig) -> list[str]:
    """Return a line for each prompt or length of training or evaluation that does not fit the others, with what to do.

    Prompts must be those with which the encoder mines. An evaluation may read more of a text than the training, as the
    paper's does (350 and 512 tokens), and not less.
    """
    if train is None:
        return []  # nothing is evaluated either
    told = []
    for section, reader in (("train", train), ("evaluate", evaluate)):
        for name in _READING[:2]:
            wanted = getattr(encoder, name)
            if getattr(reader, name) != wanted:
                told.append(
                    f"{section}.{name}: {wanted!r} expected, as encoder.{name} says, with which the negatives are "
                    f"mined; got {getattr(reader, name)!r}; remove it, and set encoder.{name}"
                )
    if evaluate.max_seq_length < train.max_seq_length:
        told.append(
            f"evaluate.max_seq_length: at least train.max_seq_length={train.max_seq_length} expected, got "
            f"{evaluate.max_seq_length}; the model would be measured on less than it was trained on"
        )
    return told
