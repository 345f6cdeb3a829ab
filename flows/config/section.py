"""What every section of the settings shares: its base class, the mark of operational settings, the error."""

from pydantic import BaseModel, ConfigDict, JsonValue

# Marks a setting that does not decide the content of any artifact: it stays out of the parts' keys.
OPERATIONAL: dict[str, JsonValue] = {"operational": True}
# Marks a setting added to an existing section: at its default it stays out of the keys, so finished parts keep theirs.
KEYED_WHEN_SET: dict[str, JsonValue] = {"keyed_when_set": True}


class ConfigError(Exception):
    """The settings cannot be used, or they name something that does not exist; the message has one line per problem."""


class Section(BaseModel):
    """A section of the settings, frozen. Unknown keys are refused. Errors show no input, because it may be secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
