"""Settings of the guards, and of their stages."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_SIMILARITY = 0.6


class GuardsConfig(BaseModel):
    """Which near duplicates are looked for, and what is done about them. By default no guard is on.

    Two texts are near duplicates if the Jaccard similarity of their shingles reaches `similarity`. A shingle is a run
    of seven characters, or of three Chinese, Japanese or Korean ones; case, punctuation and Unicode form do not count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    similarity: float = Field(
        _SIMILARITY, ge=0.4, le=1, description="Jaccard similarity from which two texts are near duplicates"
    )
    positives: Literal["none", "report", "drop"] = Field(
        "none",
        description="candidates that nearly repeat a positive of their query: not looked for, reported, or taken out "
        "of the pool before anything is judged",
    )
    corpus: bool = Field(False, description="find groups of near duplicates among all passages")
    rows: Literal["none", "same", "near"] = Field(
        "none",
        description="rows that must not share a batch, because a negative or positive of one is a positive of the "
        "other: not looked for; by equal texts; or also by near duplicates (with `corpus: true`)",
    )
    most_rows: int = Field(100, ge=2, description="rows of one text that `rows` pairs; further ones are counted")
    evaluation: tuple[str, ...] = Field(
        (),
        description="evaluation sets that the training data must not hold: BEIR folders, or files of queries and texts "
        "(addresses as for source.path)",
    )
    contamination: Literal["report", "drop", "refuse"] = Field(
        "report",
        description="training queries that repeat a text of an evaluation set, or have a positive that does: are "
        "reported, dropped, or end the run before anything is encoded or judged",
    )

    @model_validator(mode="after")
    def _near_rows_need_the_corpus(self) -> Self:
        """Refuse near rows without the near duplicates of the corpus."""
        if self.rows == "near" and not self.corpus:
            raise ValueError("guards.rows: near reads the near duplicates of the corpus; set guards.corpus: true too")
        return self


class SketchConfig(BaseModel):
    """How texts are put into buckets: over so many shards, and of the passages' parts of each generation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: int = Field(1, ge=1)
    generations: tuple[int, ...] = (1,)


class NearConfig(BaseModel):
    """From which similarity two texts are near duplicates, and over how many shards the result is spread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    similarity: float = _SIMILARITY
    shards: int = Field(1, ge=1)


class RepeatsConfig(BaseModel):
    """From which similarity a candidate repeats a positive, and whether it is dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    similarity: float = _SIMILARITY
    drop: bool = False


class RowsConfig(BaseModel):
    """Rows of which treatment are compared, over how many shards, and how many rows of one text are paired."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    treatment: str = "default"
    shards: int = Field(1, ge=1)
    most_rows: int = Field(100, ge=2)


class EvaluationConfig(BaseModel):
    """The names of the evaluation sets, in the order of their folders `0`, `1`, … below the source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sets: tuple[str, ...] = ()


class ContaminationConfig(BaseModel):
    """From which similarity a text repeats one of an evaluation set, and whether such training queries are dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    similarity: float = _SIMILARITY
    drop: bool = False
