"""Which queries are held out: relatives on one side, a share that is kept, and queries that stay where they are."""

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.near_duplicates import sketch
from tasks.data.splits import SplitRules, Splits, assign_splits, place_of
from tasks.texts import hash_text

WORDS = (
    "otter heron lynx marten beaver raven viper toad hare boar stork trout river forest mountain meadow lake valley "
    "hunts sleeps swims eats builds hides climbs runs winter summer night morning young old small large grey brown"
).split()


def question(number: int) -> str:
    """A question unlike the others."""
    digits = hash_text(str(number))
    return " ".join(WORDS[int(digits[at : at + 2], 16) % len(WORDS)] for at in range(0, 16, 2))


def assign(
    texts: list[str], positives: Sequence[tuple[int, int]] = (), given: dict[int, str] | None = None, **rules: Any
) -> Splits:
    queries = pl.DataFrame(
        {
            "query": range(len(texts)),
            "id": [f"q{number}" for number in range(len(texts))],
            "text": texts,
            "text_hash": [hash_text(text) for text in texts],
            "given": [(given or {}).get(number) for number in range(len(texts))],
        },
        schema={"query": pl.UInt32, "id": pl.String, "text": pl.String, "text_hash": pl.String, "given": pl.String},
    )
    pairs = pl.DataFrame(list(positives), schema={"query": pl.UInt32, "passage": pl.UInt32}, orient="row")
    return assign_splits(SplitRules(**rules), queries=queries, positives=pairs)


def test_no_held_out_question_is_trained_on_in_another_spelling() -> None:
    """500 questions, each also without capitals and question mark."""
    asked = [f"{question(number).capitalize()}?" for number in range(500)]
    texts = asked + [text.lower().rstrip("?") for text in asked]
    split = assign(texts, holdout=0.2).queries["split"].to_list()
    assert split[:500] == split[500:]
    assert 150 < split.count("test") < 250
    apart = assign(texts, holdout=0.2, by=frozenset()).queries["split"].to_list()
    assert sum(one != other for one, other in zip(apart[:500], apart[500:], strict=True)) > 100


def test_a_query_without_relatives_falls_where_its_hash_says() -> None:
    texts = [question(number) for number in range(300)]
    split = assign(texts, holdout=0.3, dev=0.2).queries["split"]
    place = place_of(pl.Series([hash_text(text) for text in texts]))
    assert split.to_list() == ["test" if p < 0.3 else "dev" if p < 0.5 else "train" for p in place]


@pytest.mark.parametrize("size", [2, 5, 10])
def test_the_share_of_held_out_queries_does_not_depend_on_the_size_of_the_clusters(size: int) -> None:
    texts = [f"{question(number)}{'?' * copy}" for number in range(600) for copy in range(size)]
    held_out = assign(texts, holdout=0.2).queries["split"] == "test"
    assert 0.14 < held_out.mean() < 0.26


