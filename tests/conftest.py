"""Fixtures shared by all tests: order (fast first), groups that run side by side, real S3 servers on loopback."""

import gc
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.prefect_api.server import free_port as any_free_port
from infra.settings import bypass_proxies, silence_telemetry
from tests.compiling import compile_tests

silence_telemetry()
bypass_proxies()  # the servers of the tests are on this machine
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before Ray is imported: everything stays on 127.0.0.1
# Before torch and numpy are imported, also by the processes that the tests start: threads that wait for each other
# sleep. By default they spin, and where several processes share the cores that took most of the processors' time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Of the nodes that tests start. With Ray's own 15 their workers starve as long as another group of tests computes.
os.environ.setdefault("RAY_worker_niceness", "0")
ROOT = Path(__file__).parents[1]
S3_BIN = ROOT / ".venv-s3" / "bin"
RAY_EXTRAS = S3_BIN.parent / "ray"  # what `ray[default]` adds: without it a node exports no metrics
ACCESS_KEY, SECRET_KEY = "renegtest", "renegtestsecret"
_PROCESSES = 16  # more test processes than anybody starts
FIRST = "gw0"  # xdist's name of the first of them


def pytest_configure(config: pytest.Config) -> None:
    """Give all test processes one cache of models (tiny ones take 10 s each to build) and one token of Ray's.

    RENEG_TEST_CACHE names a cache that lasts. Without a token the first cluster writes one to the user's home, and two
    clusters that start at once would each write their own.
    """
    folder = Path(tempfile.mkdtemp(prefix="reneg-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ.setdefault("RENEG_TEST_CACHE", str(folder / "cache"))  # the processes of xdist find it set
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        token = folder / "ray-token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    if getattr(config.option, "numprocesses", None) and config.option.assertmode == "rewrite":
        compile_tests(sorted((ROOT / "tests").rglob("test_*.py")), config)


# The files that take longest. The first of the processes takes them from the start, one after another: side by side
# they would starve each other, as each has servers, nodes and engines; begun late, one would run alone at the end.
LONGEST = (
    "system/test_operations", "system/test_chaos", "system/test_kill_judge", "system/test_demo_small",
    "system/test_secrets",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast tests first: a failure shows within seconds."""
    items.sort(key=lambda item: order_of(item.path, is_slow=item.get_closest_marker("slow") is not None))


def pytest_collection_finish() -> None:
    """Let the collector of cycles pass over what is there now, for good, and look less often for more.

    A test process holds millions of objects of its imports, and the looking took 6% of the processors' time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def order_of(path: Path, *, is_slow: bool) -> tuple[bool, bool, int]:
    """Return the place of a test: the fast ones, the slow ones, the rest of the system's, those that take longest."""
    tests = ROOT / "tests"
    file = path.relative_to(tests if path.is_relative_to(tests) else ROOT).with_suffix("").as_posix()
    place = LONGEST.index(file) if is_slow and file in LONGEST else -1
    return is_slow, is_slow and file.startswith("system/"), place


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process (`pytest -n 2`) one group after another, in their order and no earlier than it needs it.

    xdist's own schedulers know no order, and give a further group where two tests are left: of the system's tests,
    which are few and long, one process would then hold most while another is idle.
    """
    from xdist.scheduler import LoadScopeScheduling

    class InOrder(LoadScopeScheduling):
        groups: Mapping[str, str] = {}

        def _split_scope(self, nodeid: str) -> str:
            if not self.groups:
                self.groups = groups_of(next(iter(self.registered_collections.values())))
            return self.groups[nodeid]

        def _assign_work_unit(self, node: Any) -> None:
            if node.gateway.id == FIRST and len(self.nodes) > 1:
                longest = next((group for group in self.workqueue if takes_long(group)), None)
                if longest is not None:
                    self.workqueue.move_to_end(longest, last=False)
            super()._assign_work_unit(node)

        def _reschedule(self, node: Any) -> None:
            if not self.workqueue or self._pending_of(self.assigned_work[node]) <= 1:
                super()._reschedule(node)

    config.option.loadscopereorder = False
    return InOrder(config, log)


def pytest_sessionstart() -> None:
    """Let the process of the longest groups go before the others: it has most to do, one thing after another."""
    if os.environ.get("PYTEST_XDIST_WORKER", FIRST) != FIRST:
        os.nice(5)


def takes_long(group: str) -> bool:
    """Tell whether a group is one of the longest."""
    return group.partition(" ")[2] in {f"tests/{file}.py" for file in LONGEST}


def groups_of(tests: Sequence[str]) -> dict[str, str]:
    """Name each test's group, which runs in one process: the tests of a file that follow each other in the order.

    So a file's fast tests are a group, and its slow ones another. Those of a folder with a `conftest.py` stay together:
    they share its servers.
    """
    groups: dict[str, str] = {}
    number, last = 0, ""
    for test in tests:
        file = test.partition("::")[0]
        folder = Path(file).parent
        shared = folder != Path("tests") and (ROOT / folder / "conftest.py").exists()
        place = folder.as_posix() if shared else file
        number, last = number + (place != last), place
        groups[test] = f"{number} {place}"
    return groups


def free_port() -> int:
    """Draw a free port that no other test process draws: each process has every 16th port for itself."""
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
    while (port := any_free_port()) % _PROCESSES != own:
        pass
    return port


@pytest.fixture(autouse=True)
def own_random_numbers() -> None:
    """Forget the seed that an earlier test set: two processes with the same seed would draw the same ports."""
    random.seed()


@pytest.fixture(scope="module", autouse=True)
def own_events() -> Iterator[None]:
    """End Prefect's background workers with each module: they would go on telling its server, by then dead, of all."""
    yield
    for module, name in (("prefect.events.worker", "EventsWorker"), ("prefect.logging.handlers", "APILogWorker")):
        if module in sys.modules:
            getattr(sys.modules[module], name).drain_all(timeout=5)


def require_binary(name: str) -> Path:
    """Skip where the S3 test servers are not installed; fail in CI, where they must be."""
    return require(S3_BIN / name)


def require(path: Path) -> Path:
    """Skip where something that `make test` installs is not there; fail in CI."""
    if not path.exists():
        message = f"{path} is missing: run `make test`, which installs it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return path


def wait_for_http(url: str, process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"{process.args} ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return  # it answers, if only with a refusal
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"{url} did not answer within {seconds} s")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def weed_command(folder: Path, port: int, *, is_known: bool = True) -> list[str]:
    """Give the command that serves S3 from a folder, on ports of its own: data in `data`, one bucket, `reneg`.

    is_known: the tests' account is configured; without, the server takes the one of its environment.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    command = [
        str(require_binary("weed")), "-logtostderr=true", "mini", f"-dir={folder / 'data'}", "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1", "-master.telemetry=false", "-webdav=false", "-admin.ui=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.port={port}", f"-s3.port.grpc={free_port()}", "-bucket=reneg",
    ]  # fmt: skip
    for name in ("master", "volume", "filer", "admin"):
        command += [f"-{name}.port={free_port()}", f"-{name}.port.grpc={free_port()}"]
    if is_known:
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        command.append(f"-s3.config={folder / 's3.json'}")
    return command


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real, authenticated S3 server on loopback; yields its endpoint."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    port = free_port()
    command = weed_command(folder, port)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    wait_for_http(f"http://127.0.0.1:{port}", process)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second S3 server of other authors, without authentication; yields its endpoint."""
    server = require_binary("moto_server")
    port = free_port()
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log:
        process = subprocess.Popen([str(server), "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        wait_for_http(f"http://127.0.0.1:{port}", process)
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}/reneg", method="PUT"), timeout=30
        ).close()
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def s3_variables(endpoint: str) -> dict[str, str]:
    """Name what points the usual S3 clients at a server of the tests."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Point the S3 client at an endpoint, through the environment as users do."""

    def use(endpoint: str) -> None:
        for name, value in s3_variables(endpoint).items():
            monkeypatch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()

    return use


@pytest.fixture(params=["directory", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, s3_environment: Callable[[str], None]) -> str:
    """A fresh store, once in a local directory and once in a bucket of a real S3 server."""
    if request.param == "directory":
        return str(tmp_path / "store")
    s3_environment(request.getfixturevalue("seaweedfs"))
    return f"s3://reneg/{uuid.uuid4().hex}"
