"""The summary of the planted benchmark: differences by cluster and seed, what is detectable, and the plot."""

from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from benchmarks.planted_summary import compare, detectable, difference, matrix, order_beside_paper, plot, verdicts
from tasks.training.compare import crossed_interval

QUERIES = 60
NAMES = ("default", "relabel_judges", "relabel_oracle", "remove_hn")


def scores(gain: float = 0.1) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Scores of four treatments and the untrained model; every second query shares a conversation with the next."""
    rng, rows = np.random.default_rng(0), []
    level = rng.random(QUERIES) * 0.5
    for query in range(QUERIES):
        rows.append(("untrained", 0, f"q{query}", level[query] - 0.05 + rng.normal(0, 0.02)))
        for seed in range(5):
            for name, more in zip(NAMES, (0.0, 0.0, gain, gain), strict=True):
                rows.append((name, seed, f"q{query}", level[query] + more + rng.normal(0, 0.03)))
    schema = {"treatment": pl.String, "seed": pl.Int64, "query_id": pl.String, "value": pl.Float64}
    groups = pl.DataFrame(
        {"query_id": [f"q{n}" for n in range(QUERIES)], "group": [f"c{n // 2}" for n in range(QUERIES)]}
    )
    return pl.DataFrame(rows, schema=schema, orient="row"), groups


def test_the_mean_of_clusters_is_the_mean_of_queries_also_where_they_differ_in_size() -> None:
    frame = pl.DataFrame(
        {"query_id": ["a", "a", "b", "b", "c", "c"], "seed": [1, 2] * 3, "value": [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]}
    )
    groups = pl.DataFrame({"query_id": ["a", "b", "c"], "group": ["x", "x", "y"]})
    values, seeds = matrix(frame, groups)
    assert values.shape == (2, 2) and seeds == [1, 2]
    assert values.mean() == pytest.approx(frame["value"].to_numpy().mean())


def test_a_gain_is_found_and_no_gain_is_not() -> None:
    rows = {row["name"]: row for row in compare(*scores(), NAMES)}
    assert set(list(rows)[:2]) == {"relabel_oracle", "remove_hn"}
    assert rows["relabel_oracle"]["excludes_zero"]
    assert rows["relabel_oracle"]["difference"] == pytest.approx(0.1, abs=0.02)
    assert not rows["relabel_judges"]["excludes_zero"]
    assert "difference" not in rows["default"]


def test_where_cells_are_missing_means_are_over_what_every_treatment_has() -> None:
    frame, groups = scores()
    missing = (pl.col("treatment") == "relabel_oracle") & pl.col("query_id").str.ends_with("7")
    rows = {row["name"]: row for row in compare(frame.filter(~missing), groups, NAMES)}
    gain = rows["relabel_oracle"]["ndcg10"] - rows["default"]["ndcg10"]
    assert rows["relabel_oracle"]["difference"] == pytest.approx(gain, abs=2e-5)
    assert {rows[name]["queries"] for name in NAMES[1:]} == {QUERIES - 6}


def test_the_primary_treatments_are_corrected_for_two_and_the_others_for_all() -> None:
    frame, groups = scores()
    few = {row["name"]: row for row in compare(frame, groups, NAMES)}
    assert [few[name]["corrected_for"] for name in NAMES[1:]] == [2, 2, 3]
    alone = difference(frame, groups, "relabel_oracle", 1)
    assert few["relabel_oracle"]["high"] - few["relabel_oracle"]["low"] > alone["high"] - alone["low"]
    wide = frame.filter(pl.col("treatment").is_in(["default", "relabel_oracle"])).pivot(
        "treatment", index=["query_id", "seed"], values="value"
    )
    paired = wide.select("query_id", "seed", value=pl.col("relabel_oracle") - pl.col("default"))
    low, high, _ = crossed_interval(matrix(paired, groups)[0]) or (0, 0, 0)
    assert (alone["low"], alone["high"]) == pytest.approx((low, high), abs=1e-4)


def test_what_can_be_detected_grows_with_the_spread_over_queries() -> None:
    found = detectable(*scores(), 12)
    assert 0 < found["seeds_only"] <= found["with_queries"]
    assert found["default_minus_untrained"] == pytest.approx(0.05, abs=0.02)


def collection(difference: float, low: float, high: float, name: str = "relabel_oracle") -> dict[str, object]:
    clear = low > 0 or high < 0
    row = {"name": name, "ndcg10": 0.5, "difference": difference, "low": low, "high": high, "excludes_zero": clear}
    return {"name": "a & b", "treatments": [row, {"name": "default", "ndcg10": 0.4}]}


def test_the_plot_is_a_picture_of_its_own() -> None:
    picture = plot([collection(0.1, 0.05, 0.15), collection(-0.1, -0.15, 0.05)])
    tree = ElementTree.fromstring(picture)
    assert tree.tag.endswith("svg") and picture.count("<circle") == 2 and "a &amp; b" in picture


def test_what_was_wanted_needs_a_positive_interval_on_both_collections() -> None:
    good, bad = collection(0.1, 0.05, 0.15), collection(0.1, -0.05, 0.25)
    assert list(verdicts([good, good]).values()) == [True, False]
    assert list(verdicts([good, bad]).values()) == [False, False]
    assert list(verdicts([collection(0.1, 0.05, 0.15, "relabel_judges"), bad]).values()) == [False, True]
    assert list(verdicts([collection(-0.1, -0.15, -0.05)] * 2).values()) == [False, False]


def test_the_order_stands_beside_the_papers() -> None:
    ours = [{"name": name} for name in ("remove", "relabel_judges", "mask_only", "default")]
    assert order_beside_paper(ours) == {
        "ours": ["remove", "relabel_judges", "default"],
        "paper": ["relabel_judges", "default", "remove"],
    }
