from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.storage.numbered_records import keep_next, numbers, read_newest
from infra.storage.store import Store


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
