"""Settle what need not be asked: choose thresholds by the audit, accept, reject, and pass on what lies between.

The thresholds are chosen once for all parts of the queries. Each part says what its audit found (`read_audit`), one
stage chooses (`set_thresholds`), and each part settles its pairs (`settle`).
"""

from typing import Any

import numpy as np
import polars as pl

from tasks.schemas import AUDIT, CANDIDATES, THRESHOLDS, VERDICTS
from tasks.summaries import ANSWERED
from tasks.verdicts.escalate import EscalateConfig, leave_out_known
from tasks.verdicts.guarantee.audit import aim, judged_questions, target_of
from tasks.verdicts.guarantee.thresholds import Audit, Bools, Thresholds, choose
from tasks.verdicts.pairs import PAIR, QUESTION, check_unique

TIER = "guarantee"
ACCEPTED, REJECTED = f"{TIER}:accepted", f"{TIER}:rejected"  # the judges of pairs that nobody was asked about


def read_audit(
    config: EscalateConfig,
    *,
    candidates: pl.DataFrame,
    verdicts: pl.DataFrame,
    audit: pl.DataFrame,
    audited: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Say what the audit found in one part.

    Args:
        config: the tier's escalation, with a target.
        candidates: of the part.
        verdicts: of the tier before, which the thresholds are about.
        audit: the part's pool with the draw, from the stage `audit`.
        audited: the oracle's verdicts on the drawn questions.

    Returns:
        `answered`: ANSWERED, a row for each question that the tier before judged.

    Raises:
        ValueError: a drawn question has no verdict of the oracle, or there is no target.
    """
    target_of(config)
    pool = _with_answers(candidates, audit, audited)
    found = judged_questions(candidates, verdicts).join(pool.drop("score"), on=QUESTION, how="left")
    answered = found.sort(QUESTION).select(
        "score",
        high=(pl.col("stratum") == "high").fill_null(False),
        drawn=pl.col("drawn").fill_null(False),
        relevant=(pl.col("state") == "relevant").fill_null(False),
        unread=(pl.col("state") == "unparsed").fill_null(False),
    )
    return {"answered": answered.select(*ANSWERED.columns)}


def set_thresholds(config: EscalateConfig, *, answered: pl.DataFrame) -> dict[str, Any]:
    """Choose the two thresholds for all parts.

    Args:
        config: the tier's escalation, with a target.
        answered: ANSWERED of all parts.

    Returns:
        `thresholds`: one row. `facts`: the same, and how many questions are passed on, for `reneg explain`.

    Raises:
        ValueError: there is no target.
    """
    pool = answered.drop_nulls("score")
    scores = pool["score"].to_numpy()
    high, drawn, relevant, unread = (_mask(pool, name) for name in ("high", "drawn", "relevant", "unread"))
    chosen = choose(aim(target_of(config)), scores, Audit(high, drawn, np.zeros(0)), relevant, unread)
    accepted, rejected = chosen.sides(scores)
    thresholds = {
        "questions": answered.height,
        "audited": int(drawn.sum()),
        "accept": chosen.accept,
        "reject": chosen.reject,
        "accepted": int((accepted & ~drawn).sum()),
        "rejected": int((rejected & ~drawn).sum()),
        "found_rejected": int((relevant & rejected).sum()),
        "found_wrong": int((drawn & accepted & ~relevant).sum()),
    }
    passed_on = answered.height - int((accepted | rejected | drawn).sum())
    return {
        "thresholds": pl.DataFrame([thresholds], schema=THRESHOLDS.columns),
        "facts": {**thresholds, "passed_on": passed_on},
    }


def settle(
    config: EscalateConfig,
    *,
    candidates: pl.DataFrame,
    verdicts: pl.DataFrame,
    audit: pl.DataFrame,
    thresholds: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Settle the pairs of one part that are beyond the thresholds, and pass on the others without those of the audit.

    Args:
        config: the tier's escalation, with a target.
        candidates: of the part.
        verdicts: of the tier before, which the thresholds are about.
        audit: the part's pool with the draw, from the stage `audit`.
        thresholds: from the stage `set_thresholds`.

    Returns:
        `settled`: a verdict of tier `guarantee` for each pair that is accepted or rejected; its score is that of the
        tier before. `escalated`: the pairs that are passed on.

    Raises:
        ValueError: there is no target.
    """
    target_of(config)
    (row,) = thresholds.iter_rows(named=True)
    chosen = Thresholds(row["accept"], row["reject"], relevant=0)
    accepted, rejected = chosen.sides(audit["score"].to_numpy())
    pool = audit.with_columns(accepted=pl.Series(accepted), rejected=pl.Series(rejected))
    beyond = pl.col("accepted") | pl.col("rejected")
    open_ = judged_questions(candidates, verdicts).join(pool.filter(beyond | pl.col("drawn")), on=QUESTION, how="anti")
    passed_on = leave_out_known(candidates).join(open_, on=QUESTION, how="semi")
    return {
        "settled": _settled(candidates, verdicts, pool.filter(beyond & ~pl.col("drawn"))),
        "escalated": passed_on.select(*CANDIDATES.columns).sort(CANDIDATES.key),
    }


def _mask(pool: pl.DataFrame, name: str) -> Bools:
    return pool[name].to_numpy().astype(np.bool_)


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


def _settled(candidates: pl.DataFrame, verdicts: pl.DataFrame, beyond: pl.DataFrame) -> pl.DataFrame:
    """Return a verdict for each pair whose question is accepted or rejected without being asked."""
    sides = beyond.select(*QUESTION, "accepted")
    pairs = leave_out_known(candidates).select(*PAIR, *QUESTION).join(sides, on=QUESTION)
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
