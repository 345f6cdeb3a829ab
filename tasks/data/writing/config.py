"""Settings of the export: which formats, what each row holds, and which tables that needs."""

from collections.abc import Mapping
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Target = Literal["tevatron", "flagembedding", "sentence-transformers", "beir", "trec", "datasets"]
FORMATS: tuple[Target, ...] = get_args(Target)
# Added to an existing section: at its default the setting stays out of the keys of stages.
_KEYED_WHEN_SET: dict[str, JsonValue] = {"keyed_when_set": True}


class Facts(BaseModel):
    """What the card of a dataset folder says of the curation besides the tables' own figures; each entry is a line.

    curation: its id. about: what decided the labels (sources, judges, thresholds), in the order in which it is shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    curation: str = ""
    about: Mapping[str, str] = Field(default_factory=dict)


class ExportConfig(BaseModel):
    """Which formats to write, and what their rows hold. `docs/exports.md` shows the files and columns of each format.

    formats: one folder each.
    num_negatives: for sentence-transformers: negative_1 … negative_n; further ones are left out (RLHN: 7).
    short: for n-tuples of sentence-transformers: a row with fewer than `num_negatives` negatives is left out (`drop`),
        repeats its negatives from the first (`pad`; without negatives it is written to a folder of its own), or has
        nulls in the missing columns (`keep`).
    file_type: file type of the rows for sentence-transformers.
    shape: columns of the rows for sentence-transformers, named as its `mine_hard_negatives` names them. `n-tuple`,
        `triplet` and `pair` train an embedding model, `labeled-pair` and `labeled-list` a reranker.
    soft_labels: write a score for each passage: P(relevant) of the final `decision`, or the `teacher`'s score that came
        with the source. With `decision`, a passage without one has its label's own value, 1 or 0.
    provenance: write for each passage who decided on it (`label`, `judge`, `human`), and where it stood at first
        (`positive`, `negative`, `pool`). Formats without a place for it leave it out, and export.json says so.
    licences: licence of each dataset, for the card of the `datasets` folder; `"*"` stands for all others.
    facts: what the card says of the curation; set by the flow.
    rendered: formats whose lines the query parts have written already; set by the flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    formats: tuple[Target, ...] = Field(("tevatron",), min_length=1)
    num_negatives: int = Field(7, ge=0)
    short: Literal["drop", "pad", "keep"] = "pad"
    file_type: Literal["parquet", "jsonl"] = "parquet"
    shape: Literal["n-tuple", "triplet", "pair", "labeled-pair", "labeled-list"] = Field(
        "n-tuple", json_schema_extra=_KEYED_WHEN_SET
    )
    soft_labels: Literal["none", "decision", "teacher"] = Field("none", json_schema_extra=_KEYED_WHEN_SET)
    provenance: bool = Field(False, json_schema_extra=_KEYED_WHEN_SET)
    licences: dict[str, str] = Field(default_factory=dict, json_schema_extra=_KEYED_WHEN_SET)
    facts: Facts | None = Field(None, json_schema_extra=_KEYED_WHEN_SET)
    rendered: tuple[Target, ...] = Field((), json_schema_extra=_KEYED_WHEN_SET)

    @model_validator(mode="after")
    def _rows_can_be_made(self) -> Self:
        """Refuse shapes that hold no negative, and soft labels for negatives that are not there."""
        if self.shape not in ("n-tuple", "pair") and not self.num_negatives:
            raise ValueError(f"shape {self.shape} needs negatives, num_negatives is 0; set it to 1 or more")
        if self.short == "keep" and self.soft_labels != "none":
            raise ValueError("short: keep leaves rows without a score for each column; set short to pad or drop")
        return self

    def wanted(self) -> frozenset[str]:
        """Name the tables that these settings need besides instances, queries and passages, if the curation has them.

        >>> sorted(ExportConfig(formats=("trec",), soft_labels="decision").wanted())
        ['candidates', 'decisions', 'extras', 'positives', 'teacher']
        """
        names = {"teacher", "extras"}
        names |= {"positives", "decisions"} if self.soft_labels == "decision" or self.provenance else set()
        names |= {"negatives"} if self.provenance else set()
        names |= {"candidates"} if "trec" in self.formats else set()
        names |= {"agreement", "people"} if "datasets" in self.formats else set()
        return frozenset(names)
