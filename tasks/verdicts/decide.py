"""Combine the verdicts of all tiers into one decision for each candidate (paper §3.1).

In the paper the strong judge decides alone; `mode: last` does as the paper does. Here the scores of the tiers are
fused, as together they rank better than any single one: by a calibration where there is one, else by adding log-odds.
What is not calibrated for the encoder and the data decides nothing: similarity only ranks then.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.schemas import BY_PEOPLE, SOURCE_JUDGE, VERDICTS
from tasks.verdicts.pairs import PAIR, QUESTION, check_band, check_unique, is_in_band
from tasks.verdicts.settled import assure

TIER = "cascade"
_EPSILON = 1e-6  # scores are clipped by this, as the logit of 0 or 1 is infinite
_PRICES = ("precision", "recall", "f1")


class DecideConfig(BaseModel):
    """How the verdicts of the tiers are combined.

    mode: `fusion` adds the logits of the tiers; with `last` the last tier that was asked decides, as in the paper.
    weights: weights of the fusion by tier (the names of the tiers: 1 if not named; `similarity`: 0 if not named, but 1
        where `similarity` has thresholds). bias: is added to the sum. With a calibration both are not used.
    prevalence: the share of relevant pairs that the scores of the tiers assume. It counts once, not once per tier.
    relevant_from, not_relevant_below: thresholds of the fused score, or of P(relevant) with a calibration.
    precision, recall, f1: instead, and only with a calibration: the price of a decision. The threshold is the one with
        this precision (as many pairs as possible), this recall (as few), or the largest F1 on the calibration's
        queries. With `precision: p`, pairs of P(relevant) up to 1 - p are not relevant, and the rest is unsure.
    tiers: the names of the tiers in the order asked; set by the flow.
    lower, upper: those of the first tier's `escalate`. A score between them that was not forwarded, for lack of budget,
        is undecided. Set by the flow.
    similarity_decides: the settings name thresholds of similarity; set by the flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: Literal["fusion", "last"] = "fusion"
    weights: Mapping[str, float] = Field(default_factory=dict)
    bias: float = 0.0
    prevalence: float = Field(0.5, gt=0, lt=1, json_schema_extra={"keyed_when_set": True})
    relevant_from: float = Field(0.5, ge=0, le=1)
    not_relevant_below: float = Field(0.5, ge=0, le=1)
    precision: float | None = Field(None, gt=0, lt=1, json_schema_extra={"keyed_when_set": True})
    recall: float | None = Field(None, gt=0, lt=1, json_schema_extra={"keyed_when_set": True})
    f1: bool = Field(False, json_schema_extra={"keyed_when_set": True})
    tiers: tuple[str, ...] = ("llm",)
    lower: float | None = Field(None, ge=0, le=1)
    upper: float | None = Field(None, ge=0, le=1)
    similarity_decides: bool = Field(False, json_schema_extra={"keyed_when_set": True})

    @model_validator(mode="after")
    def _check(self) -> "DecideConfig":
        check_band(self.lower, self.upper)
        if self.not_relevant_below > self.relevant_from:
            raise ValueError(
                f"not_relevant_below={self.not_relevant_below} must not exceed relevant_from={self.relevant_from}"
            )
        named = [name for name in _PRICES if getattr(self, name)]
        if len(named) > 1:
            raise ValueError(f"one of {', '.join(_PRICES)} expected, got {' and '.join(named)}")
        if named and self.mode == "last":
            raise ValueError(f"{named[0]} needs `mode: fusion`; with `mode: last` the last tier's own state decides")
        return self

    @property
    def price(self) -> dict[str, Any]:
        """What a decision must fulfil: `{"precision": 0.9}`, or nothing."""
        return {name: getattr(self, name) for name in _PRICES if getattr(self, name)}

    def weight_of(self, tier: str) -> float:
        """Return the weight of a tier in the fusion."""
        usual = 1.0 if tier != "similarity" or self.similarity_decides else 0.0
        return float(self.weights.get(tier, usual))


