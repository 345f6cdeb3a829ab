"""The cascade: which candidates the LLM must see, and what the two tiers say together (paper §3.1).

The paper forwards a whole row when its weak judge flags anything in it (66% of all rows) and lets the strong judge
decide alone. Here single pairs are forwarded, by the similarity tier's score, under a budget; and both tiers' scores
are fused, since together they rank better than either (on the demo AUC 0.91 against 0.87 and 0.83).
"""

import math
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.schemas import CANDIDATES, COMPLETENESS, VERDICTS

TIER = "cascade"
_PAIR = ["dataset", "query_id", "doc_id"]
_QUESTION = ["query_hash", "positives_hash", "text_hash"]
_EPSILON = 1e-6  # a score of 0 or 1 would be an infinite logit


class IncompleteError(ValueError):
    """Too many pairs have no verdict for a treatment to be trusted."""


class EscalateConfig(BaseModel):
    """Which candidates the LLM is asked about.

    Always those that the similarity tier left `unsure` or `unparsed`; its own thresholds draw that band.

    lower, upper: widen it, without touching that tier: scores in between, bounds included, are escalated too.
    max_share: at most this share of all distinct questions.
    max_pairs: at most this many distinct questions.
    pairs_per_part: size of the repacked parts, about; queries are never cut in two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lower: float | None = Field(None, ge=0, le=1)
    upper: float | None = Field(None, ge=0, le=1)
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
    similarity_weight, llm_weight, bias: of the fusion, to be calibrated on labelled pairs.
    relevant_from, not_relevant_below: on the fused score.
    lower, upper: `escalate`'s, so that what its budget left out is known to be undecided.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: Literal["fusion", "last"] = "fusion"
    similarity_weight: float = Field(1.0, ge=0)
    llm_weight: float = Field(1.0, ge=0)
    bias: float = 0.0
    relevant_from: float = Field(0.5, ge=0, le=1)
    not_relevant_below: float = Field(0.5, ge=0, le=1)
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


def escalate(
    config: EscalateConfig, *, candidates: pl.DataFrame, verdicts: pl.DataFrame
) -> dict[str, list[pl.DataFrame]]:
    """Pick the candidates that go to the LLM, repacked into full parts.

    A question is a (query, positives, passage) by text: copies under other ids go along and cost nothing. Under a
    budget the unparsed come first (nobody has answered them), then the highest similarity scores, ties by hash.

    Returns:
        `escalated`: parts in the order of the query's hash, all pairs of a query text in one; at least one part, which
            is empty where nothing is escalated.

    Raises:
        ValueError: not exactly one similarity verdict per candidate.
    """
    judged = _with_verdicts(candidates, verdicts, "verdicts")
    questions = judged.group_by(_QUESTION).agg(
        pl.col("score").max(),  # equal texts have equal scores; max makes no assumption
        eligible=(_is_in_band(config.lower, config.upper) | pl.col("state").is_in(["unsure", "unparsed"])).any(),
        unparsed=(pl.col("state") == "unparsed").any(),
    )
    budget = math.floor(config.max_share * questions.height + _EPSILON)  # 0.29 * 100 is below 29
    if config.max_pairs is not None:
        budget = min(budget, config.max_pairs)
    chosen = (
        questions.filter("eligible")
        .sort("unparsed", "score", *_QUESTION, descending=[True, True, False, False, False], nulls_last=True)
        .head(budget)
    )
    escalated = candidates.join(chosen, on=_QUESTION, how="semi").sort("query_hash", *_PAIR)
    return {"escalated": _pack(escalated.select(*CANDIDATES.columns), config.pairs_per_part)}


def decide(
    config: DecideConfig, *, candidates: pl.DataFrame, verdicts: pl.DataFrame, llm_verdicts: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Join the similarity tier's and the LLM's verdicts into one decision per candidate (tier "cascade").

    Asked of the LLM: `fusion` scores logistic(w_s·logit(similarity) + w_l·logit(llm) + bias); where only the LLM could
    answer, and always in mode `last`, its verdict stands. An unparsed answer stays `unparsed`, with no score.
    Not asked: the similarity tier's state stays, but a score that escalate's budget left out, between its bounds, is
    `unsure`. Its score goes through the same fusion with an LLM that knows nothing (P = 0.5), so that the scores of
    asked and unasked pairs are on one scale and order the whole pool; with weight 1 and bias 0 it is kept as it is.
    Mode `last` does not fuse: there the scores of the two kinds compare only as far as both judges are calibrated.

    Returns:
        `decisions`: call_id, grade and preference are the LLM's, so a null call_id means that the LLM was not asked.

    Raises:
        ValueError: not exactly one similarity verdict, or more than one LLM verdict, for a candidate.
    """
    judged = _with_verdicts(candidates, verdicts, "verdicts")
    renamed = {name: f"llm_{name}" for name in ("judge", "state", "score", "attempt")}
    answers = llm_verdicts.select(*_PAIR, "grade", "preference", "call_id", *renamed).rename(renamed)
    _check_unique(answers, "llm_verdicts")
    both = judged.drop("grade", "preference", "call_id").join(answers, on=_PAIR, how="left")
    asked = pl.col("llm_state").is_not_null()
    fused = asked & pl.lit(config.mode == "fusion") & pl.col("score").is_not_null()
    both_judges = pl.format("{}+{}", "judge", "llm_judge")
    decided = both.with_columns(_fused_score(config, asked).alias("fused_score")).with_columns(
        tier=pl.lit(TIER),
        judge=pl.when(fused).then(both_judges).when(asked).then("llm_judge").otherwise("judge"),
        state=_state(config, asked, fused),
        score="fused_score",
        attempt=pl.coalesce("llm_attempt", "attempt"),
    )
    return {"decisions": decided.select(*VERDICTS.columns).sort(VERDICTS.key)}


