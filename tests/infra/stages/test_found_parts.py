"""Finished parts: looked up in bulk, with as few questions to the store as there can be."""

from dataclasses import replace
from pathlib import Path

import pytest

from infra.stages.found_parts import FoundParts, read_manifests
from infra.storage.artifacts import Manifest, Piece, Table, commit, manifest_path, read_manifest
from infra.storage.store import Entry, Store, StoreError


class Counted(Store):
    """A store that counts listings and reads."""

    listings = reads = 0

    def entries(self, prefix: str) -> dict[str, Entry]:
        self.listings += 1
        return super().entries(prefix)

    def read(self, key: str, *, last: int | None = None) -> bytes | None:
        self.reads += 1
        return super().read(key, last=last)


def part(number: int, attempt: int = 0) -> Manifest:
    tables = {"doubled": (Piece(number, f"objects/aa/{number:064x}.parquet", 3),)}
    ingredients = {"stage": "double", "inputs": {"numbers": [f"{number}"]}}
    return Manifest("double", 1, number, f"{number:032x}", attempt, ingredients, tables, {}, {"seconds": 0.25})


def store_of(url: str, *manifests: Manifest) -> Counted:
    Store.open(url)
    store = Counted(url)
    for manifest in manifests:
        commit(store, manifest)
    return store


def test_manifests_read_in_bulk_are_those_read_one_by_one_in_the_order_asked_for(store_url: str) -> None:
    store = store_of(store_url, *(part(number) for number in range(70)))
    asked = [(f"{number:032x}", 0) for number in (69, *range(0, 60, 2), 5)]
    one_by_one = [read_manifest(store, "double", key, attempt) for key, attempt in asked]
    assert read_manifests(store, "double", asked) == one_by_one
    assert read_manifests(store, "double", []) == []


@pytest.mark.parametrize("parts", [3, 70])
def test_a_damaged_manifest_is_named_whether_few_or_many_are_read(tmp_path: Path, parts: int) -> None:
    store = store_of(str(tmp_path), *(part(number) for number in range(parts)))
    path = manifest_path("double", f"{2:032x}", 0)
    (tmp_path / path).write_text("{")
    with pytest.raises(StoreError, match=rf"{path} is damaged"):
        read_manifests(store, "double", [(f"{number:032x}", 0) for number in range(parts)])


def test_the_newest_attempt_of_each_finished_part_is_found_by_one_listing(tmp_path: Path) -> None:
    store = store_of(str(tmp_path), part(0), part(1), part(1, 1), part(1, 2), part(2))
    keys = [f"{number:032x}" for number in (0, 1, 7)]
    found = FoundParts().look_up(store, "double", keys)
    assert {key: manifest.attempt for key, manifest in found.items()} == {keys[0]: 0, keys[1]: 2}
    assert (store.listings, store.reads) == (1, 2)


def test_a_walk_lists_a_stage_once_and_the_next_walk_lists_it_only_for_a_part_that_was_not_found(
    tmp_path: Path,
) -> None:
    store = store_of(str(tmp_path), part(0), part(1))
    keys = [f"{number:032x}" for number in (0, 1)]
    found = FoundParts()
    found.look_up(store, "double", keys)
    found.look_up(store, "double", [f"{5:032x}"])
    assert (store.listings, store.reads) == (1, 2)
    second = found.for_another_walk()
    assert list(second.look_up(store, "double", keys)) == keys
    assert (store.listings, store.reads) == (1, 2)
    commit(store, part(5))
    assert list(second.look_up(store, "double", [*keys, f"{5:032x}"])) == [*keys, f"{5:032x}"]
    assert (store.listings, store.reads) == (2, 3)


def test_an_attempt_that_was_made_since_is_seen_where_it_is_looked_for_anew(tmp_path: Path) -> None:
    store = store_of(str(tmp_path), part(0))
    keys, found = [f"{0:032x}"], FoundParts()
    found.look_up(store, "double", keys)
    commit(store, part(0, 1))
    assert found.look_up(store, "double", keys)[keys[0]].attempt == 0
    assert found.look_up(store, "double", keys, anew=True)[keys[0]].attempt == 1


def test_parts_that_were_computed_are_known_at_once(tmp_path: Path) -> None:
    store = store_of(str(tmp_path))
    found = FoundParts()
    assert found.look_up(store, "double", [f"{0:032x}"]) == {}
    found.add("double", [part(0)])
    assert found.look_up(store, "double", [f"{0:032x}"]) == {f"{0:032x}": replace(part(0), ingredients={})}
    assert (store.listings, store.reads) == (1, 0)


def test_what_was_worked_out_from_tables_is_worked_out_again_only_where_their_content_differs() -> None:
    calls: list[int] = []
    table, other = (Table("n", (Piece(0, f"objects/aa/{name}.parquet", 1),)) for name in ("a", "b"))

    def work() -> int:
        calls.append(1)
        return len(calls)

    found = FoundParts()
    assert (found.note("sum", [table], work), found.note("sum", [table], work)) == (1, 1)
    assert found.for_another_walk().note("sum", [table], work) == 1
    assert (found.note("sum", [other], work), found.note("mean", [table], work)) == (2, 3)