def decide(
    config: DecideConfig,
    *,
    candidates: pl.DataFrame,
    verdicts: pl.DataFrame,
    llm_verdicts: pl.DataFrame,
    combined: pl.DataFrame | None = None,
    settled: pl.DataFrame | None = None,
) -> dict[str, pl.DataFrame]:
    """Combine the verdicts of similarity and of the other tiers into one decision per candidate (tier "cascade").

    With a calibration (`combined`) the score is P(relevant) after all tiers, and the thresholds name the state. With
    `precision`, a pair that the last tier was not asked about is relevant only if P itself is at least the precision:
    the threshold has it after all tiers. Where `combined` has no score, as after an answer that could not be read, its
    state stands.

    Without one, for pairs that a tier was asked about: in mode `fusion` logit P = logit(prevalence) + Σ w_t·(logit s_t
    - logit(prevalence)) + bias over similarity and the tiers that answered (naive Bayes: the prior counts once, so
    pairs that different numbers of tiers answered are on one scale). In mode `last`, or if similarity has a weight and
    no score, the verdict of the last tier is used. If the answer of the last tier that was asked could not be read, the
    decision is `unparsed` without a score.

    Other pairs keep the state of similarity, which is `unsure` unless the settings name thresholds; a score between
    `lower` and `upper` is `unsure` too. In mode `fusion` their score is fused over similarity alone. Where similarity
    has no weight they have no score: nobody whose score is a probability judged them.

    With a guarantee of the last tier (`settled`) its own verdicts decide on the pairs that it was asked about, and
    `settled` on the others that it is about.

    Pairs that people called irrelevant are `not_relevant` with score 0, whatever any judge says; their judge is
    `human:source`.

    Returns:
        `decisions`: call_id, grade and preference are those of the last tier; call_id is null if none was asked.

    Raises:
        ValueError: a candidate does not have exactly one similarity verdict, has several verdicts of one tier, or has a
            verdict of an unknown tier; or `combined` does not have one row for each candidate.
    """
    judged = _with_verdicts(candidates, verdicts, "verdicts")
    answers = _last_answers(config, llm_verdicts)
    both = judged.drop("grade", "preference", "call_id").join(answers, on=PAIR, how="left")
    decided = _by_fusion(config, both) if combined is None else _by_calibration(config, both, combined)
    known = pl.col("retriever") == BY_PEOPLE
    decided = decided.with_columns(
        tier=pl.lit(TIER),
        judge=pl.when(known).then(pl.lit(SOURCE_JUDGE)).otherwise("by"),
        state=pl.when(known).then(pl.lit("not_relevant")).otherwise("new_state"),
        score=pl.when(known).then(0.0).otherwise("new_score"),
        attempt=pl.coalesce("llm_attempt", "attempt"),
    )
    decisions = decided.select(*VERDICTS.columns).sort(VERDICTS.key)
    if settled is not None:
        decisions = assure(decisions, settled, llm_verdicts.filter(pl.col("tier") == config.tiers[-1]))
    return {"decisions": decisions}


def _by_calibration(config: DecideConfig, both: pl.DataFrame, combined: pl.DataFrame) -> pl.DataFrame:
    """Add `new_score`, `new_state` and `by` as the calibration says."""
    check_unique(combined, "combined")
    said = combined.select(*PAIR, by="judge", said="state", new_score=pl.col("score").fill_nan(None))
    joined = both.join(said, on=PAIR)
    if joined.height != both.height:
        raise ValueError(f"combined: a row for each of {both.height} candidates expected, {joined.height} came")
    score, needed = pl.col("new_score"), pl.lit(config.relevant_from)
    if config.precision is not None and config.tiers:
        # The threshold has the precision after all tiers, on average. Before the last one P itself must be as sure.
        sure = max(config.relevant_from, config.precision)
        needed = pl.when(pl.col("last_asked").fill_null(False)).then(needed).otherwise(sure)
    by_score = pl.when(score.is_null()).then("said").otherwise(_thresholds(config, score, needed))
    return joined.with_columns(new_state=by_score)


def _by_fusion(config: DecideConfig, both: pl.DataFrame) -> pl.DataFrame:
    """Add `new_score`, `new_state` and `by` by adding log-odds, or as the last tier says."""
    asked = pl.col("llm_state").is_not_null()
    heard = pl.lit(config.weight_of("similarity") != 0)
    fused = asked & pl.lit(config.mode == "fusion") & (pl.col("score").is_not_null() | ~heard)
    all_judges = pl.format("{}+{}", "judge", "llm_judge")
    by = pl.when(fused & heard).then(all_judges).when(asked).then("llm_judge").otherwise("judge")
    scored = both.with_columns(new_score=_fused_score(config, asked), by=by)
    return scored.with_columns(new_state=_state(config, asked, fused))


