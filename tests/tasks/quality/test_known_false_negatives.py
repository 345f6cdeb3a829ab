"""How well each tier finds the known false negatives, over the same candidates."""

import random
from collections.abc import Mapping, Sequence

import polars as pl
import pytest

from tasks.quality.known_false_negatives import AgreeConfig, agree, compare_known
from tasks.schemas import AGREEMENT, CANDIDATES, KNOWN, VERDICTS
from tasks.summaries import KNOWN_BY_PAIR, KNOWN_BY_QUERY
from tests.tasks.settings import settings_of

Scores = Mapping[str, tuple[str, float | None]]


def verdicts(tier: str, scores: Scores) -> pl.DataFrame:
    return pl.DataFrame(
        [("d", "q", doc, tier, "judge", state, score, None, None, None, 1) for doc, (state, score) in scores.items()],
        schema=VERDICTS.columns,
        orient="row",
    )


def agreed(config: AgreeConfig, parts: int = 1, **tables: pl.DataFrame) -> pl.DataFrame:
    """Compare each part, and bring the parts together; a query is in the part of its number."""
    compared = []
    for part in range(parts):
        mine = pl.col("query_id").str.extract(r"(\d+)").fill_null("0").cast(pl.Int64) % parts == part
        cut = {name: table if name == "known" else table.filter(mine) for name, table in tables.items()}
        made = compare_known(config, **cut)
        assert dict(made["queries"].schema) == KNOWN_BY_QUERY.columns
        assert dict(made["pairs"].schema) == KNOWN_BY_PAIR.columns
        compared.append(made | {"pairs": made["pairs"].with_columns(part=pl.lit(part, pl.Int32))})
    return agree(config, **{name: pl.concat(made[name] for made in compared) for name in ("queries", "pairs")})[
        "agreement"
    ]


def measured(similarity: Scores, llm: Scores, cascade: Scores, known: Sequence[str]) -> dict[str, dict[str, object]]:
    candidates = pl.DataFrame(
        [("d", "q", doc, doc, "q", "p", "dense", 1, 0.5) for doc in cascade], schema=CANDIDATES.columns, orient="row"
    )
    table = agreed(
        AgreeConfig(),
        candidates=candidates,
        similarity=verdicts("similarity", similarity),
        llm_verdicts=verdicts("llm", llm),
        decisions=verdicts("cascade", cascade),
        known=pl.DataFrame([("d", "q", doc) for doc in known], schema=KNOWN.columns, orient="row"),
    )
    assert dict(table.schema) == AGREEMENT.columns
    assert table["tier"].to_list() == ["cascade", "llm", "similarity"]
    return {row["tier"]: row for row in table.iter_rows(named=True)}


CASCADE: Scores = {
    "a": ("relevant", 0.9),
    "b": ("relevant", 0.8),
    "c": ("not_relevant", 0.3),
    "e": ("not_relevant", 0.1),
}


def test_each_tier_is_measured_at_its_own_threshold_over_all_candidates() -> None:
    similarity = {
        "a": ("relevant", 0.9),
        "b": ("unsure", 0.5),
        "c": ("relevant", 0.8),
        "e": ("relevant", 0.7),
    }
    rows = measured(similarity, {"a": ("relevant", 0.9)}, CASCADE, ["a", "b", "not-a-candidate"])
    counts = ("candidates", "known", "found", "known_found", "recall", "precision")
    assert [rows["cascade"][name] for name in counts] == [4, 2, 2, 2, 1.0, 1.0]
    assert [rows["similarity"][name] for name in counts] == [4, 2, 3, 1, 0.5, pytest.approx(1 / 3)]
    assert [rows["llm"][name] for name in counts] == [4, 2, 1, 1, 0.5, 1.0]


def test_auc_counts_ties_half_and_ranks_the_unjudged_last() -> None:
    tied: Scores = dict.fromkeys("abce", ("unsure", 0.5))
    rows = measured(tied, {"a": ("relevant", 0.1)}, CASCADE, ["a", "b"])
    assert rows["cascade"]["auc"] == 1.0
    assert rows["similarity"]["auc"] == 0.5
    assert rows["llm"]["auc"] == (1 + 1 + 0.5 + 0.5) / 4


def test_precision_is_read_where_a_tier_first_reaches_the_cascades_recall() -> None:
    similarity = {"a": ("unsure", 0.9), "c": ("unsure", 0.8), "b": ("unsure", 0.7), "e": ("unsure", 0.1)}
    rows = measured(similarity, {}, CASCADE, ["a", "b"])
    assert rows["cascade"]["precision_at_cascade_recall"] == 1.0
    assert rows["similarity"]["precision_at_cascade_recall"] == 2 / 3


