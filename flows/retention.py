"""How long curations and releases are kept; the garbage collector goes by it."""

from pydantic import BaseModel, ConfigDict, Field


class RetentionConfig(BaseModel):
    """What `reneg gc` keeps of one name; unfinished curations, and those of kept releases, stay in any case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    curations: int = Field(30, ge=1, description="The newest so many curations stay.")
    days: float = Field(30.0, ge=0, description="So do all that were at work within so many days.")
    releases: int = Field(5, ge=1, description="The newest so many releases stay, the current one among them.")
