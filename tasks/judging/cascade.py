"""The cascade: which candidates a tier must see, and what the tiers say together (paper §3.1).

The paper forwards a whole row when its weak judge flags anything in it (66% of all rows) and lets the strong judge
decide alone. Here single pairs are forwarded, by the score of the tier before, under a budget; and the tiers' scores
are fused, since together they rank better than any. The paper's way is `unit: row` and `mode: last`.
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
_FEW_ASKED = 20  # below that a share says little
_EPSILON = 1e-6  # a score of 0 or 1 would be an infinite logit


class IncompleteError(ValueError):
    """Too many pairs have no verdict for a treatment to be trusted."""


class EscalateConfig(BaseModel):
    """Which candidates a tier is asked about, given the verdicts of the tier before it.

    states: those that it left in one of these states; `unparsed` is always among them.
    lower, upper: and those whose score lies in between, bounds included, whatever their state.
    unit: `pair` forwards these candidates alone, `row` all candidates of their query (the paper's way).
    max_share: at most this share of all distinct questions.
    max_pairs: at most this many distinct questions.
    pairs_per_part: size of the repacked parts, about; queries are never cut in two.
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
    """How the tiers' verdicts become one.

    mode: `fusion` adds the tiers' logits; `last` lets the last tier that was asked decide, as the paper does.
    weights: of the fusion, by tier (`similarity`, then the tiers' names; 1 where not named), to be calibrated on
        labelled pairs. bias: added to them.
    relevant_from, not_relevant_below: on the fused score.
    tiers: the tiers' names in the order asked; set by the flow.
    lower, upper: the first tier's in `escalate`, so that what its budget left out is known to be undecided; set by the
        flow.
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
    """Which datasets are not judged at all.

    skip: names of datasets, as the rows give them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    skip: tuple[str, ...] = ()


def admit(config: AdmitConfig, *, candidates: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Leave out the candidates of datasets that a policy skips, by the dataset's whole name, never by a path."""
    return {"admitted": candidates.filter(~pl.col("dataset").is_in(config.skip))}


def escalate(
    config: EscalateConfig, *, candidates: pl.DataFrame, verdicts: pl.DataFrame
) -> dict[str, list[pl.DataFrame]]:
    """Pick the candidates that the next tier is asked about, repacked into full parts.

    A question is a (query, positives, passage) by text: copies under other ids go along and cost nothing. Under a
    budget the unparsed come first (nobody has answered them), then the highest scores, ties by hash; whole rows with
    `unit: row`. What the tier before was not asked about is not asked of this one, unless its row goes.

    Returns:
        `escalated`: parts in the order of the query's hash, all pairs of a query text in one; at least one part, which
            is empty where nothing is escalated.

    Raises:
        ValueError: a candidate, or a verdict's pair, comes twice.
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
    """Join the similarity tier's and the other tiers' verdicts into one decision per candidate (tier "cascade").

    Asked of a tier: `fusion` scores logistic(Σ w_t·logit(score_t) + bias) over the tiers that answered; where
    similarity could not answer, and always in mode `last`, the last tier's verdict stands. If the last tier that was
    asked could not be read, the decision is `unparsed`, with no score: an earlier tier had passed the pair on.
    Not asked: the similarity tier's state stays, but a score that escalate's budget left out, between its bounds, is
    `unsure`. Its score goes through the same fusion with tiers that know nothing (P = 0.5), so that the scores of
    asked and unasked pairs are on one scale and order the whole pool; with weight 1 and bias 0 it is kept as it is.
    Mode `last` does not fuse: there the scores of the kinds compare only as far as all judges are calibrated.

    Returns:
        `decisions`: call_id, grade and preference are the last tier's, so a null call_id means that none was asked.

    Raises:
        ValueError: not exactly one similarity verdict, more than one verdict of a tier for a candidate, or a tier that
            the configuration does not name.
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

    max_unparsed: share of all pairs above which nothing is treated.
    max_unparsed_of_asked: the same, of the pairs that a tier after similarity was asked about: a judge that answers
        nothing must not pass because it was asked little.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_unparsed: float = Field(0.05, ge=0, le=1)
    max_unparsed_of_asked: float = Field(0.2, ge=0, le=1)


def complete(config: CompleteConfig, *, decisions: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Pass the gate before any treatment: over all parts together, few enough pairs are unparsed.

    Raises:
        IncompleteError: too many are.
    """
    check_complete(decisions, config.max_unparsed)
    asked = decisions.filter(pl.col("call_id").is_not_null())
    if asked.height >= _FEW_ASKED:
        check_complete(asked, config.max_unparsed_of_asked, "max_unparsed_of_asked")
    counted = {"pairs": [decisions.height], "unparsed": [decisions.filter(pl.col("state") == "unparsed").height]}
    return {"completeness": pl.DataFrame(counted, schema=COMPLETENESS.columns)}


def check_complete(decisions: pl.DataFrame, max_unparsed: float, name: str = "max_unparsed") -> None:
    """Refuse decisions of which too many are unparsed.

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
    """Whole rows of which any question is eligible, as many as the budget holds."""
    rows = (
        questions.group_by(_ROW)
        .agg(pl.col("eligible", "unparsed").any(), pl.col("score").max(), pairs=pl.len())
        .filter("eligible")
        .sort("unparsed", "score", *_ROW, descending=[True, True, False, False], nulls_last=True)
    )
    return questions.join(rows.filter(pl.col("pairs").cum_sum() <= budget), on=_ROW, how="semi")


def _last_answers(config: DecideConfig, llm_verdicts: pl.DataFrame) -> pl.DataFrame:
    """Per pair the last tier's answer, and what all tiers that could be read say together (`evidence`)."""
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
    """Candidates' hashes beside their verdicts (of the same pairs; further verdicts are of other parts)."""
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
    """The decision's score; null exactly where nobody who counts has answered."""
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
    """Cut between queries into parts of at most `pairs_per_part`, but for a query that alone holds more."""
    parts: list[list[pl.DataFrame]] = [[]]
    filled = 0
    for query in escalated.partition_by("query_hash", maintain_order=True):
        if filled and filled + query.height > pairs_per_part:
            parts.append([])
            filled = 0
        parts[-1].append(query)
        filled += query.height
    return [pl.concat(part).sort(CANDIDATES.key) if part else escalated for part in parts]
