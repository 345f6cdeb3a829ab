"""Errors in common, counted by part: the same figures as those of all pairs at once."""

import random

import polars as pl

from tasks import schemas
from tasks.report.parts.add_up import add_up
from tasks.report.parts.errors import KNOWN, PEOPLE, count_errors, labels_of
from tasks.summaries import ERRORS, ERRORS_BY_QUERY, LENGTHS
from tasks.verdicts.shared_errors import compare_errors, kinds_of_pairs, shared_errors
from tests.tasks.report.tables import rows, verdicts

DRAWN = random.Random(0)
PAIRS = [(f"q{n // 5}", f"d{n}") for n in range(600)]
STATES = ("relevant", "not_relevant", "unsure", "unparsed")
CANDIDATES = rows(
    schemas.CANDIDATES,
    *[("toy", q, d, d, q, "p", DRAWN.choice(("dense", "bm25")), DRAWN.randrange(40), 0.5) for q, d in PAIRS],
)
LENGTHS_ = rows(LENGTHS, *[("toy", q, d, DRAWN.randrange(3000)) for q, d in PAIRS])


def judged(tier: str, share: float) -> pl.DataFrame:
    chosen = [pair for pair in PAIRS if DRAWN.random() < share]
    return verdicts(tier, *[(*pair, DRAWN.choice(STATES), 0.5) for pair in chosen])


JUDGES = {"similarity": judged("similarity", 1), "weak": judged("weak", 0.8), "strong": judged("strong", 0.6)}
DECISIONS = judged("cascade", 1).with_columns(
    judge=pl.when(pl.int_range(pl.len()) % 7 == 0).then(pl.lit("human:1")).otherwise("judge")
)
FOUND = CANDIDATES.select("dataset", "query_id", "doc_id").gather_every(3)


def count(part: int | None = None) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    def of(frame: pl.DataFrame) -> pl.DataFrame:
        return frame if part is None else frame.filter(pl.col("query_id").str.slice(1).cast(pl.Int64) % 4 == part)

    return count_errors(
        {name: of(frame) for name, frame in JUDGES.items()},
        candidates=of(CANDIDATES),
        decisions=of(DECISIONS),
        lengths=of(LENGTHS_),
        known=FOUND,
    )


def test_the_counts_of_all_parts_give_the_shares_that_all_pairs_give() -> None:
    made = add_up([count(part)[0] for part in range(4)], ERRORS_BY_QUERY, ("queries",))
    assert dict(made.schema) == ERRORS_BY_QUERY.columns
    sure = pl.col("state").is_in(("relevant", "not_relevant"))
    relevant = (pl.col("state") == "relevant").alias("relevant")
    keys = ["dataset", "query_id", "doc_id"]
    truths = {
        PEOPLE: DECISIONS.filter(sure, pl.col("judge") == "human:1").select(*keys, relevant),
        KNOWN: FOUND.with_columns(relevant=pl.lit(True)),
        labels_of("strong"): JUDGES["strong"].filter(pl.col("state") != "unparsed").select(*keys, relevant),
    }
    assert set(made["by"]) == set(truths)
    compared = 0
    for by, truth in truths.items():
        judges = {name: frame for name, frame in JUDGES.items() if labels_of(name) != by}
        whole = shared_errors(judges, truth, kinds_of_pairs(CANDIDATES, DECISIONS, LENGTHS_)).to_dicts()
        compared += len(whole)
        for row in whole:
            of_row = [pl.col(name) == row[name] for name in ("first", "second", "kind", "value")]
            found = compare_errors(made.filter(pl.col("by") == by, *of_row))
            exact = ("pairs", "queries", "first_wrong", "second_wrong", "both_wrong", "by_chance")
            assert {name: getattr(found, name) for name in exact} == {name: row[name] for name in exact}
            assert abs(found.excess_low - row["excess_low"]) < 0.02
            assert abs(found.excess_high - row["excess_high"]) < 0.02
    assert compared > 10


def test_one_part_counts_the_same_as_several_and_queries_with_equal_counts_are_one_row() -> None:
    whole, labelled = count()
    parts = [count(part) for part in range(4)]
    counts = ("queries",)
    assert add_up(whole, ERRORS_BY_QUERY, counts).equals(add_up([made for made, _ in parts], ERRORS_BY_QUERY, counts))
    assert not whole.drop("queries").is_duplicated().any()
    tallied = {of: number for frame in labelled for _, of, _, number in frame.iter_rows()}
    assert tallied[KNOWN] == 200
    assert tallied[PEOPLE] == sum(frame["count"].item() for _, frames in parts for frame in frames[:1]) > 20


def test_without_verdicts_there_is_nothing_to_count() -> None:
    empty = {name: frame.clear() for name, frame in JUDGES.items()}
    made, labelled = count_errors(
        empty,
        candidates=CANDIDATES.clear(),
        decisions=DECISIONS.clear(),
        lengths=LENGTHS_.clear(),
        known=FOUND.clear(),
    )
    assert made.equals(ERRORS_BY_QUERY.empty())
    assert [frame["count"].item() for frame in labelled] == [0, 0]
    assert set(ERRORS) < set(made.columns)
