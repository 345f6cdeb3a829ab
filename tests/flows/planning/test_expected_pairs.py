"""Which pairs a tier will be asked about, told from the store as far as it goes, and from the source beyond."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.method.tables import Generations
from flows.planning import expected_pairs
from flows.planning.expected_pairs import NotKnown, bound
from tasks.verdicts.escalate import EscalateConfig
from tests.flows.ahead import Place
from tests.flows.animals import tier, write_rows

_PAIR = ["dataset", "query_id", "doc_id"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def pairs(asked: expected_pairs.Asked) -> list[tuple[str, ...]]:
    return sorted(asked.pairs.select(_PAIR).rows())


def test_before_anything_has_run_as_many_passages_as_would_be_mined_are_drawn(place: Place) -> None:
    asked = place.ahead().asked(0)
    assert (asked.basis, asked.scale, asked.calls_done) == ("estimated", 1.0, 0)
    assert asked.pairs.height == asked.open.height == 9 * 6  # nine queries to train on, ranks 1 to 6
    assert set(asked.pairs["rank"]) == {1, 2, 3, 4, 5, 6}
    texts = place.ahead().texts
    positives = set(texts.positives.select("query_id", "text_hash").rows())
    assert not positives & set(asked.pairs.select("query_id", "text_hash").rows())
    assert pairs(place.ahead().asked(0)) == pairs(asked)


def test_of_many_queries_a_sample_stands_for_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected_pairs, "MOST_QUERIES", 4)
    asked = place.ahead().asked(0)
    assert asked.pairs["query_id"].n_unique() == 4
    assert asked.scale == 9 / 4


def test_a_corpus_smaller_than_what_is_mined_is_drawn_whole(place: Place) -> None:
    asked = place.ahead(mine={"range_max": 100, "num_negatives": 3}, search={"depth": 200}).asked(0)
    assert asked.pairs.group_by("query_id").len()["len"].unique().to_list() == [48 - 1]  # all but its own positive


def test_candidates_that_are_mined_but_not_judged_bound_what_is_asked(place: Place) -> None:
    asked = place.run("judge_similarity").ahead().asked(0)
    assert (asked.basis, asked.pairs.height) == ("at most", 54)
    assert place.ahead(tiers=[tier(max_pairs=10)]).asked(0).pairs.height == 10


def test_what_similarity_has_judged_is_escalated_in_memory(place: Place) -> None:
    place.run("escalate-llm")
    asked = place.ahead().asked(0)
    assert (asked.basis, asked.pairs.height, asked.open.height) == ("exact", 54, 54)
    assert place.ahead(tiers=[tier(max_pairs=20)]).asked(0).pairs.height == 20


def test_a_budget_is_planned_for_each_generation_of_queries(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.run("escalate-llm")
    both = Generations(queries=(1, 1))  # the two query parts, as if the second had come later
    sizes = sorted(frame.height for frame in place.ahead()._by_generation(place.ahead()._candidates))
    ahead = place.ahead(tiers=[tier(max_pairs=10)])
    monkeypatch.setattr(Generations, "of", lambda *_: both)
    assert (sizes, ahead.asked(0).pairs.height) == ([54], 20)
    assert sum(frame.height for frame in ahead._by_generation(ahead._candidates)) == 54


def test_escalated_pairs_are_read_from_the_store_and_open_until_they_are_judged(place: Place) -> None:
    place.run("judge-llm")
    asked = place.ahead().asked(0)
    assert (asked.basis, asked.open.height, asked.calls_done) == ("exact", 54, 0)
    assert pairs(asked) == pairs(replace(asked, pairs=asked.open))


def test_of_a_tier_that_was_stopped_only_the_parts_left_are_open(place: Place) -> None:
    place.run("judge-llm", frozenset({0}))
    asked = place.ahead().asked(0)
    first = place.ahead().runs["escalate-llm"].finished[0]
    left = sum(piece.rows for piece in first.tables["escalated"])
    assert 0 < left < 54
    assert (asked.basis, asked.pairs.height, asked.open.height) == ("exact", 54, left)
    assert asked.calls_done >= 54 - left


def test_a_tier_that_is_finished_leaves_nothing_open(place: Place) -> None:
    asked = place.run().ahead().asked(0)
    assert (asked.basis, asked.pairs.height, asked.open.height) == ("finished", 54, 0)
    assert asked.calls_done >= 54


def test_the_second_tier_is_asked_no_more_than_the_first_is(place: Place) -> None:
    place.run("judge_similarity")
    ahead = place.ahead(tiers=[tier(max_pairs=10), tier("strong")])
    first, second = ahead.asked(0), ahead.asked(1)
    assert (second.basis, pairs(second)) == ("at most", pairs(first))
    whole = place.ahead(tiers=[tier(max_pairs=1), tier("strong", unit="row")]).asked(1)
    assert whole.pairs.height == 6  # every candidate of the one row that is left


def test_once_the_first_tier_has_judged_the_second_is_escalated_in_memory(place: Place) -> None:
    both = [tier(), tier("strong", states=["relevant"], lower=None, upper=None)]
    ahead = place.run("escalate-strong", tiers=both).ahead(tiers=both)
    verdicts = pl.concat(
        pl.read_parquet(place.store.read(p.object) or b"")
        for m in ahead.runs["judge-llm"].manifests
        for p in m.tables["verdicts"]
    )
    expected = verdicts.filter(pl.col("state").is_in(["relevant", "unparsed"])).height
    assert (ahead.asked(1).basis, ahead.asked(1).pairs.height) == ("exact", expected)


def test_a_guarantee_bounds_by_all_pairs_until_its_thresholds_are_known(place: Place) -> None:
    target = {"recall": 0.5, "precision": 0.5, "confidence": 0.5, "audit": 16}
    tiers = [{"name": "llm", "escalate": {"target": target}}]

    def ahead(stop: str) -> tuple[str, int, int, int]:
        asked = place.run(stop, tiers=tiers).ahead(tiers=tiers).asked(0)
        return asked.basis, asked.pairs.height, asked.open.height, asked.calls_done

    assert place.ahead(tiers=tiers).asked(0).basis == "estimated"
    assert ahead("audit-llm") == ("at most", 54, 54, 0)
    assert ahead("judge-llm-audit") == ("at most", 54, 54, 0)
    assert ahead("settle-llm")[:3] == ("at most", 54, 54 - 16)
    basis, pairs, open_, _ = ahead("judge-llm")
    assert (basis, open_) == ("exact", pairs - 16)
    assert 16 < pairs < 54
    assert ahead("")[:3] == ("finished", pairs, 0)


def test_a_dataset_that_is_skipped_is_asked_about_nowhere(place: Place) -> None:
    skip = {"animals": {"skip": True}}
    assert place.ahead(policies=skip).asked(0).pairs.height == 0
    place.run("judge_similarity")
    assert place.ahead(policies=skip).asked(0).pairs.height == 0


def test_rows_that_carry_negatives_need_no_drawing(tmp_path: Path) -> None:
    source = tmp_path / "rows"
    source.mkdir()
    row = {"query": "where does the otter live", "pos": ["In the river."], "neg": ["It eats fish.", "It sleeps."]}
    (source / "rows.jsonl").write_text(json.dumps(row) + "\n")
    place = Place(tmp_path, source)
    asked = place.ahead(ingest={}).asked(0)
    assert (asked.basis, asked.pairs.height) == ("at most", 2)


def test_the_texts_are_the_same_from_the_store_and_from_the_source(place: Place) -> None:
    before = place.ahead().texts
    after = place.run("encode_queries").ahead().texts
    everything = [pl.concat(texts.passages.frames()).sort("dataset", "doc_id") for texts in (before, after)]
    assert everything[0].equals(everything[1]) and everything[0].height > 0
    for name in ("queries", "positives", "given"):
        expected, found = (getattr(texts, name).sort("dataset", *getattr(texts, name).columns[1:2], "text_hash")
                           for texts in (before, after))  # fmt: skip
        assert found.equals(expected), name


def test_a_source_that_is_unusable_or_not_there_yet_is_told(tmp_path: Path) -> None:
    source = tmp_path / "rows"
    source.mkdir()
    (source / "rows.jsonl").write_text("{}\n")
    place = Place(tmp_path, source)
    with pytest.raises(NotKnown):
        place.ahead(ingest={}).asked(0)
    nothing = place.ahead(ingest={})
    nothing.setup = replace(nothing.setup, source=None)
    with pytest.raises(NotKnown, match="nothing is harvested yet"):
        nothing.asked(0)


def frame(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Pairs as (dataset, row, text)."""
    return pl.DataFrame(
        [(dataset, row, "p", text) for dataset, row, text in rows],
        schema=["dataset", "query_hash", "positives_hash", "text_hash"],
        orient="row",
    )


