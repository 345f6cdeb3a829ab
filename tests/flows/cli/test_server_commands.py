"""Commands of servers and deployments; the servers themselves are tested in tests/flows/operations and tests/infra."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.cli.server_commands import show_findings
from flows.operations.deploy import Deployed
from flows.operations.doctor import Finding
from tests.flows.cli.conftest import Shell
from tests.flows.nightly import sources


def test_deployed_configurations_are_named_with_their_nights(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def deploy(settings: Any, configs: Any, pool: str) -> list[Deployed]:
        asked.append(([config.name for config in configs], pool))
        return [Deployed("curate/animals", "30 2 * * * (UTC)", "queue"), Deployed("curate/zoo", None, None)]

    monkeypatch.setattr("flows.operations.deploy.deploy", deploy)
    config = shell.nights.written(sources(shell.nights.folder, 4)[0])
    said = shell.run("deploy", config, "--pool", "ours").splitlines()
    assert said == [
        "curate/animals: 30 2 * * * (UTC), overlapping nights are queue",
        "curate/zoo",
        "They run on machines with `reneg serve`.",
    ]
    assert asked == [(["animals"], "ours")]
    refused = "flows.curation.stored_config.refused_keys"
    monkeypatch.setattr(refused, lambda config, rules: [f"{config.name}: no key"])
    noted = " ".join(shell.run("deploy", config).split())
    assert "note: this deployment would fail where the environment is as here: animals: no key" in noted
    assert shell.json("deploy", config)[0]["name"] == "curate/animals"
    assert asked[-1][1] == "reneg"


def test_serving_goes_on_with_the_pool_and_the_limit_that_were_named(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []

    class Supervisor:
        def __init__(self, settings: Any, tell: Any, *, pool: str, limit: int) -> None:
            tell("serving")
            served.append((settings.home, pool, limit))

        def run(self) -> None:
            served.append("run")

    monkeypatch.setattr("flows.operations.supervisor.Supervisor", Supervisor)
    assert "serving" in shell.run("serve", "--pool", "ours", "--limit", 2)
    assert served == [(shell.nights.settings.home, "ours", 2), "run"]
    shell.run("serve")
    assert served[-2][1:] == ("reneg", 4)


class Server:
    """Stands for the embedded server: it is up after a start, and stops once."""

    up = False

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    def auth_file(self) -> Path:
        return self.home / "prefect" / "auth-string"

    def auth_string(self) -> str:
        return "reneg:secret"

    def start(self, *, keep: bool) -> str:
        Server.up = keep
        return "http://127.0.0.1:4200/api"

    def stop(self, *, ui: bool) -> bool:
        stopped, Server.up = Server.up and ui, False
        return stopped


def test_the_ui_is_kept_up_until_it_is_stopped(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.prefect_api.server.PrefectServer", Server)
    assert shell.run("ui").splitlines() == [
        "Prefect UI: http://127.0.0.1:4200",
        f"Password: the line in {shell.nights.settings.home}/prefect/auth-string",
        "It runs until `reneg ui --stop`.",
    ]
    assert shell.run("ui", "--stop") == "stopped\n"
    assert shell.run("ui", "--stop") == "not stopped: no server runs, or a run still uses it\n"
    checked: list[str] = []
    monkeypatch.setattr("infra.prefect_api.health.check_named", checked.append)
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
    assert shell.run("ui").splitlines() == ["Prefect UI: http://prefect.example"]
    assert checked == ["http://prefect.example/api"]  # the address of another web server is not printed as a UI
    assert not Server.up


def test_the_password_is_printed_to_a_terminal_only(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.prefect_api.server.PrefectServer", Server)
    assert "secret" not in shell.run("ui")
    monkeypatch.setattr("flows.cli.server_commands.OUT", Console(force_terminal=True, width=140))
    assert "Password: reneg:secret" in shell.run("ui")


def test_doctor_ends_with_1_only_where_something_is_missing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fine = [Finding("python", "ok", "3.11"), Finding("memory", "note", "4 GiB", "use a smaller model")]
    monkeypatch.setattr("flows.operations.doctor.examine", lambda settings: list(fine))
    assert [row["state"] for row in shell.json("doctor")] == ["ok", "note"]
    fine.append(Finding("store", "missing", "s3://nowhere", "make the bucket"))
    assert shell.json("doctor", code=1)[2] == {
        "what": "store", "state": "missing", "found": "s3://nowhere", "remedy": "make the bucket"
    }  # fmt: skip


def test_doctor_looks_at_the_keys_of_a_configuration_and_shows_no_secret(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU_KEY", "opaque-x7Kq2mZ9")
    told = Finding("Prefect", "ok", "http://me:hunter2@host/api", "opaque-x7Kq2mZ9")
    monkeypatch.setattr("flows.operations.doctor.examine", lambda settings: [told])
    engine = {"kind": "openai", "model": "m", "base_url": "https://gpu.example/v1", "api_key_env": "GPU_KEY"}
    path = shell.nights.written(sources(shell.nights.folder, 4)[0], tiers=[{"name": "far", "engine": engine}])
    rows = shell.json("doctor", path)
    assert (rows[0]["found"], rows[0]["remedy"]) == ("http://me:***@host/api", "***")
    assert [(row["what"], row["state"]) for row in rows[1:]] == [
        ("GPU_KEY for tier far", "ok"), ("GPU_KEY once deployed", "note")
    ]  # fmt: skip


def test_doctor_looks_at_the_cluster_where_that_is_asked(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []

    def examine_cluster(settings: Any, config: Any) -> list[Finding]:
        looked.append(None if config is None else config.name)
        return [Finding("node", "ok", "there")]

    monkeypatch.setattr("flows.operations.doctor.examine", lambda settings: [])
    monkeypatch.setattr("flows.operations.cluster_doctor.examine_cluster", examine_cluster)
    shell.run("doctor", "--cluster")
    shell.run("doctor", shell.nights.written(sources(shell.nights.folder, 4)[0]), "--cluster")
    shell.run("doctor")
    assert looked == [None, "animals"]


def test_findings_are_a_table_with_each_remedy() -> None:
    out = io.StringIO()
    show_findings([Finding("store", "missing", "s3://nowhere", "make the bucket")], Console(file=out, width=100))
    row = next(line for line in out.getvalue().splitlines() if line.startswith("│"))
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "store", "missing", "s3://nowhere", "make the bucket"
    ]  # fmt: skip
