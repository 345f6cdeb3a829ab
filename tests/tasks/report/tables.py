"""The tables of a toy curation, and of one in which nothing happened."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from tasks import schemas, summaries
from tasks.report.examples import excerpt
from tasks.report.parts.add_up import Sums
from tasks.report.parts.sum_up import EditsConfig, SumUpConfig, sum_up_edits, sum_up_verdicts
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
        "counts": schemas.COUNTS,
        "lengths": summaries.LENGTHS,
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
            schemas.POSITIVES, *[("toy", q, d, *[hashes[d]] * 3, "given") for q, d in (("q1", "d1"), ("q2", "d4"))]
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
        "agreement": rows(
            schemas.AGREEMENT, ("cascade", 4, 2, 1, 1, 0.5, 1.0, 1.0, 0.75, 0.1, 0.9, 0.2, 1.0, 0.4, 0.9)
        ),
        "edits": rows(schemas.EDITS, ("toy", "q1", "d2", "negative", "positive", "judge", "relevant", 0.9)),
        "scores": rows(schemas.SCORES, *measured),
        "rejects": rows(schemas.REJECTS, *[("ingest", f"line {n}", "broken_json", "comma") for n in (3, 9)]),
        "costs": rows(schemas.COSTS, ("judge-llm", 1, 75.0, 2, 4), ("ingest", 1, 0.04, 9, 8)),
        "counts": rows(schemas.COUNTS, ("passage_chars", "toy", "", 16.0, 4)),
        "lengths": rows(summaries.LENGTHS, *[("toy", q, d, len(texts[d])) for q, d in pairs]),
    }  # fmt: skip


def summed(
    tables: Mapping[str, pl.DataFrame], tiers: Sequence[str] = ("llm",), reads: int | None = None, examples: int = 6
) -> dict[str, Any]:
    """What `report` reads: the tables of a curation, counted and excerpted as one query part."""
    tables = {"windows": schemas.WINDOWS.empty(), "known": schemas.KNOWN.empty(), **tables}
    judged = ("queries", "candidates", "similarity", "llm_verdicts", "decisions")
    counted = sum_up_verdicts(
        SumUpConfig(tiers=tuple(tiers), reads=reads),
        **{name: tables[name] for name in (*judged, "calls", "windows", "lengths", "known")},
    )
    config = EditsConfig(examples=examples)
    edited = sum_up_edits(config, edits=tables["edits"])
    shown = excerpt(
        config,
        chosen=edited["shortlist"],
        **{name: tables[name] for name in (*judged, "positives", "edits", "passages", "known")},
    )
    others = {name: frame for name, frame in tables.items() if name not in _SUMMED}
    sums = {"verdict_scores" if name == "scores" else name: frame for name, frame in counted.items()}
    texts = {"passages" if name == "texts" else name: frame for name, frame in shown.items()}
    return {**others, **sums, "edit_tallies": edited["tallies"], **texts}


_SUMMED = ("candidates", "similarity", "llm_verdicts", "decisions", "calls", "windows", "lengths")


def sums_of(tables: Mapping[str, pl.DataFrame], **changes: Any) -> Sums:
    """The sums of a curation's tables."""
    made = summed(tables, **changes)
    return Sums.of({**made, "scores": made["verdict_scores"]})