FOUR = frame(("d", "q1", "a"), ("d", "q1", "b"), ("d", "q1", "c"), ("d", "q2", "z"))


def bounded(config: Mapping[str, Any], everything: pl.DataFrame = FOUR, before: Any = None, scale: float = 1.0) -> Any:
    found = bound(EscalateConfig(**config), everything, everything if before is None else before, scale)
    return sorted(found.select("dataset", "query_hash", "text_hash").rows())


def test_a_budget_is_spread_over_all_rows() -> None:
    assert bounded({"max_share": 0.5}) == [("d", "q1", "a"), ("d", "q2", "z")]
    assert bounded({"max_pairs": 3}) == [("d", "q1", "a"), ("d", "q1", "b"), ("d", "q2", "z")]
    assert bounded({"max_pairs": 3, "max_share": 0.25}) == [("d", "q1", "a")]
    assert bounded({}) == sorted(FOUR.select("dataset", "query_hash", "text_hash").rows())


def test_a_budget_per_query_bounds_each_row() -> None:
    most_one = EscalateConfig.model_validate({"per_query": {"start": 0, "most": 1}})
    assert sorted(bound(most_one, FOUR, FOUR, 1.0)["text_hash"]) == ["a", "z"]


def test_a_budget_in_pairs_is_of_the_whole_and_not_of_the_sample() -> None:
    assert bounded({"max_pairs": 3}, scale=2.0) == [("d", "q1", "a")]


