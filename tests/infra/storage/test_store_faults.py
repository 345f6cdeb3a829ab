"""The store behind a network that fails: a proxy that spoils requests, before a real S3 server."""

import hashlib
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from infra.ledger.ledger import Ledger
from infra.stages.runner import Runner
from infra.storage.artifacts import Manifest, Piece, Table, commit, materialise, read_manifest, read_table, write_table
from infra.storage.store import Store, StoreError
from tests.flows.fakes import InProcess
from tests.infra.faulty import KINDS, FaultyProxy, faulty
from tests.infra.toy import ADD_UP, DOUBLE, NUMBERS, PRODUCE, ToyConfig

pytestmark = pytest.mark.slow
FAULTS = 30  # of a run with faults at random


@pytest.fixture
def proxy(seaweedfs: str, s3_environment: Callable[[str], None]) -> Iterator[FaultyProxy]:
    """A proxy that spoils nothing yet, and to which the S3 client is pointed."""
    with faulty(seaweedfs) as running:
        s3_environment(running.url)
        yield running


@pytest.fixture
def store(proxy: FaultyProxy) -> Store:
    return Store.open(f"s3://reneg/{uuid.uuid4().hex}")


WRITES = ("500", "503", "slow", "reset before", "reset after", "cut upload")
READS = ("500", "503", "slow", "reset before", "reset after", "cut answer")


@pytest.mark.parametrize("kind", WRITES)
def test_a_write_that_was_disturbed_is_whole_and_known_as_our_own(proxy: FaultyProxy, store: Store, kind: str) -> None:
    for _ in range(3):  # the HTTP library, the client and the store each repeat
        proxy.plan.once(kind, "PUT", "HEAD-000001")
    data = bytes(range(256)) * 40
    assert store.create("releases/x/HEAD-000001.json", data) is True
    assert store.create("releases/x/HEAD-000001.json", data) is False
    assert store.read("releases/x/HEAD-000001.json") == data
    assert proxy.plan.injected[kind] == (2 if kind == "slow" else 3)


def test_a_write_that_lost_the_race_is_not_taken_for_our_own_though_its_connection_broke(
    proxy: FaultyProxy, store: Store
) -> None:
    assert store.create("releases/x/HEAD-000001.json", b"same")
    proxy.plan.once("reset after", "PUT", "HEAD-000001")
    assert store.create("releases/x/HEAD-000001.json", b"same") is False


@pytest.mark.parametrize("kind", READS)
def test_a_read_that_was_disturbed_comes_whole(proxy: FaultyProxy, store: Store, kind: str) -> None:
    record = json.dumps({"numbers": list(range(3000))}).encode()
    store.create("curations/x/curation.json", record)
    key = store.put_object(record, ".json")
    for _ in range(2):
        proxy.plan.once(kind, "GET", "curation.json")
        proxy.plan.once(kind, "GET", key[-20:])
    assert store.read_json("curations/x/curation.json") == json.loads(record)
    assert store.read("curations/x/curation.json", last=7) == record[-7:]
    assert store.get_object(key) == record
    assert proxy.plan.injected[kind] == (3 if kind == "slow" else 4)


@pytest.mark.parametrize("kind", ["500", "503", "slow", "reset before", "reset after", "cut answer"])
def test_a_listing_that_was_disturbed_is_complete(proxy: FaultyProxy, store: Store, kind: str) -> None:
    keys = [f"parts/judge/{n:04d}.json" for n in range(30)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.create(key, b"{}"), keys))
    for _ in range(2):
        proxy.plan.once(kind, "GET", "list-type=2")
    assert store.list("parts/judge") == keys


@pytest.mark.parametrize("kind", ["500", "503", "slow", "reset before", "reset after"])
def test_removing_and_moving_are_done_though_disturbed(proxy: FaultyProxy, store: Store, kind: str) -> None:
    for name in ("one", "two"):
        store.create(f"parts/x/{name}", name.encode())
    proxy.plan.once(kind, "DELETE", "one")
    proxy.plan.once(kind, "PUT", "trash")
    proxy.plan.once(kind, "DELETE", "two")
    store.delete("parts/x/one")
    store.move("parts/x/two", "trash/parts/x/two")
    assert store.list("parts") == []
    assert store.read("trash/parts/x/two") == b"two"


