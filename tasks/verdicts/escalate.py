"""Choose the candidates that the next tier is asked about (paper §3.1).

The paper forwards a whole row if its weak judge flags anything in it (66% of all rows). Here single pairs are
forwarded, by the score of the tier before, within a budget. `unit: row` does as the paper does.
"""

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
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
    max_share: the largest share of all distinct questions that is forwarded, of each generation of queries: the first
        ingest, and what each growth of the source brings.
    max_pairs: the largest number of distinct questions that is forwarded, of each generation of queries.
    per_query: a budget for each query, before those for all; only with `unit: pair`.
    target: a guarantee instead of budgets: what cannot be accepted or rejected with it is forwarded, whatever it costs.
    warn_share: the report and the terminal warn where the tier before passes on more than this share of its pairs.
    pairs_per_part: has no effect: what is forwarded stays in its query part. Older settings that name it still load.
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
    config: EscalateConfig,
    *,
    candidates: pl.DataFrame,
    verdicts: pl.DataFrame,
    allotment: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Pick the candidates of one part of the queries that the next tier is asked about.

    A question is a (query, positives, passage) by text. Copies with other ids are forwarded with it and cost nothing.
    If the budget is too small, unparsed questions are taken first, then those with the highest scores, ties by hash;
    with `unit: row` whole rows. A row that is too large for what is left of the budget is passed over, and smaller ones
    follow. A candidate that the tier before did not judge is forwarded only with its row. What people called irrelevant
    is never forwarded and is no part of the shares.

    Args:
        config: see EscalateConfig.
        candidates: of the part.
        verdicts: of the tier before, on these candidates.
        allotment: ALLOTTED, what the part gets of the budgets for all parts (tasks.verdicts.allot). Without it, the
            budgets are for these candidates alone.

    Returns:
        `escalated`: CANDIDATES, sorted by their key.

    Raises:
        ValueError: a candidate, or the pair of a verdict, comes twice; or the allotment was made for other verdicts.
    """
    questions = find_questions(config, candidates, verdicts)
    units = open_units(config, questions)
    if allotment is None:
        budget = budget_of(config.max_share, config.max_pairs, questions.height)
        taken = fitting(units["questions"], budget)
    else:
        taken = _allotted(allotment, units.height)
    chosen = units.filter(taken)
    escalated = leave_out_known(candidates).join(chosen, on=unit_key(config), how="semi")
    return {"escalated": escalated.select(*CANDIDATES.columns).sort(CANDIDATES.key)}


def leave_out_known(candidates: pl.DataFrame) -> pl.DataFrame:
    """Leave out the candidates that people called irrelevant, about which no judge is asked."""
    return candidates.filter(pl.col("retriever") != BY_PEOPLE)


def find_questions(config: EscalateConfig, candidates: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    """Return one row per question: its score, whether it is eligible, within the budget of its query, and unparsed.

    Raises:
        ValueError: a candidate, or the pair of a verdict, comes twice.
    """
    check_unique(candidates, "candidates")
    check_unique(verdicts, "verdicts")
    judged = leave_out_known(candidates).select(*PAIR, *QUESTION).join(verdicts, on=PAIR, how="left")
    judged = judged.with_columns(pl.col("score").fill_nan(None))
    open_ = pl.col("state").is_in([*config.states, "unparsed"]).fill_null(False)
    wanted = is_in_band(config.lower, config.upper) | open_ if config.calibrated else pl.col("state").is_not_null()
    questions = judged.group_by(QUESTION).agg(
        pl.col("score").max(),  # equal texts have equal scores; max makes no assumption
        eligible=wanted.any(),
        unparsed=(pl.col("state") == "unparsed").fill_null(False).any(),
    )
    return questions if config.per_query is None else _within_queries(config.per_query, questions)


def unit_key(config: EscalateConfig) -> list[str]:
    """Name the columns that tell the units of a budget apart: questions, or whole rows."""
    return ROW if config.unit == "row" else QUESTION


def open_units(config: EscalateConfig, questions: pl.DataFrame) -> pl.DataFrame:
    """Return the units that may be asked about, in the order in which a budget takes them.

    Columns: those of `unit_key`, `unparsed`, `score`, and `questions`, how many of the budget the unit takes.
    """
    key = unit_key(config)
    units = questions.group_by(key).agg(pl.col("eligible", "unparsed").any(), pl.col("score").max(), questions=pl.len())
    order = ["unparsed", "score", *key]
    falling = [True, True, *(False for _ in key)]
    return units.filter("eligible").drop("eligible").sort(order, descending=falling, nulls_last=True)


def budget_of(max_share: float, max_pairs: int | None, questions: int) -> int:
    """Return how many of so many distinct questions may be forwarded."""
    budget = math.floor(max_share * questions + _EPSILON)  # 0.29 * 100 is below 29
    return budget if max_pairs is None else min(budget, max_pairs)


def _allotted(allotment: pl.DataFrame, units: int) -> pl.Series:
    """Return which of several units, in their order, an allotment names."""
    taken = np.zeros(units, dtype=np.bool_)
    for first, count in allotment.select("first", "units").iter_rows():
        if first + count > units:
            raise ValueError(f"allotment: up to {units} open units expected, got {first + count}; count them again")
        taken[first : first + count] = True
    return pl.Series(taken, dtype=pl.Boolean)


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
