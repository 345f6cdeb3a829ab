"""The treatments: which text becomes a positive, which leaves the negatives, which row is dropped."""

import itertools
from typing import Any

import polars as pl
import pytest

from tasks.data import treatments as treatments_module
from tasks.data.treatments import DROP_REASONS, TreatConfig, treat
from tasks.schemas import EDITS, INSTANCES, NEGATIVES, REJECTS, TREATMENTS, VERDICTS
from tasks.texts import combine_hashes
from tests.tasks.data.judged_pools import Frames, build, text_of
from tests.tasks.records import mutable_records
from tests.tasks.settings import settings_of


def run(frames: Frames, **settings: Any) -> Frames:
    config = TreatConfig.model_validate(settings)
    result = treat(config, **frames)
    for name, schema in (("instances", INSTANCES), ("edits", EDITS), ("rejects", REJECTS)):
        assert dict(result[name].schema) == schema.columns
    check_conservation(frames, result)
    return result


def test_what_people_decided_is_edited_because_of_them() -> None:
    frames = build({"q": ["aR", "bR", "cN", "dN"]}, picks=2)
    by_people = pl.when(pl.col("doc_id") == "a").then(pl.lit("human:2")).otherwise("judge")
    frames["decisions"] = frames["decisions"].with_columns(judge=by_people)
    for treatment, to in (("relabel", "positive"), ("remove_hn", "removed")):
        edits = run(frames, treatment=treatment)["edits"].select("doc_id", "to", "because").rows()
        assert edits == [("a", to, "human"), ("b", to, "judge")]
    dropped = run(frames, treatment="relabel", max_false_negatives=1)["edits"]
    assert dropped["because"].to_list() == ["human", "judge"]


def check_conservation(frames: Frames, result: Frames) -> None:
    """Every training query is an instance or a reject, once; no text is positive and negative; no edit comes twice."""
    kept = [f"{d}/{q}" for d, q in result["instances"].select("dataset", "query_id").iter_rows()]
    dropped = result["rejects"].filter(pl.col("reason").is_in(DROP_REASONS))["key"].to_list()
    train = frames["queries"].filter(split="train")
    assert sorted(kept + dropped) == sorted(f"{d}/{q}" for d, q in train.select("dataset", "query_id").iter_rows())
    assert not result["edits"].select(EDITS.key).is_duplicated().any()
    for positives, negatives in result["instances"].select("positives", "negatives").iter_rows():
        assert len(set(negatives)) == len(negatives)
        assert not {text_of(doc) for doc in positives} & {text_of(doc) for doc in negatives}


def rows_of(result: Frames) -> dict[str, tuple[list[str], list[str]]]:
    table = result["instances"].select("query_id", "positives", "negatives")
    return {q: (positives, negatives) for q, positives, negatives in table.iter_rows()}


def edits_of(result: Frames) -> list[tuple[Any, ...]]:
    return result["edits"].select("doc_id", "from", "to", "because", "state").rows()


def rejects_of(result: Frames) -> list[tuple[str, ...]]:
    return result["rejects"].select("key", "reason").rows()


MIXED = {"q1": ["aR", "bN", "cR", "eN"], "q2": ["fN", "gN"]}


def test_default_changes_nothing() -> None:
    result = run(build(MIXED), treatment="default")
    assert rows_of(result) == {"q1": (["pos"], ["a", "b"]), "q2": (["pos"], ["f", "g"])}
    assert result["edits"].is_empty()
    assert result["rejects"].is_empty()
    assert result["instances"]["treatment"].unique().to_list() == ["default"]


def test_default_needs_no_decisions() -> None:
    frames = build(MIXED)
    without = frames | {"decisions": VERDICTS.empty()}
    assert run(without, treatment="default")["instances"].equals(run(frames, treatment="default")["instances"])


def test_remove_drops_the_row_with_a_false_negative_among_its_negatives() -> None:
    result = run(build(MIXED), treatment="remove")
    assert rows_of(result) == {"q2": (["pos"], ["f", "g"])}
    assert rejects_of(result) == [("d/q1", "has_false_negative")]
    assert edits_of(result) == [
        ("a", "negative", "dropped", "judge", "relevant"),
        ("c", "pool", "dropped", "judge", "relevant"),
    ]


def test_remove_keeps_a_row_whose_only_false_negative_is_not_trained_on() -> None:
    assert rows_of(run(build({"q": ["aN", "bN", "cR"]}), treatment="remove")) == {"q": (["pos"], ["a", "b"])}


