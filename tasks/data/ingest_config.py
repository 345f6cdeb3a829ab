"""The settings of ingest: the format of the files, how they are cut into parts, and which queries are held out."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from tasks.data.layouts.fields import FieldNames, Format
from tasks.data.pieces.read import ReadConfig
from tasks.data.reading.rows import RowOptions
from tasks.data.splits import Relation, SplitRules
from tasks.data.subset import SubsetConfig
from tasks.lines import ReadLimits

MOST_REJECTED = 0.2  # of the rows, unless the settings say otherwise
_SPLIT_NAME = r"^[\w.\-]+$"
_KEYED_WHEN_SET: dict[str, JsonValue] = {"keyed_when_set": True}


class IngestConfig(BaseModel):
    """The format of the files, how they are cut into parts, and which queries are held out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field(min_length=1, description="name of the dataset; a Tevatron row's `subset` goes before it")
    format: Literal["auto"] | Format = Field("auto", description="auto: each row by its own keys")
    query_parts: int | None = Field(
        None,
        ge=1,
        description="parts of queries; null: one per 256, but 200 where that is more, and at least one per 1,000. What "
        "the source grows by gets parts of its own: one per 1,000, and no more than this",
    )
    passage_parts: int | None = Field(
        None, ge=1, description="parts of the corpus; null: one per 50,000. What it grows by gets its own, likewise"
    )
    train_split: str = Field("train", pattern=_SPLIT_NAME, description="BEIR: qrels of the training queries")
    test_split: str | None = Field("test", pattern=_SPLIT_NAME, description="BEIR: qrels of the held-out queries")
    dev_split: str | None = Field(
        None,
        pattern=_SPLIT_NAME,
        description="BEIR: qrels of the development queries",
        json_schema_extra=_KEYED_WHEN_SET,
    )
    known_split: str | None = Field(None, pattern=_SPLIT_NAME, description="BEIR: qrels of known false negatives")
    holdout: float = Field(0.0, ge=0, le=1, description="share of queries held out (BEIR: where test_split is null)")
    dev: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of queries held out for choosing settings (`evaluate.split: dev`), neither trained on nor "
        "tested (BEIR: where dev_split and test_split are null)",
        json_schema_extra=_KEYED_WHEN_SET,
    )
    holdout_by: tuple[Relation, ...] = Field(
        ("query", "near_duplicate", "positive"),
        description="queries on one side of the split: `query`, the same but for case, punctuation or spaces; "
        "`near_duplicate`, nearly the same; `positive`, with a positive in common. The first two also leave out "
        "training queries that are so like a query of test_split or dev_split",
        json_schema_extra=_KEYED_WHEN_SET,
    )
    near_duplicate: float = Field(
        0.8,
        gt=0,
        le=1,
        description="queries are nearly the same from this similarity on (Jaccard, of runs of four characters), if the "
        "numbers in them are the same",
        json_schema_extra=_KEYED_WHEN_SET,
    )
    holdout_cluster: float = Field(
        0.02,
        ge=0,
        le=1,
        description="the largest share of the queries that near-duplicates and common positives put on one side "
        "together (in any case ten queries, or an eighth of fewer than 80); links beyond it are not followed, and "
        "counted",
        json_schema_extra=_KEYED_WHEN_SET,
    )
    near_test_queries: Literal["leave_out", "keep"] = Field(
        "leave_out",
        description="BEIR: training queries that are the same or nearly the same as a query of test_split or dev_split",
        json_schema_extra=_KEYED_WHEN_SET,
    )
    min_relevance: int = Field(1, description="BEIR: lowest score of a positive")
    max_chars: int = Field(20_000, ge=1, description="longer texts are cut to so many characters")
    max_rejected: float = Field(
        MOST_REJECTED,
        ge=0,
        le=1,
        description="the run stops before anything is encoded if more than this share of the rows cannot be used, or "
        "if the rest of a file cannot be read; 1: never. 0: if anything at all is lost (`reneg curate --strict`)",
        json_schema_extra={"operational": True},
    )
    limits: ReadLimits = Field(ReadLimits(), json_schema_extra=_KEYED_WHEN_SET)
    fields: FieldNames = Field(FieldNames(), json_schema_extra=_KEYED_WHEN_SET)
    positive_from: float | None = Field(
        None,
        description="lowest label or score of a positive in labelled pairs and lists; null: labels are 0 or 1",
        json_schema_extra=_KEYED_WHEN_SET,
    )
    run: str | None = Field(
        None,
        description="a corpus's given candidates: the name of a TREC run in `runs/`, where there are several",
        json_schema_extra=_KEYED_WHEN_SET,
    )
    subset: SubsetConfig | None = Field(
        None, description="only some of the queries, drawn by their texts", json_schema_extra=_KEYED_WHEN_SET
    )

    @property
    def row_options(self) -> RowOptions:
        """What the settings say of rows."""
        return RowOptions(names=self.fields, positive_from=self.positive_from, limits=self.limits)

    @property
    def reading(self) -> ReadConfig:
        """What decides how a file of rows is read apart; how many rejects are listed is none of it."""
        limits = self.limits.model_copy(update={"rejects": ReadLimits().rejects})
        return ReadConfig(format=self.format, fields=self.fields, positive_from=self.positive_from, limits=limits)

    @model_validator(mode="after")
    def _splits_differ(self) -> "IngestConfig":
        every = (self.train_split, self.dev_split, self.test_split, self.known_split)
        names = [name for name in every if name is not None]
        if len(set(names)) < len(names):
            raise ValueError(
                f"train_split, dev_split, test_split and known_split must be different files, got {', '.join(names)}"
            )
        if self.holdout + self.dev > 1:
            raise ValueError(
                "holdout and dev are shares of all queries, so their sum must not exceed 1: "
                f"got {self.holdout:g} and {self.dev:g}"
            )
        return self

    def split_rules(self, *, place: bool) -> SplitRules:
        """Return how queries are held out; without `place`, only where the source names their split."""
        return SplitRules(
            holdout=self.holdout if place else 0.0,
            dev=self.dev if place else 0.0,
            by=frozenset(self.holdout_by),
            similarity=self.near_duplicate,
            cluster_share=self.holdout_cluster,
            leave_out_near=self.near_test_queries == "leave_out",
        )
