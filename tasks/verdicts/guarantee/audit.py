"""Draw the audit sample of a tier with a guarantee, as questions that its judge is asked about.

The draw is one for all parts of the queries, so that the guarantee is about all of them. Each part says which scores it
has (`score_pool`), one stage draws (`draw_audit`), and each part picks its questions of the draw (`audit`).
"""

import hashlib

import numpy as np
import polars as pl

from tasks.schemas import AUDIT, CANDIDATES
from tasks.summaries import DRAW
from tasks.verdicts.escalate import EscalateConfig, TargetConfig, leave_out_known
from tasks.verdicts.guarantee.bounds import Floats
from tasks.verdicts.guarantee.thresholds import Audit, Bools, Target, draw
from tasks.verdicts.pairs import PAIR, QUESTION, check_unique

_BITS = 53  # of a hash, as many as a float holds


def score_pool(config: EscalateConfig, *, candidates: pl.DataFrame, verdicts: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the scores of the questions of one part that the guarantee's thresholds decide on.

    A question is a (query, positives, passage) by text; copies are one question. What the tier before did not judge is
    no part of the pool, nor what people called irrelevant; what it could not judge is asked about in any case, and not
    drawn.

    Returns:
        `scores`: SCORED.

    Raises:
        ValueError: there is no target, or a candidate or the pair of a verdict comes twice.
    """
    pool = scored_pool(candidates, verdicts)
    uniforms = pl.Series("uniform", _uniforms(pool, target_of(config).seed), dtype=pl.Float64)
    return {"scores": pool.select("score").with_columns(uniforms)}


def draw_audit(config: EscalateConfig, *, scores: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Draw the audit sample of all parts, by importance from two strata of the scores of the tier before.

    A question is drawn by a hash of the seed and its texts, so another night draws the same ones again as far as they
    are still there, and their answers are known.

    Returns:
        `draw`: DRAW, one row, by which each part finds its questions.

    Raises:
        ValueError: there is no target.
    """
    target = target_of(config)
    pool, uniforms = (scores[name].to_numpy().astype(np.float64) for name in ("score", "uniform"))
    drawn = draw(aim(target), pool, uniforms, _size(target, pool.size))
    row = {"high_from": float(pool[drawn.high].min()) if drawn.high.any() else None}
    for name, stratum in (("low", ~drawn.high), ("high", drawn.high)):
        last, chance = _last_drawn(drawn, uniforms, stratum)
        row |= {f"drawn_{name}": last, f"chance_{name}": chance}
    return {"draw": pl.DataFrame([row], schema=DRAW.columns)}


def audit(
    config: EscalateConfig, *, candidates: pl.DataFrame, verdicts: pl.DataFrame, draw: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Pick the questions of one part that are drawn.

    Args:
        config: the tier's escalation, with a target.
        candidates: of the part.
        verdicts: of the tier before, on these candidates.
        draw: DRAW, as `draw_audit` made it of all parts.

    Returns:
        `audit`: every question of the part's pool with its score, its inclusion probability, and whether it is drawn.
        `escalated`: the candidates of the drawn questions.

    Raises:
        ValueError: there is no target, or a candidate or the pair of a verdict comes twice.
    """
    pool = scored_pool(candidates, verdicts)
    uniforms = _uniforms(pool, target_of(config).seed)
    (how,) = draw.iter_rows(named=True)
    nothing = np.zeros(pool.height, dtype=np.bool_)
    high = nothing if how["high_from"] is None else pool["score"].to_numpy() >= how["high_from"]
    upper, lower = (nothing if how[name] is None else uniforms <= how[name] for name in ("drawn_high", "drawn_low"))
    by_stratum = pl.when("high")
    table = pool.with_columns(high=pl.Series(high, dtype=pl.Boolean)).with_columns(
        stratum=by_stratum.then(pl.lit("high")).otherwise(pl.lit("low")),
        inclusion_probability=by_stratum.then(pl.lit(how["chance_high"], pl.Float64)).otherwise(
            pl.lit(how["chance_low"], pl.Float64)
        ),
        drawn=pl.Series(np.where(high, upper, lower), dtype=pl.Boolean),
    )
    table = table.select(*AUDIT.columns).sort(AUDIT.key)
    asked = leave_out_known(candidates).join(table.filter("drawn"), on=QUESTION, how="semi")
    return {"audit": table, "escalated": asked.select(*CANDIDATES.columns).sort(CANDIDATES.key)}


def _last_drawn(drawn: Audit, uniforms: Floats, stratum: Bools) -> tuple[float | None, float | None]:
    """Return the largest number that is drawn in a stratum, and the chance of each of its questions."""
    picked = uniforms[drawn.drawn & stratum]
    chance = float(drawn.chance[stratum][0]) if stratum.any() else None
    return float(picked.max()) if picked.size else None, chance


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
