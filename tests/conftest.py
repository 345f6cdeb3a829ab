"""Fixtures shared by all tests: order (fast first), a real S3 server on loopback, isolated homes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.prefect_api.server import free_port
from infra.settings import silence_telemetry

silence_telemetry()
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before Ray is imported: everything stays on 127.0.0.1
ROOT = Path(__file__).parents[1]
S3_BIN = ROOT / ".venv-s3" / "bin"
RAY_EXTRAS = S3_BIN.parent / "ray"  # what `ray[default]` adds: without it a node exports no metrics
ACCESS_KEY, SECRET_KEY = "renegtest", "renegtestsecret"


def pytest_configure(config: pytest.Config) -> None:
    """Give all tests one cache of models (tiny ones take 10 s each to build); RENEG_TEST_CACHE names a lasting one."""
    if "RENEG_TEST_CACHE" not in os.environ:
        folder = tempfile.mkdtemp(prefix="reneg-test-cache-")
        os.environ["RENEG_TEST_CACHE"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast tests first: a failure shows within seconds."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is not None, "system" in str(item.path)))


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


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real, authenticated S3 server on loopback; yields its endpoint."""
    weed = require_binary("weed")
    folder = tmp_path_factory.mktemp("seaweedfs")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    port = free_port()
    command = [
        str(weed), "-logtostderr=true", "mini", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        f"-s3.config={folder / 's3.json'}", f"-s3.port={port}", "-bucket=reneg",
    ]  # fmt: skip
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