class CompleteConfig(BaseModel):
    """How many pairs may be without a verdict.

    max_unparsed: share of all pairs above which nothing is treated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_unparsed: float = Field(0.05, ge=0, le=1)


def complete(config: CompleteConfig, *, decisions: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Pass the gate before any treatment: over all parts together, few enough pairs are unparsed.

    Raises:
        IncompleteError: too many are.
    """
    check_complete(decisions, config.max_unparsed)
    counted = {"pairs": [decisions.height], "unparsed": [decisions.filter(pl.col("state") == "unparsed").height]}
    return {"completeness": pl.DataFrame(counted, schema=COMPLETENESS.columns)}


def check_complete(decisions: pl.DataFrame, max_unparsed: float) -> None:
    """Refuse decisions of which too many are unparsed.

    Raises:
        IncompleteError: the share of unparsed pairs exceeds `max_unparsed`.
    """
    unparsed = decisions.filter(pl.col("state") == "unparsed").height
    if unparsed > max_unparsed * decisions.height:
        raise IncompleteError(
            f"judgments: {unparsed} of {decisions.height} pairs unparsed ({unparsed / decisions.height:.0%} > "
            f"max_unparsed={max_unparsed:.0%}); read raw and finish_reason in the judge's `calls`, correct the prompt, "
            "the lengths or the engine and judge again, or raise max_unparsed"
        )


def _check_band(lower: float | None, upper: float | None) -> None:
    if (lower is None) != (upper is None):
        raise ValueError(f"lower and upper come together or not at all, got lower={lower} and upper={upper}")
    if lower is not None and upper is not None and lower > upper:
        raise ValueError(f"lower={lower} must not exceed upper={upper}")


def _check_unique(frame: pl.DataFrame, table: str) -> None:
    doubled = frame.select(_PAIR).is_duplicated().sum()
    if doubled:
        raise ValueError(f"{table}: one row per (dataset, query_id, doc_id) expected, {doubled} share theirs")


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
    evidence = pl.when(asked).then(_logit(llm) * config.llm_weight).otherwise(0.0)
    fused = 1 / (1 + (-(_logit(similarity) * config.similarity_weight + evidence + config.bias)).exp())
    return pl.when(asked & similarity.is_null()).then(llm).otherwise(fused)


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
