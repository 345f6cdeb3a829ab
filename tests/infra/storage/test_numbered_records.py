"""Records with numbers: each is written once, and the highest number is the newest."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.storage.numbered_records import decide_next, keep_next, numbers, parse_key, read, read_newest, record_key
from infra.storage.store import Store, StoreError


def test_records_are_numbered_from_one_and_the_newest_is_read(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    assert (numbers(store, "a/b/result"), read_newest(store, "a/b/result")) == ([], None)
    store.create("a/b/result-notes.json", b"{}")
    store.create("a/b/result-old-000009.json", b"{}")
    assert [keep_next(store, "a/b/result", {"n": n}) for n in range(3)] == [1, 2, 3]
    assert read_newest(store, "a/b/result") == {"n": 2}
    assert store.exists("a/b/result-000003.json")


def test_writers_at_one_moment_get_numbers_of_their_own(tmp_path: Path, store_url: str) -> None:
    store = Store.open(store_url)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda n: keep_next(store, "history/nq/nq-000001", {"n": n}), range(8)))
    assert sorted(got) == numbers(store, "history/nq/nq-000001") == list(range(1, 9))


@pytest.mark.parametrize(
    ("key", "prefix", "number"),
    [
        ("releases/nq/HEAD-000007.json", "releases/nq/HEAD", 7),
        ("configs/nq/000003.json", "configs/nq/", 3),
        ("history/nq/nq-000002-000001.json", "history/nq/nq-000002", 1),
        ("curations/nq-000002/result-1234567.json", "curations/nq-000002/result", 1_234_567),
    ],
)
def test_a_records_key_is_made_of_its_prefix_and_number_and_read_back(key: str, prefix: str, number: int) -> None:
    assert record_key(prefix, number) == key
    assert parse_key(key) == (prefix, number)


@pytest.mark.parametrize(
    "key",
    [
        "curations/nq-000001/curation.json",
        "configs/nq/3.json",
        "a/-000003.json",
        "a/result-00003.json",
        "a/result-0000003.json",
        "a/result000003.json",
        "a/result-000003.json.tmp",
        "a/result-000003",
    ],
)
def test_another_key_is_no_records(key: str) -> None:
    assert parse_key(key) is None


def test_a_folder_of_numbers_is_a_line_of_records_too(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    store.create("configs/nq/notes.json", b"{}")
    store.create("configs/nq-too/000009.json", b"{}")
    assert [keep_next(store, "configs/nq/", {"n": n, "sign": "é"}) for n in range(2)] == [1, 2]
    assert store.list("configs/nq") == ["configs/nq/000001.json", "configs/nq/000002.json", "configs/nq/notes.json"]
    assert read_newest(store, "configs/nq/") == {"n": 1, "sign": "é"}
    assert store.read("configs/nq/000001.json") == '{\n "n": 0,\n "sign": "é"\n}'.encode()


def test_numbers_beyond_six_digits_are_newer(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    for number in (999_999, 1_000_000):
        store.create(record_key("a/result", number), b'{"n": %d}' % number)
    assert numbers(store, "a/result") == [999_999, 1_000_000]
    assert read_newest(store, "a/result") == {"n": 1_000_000}
    assert keep_next(store, "a/result", {}) == 1_000_001


def test_a_decision_against_a_record_writes_none(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    seen: list[list[int]] = []
    assert decide_next(store, "a/result", seen.append) is None
    assert (seen, store.list("a")) == ([[]], [])


def test_whoever_loses_a_number_decides_anew_with_what_was_written_meanwhile(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    seen: list[list[int]] = []

    def decide(taken: list[int]) -> dict[str, str]:
        seen.append(taken)
        if len(seen) == 1:
            keep_next(store, "a/result", {"by": "another"})
        return {"by": "me"}

    assert decide_next(store, "a/result", decide) == 2
    assert seen == [[], [1]]
    assert [read(store, "a/result", number) for number in (1, 2)] == [{"by": "another"}, {"by": "me"}]


def test_a_record_that_vanished_after_its_listing_is_named(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    with pytest.raises(StoreError, match=r"a/result-000004\.json vanished between listing and reading"):
        read(store, "a/result", 4)
