"""The garbage collector on toy pipelines: what is unreached goes, in two passes; what anybody uses meanwhile stays."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from infra.stages.runner import Runner
from infra.storage.artifacts import Manifest, Table, commit, materialise, read_table, write_bundle, write_table
from infra.storage.gc import Collection, Roots, Snapshot, carry_out, empty_back, plan, put_back
from infra.storage.large_files import put_file
from infra.storage.store import Entry, Store, StoreError
from tests.flows.fakes import InProcess
from tests.infra.frozen import can_be_changed
from tests.infra.toy import ADD_UP, DOUBLE, NUMBERS, PRODUCE, ToyConfig

GRACE = 3600.0
LATER = 2 * GRACE


def pipeline(tmp_path: Path, url: str, factor: int) -> tuple[frozenset[str], dict[str, Any]]:
    """Run the toy pipeline; returns the keys of its manifests, and its outputs."""
    store = Store.open(url)
    run = Runner(store, InProcess(store, tmp_path / "scratch"))
    numbers = run(PRODUCE, ToyConfig())["numbers"]
    doubled = run(DOUBLE, ToyConfig(factor=factor), numbers=numbers)["doubled"]
    outputs = run(ADD_UP, ToyConfig(), doubled=doubled)
    return frozenset(manifest.path for stage in run.runs for manifest in stage.manifests), outputs


def collect(store: Store, roots: Roots, after: float) -> Collection:
    """One whole pass, at a time after now."""
    collection = plan(store, Snapshot.take(store), roots, GRACE, time.time() + after)
    carry_out(store, collection)
    return collection


def everything(store: Store, *folders: str) -> dict[str, bytes | None]:
    return {key: store.read(key) for folder in folders for key in store.list(folder)}


def test_what_nothing_kept_reaches_goes_to_the_trash_and_a_grace_later_for_good(tmp_path: Path, store_url: str) -> None:
    kept, outputs = pipeline(tmp_path, store_url, 1)
    store = Store(store_url)
    before = everything(store, "objects", "parts")
    pipeline(tmp_path, store_url, 3)
    gone = set(everything(store, "objects", "parts")) - set(before)
    first = collect(store, Roots(kept), LATER)
    assert set(first.move) == gone
    assert everything(store, "objects", "parts") == before
    assert {key.removeprefix("trash/") for key in store.list("trash")} == gone
    assert first.bytes_of(first.move) == sum(store.sizes("trash").values())
    again = collect(store, Roots(kept), GRACE / 2)  # less than a grace after the move
    assert (again.back, again.delete, again.move) == ((), (), ())
    last = collect(store, Roots(kept), LATER)
    assert {key.removeprefix("trash/") for key in last.delete} == gone
    assert store.list("trash") == []
    assert everything(store, "objects", "parts") == before
    assert (materialise(store, outputs["sum"], tmp_path / "out") / "folder" / "total.txt").read_text() == "384"
    assert pipeline(tmp_path, store_url, 1)[0] == kept


def test_what_is_young_is_spared_and_so_is_whatever_a_young_part_reads_and_wrote(
    tmp_path: Path, store_url: str
) -> None:
    pipeline(tmp_path, store_url, 1)
    store = Store(store_url)
    assert collect(store, Roots(), 0.0).move == ()
    manifests = store.list("parts")
    snapshot = Snapshot.take(store)
    youngest = manifests[0]
    assert youngest.startswith("parts/add_up")
    now = time.time() + LATER
    snapshot.listed[youngest] = Entry(1, now)
    collection = plan(store, snapshot, Roots(), GRACE, now)
    assert set(collection.move) >= set(manifests[1:])
    used = {p.object for ps in Manifest.from_json(store.read(youngest) or b"").tables.values() for p in ps}
    assert used and not used & set(collection.move)
    read = json.loads(store.read(youngest) or b"")["ingredients"]["inputs"]["doubled"]
    assert not [key for key in collection.move if key.rsplit("/", 1)[-1] in read]


def test_what_lies_in_the_trash_is_still_read_and_comes_back_when_it_is_reached(tmp_path: Path, store_url: str) -> None:
    kept, outputs = pipeline(tmp_path, store_url, 1)
    store = Store(store_url)
    before = everything(store, "objects", "parts")
    collect(store, Roots(), LATER)
    assert everything(store, "objects", "parts") == {}
    assert {key: store.read(key) for key in before} == before
    assert (materialise(store, outputs["sum"], tmp_path / "out") / "folder" / "total.txt").read_text() == "384"
    back = collect(store, Roots(kept), LATER)
    assert len(back.back) == len(before)
    assert everything(store, "objects", "parts") == before
    assert store.list("trash") == []


def part_of(store: Store, number: int, frame: pl.DataFrame) -> Manifest:
    piece = write_table(store, "numbers", frame, NUMBERS, 0)
    return commit(store, Manifest("toy", 1, 0, f"{number:032x}", 0, {}, {"numbers": (piece,)}, {}, {}))


def test_an_object_that_was_found_in_place_just_before_it_was_moved_is_not_lost(tmp_path: Path, store_url: str) -> None:
    frame = pl.DataFrame({"n": [1, 2, 3]})
    store = Store.open(store_url)
    old = write_table(store, "numbers", frame, NUMBERS, 0).object
    doomed = plan(store, Snapshot.take(store), Roots(), GRACE, time.time() + LATER)
    assert doomed.move == (old,)
    piece = write_table(store, "numbers", frame, NUMBERS, 0)  # a living part: finds it in place, writes nothing
    carry_out(store, doomed)
    assert (store.exists(old), store.read(old) is not None) == (False, True)
    living = commit(store, Manifest("toy", 1, 0, "a" * 32, 0, {}, {"numbers": (piece,)}, {}, {}))
    assert collect(store, Roots(frozenset({living.path})), LATER).back == (f"trash/{old}",)
    assert store.exists(old)
    assert store.list("trash") == []


def test_an_object_that_was_written_anew_while_it_lay_in_the_trash_stays(tmp_path: Path, store_url: str) -> None:
    store = Store.open(store_url)
    key = store.put_object(b"bytes", ".bin")
    collect(store, Roots(), LATER)
    assert store.put_object(b"bytes", ".bin") == key
    snapshot = Snapshot.take(store)
    now = time.time() + LATER
    snapshot.listed[key] = Entry(5, now)
    collection = plan(store, snapshot, Roots(), GRACE, now)
    carry_out(store, collection)
    assert (collection.delete, collection.move) == ((f"trash/{key}",), ())
    assert store.get_object(key) == b"bytes"


def test_a_bundle_stays_for_a_part_that_read_one_of_its_slices_and_goes_with_the_last(
    tmp_path: Path, store_url: str
) -> None:
    """A reader names the slice by the slice's own digest; who wrote the bundle may be gone."""
    store = Store.open(store_url)
    frames = [(0, pl.DataFrame({"n": [1]})), (1, pl.DataFrame({"n": [2]}))]
    pieces = write_bundle(store, "numbers", frames, NUMBERS)
    maker = commit(store, Manifest("scatter", 1, 0, "b" * 32, 0, {}, {"numbers": pieces}, {}, {}))
    read = {"inputs": {"numbers": [pieces[1].content]}}
    reader = commit(store, Manifest("reader", 1, 0, "c" * 32, 0, read, {}, {}, {}))
    assert collect(store, Roots(frozenset({reader.path})), LATER).move == (maker.path,)
    assert read_table(store, Table("numbers", pieces))["n"].to_list() == [1, 2]
    assert store.exists(pieces[0].object)
    further = commit(store, Manifest("further", 1, 0, "d" * 32, 0, read, {}, {}, {}))
    roots = Roots(frozenset({maker.path}), further=frozenset({"further"}))
    collection = collect(store, roots, LATER)
    assert collection.back == (f"trash/{maker.path}",)
    assert collection.move == (reader.path,)  # what `further` reads stays, and so does it
    assert store.exists(further.path)
    assert pieces[0].object in collect(store, Roots(), LATER).move