def test_a_copy_that_failed_under_a_status_that_says_yes_is_done_again(proxy: FaultyProxy, store: Store) -> None:
    store.create("parts/x/one", b"one")
    proxy.plan.once("error in 200", "PUT", "trash")
    assert store.move("parts/x/one", "trash/parts/x/one")
    assert proxy.plan.injected["error in 200"] == 1
    assert (store.list("parts"), store.read("trash/parts/x/one")) == ([], b"one")


@pytest.mark.parametrize("kind", ["reset after", "error in 200"])
def test_an_upload_in_pieces_is_known_as_our_own_though_its_end_was_disturbed(
    proxy: FaultyProxy, store: Store, kind: str, tmp_path: Path
) -> None:
    data = random.Random(0).randbytes(101 * 2**20)
    proxy.plan.once(kind, "POST", "uploadId=")
    key = store.put_object(data, ".bin")
    assert proxy.plan.injected[kind] == 1
    assert hashlib.sha256(store.get_object(key)).digest() == hashlib.sha256(data).digest()
    store.create("plain", data[:1])
    proxy.plan.once(kind, "POST", "uploadId=")
    assert store.create("parts/large", data) is True
    assert store.create("parts/large", data) is False


def test_a_server_that_stays_ill_is_an_error_with_its_remedy_after_seconds(proxy: FaultyProxy, store: Store) -> None:
    proxy.plan.kinds, proxy.plan.rate = ("503",), 1.0
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"SlowDown|injected") as caught:
        store.create("parts/x", b"x")
    assert 5 < time.monotonic() - started < 60
    assert "tried for 10 s, nothing half-written was kept. See the server's log" in str(caught.value)
    proxy.plan.rate = 0.0
    assert store.read("parts/x") is None


def manifest(number: int, piece: Piece) -> Manifest:
    return Manifest("toy", 1, number, f"{number:032x}", 0, {}, {"numbers": (piece,)}, {}, {"seconds": 0.0})


class Model:
    """What must be in the store, kept beside it; each operation either did all of it or raised a StoreError."""

    def __init__(self, store: Store, random_: random.Random) -> None:
        self.store, self.random = store, random_
        self.created: dict[str, bytes] = {}
        self.unsure: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.errors: list[StoreError] = []

    def step(self) -> None:
        operation = self.random.choice([self.create, self.put, self.get, self.list, self.delete, self.part])
        try:
            operation()
        except StoreError as error:
            self.errors.append(error)

    def create(self) -> None:
        key, data = (
            f"releases/n/HEAD-{self.random.randrange(40):06d}",
            self.random.randbytes(self.random.randrange(9999)),
        )
        self.unsure[key] = data
        wrote = self.store.create(key, data)
        if key in self.created:
            assert not wrote
        elif wrote:
            self.created[key] = data
        else:  # an earlier attempt of ours that was told as failed, and whose bytes we no longer know
            found = self.store.read(key)
            assert found is not None
            self.created[key] = found

    def put(self) -> None:
        data = self.random.randbytes(self.random.randrange(1, 99999))
        self.objects[self.store.put_object(data, ".bin")] = data

    def get(self) -> None:
        for known, read in ((self.objects, self.store.get_object), (self.created, self.store.read)):
            if known:
                key = self.random.choice(sorted(known))
                assert read(key) == known[key]

    def list(self) -> None:
        listed = set(self.store.list("releases/n"))
        assert set(self.created) <= listed <= set(self.created) | set(self.unsure)

    def delete(self) -> None:
        if self.created:
            key = self.random.choice(sorted(self.created))
            data = self.created.pop(key)
            self.unsure[key] = data
            self.store.delete(key)
            assert self.store.read(key) is None

    def part(self) -> None:
        number = self.random.randrange(10**6)
        frame = pl.DataFrame({"n": [number, number + 10**6]})
        piece = write_table(self.store, "numbers", frame, NUMBERS, 0)
        commit(self.store, manifest(number, piece))
        back = read_manifest(self.store, "toy", f"{number:032x}", 0)
        assert read_table(self.store, Table("numbers", back.tables["numbers"])).equals(frame)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_network_does_nothing_is_half_and_nothing_is_lost(
    proxy: FaultyProxy, store: Store, seed: int
) -> None:
    proxy.plan.seed, proxy.plan.rate = seed, 0.2
    model = Model(store, random.Random(seed))
    while sum(proxy.plan.injected.values()) < FAULTS:
        model.step()
    proxy.plan.rate = 0.0
    assert not [error for error in model.errors if "then run again" not in str(error)], model.errors
    for key, data in model.created.items():
        assert store.read(key) == data
    for key, data in model.objects.items():
        assert store.get_object(key) == data
    for key in store.list("objects"):  # also those of operations that were told as failed: whole or not there
        store.get_object(key)
    for key in store.list("parts"):
        data = store.read(key)
        assert data is not None
        for pieces in Manifest.from_json(data).tables.values():
            assert all(store.get_object(piece.object) for piece in pieces)