def test_queries_that_share_a_positive_are_on_one_side() -> None:
    texts = [question(number) for number in range(400)]
    split = assign(texts, [(number, number // 2) for number in range(400)], holdout=0.3).queries["split"].to_list()
    assert split[::2] == split[1::2]
    assert assign(texts, [(number, number // 2) for number in range(400)], holdout=0.3, by={"query"}).notes.is_empty()


def test_a_popular_passage_joins_nothing_and_is_counted() -> None:
    texts = [question(number) for number in range(400)]
    alone = assign(texts, holdout=0.3).queries
    found = assign(texts, [(number, 7) for number in range(400)], holdout=0.3)
    assert found.queries.equals(alone)
    assert [(reason, says.count("399 links by shared positives")) for reason, says in found.notes.rows()] == [
        ("holdout_link_not_followed", 1)
    ]


def test_a_chain_of_positives_ends_at_the_largest_cluster() -> None:
    texts = [question(number) for number in range(400)]
    chain = [(number, passage) for number in range(400) for passage in (number, number + 1)]
    found = assign(texts, chain, holdout=0.3, cluster_share=0.05)
    runs = 1 + sum(a != b for a, b in zip(found.queries["split"], found.queries["split"][1:], strict=False))
    assert 5 < runs < 60
    assert found.notes["reason"][0] == "holdout_link_not_followed"


def test_rows_that_are_added_move_no_query_but_relatives() -> None:
    texts = [question(number) for number in range(200)]
    before = assign(texts, [(number, number // 2) for number in range(200)], holdout=0.3).queries
    more = [*texts, *(question(number) for number in range(1_000, 1_100)), texts[5].upper()]
    after = assign(more, [(number, number // 2) for number in range(200)], holdout=0.3).queries
    moved = [n for n in range(200) if before["split"][n] != after["split"][n]]
    assert set(moved) <= {4, 5}
    assert (
        assign(texts[::-1], holdout=0.3).queries["split"].to_list()
        == assign(texts, holdout=0.3).queries["split"].to_list()[::-1]
    )


def test_training_queries_near_a_query_of_a_given_split_are_named() -> None:
    texts = ["Where does the OTTER sleep in winter", "where does the otter sleep in winter?", "a heron eats trout",
             "where does the otter sleep in the winter?", "a heron eats trout!"]  # fmt: skip
    given = {1: "test", 4: "dev"}
    found = assign(texts, [(0, 1), (1, 1)], given, similarity=0.7)
    assert found.queries["split"].to_list() == ["train", "test", "train", "train", "dev"]
    assert found.queries["near"].to_list() == ["q1", None, "q4", "q1", None]
    assert found.notes.rows() == [
        (
            "positive_shared_with_held_out",
            "1 passages are positives of training queries and of held-out queries; nothing is left out for it",
        )
    ]
    assert assign(texts, given=given, by={"query"}).queries["near"].to_list() == ["q1", None, "q4", None, None]
    for kept in (assign(texts, given=given, by=set()), assign(texts, given=given, leave_out_near=False)):
        assert kept.queries["near"].null_count() == 5


def test_queries_of_a_given_split_stay_there_while_others_are_drawn() -> None:
    texts = [question(number) for number in range(300)]
    found = assign(texts, given=dict.fromkeys(range(20), "dev"), holdout=0.5).queries["split"].to_list()
    assert found[:20] == ["dev"] * 20
    assert "dev" not in found[20:]
    assert 100 < found.count("test") < 180


def test_empty_tables_have_no_splits() -> None:
    assert assign([], holdout=0.5).queries.height == 0
    assert assign(["a"], given={0: "test"}).queries.row(0) == (0, "test", None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["Otter?", "otter", "heron ", "HERON", "lynx", "hare", "boar!", "toad", "stork"]), max_size=30
    ),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 12)), max_size=30),
    st.sampled_from([0.2, 0.5, 0.8]),
)
def test_no_question_and_no_positive_is_on_both_sides_unless_a_link_was_too_much(
    texts: list[str], positives: list[tuple[int, int]], holdout: float
) -> None:
    pairs = [(query, passage) for query, passage in positives if query < len(texts)]
    found = assign(texts, pairs, holdout=holdout, dev=0.1)
    split = found.queries["split"]
    same = sketch(pl.Series(texts, dtype=pl.String)).select("same", split=split)
    assert same.n_unique() == same["same"].n_unique()
    sides = {(passage, split[query]) for query, passage in pairs}
    assert len(sides) == len({passage for passage, _ in sides}) or found.notes.height


def dense(count: int, seed: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Queries with three positives each, of few passages, so that nearly all are relatives of each other."""
    texts = [question(number) for number in range(seed * count, (seed + 1) * count)]
    passages = max(2, count // 3)
    digits = [hash_text(f"{text} positive {place}") for text in texts for place in range(3)]
    return texts, [(number // 3, int(one, 16) % passages) for number, one in enumerate(digits)]


@pytest.mark.parametrize("count", [40, 60, 200])
def test_small_sets_with_dense_relations_hold_out_about_the_share_asked_for(count: int) -> None:
    for seed in range(8):
        texts, positives = dense(count, seed)
        found = assign(texts, positives, holdout=0.2, dev=0.1)
        split = found.queries["split"].to_list()
        assert 0.05 <= split.count("test") / count <= 0.4
        assert 0.02 <= split.count("dev") / count <= 0.24
        assert assign(texts, positives, holdout=0.2, dev=0.1).queries.equals(found.queries)


def test_clusters_that_change_sides_stay_whole_and_move_no_query_without_relatives() -> None:
    for seed in range(8):
        alone = [question(number) for number in range(1_000 * seed, 1_000 * seed + 20)]
        texts = alone + [f"{question(10**6 + cluster)}{'?' * copy}" for cluster in range(5) for copy in range(8)]
        found = assign(texts, holdout=0.2)
        split = found.queries["split"].to_list()
        place = place_of(pl.Series([hash_text(text) for text in alone]))
        assert split[:20] == ["test" if p < 0.2 else "train" for p in place]
        assert all(len(set(split[at : at + 8])) == 1 for at in range(20, 60, 8))
        assert 0 < split.count("test") < 30


def test_a_set_of_which_nothing_is_held_out_says_so() -> None:
    found = assign([f"where does the otter sleep{'?' * copy}" for copy in range(20)], holdout=0.1, dev=0.1)
    assert set(found.queries["split"]) == {"train"}
    assert found.notes["reason"].to_list() == ["no_test_query", "no_dev_query"]
    assert found.notes["detail"][0].startswith("ingest.holdout is 0.1, and of 20 queries none is in the split test")
