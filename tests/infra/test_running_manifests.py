"""Health checks, probes and settings of compose.yaml and the manifests, run against the real servers on loopback.

Those of Ray and of `reneg serve` are in tests/infra/cluster/test_with_ray.py.
"""

import base64
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port, stop, wait_for_http
from tests.infra.test_containers import BIN, services
from tests.infra.test_kubernetes import of_kind

pytestmark = pytest.mark.slow
ACCOUNT = "reneg:a-long-random-value"


def environment_of(service: str) -> dict[str, str]:
    """Give a service's variables, with our account for each secret and without its database, which is PostgreSQL."""
    given = services()[service]["environment"]
    return {
        name: ACCOUNT if str(value).startswith("${") else str(value)
        for name, value in given.items()
        if "DATABASE" not in name
    }


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Prefect, started as compose.yaml starts it, but on loopback and on SQLite; yields its port."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    variables = kept | environment_of("prefect") | {"PREFECT_HOME": str(home)}
    variables["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = variables["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].replace(
        "4200", str(port)
    )
    command = [word.replace("0.0.0.0", "127.0.0.1") for word in services()["prefect"]["command"]]
    command = [str(BIN / command[0]), *(str(port) if word == "4200" else word for word in command[1:])]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    try:
        wait_for_http(f"http://127.0.0.1:{port}/api/health", process, 180)
        yield port
    finally:
        stop(process)


def run_check(test: Sequence[str], ports: Mapping[int, int], proxy: str = "") -> int:
    """Run a health check of compose.yaml as Docker does, at other ports; returns its exit code."""
    kind, *command = test
    assert kind in ("CMD", "CMD-SHELL")
    changed = [re.sub(r"\b(4200|8333)\b", lambda p: str(ports[int(p[1])]), word) for word in command]
    if kind == "CMD-SHELL":
        changed = ["/bin/sh", "-c", *changed]
    elif changed[0] == "python":
        changed[0] = sys.executable
    variables = {"PATH": os.environ["PATH"]} | ({"http_proxy": proxy} if proxy else {})
    return subprocess.run(changed, env=variables, capture_output=True, timeout=60, check=False).returncode


def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    """Send a request without a proxy; returns status, headers and body."""
    request = urllib.request.Request(
        url, method=method, headers={name.replace("_", "-"): value for name, value in headers.items()},
        data=b"{}" if method == "POST" else None,
    )  # fmt: skip
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_the_health_check_of_prefect_succeeds_and_fails_where_nothing_or_something_else_listens(
    prefect: int, seaweedfs: str
) -> None:
    test = services()["prefect"]["healthcheck"]["test"]
    assert run_check(test, {4200: prefect}) == 0
    assert run_check(test, {4200: prefect}, proxy="http://127.0.0.1:9") == 0
    assert run_check(test, {4200: free_port()}) != 0
    assert run_check(test, {4200: int(seaweedfs.rpartition(":")[2])}) != 0


def test_the_health_check_of_the_bucket_succeeds_without_an_account_and_fails_where_nothing_listens(
    seaweedfs: str,
) -> None:
    test = services()["s3"]["healthcheck"]["test"]
    if subprocess.run(["/bin/sh", "-c", "command -v wget"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this check runs wget, which SeaweedFS's image has and this machine has not")
    assert run_check(test, {8333: int(seaweedfs.rpartition(":")[2])}) == 0
    assert run_check(test, {8333: free_port()}) != 0


def test_every_probe_of_prefects_pod_is_answered_without_an_account(prefect: int) -> None:
    (container,) = of_kind("Deployment")["prefect"]["spec"]["template"]["spec"]["containers"]
    probes = {name: probe for name, probe in container.items() if name.endswith("Probe")}
    assert set(probes) == {"startupProbe", "readinessProbe", "livenessProbe"}
    for name, probe in probes.items():
        get = probe["httpGet"]
        assert get["port"] == "http"
        status, _, _ = ask(f"http://127.0.0.1:{prefect}{get['path']}", User_Agent="kube-probe/1.33", Accept="*/*")
        assert 200 <= status < 400, name


def test_prefect_asks_for_its_account_and_lets_no_page_of_another_site_speak_to_it(prefect: int) -> None:
    api, own = f"http://127.0.0.1:{prefect}/api", f"http://127.0.0.1:{prefect}"
    account = {"Authorization": "Basic " + base64.b64encode(ACCOUNT.encode()).decode()}
    assert ask(f"{api}/admin/version")[0] == ask(f"{api}/csrf-token?client=me")[0] == 401
    for origin, allowed in (("https://evil.example", None), (own, own)):
        preflight = ask(
            f"{api}/deployments/", "OPTIONS", Origin=origin, Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="authorization,content-type",
        )  # fmt: skip
        assert preflight[1].get("access-control-allow-origin") == allowed
    # Even in the user's name: without the token of the same client a change is refused.
    refused, _, told = ask(f"{api}/flows/", "POST", Content_Type="application/json", **account)
    assert (refused, b"CSRF" in told) == (403, True), told


def test_prefects_own_client_works_with_the_account_of_the_container_reneg(prefect: int, tmp_path: Path) -> None:
    given = environment_of("reneg")
    variables = {"PREFECT_API_AUTH_STRING": given["PREFECT_API_AUTH_STRING"], "PREFECT_HOME": str(tmp_path)}
    variables["PREFECT_API_URL"] = given["PREFECT_API_URL"].replace("prefect:4200", f"127.0.0.1:{prefect}")
    code = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    print(client.create_flow_from_name("ours") is not None)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True"], done.stderr[-2000:]


@pytest.mark.parametrize("name", ["compose", "manifests"])
def test_both_ways_of_running_it_switch_the_same_protection_on(name: str) -> None:
    given: dict[str, Any] = (
        services()["prefect"]["environment"] if name == "compose" else of_kind("ConfigMap")["prefect"]["data"]
    )
    assert given["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert "*" not in given["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
