"""A pool with an oracle for the tests of this folder: scores that are worth something, copies, unjudged pairs."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from tasks.verdicts.escalate import EscalateConfig
from tasks.verdicts.guarantee.audit import audit, draw_audit, score_pool
from tasks.verdicts.guarantee.settle import read_audit, set_thresholds, settle
from tests.tasks.verdicts.judged import Judged, candidates, verdicts


def config(**target: Any) -> EscalateConfig:
    return EscalateConfig.model_validate({"target": {"recall": 0.9, "precision": 0.9, "confidence": 0.9} | target})


def pool(size: int = 2000, seed: int = 0) -> tuple[list[Judged], list[Judged]]:
    """What the tier before says of each pair, and what the oracle would say: relevant with the chance of the score."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.2, 0.6, size)
    relevant = rng.random(size) < scores
    pairs = [(f"q{n // 20}", f"d{n:04}") for n in range(size)]
    before: list[Judged] = [(*pair, "unsure", float(s)) for pair, s in zip(pairs, scores, strict=True)]
    oracle: list[Judged] = [
        (*pair, "relevant" if found else "not_relevant", 0.99 if found else 0.01)
        for pair, found in zip(pairs, relevant, strict=True)
    ]
    return before, oracle


def answers(asked: pl.DataFrame, oracle: list[Judged], tier: str = "strong") -> pl.DataFrame:
    """The oracle's verdicts on the pairs that it is asked about."""
    return verdicts(oracle, tier).join(asked, on=["dataset", "query_id", "doc_id"], how="semi")


def drawn(
    escalation: EscalateConfig, parts: Sequence[Mapping[str, pl.DataFrame]]
) -> tuple[list[dict[str, pl.DataFrame]], pl.DataFrame]:
    """Draw the audit over several parts, each given as candidates and verdicts; returns the parts' tables, the draw."""
    scores = pl.concat(score_pool(escalation, **tables)["scores"] for tables in parts)
    draw = draw_audit(escalation, scores=scores)["draw"]
    return [audit(escalation, **tables, draw=draw) for tables in parts], draw


def audited(escalation: EscalateConfig, candidates: pl.DataFrame, verdicts: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Draw the audit where there is one part: the tables `audit` and `escalated`."""
    return drawn(escalation, [{"candidates": candidates, "verdicts": verdicts}])[0][0]


def settled(escalation: EscalateConfig, before: list[Judged], oracle: list[Judged], parts: int = 1) -> dict[str, Any]:
    """Draw the audit, ask about it, settle; all tables of all stages, the parts of each joined."""
    rows = [[row for row in before if hash_place(row[0], parts) == part] for part in range(parts)]
    tables = [{"candidates": candidates(some), "verdicts": verdicts(some)} for some in rows]
    made = drawn(escalation, tables)[0]
    said = [answers(part["escalated"], oracle) for part in made]
    answered = pl.concat(
        read_audit(escalation, **each, audit=part["audit"], audited=some)["answered"]
        for each, part, some in zip(tables, made, said, strict=True)
    )
    chosen = set_thresholds(escalation, answered=answered)
    thresholds = chosen["thresholds"]
    ends = [
        settle(escalation, **each, audit=part["audit"], thresholds=thresholds)
        for each, part in zip(tables, made, strict=True)
    ]
    return {
        **{name: pl.concat(each[name] for each in tables) for name in tables[0]},
        **chosen,
        **{name: pl.concat(each[name] for each in ends) for name in ends[0]},
        "audit": pl.concat(part["audit"] for part in made),
        "sample": pl.concat(part["escalated"] for part in made),
        "audited": pl.concat(said),
        "answered": answered,
    }


def hash_place(query: str, parts: int) -> int:
    """The part of a query."""
    return int(hashlib.sha256(query.encode()).hexdigest(), 16) % parts