def test_remove_hn_takes_the_false_negative_out_and_the_next_candidate_in() -> None:
    result = run(build(MIXED), treatment="remove_hn")
    assert rows_of(result)["q1"] == (["pos"], ["b", "e"])
    assert edits_of(result) == [("a", "negative", "removed", "judge", "relevant")]


def test_relabel_makes_positives_of_the_false_negatives_of_the_whole_pool() -> None:
    result = run(build(MIXED), treatment="relabel")
    assert rows_of(result) == {"q1": (["pos", "a", "c"], ["b", "e"]), "q2": (["pos"], ["f", "g"])}
    assert edits_of(result) == [
        ("a", "negative", "positive", "judge", "relevant"),
        ("c", "pool", "positive", "judge", "relevant"),
    ]
    assert result["rejects"].is_empty()


def test_relabel_can_be_held_to_the_negatives() -> None:
    result = run(build(MIXED), treatment="relabel", relabel_from="negatives")
    assert rows_of(result)["q1"] == (["pos", "a"], ["b", "e"])


def test_labelled_positives_come_first_and_the_relabelled_by_falling_score() -> None:
    frames = build({"q": ["aN", "bR", "cR"]}, picks=1, positives={"q": ["z", "y"]})
    scores = pl.Series("score", [0.1, 0.6, 0.8])
    result = run(frames | {"decisions": frames["decisions"].with_columns(scores)}, treatment="relabel")
    assert rows_of(result)["q"][0] == ["y", "z", "c", "b"]


def test_the_hash_covers_query_positives_and_negatives_in_order() -> None:
    result = run(build(MIXED), treatment="relabel")
    hashes = ["hash-of-q1", "hash-pos", "hash-a", "hash-c", "hash-b", "hash-e"]
    assert result["instances"]["texts_hash"][0] == combine_hashes(hashes)


def test_without_refill_a_row_just_gets_shorter_and_is_counted() -> None:
    result = run(build(MIXED), treatment="remove_hn", refill=False)
    assert rows_of(result)["q1"] == (["pos"], ["b"])
    assert result["rejects"].rows() == [("treat", "d/q1", "few_negatives", "1 of 2 left after the edits")]


def test_refill_passes_over_the_relevant_the_unparsed_the_unsure_and_second_copies() -> None:
    frames = build({"q": ["aR", "bR", "cN", "eR", "fU", "c-copyN", "gS", "hN"]}, picks=3)
    assert rows_of(run(frames, treatment="remove_hn"))["q"] == (["pos"], ["c", "h"])
    assert rows_of(run(frames, treatment="remove_hn", refill_unsure=True))["q"] == (["pos"], ["c", "g", "h"])


def test_refill_takes_only_what_mining_could_have_picked_in_the_order_of_the_pick() -> None:
    frames = build({"q": ["nearN", "aR", "bN", "cN", "eN", "farN"]}, picks=3)
    frames["negatives"] = frames["negatives"].filter(pl.col("doc_id") != "near")
    reserve = [("d", "q", doc, f"hash-{doc}", rank) for rank, doc in enumerate(("e", "c"), start=1)]
    frames["reserve"] = pl.DataFrame(reserve, schema=NEGATIVES.columns, orient="row")
    assert rows_of(run(frames, treatment="remove_hn"))["q"] == (["pos"], ["b", "e"])
    none = frames | {"reserve": NEGATIVES.empty()}
    assert rows_of(run(none, treatment="remove_hn"))["q"] == (["pos"], ["b"])


def test_all_treatments_train_on_as_many_negatives_while_the_pool_lasts() -> None:
    frames = build(MIXED)
    lengths = {
        treatment: [len(negatives) for _, negatives in rows_of(run(frames, treatment=treatment)).values()]
        for treatment in ("default", "remove_hn", "relabel")
    }
    assert set(map(tuple, lengths.values())) == {(2, 2)}


def test_a_row_left_without_negatives_is_kept_and_counted_or_dropped_by_policy() -> None:
    frames = build({"q": ["aR", "bR"], "r": ["cN"]})
    result = run(frames, treatment="relabel")
    assert rows_of(result) == {"q": (["pos", "a", "b"], []), "r": (["pos"], ["c"])}
    assert rejects_of(result) == [("d/q", "kept_without_negatives")]
    result = run(frames, treatment="relabel", no_negatives="drop")
    assert rows_of(result) == {"r": (["pos"], ["c"])}
    assert rejects_of(result) == [("d/q", "no_negatives")]
    assert edits_of(result) == [
        ("a", "negative", "dropped", "judge", "relevant"),
        ("b", "negative", "dropped", "judge", "relevant"),
    ]