def test_among_equal_scores_and_among_the_unjudged_the_known_come_last() -> None:
    similarity: Scores = dict.fromkeys("abce", ("unsure", 0.5))
    llm: Scores = {"a": ("relevant", 0.9), "b": ("unparsed", None)}
    rows = measured(similarity, llm, CASCADE, ["a", "b"])
    assert rows["similarity"]["precision_at_cascade_recall"] == 2 / 4
    assert rows["llm"]["precision_at_cascade_recall"] == 2 / 4
    assert rows["llm"]["found"] == 1


def test_without_a_known_pair_every_rate_is_null() -> None:
    rows = measured(CASCADE, {}, CASCADE, [])
    rates = ("recall", "precision", "precision_at_cascade_recall", "auc")
    assert [rows[tier][rate] for tier in rows for rate in rates] == [None] * 12
    assert rows["cascade"]["found"] == 2


def test_a_cascade_that_finds_no_known_pair_sets_no_recall_to_compare_at() -> None:
    rows = measured(CASCADE, {}, CASCADE, ["e"])
    assert rows["cascade"]["recall"] == 0.0
    assert rows["similarity"]["precision_at_cascade_recall"] is None
    assert rows["llm"]["precision"] is None


def test_only_known_pairs_leave_nothing_to_rank_them_against() -> None:
    assert measured(CASCADE, {}, CASCADE, list("abce"))["cascade"]["auc"] is None


def test_no_candidates_at_all_is_a_table_of_zeros() -> None:
    rows = measured({}, {}, {}, ["a"])
    assert [rows[tier]["candidates"] for tier in rows] == [0, 0, 0]


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(AgreeConfig) == {"tiers": ("llm",)}


def test_pairs_of_one_query_count_together_in_the_intervals() -> None:
    def of(queries: int) -> dict[str, object]:
        pairs = [
            ("d", f"q{n % queries}", f"d{n}", "relevant" if n % queries < queries // 2 else "unsure") for n in range(40)
        ]
        candidates = pl.DataFrame(
            [(d, q, doc, doc, q, "p", "dense", 1, 0.5) for d, q, doc, _ in pairs],
            schema=CANDIDATES.columns,
            orient="row",
        )
        decisions = pl.DataFrame(
            [(d, q, doc, "cascade", "judge", state, 0.5, None, None, None, 1) for d, q, doc, state in pairs],
            schema=VERDICTS.columns,
            orient="row",
        )
        known = candidates.select("dataset", "query_id", "doc_id")
        table = agreed(
            AgreeConfig(tiers=()),
            candidates=candidates,
            similarity=decisions,
            llm_verdicts=decisions.clear(),
            decisions=decisions,
            known=known,
        )
        return table.filter(pl.col("tier") == "cascade").to_dicts()[0]

    few, many = of(4), of(40)
    assert (few["recall"], few["precision"]) == (many["recall"], many["precision"]) == (0.5, 1.0)
    assert few["recall_low"] < many["recall_low"] < 0.5 < many["recall_high"] < few["recall_high"]
    assert few["precision_low"] < many["precision_low"] < many["precision_high"] == few["precision_high"] == 1.0


def test_three_parts_give_the_figures_of_one_to_the_last_digit() -> None:
    states, rng = ("relevant", "unsure", "not_relevant", "unparsed"), random.Random(3)
    pairs = [("d", f"q{n % 23}", f"d{n}", rng.choice(states), rng.choice([None, rng.random()])) for n in range(300)]
    rows = [(d, q, doc, doc, q, "p", "dense", 1, 0.5) for d, q, doc, *_ in pairs]

    def said(tier: str, seed: int) -> pl.DataFrame:
        drawn = [(d, q, doc, tier, "j", s, p, None, None, None, 1) for d, q, doc, s, p in pairs]
        return pl.DataFrame(random.Random(seed).sample(drawn, 250), schema=VERDICTS.columns, orient="row")

    tables = {
        "candidates": pl.DataFrame(rows, schema=CANDIDATES.columns, orient="row"),
        "similarity": said("similarity", 0),
        "llm_verdicts": said("llm", 1),
        "decisions": said("cascade", 2),
        "known": pl.DataFrame([row[:3] for row in rng.sample(rows, 60)], schema=KNOWN.columns, orient="row"),
    }
    whole = agreed(AgreeConfig(), **tables)
    assert whole.equals(agreed(AgreeConfig(), 3, **tables))
    assert whole.null_count().sum_horizontal().item() == 0
    nothing = {**tables, "known": KNOWN.empty()}
    assert agreed(AgreeConfig(), **nothing).equals(agreed(AgreeConfig(), 3, **nothing))
    assert compare_known(AgreeConfig(), **nothing)["pairs"].is_empty()  # nothing to rank, so nothing to gather