def test_whole_rows_are_taken_while_the_budget_holds_them() -> None:
    assert bounded({"unit": "row", "max_pairs": 3}) == [("d", "q1", "a"), ("d", "q1", "b"), ("d", "q1", "c")]
    assert bounded({"unit": "row", "max_pairs": 2}) == [("d", "q2", "z")]  # the larger row is passed over
    asked = frame(("d", "q2", "z"))
    assert bounded({"unit": "row"}, before=asked) == [("d", "q2", "z")]
    assert bounded({"unit": "row"}, before=frame(("d", "q1", "b"))) == [("d", "q1", t) for t in "abc"]
    assert bounded({}, before=asked) == [("d", "q2", "z")]


def test_equal_questions_of_several_datasets_are_one_and_all_their_rows_stay() -> None:
    twice = pl.concat([FOUR, frame(("other", "q1", "a"))])
    assert bounded({"max_share": 0.5}, twice) == [("d", "q1", "a"), ("d", "q2", "z"), ("other", "q1", "a")]


def test_a_share_that_is_a_whole_number_of_questions_is_not_one_short() -> None:
    hundred = frame(*(("d", f"q{n:03d}", "t") for n in range(100)))
    assert len(bounded({"max_share": 0.29}, hundred)) == 29


RESCORE = {"engine": {"kind": "cross_encoder", "model": "path:reranker"}}


def test_the_pool_and_the_positives_are_put_to_a_reranker(place: Place) -> None:
    ahead = place.ahead(rescore={**RESCORE, "depth": 8}).rescored
    assert (ahead.basis, ahead.scale, ahead.pairs.height, ahead.open.height) == ("estimated", 1.0, 9 * 9, 9 * 9)
    exact = place.run("rescore", rescore=RESCORE).ahead(rescore=RESCORE).rescored
    assert (exact.basis, exact.pairs.height, exact.open.height) == ("exact", 9 * 7, 9 * 7)
    assert set(exact.pairs["rank"]) == set(range(7))


def test_rows_that_bring_their_negatives_are_not_put_to_a_reranker(tmp_path: Path) -> None:
    place = Place(tmp_path, write_rows(tmp_path / "rows", ("one",)))
    ahead = place.ahead(rescore=RESCORE, ingest={"query_parts": 2, "passage_parts": 2}).rescored
    assert (ahead.basis, ahead.pairs.height) == ("exact", 0)