def test_a_query_without_candidates_is_kept_and_one_without_positives_is_a_reject_in_every_treatment() -> None:
    frames = build({"q1": ["aN"], "q2": [], "q3": ["bR"]}, positives={"q1": ["pos"], "q2": ["pos"]})
    for treatment in TREATMENTS:
        result = run(frames, treatment=treatment)
        assert rows_of(result) == {"q1": (["pos"], ["a"]), "q2": (["pos"], [])}
        assert rejects_of(result) == [("d/q2", "kept_without_negatives"), ("d/q3", "no_positives")]
        dropped = run(frames, treatment=treatment, no_negatives="drop")
        assert rejects_of(dropped) == [("d/q2", "no_negatives"), ("d/q3", "no_positives")]


def test_held_out_queries_are_not_treated() -> None:
    result = run(build(MIXED, split="test"), treatment="relabel")
    assert result["instances"].is_empty()
    assert result["edits"].is_empty()
    assert result["rejects"].is_empty()


def test_unsure_negatives_stay_unless_ambiguous_ones_are_to_go_as_in_arhn() -> None:
    frames = build({"q": ["aS", "bN", "cS", "eN"]})
    assert rows_of(run(frames, treatment="relabel"))["q"][1] == ["a", "b"]
    result = run(frames, treatment="relabel", drop_ambiguous=True)
    assert rows_of(result)["q"] == (["pos"], ["b", "e"])
    assert edits_of(result) == [("a", "negative", "removed", "judge", "unsure")]


def test_dropping_the_ambiguous_relabels_what_is_relevant_and_keeps_no_unsure_negative() -> None:
    frames = build({"q": ["aS", "bR", "cN", "eS", "fN"]}, picks=3)
    result = run(frames, treatment="drop_ambiguous")
    assert rows_of(result)["q"] == (["pos", "b"], ["c", "f"])
    assert edits_of(result) == [
        ("a", "negative", "removed", "judge", "unsure"),
        ("b", "negative", "positive", "judge", "relevant"),
    ]
    assert result["instances"]["treatment"].to_list() == ["drop_ambiguous"]
    unsure = run(frames, treatment="drop_ambiguous", refill_unsure=True)
    assert rows_of(unsure)["q"] == (["pos", "b"], ["c", "f"])


def test_another_threshold_moves_decisions_of_judges_and_none_of_people() -> None:
    frames = with_scores(build({"q": ["aR", "bR", "cS", "eN", "fU"]}, picks=5), 0.6, 0.9, 0.8, 0.1, None)
    result = run(frames, treatment="drop_ambiguous", relevant_from=0.7)
    assert rows_of(result)["q"] == (["pos", "b", "c"], ["e", "f"])
    assert ("a", "negative", "removed", "judge", "unsure") in edits_of(result)
    by_people = pl.when(pl.col("doc_id").is_in(["a", "c"])).then(pl.lit("human:1")).otherwise("judge")
    frames["decisions"] = frames["decisions"].with_columns(judge=by_people)
    result = run(frames, treatment="relabel", relevant_from=0.7)
    assert rows_of(result)["q"] == (["pos", "b", "a"], ["c", "e", "f"])


def test_paper_7_1_an_unparsed_negative_is_counted_and_never_taken_for_clean() -> None:
    frames = build({"q": ["aU", "bN", "cN"]})
    result = run(frames, treatment="relabel")
    assert rows_of(result)["q"][1] == ["a", "b"]
    assert rejects_of(result) == [("d/q/a", "unparsed_kept")]
    dropped = run(frames, treatment="relabel", drop_unparsed=True)
    assert rows_of(dropped)["q"][1] == ["b", "c"]
    assert edits_of(dropped) == [("a", "negative", "removed", "rule", "unparsed")]


def test_paper_7_1_a_candidate_without_any_decision_is_refused() -> None:
    frames = build(MIXED)
    with pytest.raises(ValueError, match="a decision for each of 6 candidates expected, 1 have none"):
        run(frames | {"decisions": frames["decisions"].head(5)}, treatment="relabel")


def test_paper_7_3_the_last_negative_is_never_promoted_in_place_of_another() -> None:
    result = run(build({"q": ["aR", "bN", "cN"]}, picks=3), treatment="relabel", refill=False)
    assert rows_of(result)["q"] == (["pos", "a"], ["b", "c"])


