"""Numbered pointers and the stable path: what readers see, whoever writes and whatever dies in between."""

import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.names import digest_of
from infra.storage import local_files
from infra.storage.release_pointers import (
    ROLLED_BACK,
    Record,
    advance,
    content_of,
    heal,
    heal_all,
    holding,
    left_behind,
    lost_files,
    names,
    newest,
    numbers,
    origin,
    passed_by,
    prune_published,
    publish,
    read_latest,
    withdraw,
)
from infra.storage.store import Store, StoreError
from tests.conftest import ROOT


class Died(BaseException):
    """The process ends here."""


class Dying(Store):
    """A store whose process dies at the first call of one of its methods."""

    def __init__(self, url: str, at: str, after: int = 0) -> None:
        super().__init__(url)
        self._at, self._after = at, after

    def _die_at(self, at: str) -> None:
        if at == self._at:
            self._after -= 1
            if self._after < 0:
                raise Died

    def copy_object(self, key: str, target: str) -> int:
        self._die_at("copy")
        return super().copy_object(key, target)

    def create(self, key: str, data: bytes) -> bool:
        if key.endswith("release.json"):
            self._die_at("release.json")
        return super().create(key, data)

    def swap(self, key: str, data: bytes, old: bytes | None) -> bool:
        self._die_at("latest.json")
        return super().swap(key, data, old)

    def link(self, key: str, target: str | None) -> None:
        self._die_at("current")
        super().link(key, target)


class Overtaken(Store):
    """A store that does something else just before `latest.json` is written for the first time."""

    def __init__(self, url: str, meanwhile: Callable[[], Any]) -> None:
        super().__init__(url)
        self._meanwhile: Callable[[], Any] | None = meanwhile

    def swap(self, key: str, data: bytes, old: bytes | None) -> bool:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().swap(key, data, old)


class DyingAfterWriting(Overtaken):
    """The same, and the process dies after its own write of `latest.json`."""

    def swap(self, key: str, data: bytes, old: bytes | None) -> bool:
        super().swap(key, data, old)
        raise Died


class DyingAtCall(Store):
    """A store whose process dies just before its n-th call that changes something."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(url)
        self._left = number

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Died

    def create(self, key: str, data: bytes) -> bool:
        self._count()
        return super().create(key, data)

    def copy_object(self, key: str, target: str) -> int:
        self._count()
        return super().copy_object(key, target)

    def replace(self, key: str, data: bytes) -> None:
        self._count()
        super().replace(key, data)

    def swap(self, key: str, data: bytes, old: bytes | None) -> bool:
        self._count()
        return super().swap(key, data, old)

    def link(self, key: str, target: str | None) -> None:
        self._count()
        super().link(key, target)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)

    def delete_folder(self, prefix: str) -> None:
        self._count()
        super().delete_folder(prefix)


def release(store: Store, text: str, name: str = "nq", **more: Any) -> Record:
    exports = {"tevatron/train.jsonl": store.put_object(text.encode(), ""), "export.json": store.put_object(b"{}", "")}
    content = {"curation": f"{name}-000001", "exports": exports, "because": "promoted", "of": None, **more}
    record = advance(store, name, lambda known: content)
    assert record is not None
    return record


def read(store: Store, name: str = "nq") -> str:
    """Read as a trainer does: the highest record, then the file it names, checked against its digest."""
    latest = read_latest(store, name)
    assert latest is not None
    data = store.read(f"{latest['prefix']}/tevatron/train.jsonl") or b""
    told = latest["files"]["tevatron/train.jsonl"]
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (told["sha256"], told["bytes"])
    return data.decode()


def folder_of(store: Store) -> Path:
    return Path(store.url) / "published" / "nq"


def test_trainers_read_the_newest_release_under_plain_names(store_url: str) -> None:
    store = Store.open(store_url)
    for text in ("one", "two"):
        release(store, text)
        publish(store, "nq")
        assert read(store) == text
    latest = read_latest(store, "nq")
    assert latest is not None
    assert (latest["number"], latest["prefix"], set(latest["files"])) == (
        2,
        "published/nq/000002",
        {"tevatron/train.jsonl", "export.json"},
    )
    assert store.read("published/nq/000001/tevatron/train.jsonl") == b"one"
    assert json.loads(store.read("published/nq/000002/release.json") or b"") == latest


def test_nothing_is_published_before_there_is_a_release(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    assert publish(store, "nq") is None
    assert (names(store), newest(store, "nq"), read_latest(store, "nq")) == ([], None, None)


def test_a_line_of_releases_knows_nothing_of_another_whose_name_begins_alike(store_url: str) -> None:
    store = Store.open(store_url)
    release(store, "one", "nq")
    release(store, "other", "nq-de")
    assert (numbers(store, "nq"), numbers(store, "nq-de"), names(store)) == ([1], [1], ["nq", "nq-de"])
    publish(store, "nq-de")
    assert read_latest(store, "nq") is None
    assert prune_published(store, "nq", 1) == []


def shown(store: Store) -> int | None:
    """Return the number that `latest.json` says, and check that the link says the same."""
    latest = store.read("published/nq/latest.json")
    number = None if latest is None else int(json.loads(latest)["number"])
    if store.local:
        link = folder_of(store) / "current"
        assert (str(link.readlink()) if link.is_symlink() else None) == (None if number is None else f"{number:06d}")
    return number


@pytest.fixture
def short_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for a lock that a paused process keeps."""
    monkeypatch.setattr(local_files, "_LOCK_SECONDS", 0.05)


