"""The guarantee in the decisions."""

import polars as pl
import pytest

from tasks.schemas import SOURCE_JUDGE, VERDICTS
from tasks.verdicts.decide import DecideConfig, decide
from tasks.verdicts.settled import assure
from tests.tasks.verdicts.guarantee.audited import answers, config, pool, settled
from tests.tasks.verdicts.judged import Judged, candidates, verdicts


def test_the_oracle_decides_where_it_was_asked_and_the_thresholds_decide_elsewhere() -> None:
    before, oracle = pool()
    made = settled(config(), before, oracle)
    strong = pl.concat([made["audited"], answers(made["escalated"], oracle)])
    said = pl.concat([strong, verdicts(before[:50], "weak")])
    found = decide(
        DecideConfig(tiers=("weak", "strong")),
        candidates=candidates(before),
        verdicts=verdicts(before),
        llm_verdicts=said,
        settled=made["settled"],
    )["decisions"]
    assert dict(found.schema) == VERDICTS.columns
    assert found.height == 2000
    assert set(found["tier"]) == {"cascade"}
    joined = found.join(verdicts(oracle, "oracle"), on=["dataset", "query_id", "doc_id"], suffix="_oracle")
    asked = joined.filter(pl.col("judge") == "strong-judge")
    assert asked.filter(pl.col("state") != pl.col("state_oracle")).is_empty()
    assert asked.height == strong.height
    relevant = joined.filter(pl.col("state_oracle") == "relevant")
    assert relevant.filter(pl.col("state") == "relevant").height >= 0.9 * relevant.height
    called = joined.filter(pl.col("state") == "relevant")
    assert called.filter(pl.col("state_oracle") == "relevant").height >= 0.9 * called.height


def test_people_keep_the_last_word_and_other_pairs_their_decision() -> None:
    rows: list[Judged] = [("q", "a", "unsure", 0.5), ("q", "b", "unsure", 0.4), ("q", "c", "unsure", 0.3)]
    decisions = verdicts(rows, "cascade").with_columns(
        judge=pl.when(pl.col("doc_id") == "a").then(pl.lit(SOURCE_JUDGE)).otherwise("judge")
    )
    beyond = verdicts([("q", "a", "relevant", 0.9), ("q", "b", "relevant", 0.9)], "guarantee")
    found = assure(decisions, beyond, VERDICTS.empty())
    assert found["state"].to_list() == ["unsure", "relevant", "unsure"]
    assert found["score"].to_list() == [0.5, 0.9, 0.3]


def test_a_pair_that_is_settled_and_asked_about_is_an_error() -> None:
    rows: list[Judged] = [("q", "a", "relevant", 0.9)]
    with pytest.raises(ValueError, match="1 have a verdict of the oracle"):
        assure(verdicts(rows, "cascade"), verdicts(rows, "guarantee"), verdicts(rows, "strong"))
