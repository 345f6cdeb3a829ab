"""Draw the audit sample of a tier with a guarantee, as questions that its judge is asked about."""

import hashlib

import numpy as np
import polars as pl

from tasks.schemas import AUDIT, CANDIDATES
from tasks.verdicts.escalate import EscalateConfig, TargetConfig, leave_out_known, pack
from tasks.verdicts.guarantee.bounds import Floats
from tasks.verdicts.guarantee.thresholds import Target, draw
from tasks.verdicts.pairs import PAIR, QUESTION, check_unique

_BITS = 53  # of a hash, as many as a float holds


def audit(
    config: EscalateConfig, *, candidates: pl.DataFrame, verdicts: pl.DataFrame
) -> dict[str, pl.DataFrame | list[pl.DataFrame]]:
    """Draw the audit sample, by importance from two strata of the scores of the tier before.

    A question is a (query, positives, passage) by text; copies are one question. It is drawn by a hash of the seed and
    its texts, so another night draws the same ones again as far as they are still there, and their answers are known.
    What the tier before did not judge is no part of the pool, nor what people called irrelevant; what it could not
    judge is asked about in any case, and not drawn.

    Returns:
        `audit`: every question of the pool with its score, its inclusion probability, and whether it is drawn.
        `escalated`: the candidates of the drawn questions, in parts as `escalate` makes them.

    Raises:
        ValueError: there is no target, or a candidate or the pair of a verdict comes twice.
    """
    target = target_of(config)
    pool = scored_pool(candidates, verdicts)
    scores = pool["score"].to_numpy().astype(np.float64)
    drawn = draw(aim(target), scores, _uniforms(pool, target.seed), _size(target, pool.height))
    stratum = pl.Series(np.where(drawn.high, "high", "low"), dtype=pl.String)
    table = pool.with_columns(
        stratum=stratum, inclusion_probability=pl.Series(drawn.chance), drawn=pl.Series(drawn.drawn)
    ).select(*AUDIT.columns)
    asked = candidates.join(table.filter("drawn"), on=QUESTION, how="semi").sort("query_hash", *PAIR)
    parts = pack(leave_out_known(asked).select(*CANDIDATES.columns), config.pairs_per_part)
    return {"audit": table.sort(AUDIT.key), "escalated": parts}


def target_of(config: EscalateConfig) -> TargetConfig:
    """Return the target of a tier.

    Raises:
        ValueError: it has none.
    """
    if config.target is None:
        raise ValueError("escalate.target: a guarantee expected, got none; a tier without one has no audit")
    return config.target


def aim(target: TargetConfig) -> Target:
    """Return what the bounds need of a target's settings."""
    return Target(target.recall, target.precision, target.confidence)


def judged_questions(candidates: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    """Return one row per question that the tier before judged, with its score; null where it could not judge it."""
    check_unique(candidates, "candidates")
    check_unique(verdicts, "verdicts")
    judged = leave_out_known(candidates).select(*PAIR, *QUESTION).join(verdicts.select(*PAIR, "score"), on=PAIR)
    score = pl.col("score").fill_nan(None).max()  # equal texts have equal scores; max makes no assumption
    return judged.group_by(QUESTION).agg(score).sort(QUESTION)


def scored_pool(candidates: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    """Return the questions that the guarantee's thresholds decide on: those with a score, sorted by their hashes."""
    return judged_questions(candidates, verdicts).drop_nulls("score")


def _uniforms(pool: pl.DataFrame, seed: int) -> Floats:
    """Return a number in 0..1 for each question, from a hash of the seed and its texts."""
    hashes = (hashlib.sha256(f"{seed}/{'/'.join(row)}".encode()).digest() for row in pool.select(QUESTION).iter_rows())
    whole = np.fromiter((int.from_bytes(digest[:8], "big") >> (64 - _BITS) for digest in hashes), dtype=np.float64)
    return whole / float(1 << _BITS)


def _size(target: TargetConfig, pool: int) -> int | None:
    """Return the size that the settings name: a share below 1, else a number."""
    if target.audit is None:
        return None
    return round(target.audit * pool) if target.audit < 1 else round(target.audit)
