"""Indexes are kept by store and key, and those that were not used for longest are dropped."""

from infra.ledger.blocks import Index
from infra.ledger.index_cache import IndexCache
from tests.infra.ledger.rows import frame_of

INDEX = Index.of_one(frame_of(50), 1000)


def test_what_was_not_used_for_longest_is_dropped() -> None:
    kept = IndexCache(most=3 * INDEX.size)
    for key in ("a", "b", "c"):
        kept.put(key, INDEX)
    assert kept.get("a") is INDEX
    kept.put("d", INDEX)
    assert [key for key in "abcd" if kept.get(key) is not None] == ["a", "c", "d"]


def test_one_that_is_kept_already_is_not_counted_twice() -> None:
    kept = IndexCache(most=2 * INDEX.size)
    for key in ("a", "a", "a", "b"):
        kept.put(key, INDEX)
    assert kept.get("a") is INDEX
    assert kept.get("b") is INDEX


def test_each_store_has_its_own() -> None:
    IndexCache.of("one").put("key", INDEX)
    assert IndexCache.of("one").get("key") is INDEX
    assert IndexCache.of("two").get("key") is None