class Living:
    """Writes parts of few distinct tables, so that most are found in place, old and unreached; forgets most of them."""

    def __init__(self, store: Store, seconds: float) -> None:
        self.store, self.end = store, time.monotonic() + seconds
        self.named: dict[str, Manifest] = {}

    def write(self, seed: int) -> None:
        chance, number = random.Random(seed), seed * 10**6
        while time.monotonic() < self.end:
            number += 1
            manifest = part_of(self.store, number, pl.DataFrame({"n": [chance.randrange(25)]}))
            self.named[manifest.path] = manifest
            time.sleep(chance.random() * 0.1)
            self.store.get_object(manifest.tables["numbers"][0].object)
            if chance.random() < 0.9:
                del self.named[manifest.path]
            time.sleep(chance.random() * 0.2)

    def collect(self, _: int) -> None:
        while time.monotonic() < self.end:
            snapshot = Snapshot.take(self.store)
            roots = Roots(frozenset(self.named) & snapshot.manifests.keys())
            carry_out(self.store, plan(self.store, snapshot, roots, 0.6))


def test_collectors_and_living_parts_at_once_lose_nothing_that_is_named_within_a_grace(tmp_path: Path) -> None:
    living = Living(Store.open(str(tmp_path / "store")), 8)
    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(living.write, seed) for seed in range(4)]
        work += [pool.submit(living.collect, number) for number in range(2)]
    for done in work:
        done.result()
    assert len(living.named) > 3
    for manifest in living.named.values():
        assert living.store.read(manifest.path) == manifest.to_json()
        living.store.get_object(manifest.tables["numbers"][0].object)


