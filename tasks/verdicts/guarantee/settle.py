"""Settle what need not be asked: choose thresholds by the audit, accept, reject, and pass on what lies between."""

from typing import Any

import numpy as np
import polars as pl

from tasks.schemas import AUDIT, CANDIDATES, THRESHOLDS, VERDICTS
from tasks.verdicts.escalate import EscalateConfig, leave_out_known, pack
from tasks.verdicts.guarantee.audit import aim, judged_questions, target_of
from tasks.verdicts.guarantee.thresholds import Audit, Bools, choose
from tasks.verdicts.pairs import PAIR, QUESTION, check_unique

TIER = "guarantee"
ACCEPTED, REJECTED = f"{TIER}:accepted", f"{TIER}:rejected"  # the judges of pairs that nobody was asked about


def settle(
    config: EscalateConfig,
    *,
    candidates: pl.DataFrame,
    verdicts: pl.DataFrame,
    audit: pl.DataFrame,
    audited: pl.DataFrame,
) -> dict[str, Any]:
    """Choose the two thresholds, settle the pairs beyond them, and pass on the others without those of the audit.

    Args:
        config: the tier's escalation, with a target.
        candidates: of all queries.
        verdicts: of the tier before, which the thresholds are about.
        audit: the pool with the draw, from the stage `audit`.
        audited: the oracle's verdicts on the drawn questions.

    Returns:
        `thresholds`: one row. `settled`: a verdict of tier `guarantee` for each pair that is accepted or rejected; its
        score is that of the tier before. `escalated`: the pairs that are passed on, in parts. `facts`: the thresholds
        and counts again, for `reneg explain`.

    Raises:
        ValueError: a drawn question has no verdict of the oracle, or there is no target.
    """
    target = target_of(config)
    pool = _with_answers(candidates, audit, audited)
    scores = pool["score"].to_numpy()
    drawn = Audit(_where(pool, pl.col("stratum") == "high"), _where(pool, pl.col("drawn")), np.zeros(0))
    relevant, unread = (_where(pool, pl.col("state") == state) for state in ("relevant", "unparsed"))
    chosen = choose(aim(target), scores, drawn, relevant, unread)
    accepted, rejected = chosen.sides(scores)
    sides = pool.with_columns(accepted=pl.Series(accepted), rejected=pl.Series(rejected)).filter(~pl.col("drawn"))
    thresholds = {
        "questions": judged_questions(candidates, verdicts).height,
        "audited": int(drawn.drawn.sum()),
        "accept": chosen.accept,
        "reject": chosen.reject,
        "accepted": int(sides["accepted"].sum()),
        "rejected": int(sides["rejected"].sum()),
        "found_rejected": int((relevant & rejected).sum()),
        "found_wrong": int((drawn.drawn & accepted & ~relevant).sum()),
    }
    open_ = judged_questions(candidates, verdicts).join(
        pl.concat([sides.filter(pl.col("accepted") | pl.col("rejected")), pool.filter("drawn")], how="diagonal"),
        on=QUESTION,
        how="anti",
    )
    passed_on = leave_out_known(candidates).join(open_, on=QUESTION, how="semi").sort("query_hash", *PAIR)
    return {
        "thresholds": pl.DataFrame([thresholds], schema=THRESHOLDS.columns),
        "settled": _settled(candidates, verdicts, sides),
        "escalated": pack(passed_on.select(*CANDIDATES.columns), config.pairs_per_part),
        "facts": {**thresholds, "passed_on": open_.height},
    }


def _with_answers(candidates: pl.DataFrame, audit: pl.DataFrame, audited: pl.DataFrame) -> pl.DataFrame:
    """Join the oracle's states with the questions of the pool, in the order of their hashes.

    A question whose copies got different answers counts as unparsed.
    """
    check_unique(audited, "audited")
    answers = (
        candidates.select(*PAIR, *QUESTION)
        .join(audited.select(*PAIR, "state"), on=PAIR)
        .group_by(QUESTION)
        .agg(pl.col("state").unique().sort())
        .select(*QUESTION, state=pl.when(pl.col("state").list.len() == 1).then(pl.col("state").list.first()))
        .with_columns(pl.col("state").fill_null("unparsed"))
    )
    pool = audit.select(*AUDIT.columns).join(answers, on=QUESTION, how="left").sort(QUESTION)
    without = pool.filter(pl.col("drawn") & pl.col("state").is_null()).height
    if without:
        raise ValueError(
            f"audited: a verdict for each of {int(pool['drawn'].sum())} drawn questions expected, {without} have none; "
            "judge the audit again"
        )
    return pool


def _where(pool: pl.DataFrame, condition: pl.Expr) -> Bools:
    return pool.select(condition.fill_null(False).alias("_")).to_series().to_numpy().astype(np.bool_)


def _settled(candidates: pl.DataFrame, verdicts: pl.DataFrame, sides: pl.DataFrame) -> pl.DataFrame:
    """Return a verdict for each pair whose question is accepted or rejected without being asked."""
    beyond = sides.filter(pl.col("accepted") | pl.col("rejected")).select(*QUESTION, "accepted")
    pairs = leave_out_known(candidates).select(*PAIR, *QUESTION).join(beyond, on=QUESTION)
    scores = verdicts.select(*PAIR, "score")
    said = pl.when("accepted")
    return (
        pairs.join(scores, on=PAIR)
        .with_columns(
            tier=pl.lit(TIER),
            judge=said.then(pl.lit(ACCEPTED)).otherwise(pl.lit(REJECTED)),
            state=said.then(pl.lit("relevant")).otherwise(pl.lit("not_relevant")),
            grade=pl.lit(None, dtype=pl.Float64),
            preference=pl.lit(None, dtype=pl.String),
            call_id=pl.lit(None, dtype=pl.String),
            attempt=pl.lit(1, dtype=pl.Int32),
        )
        .select(*VERDICTS.columns)
        .sort(VERDICTS.key)
    )