def _last_answers(config: DecideConfig, llm_verdicts: pl.DataFrame) -> pl.DataFrame:
    """Return, per pair, the answer of the last tier, and `evidence`, what all tiers add to the log-odds."""
    check_unique(llm_verdicts, "llm_verdicts", VERDICTS.key)
    unknown = sorted(set(llm_verdicts["tier"]) - set(config.tiers))
    if unknown:
        raise ValueError(f"llm_verdicts: the tiers {list(config.tiers)} expected, {unknown} came")
    tiers = pl.DataFrame(
        {
            "tier": config.tiers,
            "_place": range(len(config.tiers)),
            "_weight": [config.weight_of(tier) for tier in config.tiers],
        },
        schema={"tier": pl.String, "_place": pl.Int64, "_weight": pl.Float64},
    )
    answers = llm_verdicts.with_columns(pl.col("score").fill_nan(None)).join(tiers, on="tier", how="left")
    evidence = answers.group_by(PAIR).agg(evidence=(_evidence(config, pl.col("score")) * pl.col("_weight")).sum())
    renamed = {name: f"llm_{name}" for name in ("judge", "state", "score", "attempt")}
    last = answers.sort(*PAIR, "_place").unique(PAIR, keep="last", maintain_order=True)
    last = last.with_columns(last_asked=pl.col("_place") == len(config.tiers) - 1).rename(renamed)
    return last.select(*PAIR, "grade", "preference", "call_id", *renamed.values(), "last_asked").join(evidence, on=PAIR)


def _with_verdicts(candidates: pl.DataFrame, verdicts: pl.DataFrame, table: str) -> pl.DataFrame:
    """Join the hashes of the candidates with their verdicts. Verdicts on other pairs are ignored."""
    check_unique(candidates, "candidates")
    check_unique(verdicts, table)
    judged = candidates.select(*PAIR, *QUESTION, "retriever").join(verdicts, on=PAIR)
    if judged.height != candidates.height:
        raise ValueError(
            f"{table}: a verdict for each of {candidates.height} candidates expected, {judged.height} came; judge again"
        )
    return judged.with_columns(pl.col("score").fill_nan(None))


def _logit(score: pl.Expr) -> pl.Expr:
    clipped = score.clip(_EPSILON, 1 - _EPSILON)
    return (clipped / (1 - clipped)).log()


def _prior(config: DecideConfig) -> float:
    return math.log(config.prevalence / (1 - config.prevalence))


def _evidence(config: DecideConfig, score: pl.Expr) -> pl.Expr:
    """What a score adds to the log-odds: those of the score, without those of the prior that it holds already."""
    return _logit(score) - _prior(config)


def _fused_score(config: DecideConfig, asked: pl.Expr) -> pl.Expr:
    """Return the score of the decision; null where nobody judged whose score counts, or the answer is unreadable."""
    similarity, llm, weight = pl.col("score"), pl.col("llm_score"), config.weight_of("similarity")
    alone = similarity if weight or config.similarity_decides else pl.lit(None, dtype=pl.Float64)
    if config.mode == "last":
        return pl.when(asked).then(llm).otherwise(alone)
    own = _evidence(config, similarity) * weight if weight else pl.lit(0.0)
    said = pl.when(asked).then("evidence").otherwise(0.0)
    fused = 1 / (1 + (-(own + said + config.bias + _prior(config))).exp())
    unreadable = pl.col("llm_state") == "unparsed"
    return (
        pl.when(unreadable)
        .then(None)
        .when(asked & (own.is_null() if weight else pl.lit(False)))
        .then(llm)
        .when(asked | alone.is_not_null())
        .then(fused)
    )


def _thresholds(config: DecideConfig, score: pl.Expr, relevant_from: pl.Expr) -> pl.Expr:
    return (
        pl.when(score >= relevant_from)
        .then(pl.lit("relevant"))
        .when(score < config.not_relevant_below)
        .then(pl.lit("not_relevant"))
        .otherwise(pl.lit("unsure"))
    )


def _state(config: DecideConfig, asked: pl.Expr, fused: pl.Expr) -> pl.Expr:
    return (
        pl.when(pl.col("llm_state") == "unparsed")
        .then(pl.lit("unparsed"))
        .when(fused)
        .then(_thresholds(config, pl.col("new_score"), pl.lit(config.relevant_from)))
        .when(asked)
        .then("llm_state")
        .when(is_in_band(config.lower, config.upper))
        .then(pl.lit("unsure"))
        .otherwise("state")
    )
