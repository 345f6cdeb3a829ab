"""What every section of the settings shares: its base class, the mark of operational settings, the error."""

from pydantic import BaseModel, ConfigDict, JsonValue

# Marks a setting that does not decide the content of any artifact: it stays out of the parts' keys.
OPERATIONAL: dict[str, JsonValue] = {"operational": True}


class ConfigError(Exception):
    """The settings cannot be used, or something they name is not there; the message has one line per problem."""


class Section(BaseModel):
    """A section of the settings: frozen; unknown keys are refused. Errors never show input: it may hold a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