class Killed(BaseException):
    """As if the process ended here."""


class Stumbling(Store):
    """Dies after so many moves and deletions."""

    left = 0

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def move(self, key: str, target: str) -> bool:
        self._step()
        return super().move(key, target)

    def delete(self, key: str) -> None:
        self._step()
        super().delete(key)


def test_a_collector_that_was_killed_leaves_no_part_without_its_objects(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    kept, _ = pipeline(tmp_path, url, 1)
    store = Store(url)
    before = everything(store, "objects", "parts")
    pipeline(tmp_path, url, 3)
    killed = 0
    for roots, moved_long_ago in ((Roots(kept), False), (Roots(), False), (Roots(kept), True), (Roots(kept), True)):
        while True:  # each collector gets two steps further, and the next one goes on
            stumbling = Stumbling(url)
            stumbling.left = 2
            snapshot = Snapshot.take(store)
            now = time.time() + LATER
            for key in snapshot.listed:
                if key.startswith("trash/") and not moved_long_ago:
                    snapshot.listed[key] = Entry(1, now)
            try:
                carry_out(stumbling, plan(store, snapshot, roots, GRACE, now))
                break
            except Killed:
                killed += 1
            for key in store.list("parts"):
                for pieces in Manifest.from_json(store.read(key) or b"").tables.values():
                    assert all(store.get_object(piece.object) for piece in pieces)
    assert killed > 10
    assert everything(store, "objects", "parts", "trash") == before


def test_records_are_roots_whatever_wrote_them_and_a_damaged_one_stops_everything(
    tmp_path: Path, store_url: str
) -> None:
    store = Store.open(store_url)
    objects = [store.put_object(f"{n}".encode(), "") for n in range(4)]
    store.create("flow-runs/x.json", json.dumps({"files": {"a": objects[0]}}).encode())
    store.create("something/new.json", json.dumps([{"deep": [objects[1]]}]).encode())
    store.create("published/x/000001/release.json", json.dumps({"exports": {"a": objects[2]}}).encode())
    store.create("labels/x.parquet", b"no JSON")
    collection = plan(store, Snapshot.take(store), Roots(), GRACE, time.time() + LATER)
    assert set(collection.move) == {objects[2], objects[3]}
    store.create("history/x/1.json", b'{"cut')
    with pytest.raises(StoreError, match=r"history/x/1\.json is damaged .* restore or delete it"):
        plan(store, Snapshot.take(store), Roots(), GRACE, time.time() + LATER)
    assert store.list("objects") == sorted(objects)


@pytest.mark.parametrize("kind", ["models", "weights"])
def test_a_models_list_goes_with_its_files_and_stays_while_it_is_in_use(tmp_path: Path, kind: str) -> None:
    store = Store.open(str(tmp_path / "store"))
    names = ["a" * 64, "b" * 64]
    files = [store.put_object(name.encode(), "") for name in names]
    for name, key in zip(names, files, strict=True):
        store.create(f"{kind}/{name}.json", json.dumps({"model.safetensors": key}).encode())
    collection = plan(store, Snapshot.take(store), Roots(models=frozenset({names[0]})), GRACE, time.time() + LATER)
    assert collection.move == (f"{kind}/{names[1]}.json", files[1])


def test_work_on_kept_parts_stays_as_long_as_all_that_it_read(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    kept, _ = pipeline(tmp_path, url, 1)
    pipeline(tmp_path, url, 3)
    store = Store(url)
    upstream = frozenset(key for key in kept if not key.startswith("parts/add_up"))
    roots = Roots(upstream, further=frozenset({"add_up"}))
    collection = plan(store, Snapshot.take(store), roots, GRACE, time.time() + LATER)
    parts = {key for key in collection.move if key.startswith("parts/")}
    assert {key.split("/")[1] for key in parts} == {"double", "add_up"}
    assert parts == set(store.list("parts")) - kept


def test_kept_parts_whose_objects_are_nowhere_are_named(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    kept, outputs = pipeline(tmp_path, url, 1)
    store = Store(url)
    store.delete(outputs["total"].pieces[0].object)
    collection = plan(store, Snapshot.take(store), Roots(kept), GRACE, time.time() + LATER)
    assert collection.missing == (outputs["total"].pieces[0].object,)
    with pytest.raises(StoreError, match=r"parts/add_up/none\.json is kept but cannot be found"):
        plan(store, Snapshot.take(store), Roots(frozenset({"parts/add_up/none.json"})), GRACE)


def test_a_snapshot_is_walked_without_writing(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    pipeline(tmp_path, url, 1)
    store = Store(url)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    snapshot = Snapshot.take(store)
    run = Runner(snapshot)
    numbers = run(PRODUCE, ToyConfig())["numbers"]
    kept = run.keep_table("empty", pl.DataFrame({"n": [7]}), NUMBERS)
    assert run.read(kept)["n"].to_list() == [7]
    assert run.read(numbers).height == 12
    with pytest.raises(StoreError, match="only looked at"):
        snapshot.create("curations/x/curation.json", b"{}")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_everything_comes_back_for_a_purge(tmp_path: Path, store_url: str) -> None:
    pipeline(tmp_path, store_url, 1)
    store = Store(store_url)
    store.create("curations/x-000001/curation.json", b"{}")
    before = everything(store, "objects", "parts", "curations")
    collect(store, Roots(records=("curations/x-000001/curation.json",)), LATER)
    assert everything(store, "objects", "parts", "curations") == {}
    assert empty_back(store) == len(before)
    assert everything(store, "objects", "parts", "curations", "trash") == before
    put_back(store, "trash/objects/ab/none")  # gone meanwhile: no error


def test_records_and_manifests_leave_before_what_they_name_and_come_back_after_it(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    object_, part = store.put_object(b"1", ""), "parts/toy/abc-000.json"
    weights, model = f"weights/{'b' * 64}.json", f"models/{'a' * 64}.json"
    record = "curations/nq-000001/curation.json"
    store.create(part, json.dumps({"names": object_}).encode())
    for key in (weights, model, record):
        store.create(key, b"{}")
    first = collect(store, Roots(records=(record,)), LATER)
    assert first.move == (record, part, weights, model, object_)
    assert first.delete == ()
    store.delete(f"trash/{part}")
    store.create(f"trash/{part}", Manifest("toy", 1, 0, "abc", 0, {}, {}, {}, {}).to_json())
    models = frozenset({"a" * 64, "b" * 64, object_.rpartition("/")[2]})
    kept = Roots(manifests=frozenset({part}), back=frozenset({record}), models=models)
    second = plan(store, Snapshot.take(store), kept, GRACE, time.time() + LATER)
    assert second.back == tuple(f"trash/{key}" for key in (object_, model, weights, part, record))
    last = plan(store, Snapshot.take(store), Roots(), GRACE, time.time() + LATER)
    assert last.delete == tuple(f"trash/{key}" for key in (record, part, weights, model, object_))


def test_a_snapshot_reads_records_from_the_trash_as_well(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    store.create("curations/a/curation.json", b"in place")
    store.create("trash/curations/a/curation.json", b"an older one")
    store.create("trash/curations/b/curation.json", b"in the trash")
    snapshot = Snapshot.take(store)
    assert snapshot.read("curations/a/curation.json") == b"in place"
    assert snapshot.read("curations/b/curation.json") == b"in the trash"
    assert snapshot.read("curations/c/curation.json") is None
    store.create("trash/curations/c/curation.json", b"written after the listing")
    assert snapshot.read("curations/c/curation.json") is None


def test_old_probes_of_writers_that_died_are_deleted(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    store.create("probe/left", b"1")
    assert plan(store, Snapshot.take(store), Roots(), GRACE, time.time()).delete == ()
    assert plan(store, Snapshot.take(store), Roots(), GRACE, time.time() + LATER).delete == ("probe/left",)


def test_checkpoints_go_when_their_part_is_finished_or_when_nothing_was_written_for_a_week(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    kept, _ = pipeline(tmp_path, store.url, 1)
    finished = sorted(kept)[0].removeprefix("parts/").removesuffix(".json")
    for part in (finished, "train/5f3c-000"):
        store.replace(f"checkpoints/{part}/000000010/0000/weights", b"no text, and no record")
        store.replace(f"checkpoints/{part}/000000010/0000.json", b"{}")

    def dead(after: float) -> set[str]:
        collection = plan(store, Snapshot.take(store), Roots(kept), GRACE, time.time() + after)
        assert not [key for key in collection.move if key.startswith("checkpoints/")]
        return {"/".join(key.split("/")[1:3]) for key in collection.delete}

    assert dead(0.0) == set()
    assert dead(LATER) == {finished}
    assert dead(8 * 86400.0) == {finished, "train/5f3c-000"}


def test_what_was_decided_cannot_be_changed() -> None:
    assert not can_be_changed(Roots())
    assert not can_be_changed(Collection((), (), (), (), {}))
    assert "1234567" not in repr(Collection((), (), (), (), {"a": 1234567}))  # thousands of sizes would hide the rest


def test_a_file_cannot_be_stored_through_a_snapshot(tmp_path: Path) -> None:
    snapshot = Snapshot.take(Store.open(str(tmp_path / "store")))
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(StoreError, match="file would be stored while the store is only looked at"):
        put_file(snapshot, tmp_path / "file")
    assert Store(snapshot.url).list("objects") == []


def test_a_snapshot_has_what_is_in_the_store_and_what_a_walk_made(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    there = store.put_object(b"there", "")
    snapshot = Snapshot.take(store)
    made = snapshot.put_object(b"made by the walk", ".txt")
    assert [snapshot.exists(key) for key in (there, made, "objects/00/none")] == [True, True, False]
    assert (snapshot.read(made), store.exists(made)) == (b"made by the walk", False)


def test_origins_are_never_collected_and_a_damaged_one_stops_nothing(tmp_path: Path, store_url: str) -> None:
    kept, _ = pipeline(tmp_path, store_url, 1)
    store = Store(store_url)
    (origin,) = store.list("origins")
    store.create("origins/ffffffffffffffff.json", b"{")
    collection = collect(store, Roots(kept), LATER)
    assert not [key for key in (*collection.move, *collection.delete) if key.startswith("origins/")]
    collect(store, Roots(), LATER)
    assert store.list("parts") == []
    assert origin in store.list("origins")
