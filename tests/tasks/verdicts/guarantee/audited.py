"""A pool with an oracle for the tests of this folder: scores that are worth something, copies, unjudged pairs."""

from typing import Any

import numpy as np
import polars as pl

from tasks.verdicts.escalate import EscalateConfig
from tasks.verdicts.guarantee.audit import audit
from tasks.verdicts.guarantee.settle import settle
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


def settled(escalation: EscalateConfig, before: list[Judged], oracle: list[Judged]) -> dict[str, Any]:
    """Draw the audit, ask about it, settle; all tables of both stages, the parts of each joined."""
    tables = {"candidates": candidates(before), "verdicts": verdicts(before)}
    drawn = audit(escalation, **tables)
    sample = pl.concat(drawn["escalated"])
    audited = answers(sample, oracle)
    table = drawn["audit"]
    assert isinstance(table, pl.DataFrame)
    made = settle(escalation, **tables, audit=table, audited=audited)
    passed_on = pl.concat(made["escalated"])
    return {**tables, **made, "audit": table, "sample": sample, "audited": audited, "escalated": passed_on}