def test_the_ledger_keeps_what_it_said_it_keeps_behind_a_network_that_fails(proxy: FaultyProxy, store: Store) -> None:
    proxy.plan.rate = 0.15
    rows = {f"entry-{n}": (f"{n:032x}"[::-1], f"payload {n}") for n in range(100)}
    items = sorted(rows.items())

    def write(part: int) -> None:
        with Ledger(store) as ledger:
            for start in range(part, len(items), 20):
                ledger.remember(
                    "judge", [(k, [subject], payload) for k, (subject, payload) in items[start : start + 2]]
                )

    def compact() -> None:
        for _ in range(3):
            Ledger(store).compact("judge", min_segments=2)

    threads = [threading.Thread(target=write, args=(part,)) for part in range(0, 20, 2)]
    threads.append(threading.Thread(target=compact))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Ledger(store).compact("judge", min_segments=1)
    ledger = Ledger(store)
    assert ledger.recall("judge", {k: s for k, (s, _) in rows.items()}) == {k: p for k, (_, p) in rows.items()}
    proxy.plan.rate = 0.0
    assert ledger.recall("judge", {k: s for k, (s, _) in rows.items()}) == {k: p for k, (_, p) in rows.items()}
    assert ledger.damaged == set()


class Patient(InProcess):
    """Computes a part again when the store failed it, as the tasks of the real executor do."""

    def run_stage(self, name: str, specs: Any, finished: Any) -> Any:
        done = dict(finished)
        for spec in specs:
            for attempt in range(5):
                try:
                    done |= super().run_stage(name, [spec], {n: m for n, m in done.items() if n == spec.number})
                    break
                except StoreError:
                    assert attempt < 4
        return done


@pytest.mark.parametrize("seed", range(3))
def test_a_pipeline_ends_with_the_same_bytes_behind_a_network_that_fails(
    proxy: FaultyProxy, tmp_path: Path, seed: int
) -> None:
    def final(url: str) -> tuple[list[str], bytes]:
        store = Store.open(url)
        executor = Patient(store, tmp_path / uuid.uuid4().hex)
        run = Runner(store, executor)
        doubled = run(DOUBLE, ToyConfig(), numbers=run(PRODUCE, ToyConfig())["numbers"])["doubled"]
        outputs = run(ADD_UP, ToyConfig(), doubled=doubled)
        total = materialise(store, outputs["sum"], tmp_path / uuid.uuid4().hex) / "folder" / "total.txt"
        return [piece.object for piece in outputs["total"].pieces], total.read_bytes()

    undisturbed = final(str(tmp_path / "store"))
    proxy.plan.seed, proxy.plan.rate = seed, 0.25
    assert final(f"s3://reneg/{uuid.uuid4().hex}") == undisturbed
    assert sum(proxy.plan.injected.values()) > 5


def test_every_kind_of_fault_is_injected_somewhere_above() -> None:
    assert {*WRITES, *READS, "error in 200"} == set(KINDS)
