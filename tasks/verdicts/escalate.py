"""Choose the candidates that the next tier is asked about (paper §3.1).

The paper forwards a whole row if its weak judge flags anything in it (66% of all rows). Here single pairs are
forwarded, by the score of the tier before, within a budget. `unit: row` does as the paper does.
"""

import math
from collections.abc import Iterable
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from tasks.schemas import BY_PEOPLE, CANDIDATES
from tasks.verdicts.pairs import PAIR, QUESTION, ROW, check_band, check_unique, is_in_band

_EPSILON = 1e-6  # 0.29 * 100 is below 29
_KEYED_WHEN_SET: dict[str, JsonValue] = {"keyed_when_set": True}


class PerQueryConfig(BaseModel):
    """How many questions a query gets: more where it has too few candidates that are surely not relevant.

    start: so many questions each query gets, about its highest scores.
    most: so many it gets at most. One question is added for each certain negative that it lacks, about the lowest
        scores that are left, because those become negatives most often.
    enough: a query with so many certain negatives lacks none; null: `mine.num_negatives`.
    below: a candidate with a lower score is a certain negative. It is counted, also where it is not eligible.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start: int = Field(ge=0)
    most: int = Field(ge=1)
    enough: int | None = Field(None, ge=1)
    below: float = Field(0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> "PerQueryConfig":
        if self.most < self.start:
            raise ValueError(f"per_query: most={self.most} must not be below start={self.start}")
        return self


class TargetConfig(BaseModel):
    """What a tier, the oracle, must guarantee of the pairs called relevant; see tasks.verdicts.guarantee.

    recall, precision: of the final set against what the oracle would say of all pairs; null: no demand.
    of: the oracle's name, that of the tier itself.
    confidence: the chance, over the draw of the audit sample, with which all demands hold together.
    audit: how many questions the audit sample has; below 1 a share of all, null: as many as the target needs.
    seed: seed of the draw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    recall: float | None = Field(None, gt=0, le=1)
    precision: float | None = Field(None, gt=0, le=1)
    of: str | None = None
    confidence: float = Field(0.95, gt=0, lt=1)
    audit: float | None = Field(None, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "TargetConfig":
        if self.recall is None and self.precision is None:
            raise ValueError("target: give recall, precision, or both, such as target: {recall: 0.95, precision: 0.9}")
        return self


class EscalateConfig(BaseModel):
    """Which candidates a tier is asked about, given the verdicts of the tier before it.

    states: candidates in these states are forwarded; those in state `unparsed` always are.
    lower, upper: candidates with a score between these, bounds included, are forwarded too, in any state.
    unit: `pair` forwards these candidates only, `row` all candidates of their queries (as the paper does).
    max_share: the largest share of all distinct questions that is forwarded.
    max_pairs: the largest number of distinct questions that is forwarded.
    per_query: a budget for each query, before those for all; only with `unit: pair`.
    target: a guarantee instead of budgets: what cannot be accepted or rejected with it is forwarded, whatever it costs.
    warn_share: the report and the terminal warn where the tier before passes on more than this share of its pairs.
    pairs_per_part: approximate size of the new parts; the candidates of a query stay in one part.
    calibrated: false where the scores of the tier before are of no known scale. Then neither states nor the band
        exclude anything: all candidates are forwarded in the order of their scores, as far as the budgets reach. Set
        by the flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    states: tuple[Literal["relevant", "not_relevant", "unsure"], ...] = ("relevant", "unsure")
    lower: float | None = Field(None, ge=0, le=1)
    upper: float | None = Field(None, ge=0, le=1)
    unit: Literal["pair", "row"] = "pair"
    max_share: float = Field(1.0, ge=0, le=1)
    max_pairs: int | None = Field(None, ge=0)
    per_query: PerQueryConfig | None = Field(None, json_schema_extra=_KEYED_WHEN_SET)
    target: TargetConfig | None = Field(None, json_schema_extra=_KEYED_WHEN_SET)
    warn_share: float = Field(0.5, ge=0, le=1, json_schema_extra={"operational": True})
    pairs_per_part: int = Field(256, ge=1)
    calibrated: bool = Field(True, json_schema_extra=_KEYED_WHEN_SET)

    @model_validator(mode="after")
    def _check(self) -> "EscalateConfig":
        check_band(self.lower, self.upper)
        if self.per_query is not None and self.unit == "row":
            raise ValueError("per_query counts pairs and does not go with unit: row; remove one of them")
        chosen = {"lower", "max_share", "max_pairs", "per_query", "unit", "states"}
        if self.target is not None and (clash := sorted(chosen & self.model_fields_set - self._at_default())):
            raise ValueError(
                f"target decides which pairs are asked about and does not go with {', '.join(clash)}; remove one of "
                "them (budget: {money: …} limits what a run spends)"
            )
        return self

    def _at_default(self) -> set[str]:
        fields = type(self).model_fields
        return {name for name in fields if getattr(self, name) == fields[name].default}


class AdmitConfig(BaseModel):
    """Which datasets are not judged.

    skip: names of datasets, as in the rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    skip: tuple[str, ...] = ()


def admit(config: AdmitConfig, *, candidates: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Leave out the candidates of datasets that a policy skips, by the full name of the dataset, not by a path."""
    return {"admitted": candidates.filter(~pl.col("dataset").is_in(config.skip))}


def escalate(
    config: EscalateConfig, *, candidates: pl.DataFrame, verdicts: pl.DataFrame
) -> dict[str, list[pl.DataFrame]]:
    """Pick the candidates that the next tier is asked about, and pack them into full parts.

    A question is a (query, positives, passage) by text. Copies with other ids are forwarded with it and cost nothing.
    If the budget is too small, unparsed questions are taken first, then those with the highest scores, ties by hash;
    with `unit: row` whole rows. A row that is too large for what is left of the budget is passed over, and smaller ones
    follow. A candidate that the tier before did not judge is forwarded only with its row. What people called irrelevant
    is never forwarded and is no part of the shares.

    Returns:
        `escalated`: parts in the order of the query's hash. All pairs of a query text are in one part. There is at
            least one part, which may be empty.

    Raises:
        ValueError: a candidate, or the pair of a verdict, comes twice.
    """
    check_unique(candidates, "candidates")
    check_unique(verdicts, "verdicts")
    candidates = leave_out_known(candidates)
    judged = candidates.select(*PAIR, *QUESTION).join(verdicts, on=PAIR, how="left")
    questions = _questions(config, judged.with_columns(pl.col("score").fill_nan(None)))
    budget = math.floor(config.max_share * questions.height + _EPSILON)  # 0.29 * 100 is below 29
    if config.max_pairs is not None:
        budget = min(budget, config.max_pairs)
    if config.per_query is not None:
        questions = _within_queries(config.per_query, questions)
    chosen = _rows_within(questions, budget) if config.unit == "row" else _pairs_within(questions, budget)
    escalated = candidates.join(chosen, on=QUESTION, how="semi").sort("query_hash", *PAIR)
    return {"escalated": pack(escalated.select(*CANDIDATES.columns), config.pairs_per_part)}


def leave_out_known(candidates: pl.DataFrame) -> pl.DataFrame:
    """Leave out the candidates that people called irrelevant, about which no judge is asked."""
    return candidates.filter(pl.col("retriever") != BY_PEOPLE)


def _questions(config: EscalateConfig, judged: pl.DataFrame) -> pl.DataFrame:
    """Return one row per question: its score, and whether it is eligible and unparsed."""
    open_ = pl.col("state").is_in([*config.states, "unparsed"]).fill_null(False)
    wanted = is_in_band(config.lower, config.upper) | open_ if config.calibrated else pl.col("state").is_not_null()
    return judged.group_by(QUESTION).agg(
        pl.col("score").max(),  # equal texts have equal scores; max makes no assumption
        eligible=wanted.any(),
        unparsed=(pl.col("state") == "unparsed").fill_null(False).any(),
    )


def _within_queries(config: PerQueryConfig, questions: pl.DataFrame) -> pl.DataFrame:
    """Leave eligible what the budget of each query allows; see `PerQueryConfig`.

    Raises:
        ValueError: `enough` is not set.
    """
    if config.enough is None:
        raise ValueError("per_query.enough: a number expected, got none; set it, or let the flow set it")
    certain = (pl.col("score") < config.below).fill_null(False).sum().over(ROW)
    more = (config.enough - certain.cast(pl.Int64)).clip(0, config.most - config.start)
    order = ["eligible", "unparsed", "score", *QUESTION]
    sorted_ = questions.sort(order, descending=[True, True, True, False, False, False], nulls_last=True)
    place = pl.int_range(pl.len()).over(ROW)
    last = pl.col("eligible").sum().over(ROW).cast(pl.Int64) - more
    within = (place < config.start) | (place >= last)
    return sorted_.with_columns(eligible=pl.col("eligible") & within)


def _pairs_within(questions: pl.DataFrame, budget: int) -> pl.DataFrame:
    order = questions.filter("eligible").sort(
        "unparsed", "score", *QUESTION, descending=[True, True, False, False, False], nulls_last=True
    )
    return order.head(budget)


def _rows_within(questions: pl.DataFrame, budget: int) -> pl.DataFrame:
    """Return the questions of whole rows with an eligible question, as many rows as the budget allows."""
    rows = (
        questions.group_by(ROW)
        .agg(pl.col("eligible", "unparsed").any(), pl.col("score").max(), pairs=pl.len())
        .filter("eligible")
        .sort("unparsed", "score", *ROW, descending=[True, True, False, False], nulls_last=True)
    )
    return questions.join(rows.filter(fitting(rows["pairs"], budget)), on=ROW, how="semi")


def fitting(sizes: Iterable[int], budget: int) -> pl.Series:
    """Return which of several sizes, taken in their order, fit into what is left of a budget.

    >>> fitting([25, 5, 5], 20).to_list()
    [False, True, True]
    """
    fits, left = list[bool](), budget
    for size in sizes:
        fits.append(size <= left)
        left -= size if fits[-1] else 0
    return pl.Series(fits, dtype=pl.Boolean)


def pack(escalated: pl.DataFrame, pairs_per_part: int) -> list[pl.DataFrame]:
    """Pack queries into parts of at most `pairs_per_part` pairs. A larger query has a part of its own."""
    parts: list[list[pl.DataFrame]] = [[]]
    filled = 0
    for query in escalated.partition_by("query_hash", maintain_order=True):
        if filled and filled + query.height > pairs_per_part:
            parts.append([])
            filled = 0
        parts[-1].append(query)
        filled += query.height
    return [pl.concat(part).sort(CANDIDATES.key) if part else escalated for part in parts]
