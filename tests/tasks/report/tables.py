"""The tables of a toy curation, and of one in which nothing happened."""

from typing import Any

import polars as pl

from tasks import schemas
from tasks.texts import hash_passage, hash_text


def rows(schema: schemas.Schema, *data: tuple[Any, ...]) -> pl.DataFrame:
    return pl.DataFrame(data, schema=schema.columns, orient="row") if data else schema.empty()


def verdicts(tier: str, *data: tuple[str, str, str, float | None]) -> pl.DataFrame:
    """Rows of query_id, doc_id, state, score."""
    full = [("toy", q, d, tier, "judge", state, score, None, None, None, 1) for q, d, state, score in data]
    return rows(schemas.VERDICTS, *full)


def empty_tables() -> dict[str, pl.DataFrame]:
    named = {
        "queries": schemas.QUERIES,
        "passages": schemas.PASSAGES,
        "positives": schemas.POSITIVES,
        "candidates": schemas.CANDIDATES,
        "similarity": schemas.VERDICTS,
        "llm_verdicts": schemas.VERDICTS,
        "calls": schemas.CALLS,
        "decisions": schemas.VERDICTS,
        "agreement": schemas.AGREEMENT,
        "edits": schemas.EDITS,
        "scores": schemas.SCORES,
        "rejects": schemas.REJECTS,
        "costs": schemas.COSTS,
    }
    return {name: schema.empty() for name, schema in named.items()}


def toy_tables(query: str = "how to cook rice") -> dict[str, pl.DataFrame]:
    """Two training queries and a held-out one; q1 has one false negative (d2), q2 none."""
    texts = {"d1": "boil it in water", "d2": query + " boils", "d3": "rice is a grass", "d4": "wheat is a grass"}
    passages = [("toy", d, "", text, hash_passage("", text)) for d, text in texts.items()]
    asked = [("q1", query, "train"), ("q2", "what is wheat", "train"), ("q3", "rye", "test")]
    hashes = {row[1]: row[4] for row in passages}
    pairs = [("q1", "d2"), ("q1", "d3"), ("q2", "d1"), ("q2", "d3")]
    states = ["relevant", "unsure", "not_relevant", "unparsed"]
    scores = [0.9, 0.5, 0.1, None]
    measured = [
        (model, "toy", measure, "q3", value, 42)
        for measure in ("nDCG@10", "RR@10")
        for model, value in (("base", 0.5), ("default", 0.5), ("relabel", 0.75))
    ]
    return empty_tables() | {
        "queries": rows(schemas.QUERIES, *[("toy", q, t, hash_text(t), split) for q, t, split in asked]),
        "passages": rows(schemas.PASSAGES, *passages),
        "positives": rows(
            schemas.POSITIVES, ("toy", "q1", "d1", hashes["d1"], "given"), ("toy", "q2", "d4", hashes["d4"], "given")
        ),
        "candidates": rows(
            schemas.CANDIDATES, *[("toy", q, d, hashes[d], "q", "p", "dense", 1, 0.5) for q, d in pairs]
        ),
        "similarity": verdicts("similarity", *[(q, d, "unsure", 0.4) for q, d in pairs]),
        "llm_verdicts": verdicts("llm", ("q1", "d2", "relevant", 0.95), ("q2", "d3", "unparsed", None)),
        "calls": rows(
            schemas.CALLS,
            ("c1", "j", None, "Yes", "stop", 100, 1, None),
            ("c2", "j", None, "?", "length", 50, 1, "fp"),
        ),
        "decisions": verdicts("cascade", *[(*pair, s, v) for pair, s, v in zip(pairs, states, scores, strict=True)]),
        "agreement": rows(schemas.AGREEMENT, ("cascade", 4, 2, 1, 1, 0.5, 1.0, 1.0, 0.75)),
        "edits": rows(schemas.EDITS, ("toy", "q1", "d2", "negative", "positive", "judge", "relevant", 0.9)),
        "scores": rows(schemas.SCORES, *measured),
        "rejects": rows(schemas.REJECTS, *[("ingest", f"line {n}", "broken_json", "comma") for n in (3, 9)]),
        "costs": rows(schemas.COSTS, ("judge-llm", 1, 75.0, 2, 4), ("ingest", 1, 0.04, 9, 8)),
    }  # fmt: skip


def figure_tables(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return {name: frame for name, frame in tables.items() if name not in ("positives", "similarity")}