def rolled_back(url: str) -> Store:
    """A store in which release 2 was rolled back to release 1, as release 3, which is not published yet."""
    store = Store.open(url)
    for text in ("one", "two"):
        release(store, text)
        publish(store, "nq")
    go_back(store)
    return store


def go_back(store: Store) -> None:
    """Write the pointer of a rollback to release 1."""

    def make(known: list[Record]) -> Record:
        target = {key: value for key, value in known[0].items() if key != "number"}
        return {**target, "because": ROLLED_BACK, "of": 1, "left": passed_by(known, known[0])}

    advance(store, "nq", make)


def test_a_rollback_that_dies_before_any_of_its_writes_leaves_one_whole_release_and_is_completed(
    store_url: str,
) -> None:
    read_after = []
    for number in range(1, 20):
        store = rolled_back(f"{store_url}/{number}")
        try:
            publish(DyingAtCall(store.url, number), "nq")
        except Died:
            read_after.append(read(store))
            heal(store, "nq")
            assert shown(store) == (2 if read_after[-1] == "two" else 3)
            publish(store, "nq")
        assert (read(store), shown(store)) == ("one", 3)
        if len(read_after) < number:
            break
    assert read_after[:3] == ["two"] * 3  # two copies and the record
    assert set(read_after[3:]) == {"one"}
    assert len(read_after) >= 5  # with latest.json and the link


@pytest.mark.usefixtures("short_lock")
def test_a_promoter_that_dies_after_its_last_write_does_not_bring_back_what_was_rolled_back(store_url: str) -> None:
    store = Store.open(store_url)
    release(store, "one")
    publish(store, "nq")
    release(store, "two")

    def rollback() -> None:
        go_back(store)
        publish(store, "nq")

    with pytest.raises(Died):
        publish(DyingAfterWriting(store_url, rollback), "nq")
    assert (read(store), shown(store)) == ("one", 3)


def test_a_latest_that_names_what_was_rolled_back_concerns_no_reader_and_the_next_look_mends_it(
    store_url: str,
) -> None:
    store = rolled_back(store_url)
    publish(store, "nq")
    store.replace("published/nq/latest.json", store.read("published/nq/000002/release.json") or b"")
    store.link("published/nq/current", "000002")
    assert read(store) == "one"
    heal_all(store)
    assert shown(store) == 3