def figure_tables(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """What `count_figures` reads."""
    others = {name: tables[name] for name in ("counts", "agreement", "scores", "rejects", "costs")}
    return {"sums": sums_of(tables), **others}


def rich_tables() -> dict[str, pl.DataFrame]:
    """Two datasets, three tiers with scores of every state, twelve held-out queries, people's labels, known pairs."""
    tables = toy_tables()
    states = ("relevant", "unsure", "not_relevant", "unparsed")
    pairs = [(f"q{n // 4}", f"d{n % 4 + 1}", states[(n * 3 + n // 5) % 4], n) for n in range(40)]

    def score_of(state: str, n: int, shift: float) -> float | None:
        return None if state == "unparsed" else (n * 7 % 40) / 40 * shift

    def judged(tier: str, chosen: list[tuple[str, str, str, int]], shift: float) -> list[tuple[Any, ...]]:
        return [
            (f"set{n % 3}", q, d, tier, f"{tier}-judge", state, score_of(state, n, shift), None, None, f"c{n}", 1)
            for q, d, state, n in chosen
        ]

    values = [(model, f"set{q % 2}", measure, f"q{q}", (q * gain + 3) % 11 / 20 + shift, 42)
              for q in range(12) for measure in ("RR@10", "Odd", "nDCG@10")
              for model, gain, shift in (("base", 3, 0), ("default", 5, 0), ("relabel", 5, q % 4 / 30))]  # fmt: skip
    return tables | {
        "candidates": rows(
            schemas.CANDIDATES,
            *[(f"set{n % 3}", q, d, f"text-{d}", q, "p", "dense", 1, 0.5) for q, d, _, n in pairs],
        ),
        "similarity": rows(schemas.VERDICTS, *judged("similarity", pairs, 0.9)),
        "llm_verdicts": rows(
            schemas.VERDICTS, *judged("llm", pairs[::2], 1.0), *judged("strong", pairs[::5], 0.8)
        ),
        "decisions": rows(schemas.VERDICTS, *judged("cascade", pairs, 1.0)),
        "agreement": rows(
            schemas.AGREEMENT,
            ("cascade", 40, 10, 12, 8, 0.8, 0.75, 0.75, 0.9, 0.5, 0.9, 0.4, 0.9, 0.8, 0.96),
            ("llm", 40, 10, 9, 6, 0.6, 0.7, 0.65, 0.8, 0.3, 0.8, 0.3, 0.9, 0.7, 0.9),
            ("similarity", 40, 10, 0, 0, 0.0, None, 0.4, 0.6, 0.0, 0.3, None, None, 0.5, 0.7),
        ),
        "calls": rows(
            schemas.CALLS,
            *[(f"c{n}", ("llm-judge", "strong-judge")[n % 2], None, "Yes", "stop", 100 + n, 1, None) for n in range(6)],
        ),
        "edits": rows(
            schemas.EDITS,
            ("toy", "q1", "d2", "negative", "positive", "judge", "relevant", 0.9),
            ("set0", "q0", "d1", "pool", "positive", "human", "relevant", 0.8),
            ("set1", "q1", "d2", "negative", "removed", "rule", "unsure", 0.5),
            ("set2", "q2", "d3", "negative", "dropped", "judge", "relevant", 0.5),
        ),
        "scores": rows(schemas.SCORES, *values),
        "rejects": rows(
            schemas.REJECTS,
            *[("ingest", f"line {n}", "broken_json", f"comma {n}") for n in (9, 3)],
            ("mine", "d/q", "few_negatives", "1 of 7"),
        ),
        "costs": rows(
            schemas.COSTS,
            ("judge-llm", 1, 75.0, 2, 4), ("ingest", 1, 0.04, 9, 8), ("judge_similarity", 2, 7.21, 40, 40),
            ("decide", 1, 4020.0, 40, 40), ("judge-strong", 3, 59.96, 8, 8),
        ),
        "people": rows(
            schemas.PEOPLE, ("cascade", 1_030, 4, 2, 28, 0.5, 0.2, 0.7, 0.8, 0.6, 0.9, 0.7, 0.4, 0.9)
        ),
        "known": rows(schemas.KNOWN, ("toy", "q1", "d2")),
        "counts": rows(
            schemas.COUNTS,
            *[("query_chars", f"set{n % 3}", ("train", "test")[n % 2], 10.0 + n, n + 1) for n in range(6)],
            *[("passage_chars", f"set{n}", "", 1_000.0, 40) for n in range(3)],
            *[("negatives_per_query", "set0", "train", float(n), 2) for n in range(3)],
            ("negative_score", "set0", "dense", 0.4375, 6),
        ),
    }  # fmt: skip