def test_paper_7_4_a_passage_under_two_ids_becomes_one_positive_and_leaves_the_negatives_twice() -> None:
    result = run(build({"q": ["aR", "a-copyR", "bN", "cN"]}, picks=3), treatment="relabel")
    assert rows_of(result)["q"] == (["pos", "a"], ["b", "c"])
    assert edits_of(result) == [
        ("a", "negative", "positive", "judge", "relevant"),
        ("a-copy", "negative", "removed", "rule", "relevant"),
    ]


def test_a_copy_that_was_judged_otherwise_is_no_negative_beside_its_relabelled_text() -> None:
    result = run(build({"q": ["aR", "a-copyN", "bN"]}, picks=1), treatment="relabel")
    assert rows_of(result)["q"] == (["pos", "a"], ["b"])
    result = run(build({"q": ["aR", "a-copyS", "bN"]}), treatment="relabel", drop_ambiguous=True)
    assert rows_of(result)["q"] == (["pos", "a"], ["b"])
    assert edits_of(result)[1] == ("a-copy", "negative", "removed", "rule", "unsure")


def test_paper_7_4_a_copy_of_a_labelled_positive_is_not_added_to_the_positives_and_no_negative() -> None:
    frames = build({"q": ["pos-copyR", "bN"]})
    for treatment in TREATMENTS:
        result = run(frames, treatment=treatment)
        assert rows_of(result)["q"] == (["pos"], ["b"])
        assert rejects_of(result) == [("d/q/pos-copy", "negative_is_positive")]


def test_paper_7_5_what_is_promoted_is_what_was_judged_whatever_the_order_of_the_tables() -> None:
    frames = build({"q": ["aN", "bR", "cN"]}, picks=3)
    shuffled = {name: frame.reverse() for name, frame in frames.items()}
    result = run(shuffled, treatment="relabel")
    assert rows_of(result)["q"] == (["pos", "b"], ["a", "c"])
    for name, frame in run(frames, treatment="relabel").items():
        assert result[name].equals(frame)


def pool_with(relevant: int) -> list[str]:
    return [f"r{n}R" for n in range(relevant)] + ["aN", "bN"]


@pytest.mark.parametrize("treatment", ["relabel", "remove_hn"])
def test_paper_7_6_threshold_seven_is_kept(treatment: str) -> None:
    result = run(build({"q": pool_with(7)}, picks=9), treatment=treatment)
    assert rows_of(result)["q"][1] == ["a", "b"]


@pytest.mark.parametrize("treatment", ["relabel", "remove_hn"])
def test_paper_7_6_threshold_eight_is_dropped(treatment: str) -> None:
    result = run(build({"q": pool_with(8)}, picks=9), treatment=treatment)
    assert result["instances"].is_empty()
    assert result["rejects"].rows() == [("treat", "d/q", "ambiguous", "8 false negatives in the pool")]
    assert result["edits"]["to"].to_list() == ["dropped"] * 8


def test_paper_7_6_copies_of_one_passage_count_once() -> None:
    result = run(build({"q": ["r0-copyR", *pool_with(7)]}, picks=10), treatment="relabel")
    assert len(rows_of(result)["q"][0]) == 1 + 7


def test_the_cut_counts_where_false_negatives_are_looked_for() -> None:
    frames = build({"q": ["aN", "bN", *pool_with(8)[:8]]})
    assert run(frames, treatment="remove_hn")["instances"].is_empty()
    assert run(frames, treatment="remove_hn", relabel_from="negatives")["instances"].height == 1


def test_the_cut_does_not_touch_remove_and_default() -> None:
    frames = build({"q": ["aN", "bN", *pool_with(8)[:8]]})
    for treatment in ("default", "remove"):
        assert rows_of(run(frames, treatment=treatment)) == {"q": (["pos"], ["a", "b"])}


@pytest.mark.parametrize("treatment", TREATMENTS)
@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("refill", [False, True])
def test_rows_are_conserved_for_every_pool_of_four_verdicts_and_a_copy(
    treatment: str, drop: bool, refill: bool
) -> None:
    names = ("a", "b", "a-copy", "c", "pos-copy")
    pools = {
        "".join(states): [f"{name}{state}" for name, state in zip(names, states, strict=True)]
        for states in itertools.product("RNSU", repeat=4)
        for states in [(*states[:2], states[0], *states[2:])]  # equal texts have equal verdicts
    }
    settings = {"drop_ambiguous": drop, "drop_unparsed": drop, "refill": refill, "max_false_negatives": 1}
    result = run(build(pools, picks=3), treatment=treatment, **settings)
    assert result["instances"].height > 0


