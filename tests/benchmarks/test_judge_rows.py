import json

import numpy as np
import polars as pl
import pytest

from benchmarks.judge_rows import ALL, CENTRED, HARD, HELD_OUT, Judged, compare_rows, make_features, scored, table

PAIR = ["dataset", "query_id", "doc_id"]


@pytest.fixture
def judged() -> Judged:
    rng = np.random.default_rng(0)
    pairs = [("d", f"q{query}", f"p{number}") for query in range(6) for number in range(8)]
    relevant = rng.random(len(pairs)) < 0.5
    frame = pl.DataFrame(pairs, schema=PAIR, orient="row").with_columns(relevant=pl.Series(relevant))
    noise = rng.normal(size=(3, len(pairs)))
    similarity = frame.with_columns(
        to_query=pl.Series(relevant * 0.2 + noise[0] * 0.1),
        to_positive=pl.Series(relevant * 0.2 + noise[1] * 0.1),
        positive_to_query=pl.lit(0.7),
        score=pl.Series(1 / (1 + np.exp(-(relevant + noise[0])))),
    )
    asked = frame.filter(pl.col("doc_id") != "p7").select(*PAIR, "relevant")
    yes_no = asked.select(*PAIR, score=pl.when(pl.col("relevant")).then(0.9).otherwise(0.6))
    listwise = asked.select(*PAIR, score=pl.when(pl.col("doc_id") == "p0").then(None).otherwise(0.35))
    return Judged(similarity, {"yes_no": yes_no, "listwise": listwise}, frozenset({"q0", "q1", "q2"}))


def test_every_judge_has_a_row_on_the_hard_pairs_and_on_the_queries_that_saw_no_choice(judged: Judged) -> None:
    costs = {"calls": 42.0, "prompt_tokens": 4200.0, "cached_tokens": 0.0, "output_tokens": 42.0, "seconds": 1.5}
    found = compare_rows(judged, {"yes_no": costs})
    judges = ["similarity", "yes_no", "listwise", "yes_no, calibrated", "cascade", "fusion"]
    assert [(row["pairs"], row["judge"]) for row in found["rows"]] == [
        (ALL, "similarity"),
        *((HARD, name) for name in judges),
        *((HELD_OUT, name) for name in judges),
    ]
    assert {name: described["pairs"] for name, described in found["pairs"].items()} == {ALL: 48, HARD: 42, HELD_OUT: 21}
    listwise = next(row for row in found["rows"] if row["judge"] == "listwise" and row["pairs"] == HARD)
    assert listwise["unparsed"] == pytest.approx(6 / 42, abs=1e-4)
    assert found["fitted"]["fusion"]["gain"][HARD]["auc"]["best_member"] == "yes_no"
    assert list(found["fitted"]["cascade"]["weights"]) == ["similarity", "yes_no"]
    assert json.loads(json.dumps(found)) == found
    assert "| 4,200, 42 | 2 |" in table(found)


def test_a_missing_score_counts_as_its_querys_mean_and_is_not_measured(judged: Judged) -> None:
    listwise = judged.answers["listwise"].select(*PAIR, listwise="score")
    hard = judged.similarity.rename({"score": "similarity"}).join(listwise, on=PAIR)
    features = make_features(hard, ["listwise"])
    assert features["listwise" + CENTRED].to_list() == pytest.approx([0.0] * hard.height)
    assert features["listwise"].to_list() == pytest.approx([np.log(0.35 / 0.65)] * hard.height)
    assert len(scored(hard, "listwise").score) == 36
