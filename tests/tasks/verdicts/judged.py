"""Candidates and verdicts for the tests of this folder."""

from collections.abc import Sequence

import polars as pl

from tasks.schemas import BY_PEOPLE, CANDIDATES, VERDICTS
from tasks.verdicts.decide import DecideConfig, decide
from tasks.verdicts.escalate import EscalateConfig, escalate

Judged = tuple[str, str, str, float | None]  # query, doc, state, score


def candidates(rows: Sequence[Judged]) -> pl.DataFrame:
    """One candidate per row; the text of a doc is its id up to a dash, so "a" and "a-copy" are one text."""
    return pl.DataFrame(
        [("d", q, doc, doc.split("-")[0], f"hash-{q}", f"pos-{q}", "dense", 1, 0.5) for q, doc, _, _ in rows],
        schema=CANDIDATES.columns,
        orient="row",
    )


def verdicts(rows: Sequence[Judged], tier: str = "similarity") -> pl.DataFrame:
    call_id = None if tier == "similarity" else "call"
    return pl.DataFrame(
        [("d", q, doc, tier, f"{tier}-judge", state, score, None, None, call_id, 1) for q, doc, state, score in rows],
        schema=VERDICTS.columns,
        orient="row",
    )


FOUR: list[Judged] = [
    ("q1", "high", "relevant", 0.95),
    ("q1", "middle", "unsure", 0.6),
    ("q1", "low", "not_relevant", 0.05),
    ("q2", "broken", "unparsed", None),
]


def escalated_docs(config: EscalateConfig, rows: Sequence[Judged]) -> list[str]:
    found = escalate(config, candidates=candidates(rows), verdicts=verdicts(rows))["escalated"]
    assert dict(found.schema) == CANDIDATES.columns
    return found["doc_id"].to_list()


def decided(
    config: DecideConfig, rows: Sequence[Judged], llm: Sequence[Judged] = ()
) -> dict[str, tuple[str, float | None]]:
    frame = decide(config, candidates=candidates(rows), verdicts=verdicts(rows), llm_verdicts=verdicts(llm, "llm"))
    decisions = frame["decisions"]
    assert dict(decisions.schema) == VERDICTS.columns
    assert decisions.height == len(rows)
    return {doc: (state, score) for doc, state, score in decisions.select("doc_id", "state", "score").iter_rows()}


def said_by_people(rows: Sequence[Judged], *docs: str) -> pl.DataFrame:
    """The candidates of `rows`; people called `docs` irrelevant."""
    people = pl.when(pl.col("doc_id").is_in(docs)).then(pl.lit(BY_PEOPLE)).otherwise("retriever")
    return candidates(rows).with_columns(retriever=people)


def two_tiers(weak: list[Judged], strong: list[Judged]) -> pl.DataFrame:
    return pl.concat([verdicts(weak, "weak"), verdicts(strong, "strong")])