def test_a_negative_that_is_no_candidate_is_refused() -> None:
    frames = build(MIXED)
    frames["candidates"] = frames["candidates"].filter(pl.col("doc_id") != "b")
    with pytest.raises(ValueError, match="4 negatives expected among the candidates, 3 are"):
        run(frames, treatment="relabel")


def test_an_empty_part_gives_empty_tables() -> None:
    for treatment in TREATMENTS:
        assert all(frame.is_empty() for frame in run(build({}), treatment=treatment).values())


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(TreatConfig) == {
        "treatment": "relabel",
        "max_false_negatives": (7, ">=0"),
        "relabel_from": "pool",
        "refill": True,
        "refill_unsure": False,
        "drop_ambiguous": False,
        "drop_unparsed": False,
        "no_negatives": "keep",
        "relevant_from": (None, ">=0", "<=1"),
        "skip": (),
    }


def with_scores(frames: Frames, *scores: float | None) -> Frames:
    return frames | {"decisions": frames["decisions"].with_columns(score=pl.Series(scores, dtype=pl.Float64))}


def test_of_two_copies_the_one_with_the_higher_score_is_promoted_and_of_equal_ones_the_first_by_id() -> None:
    frames = build({"q": ["aR", "a-copyR", "bN", "cN"]}, picks=3)
    higher = run(with_scores(frames, 0.6, 0.9, 0.1, 0.1), treatment="relabel")
    assert rows_of(higher)["q"][0] == ["pos", "a-copy"]
    assert edits_of(higher)[0] == ("a", "negative", "removed", "rule", "relevant")
    equal = build({"q": ["a-copyR", "aR", "bN", "cN"]}, picks=3)
    assert rows_of(run(with_scores(equal, 0.9, 0.9, 0.1, 0.1), treatment="relabel"))["q"][0] == ["pos", "a"]


def test_relabelled_passages_of_equal_score_come_in_the_order_of_their_texts() -> None:
    frames = build({"q": ["cR", "bR", "aN"]}, picks=3)
    result = run(with_scores(frames, 0.9, 0.9, 0.1), treatment="relabel")
    assert rows_of(result)["q"][0] == ["pos", "b", "c"]


def test_what_refills_comes_after_the_picks_that_stay() -> None:
    frames = build({"q": ["aR", "bN", "cN", "eN", "fN"]}, picks=2)
    for table, docs in (("negatives", "ae"), ("reserve", "bcf")):
        rows = [("d", "q", doc, f"hash-{doc}", rank) for rank, doc in enumerate(docs, start=1)]
        frames[table] = pl.DataFrame(rows, schema=NEGATIVES.columns, orient="row")
    assert rows_of(run(frames, treatment="remove_hn"))["q"][1] == ["e", "b"]


def test_ambiguous_candidates_refill_nothing_where_ambiguous_negatives_go() -> None:
    frames = build({"q": ["aR", "bN", "cS", "eN"]}, picks=2)
    assert rows_of(run(frames, treatment="remove_hn", refill_unsure=True))["q"][1] == ["b", "c"]
    settings = {"refill_unsure": True, "drop_ambiguous": True}
    assert rows_of(run(frames, treatment="remove_hn", **settings))["q"][1] == ["b", "e"]


def test_a_dataset_that_was_not_judged_passes_untouched() -> None:
    result = run(build(MIXED), treatment="relabel", skip=("d",))
    assert rows_of(result) == {"q1": (["pos"], ["a", "b"]), "q2": (["pos"], ["f", "g"])}
    assert result["edits"].is_empty()


def test_a_query_whose_negatives_are_all_there_is_not_counted_as_short() -> None:
    assert run(build(MIXED), treatment="remove_hn")["rejects"].is_empty()


def test_a_query_without_positives_says_how_many_false_negatives_it_had() -> None:
    frames = build({"q1": ["aN"], "q2": ["bR", "cN"]}, positives={"q1": ["pos"]})
    result = run(frames, treatment="relabel")
    assert result["rejects"].rows() == [("treat", "d/q2", "no_positives", "1 false negatives in the pool")]
    frames = build({"q1": ["aN"], "q2": ["cN"]}, positives={"q1": ["pos"]})
    assert run(frames, treatment="relabel")["rejects"]["detail"].to_list() == ["0 false negatives in the pool"]


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(treatments_module) == set()
