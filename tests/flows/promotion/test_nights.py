"""The nights that tested a training set since the last promotion."""

from pathlib import Path

import pytest

from flows.promotion.nights import keep_test, night_of_test
from infra.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def keep(store: Store, content: str, promotions: int = 0) -> int:
    night = night_of_test(store, "nq", content, promotions)
    keep_test(store, "nq", {"content": content, "promotions": promotions, "night": night, "promote": False})
    return night


def test_each_new_content_is_a_further_night_and_a_repeated_one_keeps_its_number(store: Store) -> None:
    assert [keep(store, content) for content in ("a", "b", "a", "b", "c")] == [1, 2, 1, 2, 3]
    assert store.list("gates/nq") == [f"gates/nq/00000{n}.json" for n in (1, 2, 3)]


def test_a_promotion_begins_the_count_anew_also_for_a_content_that_was_tested(store: Store) -> None:
    for content in ("a", "b"):
        keep(store, content)
    assert [keep(store, content, promotions=1) for content in ("c", "a", "c")] == [1, 2, 1]


def test_names_have_counts_of_their_own_and_old_stores_begin_with_the_first(store: Store) -> None:
    keep(store, "a")
    assert night_of_test(store, "other", "a", 0) == 1


def test_the_count_goes_on_where_more_nights_were_held_than_are_read(store: Store) -> None:
    assert [keep(store, f"content {n}") for n in range(40)] == list(range(1, 41))
