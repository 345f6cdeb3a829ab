"""Origins in the store: written once, never half, and read only if their bytes are what their name says."""

import signal
import subprocess
import sys

from infra.provenance import Origin
from infra.stages.origins import keep, read
from infra.storage.store import Store
from tests.conftest import ROOT

ORIGIN = Origin({"vllm": "0.31.0"}, {"device": "cpu", "name": "AMD EPYC"})


def test_an_origin_is_kept_once_and_read_by_its_digest(store_url: str) -> None:
    store = Store.open(store_url)
    assert read(store, ORIGIN.digest) is None
    assert keep(store, ORIGIN) == keep(store, ORIGIN) == ORIGIN.digest
    assert store.list("origins") == [f"origins/{ORIGIN.digest}.json"]
    assert read(store, ORIGIN.digest) == ORIGIN
    assert read(store, "") is None


def test_damaged_bytes_are_no_origin_and_are_repaired_when_it_is_kept_again(store_url: str) -> None:
    store = Store.open(store_url)
    keep(store, ORIGIN)
    for data in (b"{", Origin({"vllm": "0.32.0"}).to_json()):
        store.repair(f"origins/{ORIGIN.digest}.json", data)
        assert read(store, ORIGIN.digest) is None
        keep(store, ORIGIN)
        assert read(store, ORIGIN.digest) == ORIGIN
    assert len(store.list("origins")) == 1


def test_writers_that_are_killed_leave_whole_origins_only(store_url: str) -> None:
    store = Store.open(store_url)
    script = (
        "import sys\n"
        "from infra.provenance import Origin\n"
        "from infra.stages.origins import keep\n"
        "from infra.storage.store import Store\n"
        "for n in range(100_000):\n"
        "    print(keep(Store(sys.argv[1]), Origin({'vllm': str(n)})), flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, store_url], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for n, digest in enumerate(told):
        assert read(store, digest) == Origin({"vllm": str(n)})
    kept = [key.rpartition("/")[2].removesuffix(".json") for key in store.list("origins")]
    assert None not in [read(store, digest) for digest in kept]