def test_the_recipe_for_trainers_in_the_docs_reads_the_highest_record(store_url: str) -> None:
    page = (ROOT / "docs" / "releases.md").read_text(encoding="utf-8")
    recipe = page.partition("```python\n")[2].partition("\nimport polars")[0]
    code = compile(recipe.replace('"s3://bucket/reneg"', "STORE").replace("my-data", "nq"), "releases.md", "exec")
    store = rolled_back(store_url)
    publish(store, "nq")
    store.replace("published/nq/latest.json", store.read("published/nq/000002/release.json") or b"")

    def follow() -> dict[str, Any]:
        variables: dict[str, Any] = {"STORE": store_url}
        exec(code, variables)
        return variables

    found = follow()
    assert found["release"] == read_latest(store, "nq")
    assert found["file"] == f"{store_url}/published/nq/000003/sentence-transformers/train.parquet"
    withdraw(store, ["published/nq/000003"])
    with pytest.raises(SystemExit, match="release 3 was withdrawn"):
        follow()


def test_a_withdrawal_that_dies_before_any_of_its_writes_brings_no_release_back(tmp_path: Path) -> None:
    died = 0
    for number in range(1, 20):
        store = rolled_back(str(tmp_path / str(number)))
        publish(store, "nq")
        digest = digest_of(newest_of(store)["exports"]["tevatron/train.jsonl"])
        wanted = holding(store, [digest])
        assert wanted == ["published/nq/000001", "published/nq/000003"]
        try:
            withdraw(DyingAtCall(store.url, number), wanted[::-1])
        except Died:
            died += 1
            latest = read_latest(store, "nq")
            assert latest is None or (latest["number"], read(store)) == (3, "one")  # never the one rolled back
            heal_all(store)
            assert shown(store) == (None if latest is None else 3)
            withdraw(store, holding(store, [digest]))
        assert (read_latest(store, "nq"), shown(store), holding(store, [digest])) == (None, None, [])
        assert publish(store, "nq") is None
        assert read_latest(store, "nq") is None
        if died < number:
            break
    assert died >= 5


def newest_of(store: Store) -> Record:
    record = newest(store, "nq")
    assert record is not None
    return record


def test_pruning_that_dies_before_any_of_its_writes_changes_nothing_that_is_read_and_is_completed(
    tmp_path: Path,
) -> None:
    for number in range(1, 20):
        store = rolled_back(str(tmp_path / str(number)))
        publish(store, "nq")
        died = False
        try:
            prune_published(DyingAtCall(store.url, number), "nq", 1)
        except Died:
            died = True
        assert (read(store), heal(store, "nq"), shown(store)) == ("one", read_latest(store, "nq"), 3)
        prune_published(store, "nq", 1)
        assert {key.split("/")[2] for key in store.list("published/nq")} == {"000003", "latest.json"}
        if not died:
            break
    assert number == 5  # two folders, of each the record and then the rest


