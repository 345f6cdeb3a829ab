"""Pairs for training: what was decided of each query and text, and soft labels."""

from typing import Any

import polars as pl

from tasks.data.known_pairs import KnownPairsConfig, list_known_pairs
from tasks.schemas import TEACHER
from tasks.summaries import KNOWN_PAIRS
from tasks.texts import hash_text
from tasks.training.losses.pairs import name_query, name_text
from tests.tasks.data.judged_pools import Frames, build, text_of
from tests.tasks.settings import settings_of


def listed(frames: Frames, teacher: list[tuple[str, str, str, float]] | None = None, **settings: Any) -> dict[str, Any]:
    """State and score by doc, of the query `q`."""
    hashed = {name: _hashed(frames[name]) for name in ("positives", "candidates")}
    known = list_known_pairs(
        KnownPairsConfig(**settings),
        queries=frames["queries"],
        **hashed,
        decisions=frames["decisions"],
        teacher=pl.DataFrame(teacher or [], schema=TEACHER.columns, orient="row"),
    )["known"]
    assert dict(known.schema) == KNOWN_PAIRS.columns
    assert not known.select(KNOWN_PAIRS.key).is_duplicated().any()
    names = {name_text(hash_text(text_of(doc))): doc for doc in ("a", "b", "c", "d", "pos")}
    assert set(known["query"]) <= {name_query("d", "hash-of-q")}
    return {names[text]: (state, score) for _, text, state, score in known.iter_rows()}


def _hashed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("text_hash").map_elements(hash_text, return_dtype=pl.String))


def test_relevant_and_unsure_pairs_are_listed_and_no_others() -> None:
    assert listed(build({"q": ["aR", "bN", "cS", "dU"]})) == {"a": ("relevant", None), "c": ("unsure", None)}


def test_a_text_with_two_ids_is_one_pair_with_the_state_nearest_to_relevant() -> None:
    assert listed(build({"q": ["aS", "a-copyR", "bN"]})) == {"a": ("relevant", None)}


def test_a_threshold_of_the_treatment_holds_here_too() -> None:
    pool = build({"q": ["aR", "bN", "cS"]})
    assert listed(pool, relevant_from=0.95) == {"a": ("unsure", None), "c": ("unsure", None)}
    assert listed(pool, relevant_from=0.4) == {"a": ("relevant", None), "c": ("relevant", None)}


def test_datasets_that_are_not_judged_and_held_out_queries_have_no_pairs() -> None:
    assert listed(build({"q": ["aR"]}), skip=("d",)) == {}
    assert listed(build({"q": ["aR"]}, split="test")) == {}


def test_soft_labels_of_judges_are_the_scores_of_all_pairs_that_have_one() -> None:
    found = listed(build({"q": ["aR", "bN", "dU"]}), soft_labels="judges")
    assert {doc: state for doc, (state, _) in found.items()} == {"a": "relevant", "b": None}
    assert found["b"][1] == 0.1 - 1 / 1000


def test_soft_labels_of_a_teacher_are_its_scores_beside_the_verdicts() -> None:
    teacher = [("d", "q", "pos", 9.5), ("d", "q", "b", -2.0)]
    found = listed(build({"q": ["aR", "bN"]}), teacher, soft_labels="teacher")
    assert found == {"a": ("relevant", None), "b": (None, -2.0), "pos": (None, 9.5)}


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(KnownPairsConfig) == {
        "soft_labels": None,
        "relevant_from": (None, ">=0", "<=1"),
        "skip": (),
    }
