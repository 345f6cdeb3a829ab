"""Choose the candidates that the next tier is asked about, and combine the verdicts of all tiers (paper §3.1).

The paper forwards a whole row if its weak judge flags anything in it (66% of all rows), and the strong judge decides
alone. Here single pairs are forwarded, by the score of the tier before, within a budget. The scores of the tiers are
fused, as together they rank better than any single one. `unit: row` and `mode: last` do as the paper does.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.schemas import CANDIDATES, COMPLETENESS, VERDICTS

TIER = "cascade"
_PAIR = ["dataset", "query_id", "doc_id"]
_ROW = ["query_hash", "positives_hash"]
_QUESTION = [*_ROW, "text_hash"]
_FEW_ASKED = 20  # with fewer pairs the share is too uncertain to check
_EPSILON = 1e-6  # scores are clipped by this, as the logit of 0 or 1 is infinite


class IncompleteError(ValueError):
    """Too many pairs have no verdict, so no treatment may be made."""


class EscalateConfig(BaseModel):
    """Which candidates a tier is asked about, given the verdicts of the tier before it.

    states: candidates in these states are forwarded; those in state `unparsed` always are.
    lower, upper: candidates with a score between these, bounds included, are forwarded too, in any state.
    unit: `pair` forwards these candidates only, `row` all candidates of their queries (as the paper does).
    max_share: the largest share of all distinct questions that is forwarded.
    max_pairs: the largest number of distinct questions that is forwarded.
    pairs_per_part: approximate size of the new parts; the candidates of a query stay in one part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    states: tuple[Literal["relevant", "not_relevant", "unsure"], ...] = ("unsure",)
    lower: float | None = Field(None, ge=0, le=1)
    upper: float | None = Field(None, ge=0, le=1)
    unit: Literal["pair", "row"] = "pair"
    max_share: float = Field(1.0, ge=0, le=1)
    max_pairs: int | None = Field(None, ge=0)
    pairs_per_part: int = Field(256, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "EscalateConfig":
        _check_band(self.lower, self.upper)
        return self


class DecideConfig(BaseModel):
    """How the verdicts of the tiers are combined.

    mode: `fusion` adds the logits of the tiers; with `last` the last tier that was asked decides, as in the paper.
    weights: weights of the fusion by tier (`similarity` and the names of the tiers; 1 if not named), to be calibrated
        on labelled pairs. bias: is added to the sum.
    relevant_from, not_relevant_below: thresholds of the fused score.
    tiers: the names of the tiers in the order asked; set by the flow.
    lower, upper: those of the first tier's `escalate`. A score between them that was not forwarded, for lack of budget,
        is undecided. Set by the flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: Literal["fusion", "last"] = "fusion"
    weights: Mapping[str, float] = Field(default_factory=dict)
    bias: float = 0.0
    relevant_from: float = Field(0.5, ge=0, le=1)
    not_relevant_below: float = Field(0.5, ge=0, le=1)
    tiers: tuple[str, ...] = ("llm",)
    lower: float | None = Field(None, ge=0, le=1)
    upper: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> "DecideConfig":
        _check_band(self.lower, self.upper)
        if self.not_relevant_below > self.relevant_from:
            raise ValueError(
                f"not_relevant_below={self.not_relevant_below} must not exceed relevant_from={self.relevant_from}"
            )
        return self


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
    with `unit: row` whole rows. A candidate that the tier before did not judge is forwarded only with its row.

    Returns:
        `escalated`: parts in the order of the query's hash. All pairs of a query text are in one part. There is at
            least one part, which may be empty.

    Raises:
        ValueError: a candidate, or the pair of a verdict, comes twice.
    """
    _check_unique(candidates, "candidates")
    _check_unique(verdicts, "verdicts")
    judged = candidates.select(*_PAIR, *_QUESTION).join(verdicts, on=_PAIR, how="left")
    judged = judged.with_columns(pl.col("score").fill_nan(None))
    open_ = pl.col("state").is_in([*config.states, "unparsed"]).fill_null(False)
    questions = judged.group_by(_QUESTION).agg(
        pl.col("score").max(),  # equal texts have equal scores; max makes no assumption
        eligible=(_is_in_band(config.lower, config.upper) | open_).any(),
        unparsed=(pl.col("state") == "unparsed").fill_null(False).any(),
    )
    budget = math.floor(config.max_share * questions.height + _EPSILON)  # 0.29 * 100 is below 29
    if config.max_pairs is not None:
        budget = min(budget, config.max_pairs)
    chosen = _rows_within(questions, budget) if config.unit == "row" else _pairs_within(questions, budget)
    escalated = candidates.join(chosen, on=_QUESTION, how="semi").sort("query_hash", *_PAIR)
    return {"escalated": _pack(escalated.select(*CANDIDATES.columns), config.pairs_per_part)}


def decide(
    config: DecideConfig, *, candidates: pl.DataFrame, verdicts: pl.DataFrame, llm_verdicts: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Combine the verdicts of similarity and of the other tiers into one decision per candidate (tier "cascade").

    Pairs that a tier was asked about: in mode `fusion` the score is logistic(Σ w_t·logit(score_t) + bias) over the
    tiers that answered. In mode `last`, or if similarity has no score, the verdict of the last tier is used. If the
    answer of the last tier that was asked could not be read, the decision is `unparsed` without a score.

    Other pairs: the state of similarity is kept, but a score between `lower` and `upper` is `unsure`. In mode `fusion`
    the score is fused with P = 0.5 for the other tiers, so that the scores of all pairs are on one scale; with weight 1
    and bias 0 this changes nothing. In mode `last` scores are not fused, and those of asked and other pairs can be
    compared only as far as all judges are calibrated.

    Returns:
        `decisions`: call_id, grade and preference are those of the last tier; call_id is null if none was asked.

    Raises:
        ValueError: a candidate does not have exactly one similarity verdict, has several verdicts of one tier, or has a
            verdict of an unknown tier.
    """
    judged = _with_verdicts(candidates, verdicts, "verdicts")
    answers = _last_answers(config, llm_verdicts)
    both = judged.drop("grade", "preference", "call_id").join(answers, on=_PAIR, how="left")
    asked = pl.col("llm_state").is_not_null()
    fused = asked & pl.lit(config.mode == "fusion") & pl.col("score").is_not_null()
    all_judges = pl.format("{}+{}", "judge", "llm_judge")
    decided = both.with_columns(_fused_score(config, asked).alias("fused_score")).with_columns(
        tier=pl.lit(TIER),
        judge=pl.when(fused).then(all_judges).when(asked).then("llm_judge").otherwise("judge"),
        state=_state(config, asked, fused),
        score="fused_score",
        attempt=pl.coalesce("llm_attempt", "attempt"),
    )
    return {"decisions": decided.select(*VERDICTS.columns).sort(VERDICTS.key)}


class CompleteConfig(BaseModel):
    """How many pairs may be without a verdict.

    max_unparsed: the largest share of all pairs with which treatments are made.
    max_unparsed_of_asked: the same for the pairs that a tier after similarity was asked about, so that a judge that
        never answers is noticed although it was asked about few pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_unparsed: float = Field(0.05, ge=0, le=1)
    max_unparsed_of_asked: float = Field(0.2, ge=0, le=1)


def complete(config: CompleteConfig, *, decisions: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Check, before any treatment, that over all parts few enough pairs are unparsed, and count them.

    Raises:
        IncompleteError: too many pairs are unparsed.
    """
    check_complete(decisions, config.max_unparsed)
    asked = decisions.filter(pl.col("call_id").is_not_null())
    if asked.height >= _FEW_ASKED:
        check_complete(asked, config.max_unparsed_of_asked, "max_unparsed_of_asked")
    counted = {"pairs": [decisions.height], "unparsed": [decisions.filter(pl.col("state") == "unparsed").height]}
    return {"completeness": pl.DataFrame(counted, schema=COMPLETENESS.columns)}


def check_complete(decisions: pl.DataFrame, max_unparsed: float, name: str = "max_unparsed") -> None:
    """Raise an error if too many decisions are unparsed.

    Raises:
        IncompleteError: the share of unparsed pairs exceeds `max_unparsed`.
    """
    unparsed = decisions.filter(pl.col("state") == "unparsed").height
    if unparsed > max_unparsed * decisions.height:
        raise IncompleteError(
            f"judgments: {unparsed} of {decisions.height} pairs unparsed ({unparsed / decisions.height:.0%} > "
            f"{name}={max_unparsed:.0%}); read raw and finish_reason in the judge's `calls`, correct the prompt, "
            "the lengths or the engine and judge again, or raise max_unparsed"
        )


def _check_band(lower: float | None, upper: float | None) -> None:
    if (lower is None) != (upper is None):
        raise ValueError(f"lower and upper come together or not at all, got lower={lower} and upper={upper}")
    if lower is not None and upper is not None and lower > upper:
        raise ValueError(f"lower={lower} must not exceed upper={upper}")


def _check_unique(frame: pl.DataFrame, table: str, key: Sequence[str] = _PAIR) -> None:
    doubled = frame.select(key).is_duplicated().sum()
    if doubled:
        raise ValueError(f"{table}: one row per ({', '.join(key)}) expected, {doubled} share theirs")


def _pairs_within(questions: pl.DataFrame, budget: int) -> pl.DataFrame:
    order = questions.filter("eligible").sort(
        "unparsed", "score", *_QUESTION, descending=[True, True, False, False, False], nulls_last=True
    )
    return order.head(budget)


def _rows_within(questions: pl.DataFrame, budget: int) -> pl.DataFrame:
    """Return the questions of whole rows with an eligible question, as many rows as the budget allows."""
    rows = (
        questions.group_by(_ROW)
        .agg(pl.col("eligible", "unparsed").any(), pl.col("score").max(), pairs=pl.len())
        .filter("eligible")
        .sort("unparsed", "score", *_ROW, descending=[True, True, False, False], nulls_last=True)
    )
    return questions.join(rows.filter(pl.col("pairs").cum_sum() <= budget), on=_ROW, how="semi")


def _last_answers(config: DecideConfig, llm_verdicts: pl.DataFrame) -> pl.DataFrame:
    """Return, per pair, the answer of the last tier, and `evidence`, the weighted sum of the logits of all tiers."""
    _check_unique(llm_verdicts, "llm_verdicts", VERDICTS.key)
    unknown = sorted(set(llm_verdicts["tier"]) - set(config.tiers))
    if unknown:
        raise ValueError(f"llm_verdicts: the tiers {list(config.tiers)} expected, {unknown} came")
    tiers = pl.DataFrame(
        {
            "tier": config.tiers,
            "_place": range(len(config.tiers)),
            "_weight": [float(config.weights.get(tier, 1.0)) for tier in config.tiers],
        },
        schema={"tier": pl.String, "_place": pl.Int64, "_weight": pl.Float64},
    )
    answers = llm_verdicts.with_columns(pl.col("score").fill_nan(None)).join(tiers, on="tier", how="left")
    evidence = answers.group_by(_PAIR).agg(evidence=(_logit(pl.col("score")) * pl.col("_weight")).sum())
    renamed = {name: f"llm_{name}" for name in ("judge", "state", "score", "attempt")}
    last = answers.sort(*_PAIR, "_place").unique(_PAIR, keep="last", maintain_order=True)
    return last.select(*_PAIR, "grade", "preference", "call_id", *renamed).rename(renamed).join(evidence, on=_PAIR)


def _with_verdicts(candidates: pl.DataFrame, verdicts: pl.DataFrame, table: str) -> pl.DataFrame:
    """Join the hashes of the candidates with their verdicts. Verdicts on other pairs are ignored."""
    _check_unique(candidates, "candidates")
    _check_unique(verdicts, table)
    judged = candidates.select(*_PAIR, *_QUESTION).join(verdicts, on=_PAIR)
    if judged.height != candidates.height:
        raise ValueError(
            f"{table}: a verdict for each of {candidates.height} candidates expected, {judged.height} came; judge again"
        )
    return judged.with_columns(pl.col("score").fill_nan(None))


def _is_in_band(lower: float | None, upper: float | None) -> pl.Expr:
    if lower is None or upper is None:
        return pl.lit(False)
    return pl.col("score").is_between(lower, upper).fill_null(False)


def _logit(score: pl.Expr) -> pl.Expr:
    clipped = score.clip(_EPSILON, 1 - _EPSILON)
    return (clipped / (1 - clipped)).log()


def _fused_score(config: DecideConfig, asked: pl.Expr) -> pl.Expr:
    """Return the score of the decision; null where the tier that counts could not be read."""
    similarity, llm = pl.col("score"), pl.col("llm_score")
    if config.mode == "last":
        return pl.when(asked).then(llm).otherwise(similarity)
    weight = config.weights.get("similarity", 1.0)
    evidence = pl.when(asked).then("evidence").otherwise(0.0)
    fused = 1 / (1 + (-(_logit(similarity) * weight + evidence + config.bias)).exp())
    unreadable = pl.col("llm_state") == "unparsed"
    return pl.when(unreadable).then(None).when(asked & similarity.is_null()).then(llm).otherwise(fused)


def _state(config: DecideConfig, asked: pl.Expr, fused: pl.Expr) -> pl.Expr:
    score = pl.col("fused_score")
    by_score = (
        pl.when(score >= config.relevant_from)
        .then(pl.lit("relevant"))
        .when(score < config.not_relevant_below)
        .then(pl.lit("not_relevant"))
        .otherwise(pl.lit("unsure"))
    )
    return (
        pl.when(pl.col("llm_state") == "unparsed")
        .then(pl.lit("unparsed"))
        .when(fused)
        .then(by_score)
        .when(asked)
        .then("llm_state")
        .when(_is_in_band(config.lower, config.upper))
        .then(pl.lit("unsure"))
        .otherwise("state")
    )


def _pack(escalated: pl.DataFrame, pairs_per_part: int) -> list[pl.DataFrame]:
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