def test_a_release_that_was_withdrawn_while_it_was_laid_out_is_not_published(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    release(store, "one")

    class Late(Store):
        def create(self, key: str, data: bytes) -> bool:
            withdraw(store, ["published/nq/000001"])
            return super().create(key, data)

    assert publish(Late(store.url), "nq") is None
    assert [key for key in store.list("published") if "tevatron" in key] == []


def test_after_a_withdrawal_the_next_release_is_read_and_pruning_keeps_the_record(store_url: str) -> None:
    store = Store.open(store_url)
    for text in ("one", "two"):
        release(store, text)
        publish(store, "nq")
    withdraw(store, ["published/nq/000002"])
    release(store, "three")  # its promoter died
    assert prune_published(store, "nq", 1) == ["published/nq/000001"]
    assert read_latest(store, "nq") is None
    publish(store, "nq")
    assert (read(store), shown(store)) == ("three", 3)


def test_a_name_without_releases_has_nothing_to_mend(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    assert heal(store, "nq") is None
    assert store.list("published") == []
    store.replace("published/nq/latest.json", b'{"number": 1}')
    assert heal(store, "nq") is None
    assert store.list("published") == []


def test_a_server_that_refuses_every_condition_is_written_to_without_one(tmp_path: Path) -> None:
    class Refusing(Store):
        def swap(self, key: str, data: bytes, old: bytes | None) -> bool:
            return False

    store = Refusing(Store.open(str(tmp_path)).url)
    release(store, "one")
    publish(store, "nq")
    assert shown(store) == 1


@pytest.mark.parametrize(
    ("at", "after", "then"),
    [("copy", 0, "one"), ("copy", 1, "one"), ("release.json", 0, "one"), ("latest.json", 0, "two")],
)
def test_a_publication_that_dies_is_seen_only_if_it_is_complete_and_the_next_one_completes_it(
    store_url: str, at: str, after: int, then: str
) -> None:
    store = Store.open(store_url)
    release(store, "one")
    publish(store, "nq")
    release(store, "two")
    with pytest.raises(Died):
        publish(Dying(store_url, at, after), "nq")
    assert read(store) == then
    publish(store, "nq")
    assert read(store) == "two"


def test_a_death_before_the_symlink_is_repaired_by_the_next_one(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    release(store, "one")
    publish(store, "nq")
    release(store, "two")
    with pytest.raises(Died):
        publish(Dying(store.url, "current"), "nq")
    assert read(store) == "two"
    assert (folder_of(store) / "current" / "tevatron" / "train.jsonl").read_text() == "one"
    publish(store, "nq")
    assert (folder_of(store) / "current" / "tevatron" / "train.jsonl").read_text() == "two"


@pytest.mark.usefixtures("short_lock")
def test_a_writer_that_was_overtaken_does_not_leave_its_older_release_as_the_latest(store_url: str) -> None:
    store = Store.open(store_url)
    release(store, "one")

    def other() -> None:
        release(store, "two")
        publish(store, "nq")

    publish(Overtaken(store_url, other), "nq")
    assert (read(store), shown(store)) == ("two", 2)


def test_many_promoters_at_once_take_different_numbers_and_the_highest_is_read(store_url: str) -> None:
    start = threading.Barrier(6)

    def promote(number: int) -> int:
        store = Store(store_url)
        start.wait()
        record = release(store, f"text {number}")
        publish(store, "nq")
        return int(record["number"])

    store = Store.open(store_url)
    with ThreadPoolExecutor(6) as pool:
        taken = sorted(pool.map(promote, range(6)))
    assert taken == numbers(store, "nq") == [1, 2, 3, 4, 5, 6]
    latest, head = read_latest(store, "nq"), newest(store, "nq")
    assert latest is not None and head is not None
    assert latest["number"] == 6
    assert read(store) == (store.get_object(head["exports"]["tevatron/train.jsonl"])).decode()


def test_the_loser_of_a_number_decides_anew_with_what_the_winner_wrote(store_url: str) -> None:
    store = Store.open(store_url)
    seen: list[list[int]] = []

    def make(known: list[Record]) -> Record | None:
        seen.append([int(record["number"]) for record in known])
        if not known:
            release(store, "the winner")
        return None if known else {"exports": {}}

    assert advance(store, "nq", make) is None
    assert seen == [[], [1]]
    assert numbers(store, "nq") == [1]


def test_the_copy_trainers_read_is_not_the_object_and_cannot_damage_it(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    key = release(store, "one")["exports"]["tevatron/train.jsonl"]
    publish(store, "nq")
    copy = folder_of(store) / "000001" / "tevatron" / "train.jsonl"
    assert not copy.samefile(tmp_path / key)
    assert copy.stat().st_mode & 0o222 == 0
    copy.chmod(0o644)
    copy.write_text("damaged")
    assert store.get_object(key) == b"one"


def test_a_damaged_object_is_not_published(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    release(store, "one")
    publish(store, "nq")
    key = release(store, "two")["exports"]["tevatron/train.jsonl"]
    (tmp_path / key).write_text("TWO")
    with pytest.raises(StoreError, match="damaged"):
        publish(store, "nq")
    assert read(store) == "one"


def test_the_symlink_is_no_object_of_the_store(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    release(store, "one")
    publish(store, "nq")
    assert (folder_of(store) / "current").is_symlink()
    assert all(store.read(key) is not None for key in store.list(""))


def test_a_latest_that_was_cut_short_is_written_again(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    release(store, "one")
    publish(store, "nq")
    store.replace("published/nq/latest.json", b'{"numb')
    publish(store, "nq")
    assert (read(store), shown(store)) == ("one", 1)


def test_a_record_that_was_cut_short_is_an_error_for_readers_and_is_written_again(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    release(store, "one")
    publish(store, "nq")
    for damage in (b'{"numb', b"[]", b"3"):
        store.replace("published/nq/000001/release.json", damage)
        with pytest.raises(StoreError, match=r"published/nq/000001/release\.json is damaged"):
            read_latest(store, "nq")
        publish(store, "nq")
        assert (read(store), shown(store)) == ("one", 1)


def test_pruning_keeps_the_newest_and_the_one_that_is_read(store_url: str) -> None:
    store = Store.open(store_url)
    for text in ("one", "two", "three", "four"):
        release(store, text)
        publish(store, "nq")
    release(store, "five")  # its promoter died: four is still read
    assert prune_published(store, "nq", 2) == ["published/nq/000001", "published/nq/000002", "published/nq/000003"]
    assert read(store) == "four"
    publish(store, "nq")
    assert prune_published(store, "nq", 1) == ["published/nq/000004"]
    assert read(store) == "five"
    assert numbers(store, "nq") == [1, 2, 3, 4, 5]
    assert {key.split("/")[2] for key in store.list("published/nq")} == {"000005", "latest.json"}


def test_what_holds_an_object_is_found_and_withdrawn(store_url: str) -> None:
    store = Store.open(store_url)
    first = release(store, "secret")
    publish(store, "nq")
    release(store, "clean")
    publish(store, "nq")
    digest = first["exports"]["tevatron/train.jsonl"].rsplit("/", 1)[-1]
    assert holding(store, [digest]) == ["published/nq/000001"]
    withdraw(store, ["published/nq/000001"])
    assert holding(store, [digest]) == []
    assert read(store) == "clean"
    withdraw(store, ["published/nq/000002"])
    assert read_latest(store, "nq") is None
    left = {key: json.loads(store.read(key) or b"") for key in store.list("published")}
    assert left == {
        f"published/nq/00000{number}/release.json": {"number": number, "withdrawn": True} for number in (1, 2)
    }


def test_a_model_is_published_where_the_release_says_so(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    model = {"config.json": store.put_object(b"weights", "")}
    release(store, "one", model=model, publish_model=True)
    release(store, "two", model=model, publish_model=False)
    publish(store, "nq")
    assert store.read("published/nq/000002/model/config.json") is None
    release(store, "one", model=model, publish_model=True)
    publish(store, "nq")
    assert store.read("published/nq/000003/model/config.json") == b"weights"


def test_a_rollback_leaves_all_between_and_a_return_takes_back_what_it_returns_to() -> None:
    def head(number: int, text: str) -> Record:
        return {"number": number, "exports": {"a": f"objects/{text}"}, "because": "promoted", "of": None}

    def back(known: list[Record], to: int) -> list[Record]:
        target = known[to - 1]
        left = {"because": ROLLED_BACK, "of": to, "left": passed_by(known, target)}
        return [*known, {**target, "number": len(known) + 1, **left}]

    known = [head(1, "A"), head(2, "B"), head(3, "C")]
    assert left_behind(known) == {}
    once = back(known, 1)
    assert left_behind(once) == {content_of(known[1]): 2, content_of(known[2]): 3}
    assert left_behind(back(once, 2)) == {content_of(known[2]): 3}
    assert left_behind([once[0], once[3]]) == left_behind(once)  # the garbage collector took those between


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", ".."])
def test_a_name_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    store = Store.open(str(tmp_path))
    with pytest.raises(StoreError):
        publish(store, name)


def head(number: int, text: str, of: int | None = None) -> Record:
    return {"number": number, "exports": {"a": f"objects/{text}"}, "because": "promoted", "of": of}


def test_a_rollback_passes_by_what_came_after_its_target_but_no_earlier_rollback() -> None:
    known = [head(1, "A"), head(2, "B"), head(3, "A", of=1), head(4, "C")]
    assert passed_by(known, known[0]) == {content_of(known[1]): 2, content_of(known[3]): 4}
    assert passed_by(known, known[3]) == {}


def test_a_rollback_is_followed_to_the_pointer_it_went_back_to() -> None:
    known = [head(1, "A"), head(2, "B"), head(3, "A", of=1)]
    assert [origin(known, record)["number"] for record in known] == [1, 2, 1]
    assert origin(known[1:], known[2])["number"] == 3  # the first is gone


def test_contents_are_equal_by_names_and_digests_whatever_the_suffix_or_the_order() -> None:
    one = {"exports": {"a": "objects/aa/aa.jsonl", "b": "objects/bb/bb"}}
    other = {"exports": {"b": "objects/bb/bb.txt", "a": "objects/aa/aa"}}
    assert content_of(one) == content_of(other)
    assert content_of(one) != content_of({"exports": {"a": "objects/bb/bb", "b": "objects/aa/aa"}})


def test_files_whose_objects_are_gone_are_listed_and_those_in_the_trash_are_not(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    model = {"config.json": store.put_object(b"model", "")}
    record = release(store, "one", model=model, publish_model=True)
    assert lost_files(store, record) == []
    export = record["exports"]["tevatron/train.jsonl"]
    store.move(export, f"trash/{export}")
    assert lost_files(store, record) == []
    store.delete(f"trash/{export}")
    store.delete(model["config.json"])
    assert lost_files(store, record) == ["model/config.json", "tevatron/train.jsonl"]
    assert lost_files(store, {**record, "publish_model": False}) == ["tevatron/train.jsonl"]


def test_a_release_with_a_file_of_the_name_that_reneg_writes_is_refused(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    advance(store, "nq", lambda known: {"exports": {"release.json": store.put_object(b"{}", "")}})
    with pytest.raises(StoreError, match=r"release 1 of nq has a file release\.json; Reneg writes a file of this name"):
        publish(store, "nq")


def test_the_last_release_is_never_pruned_and_files_beside_the_releases_are_left(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for text in ("one", "two"):
        release(store, text)
        publish(store, "nq")
    store.create("published/nq/notes/readme.txt", b"x")
    assert prune_published(store, "nq", 0) == ["published/nq/000001"]
    assert read(store) == "two"
    assert store.exists("published/nq/notes/readme.txt")


def test_pointers_and_what_readers_see_are_json_that_people_can_read(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    release(store, "one", at="morgens, größer")
    publish(store, "nq")
    pointer = store.read("releases/nq/HEAD-000001.json") or b""
    assert pointer.decode().splitlines()[:2] == ["{", ' "number": 1,']
    latest = (store.read("published/nq/latest.json") or b"").decode()
    assert latest.splitlines()[1] == ' "number": 1,'
    assert '"at": "morgens, größer"' in latest


def test_other_records_beside_the_pointers_are_no_pointers(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.create("releases/nq/HELD-000001.json", b"{}")
    store.create("releases/nq/PRE-HEAD-000002.json", b"{}")
    assert (numbers(store, "nq"), names(store)) == ([], [])
    release(store, "one")
    assert (numbers(store, "nq"), names(store)) == ([1], ["nq"])


def test_what_holds_an_object_is_found_only_while_it_is_published(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    digest = digest_of(release(store, "secret")["exports"]["tevatron/train.jsonl"])
    assert holding(store, [digest]) == []
    publish(store, "nq")
    assert holding(store, [digest]) == ["published/nq/000001"]
    assert holding(store, ["0" * 64]) == []
