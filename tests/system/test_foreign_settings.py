"""A run among the settings of others: a company's proxy, another Prefect server, another Prefect project's folder."""

import base64
import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
import yaml

from tests.flows.animals import write_source
from tests.system.place import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
OF_OTHERS = {
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "all_proxy": "http://127.0.0.1:9",
    "grpc_proxy": "http://127.0.0.1:9",
    "PREFECT_SERVER_API_AUTH_STRING": "admin:pass",
    "PREFECT_SERVER_API_BASE_PATH": "/elsewhere",
    "PREFECT_API_AUTH_STRING": "admin:pass",
    "PREFECT_API_KEY": "pnu_of_another",
    "PREFECT_UI_URL": "https://elsewhere.example",
}


def test_a_run_reaches_its_own_servers_and_leaves_its_whole_history_in_its_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in OF_OTHERS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "prefect.toml").write_text('[server.api]\nauth_string = "admin:pass"\n[api]\nkey = "pnu_of_another"\n')
    (tmp_path / ".env").write_text("PREFECT_SERVER_DATABASE_CONNECTION_URL=sqlite+aiosqlite:////elsewhere/prefect.db\n")
    config = {
        "name": "foreign",
        "source": {"path": str(write_source(tmp_path / "source"))},
        "encoder": {"model": "tiny:encoder", "max_seq_length": 64},
        "mine": {"range_max": 6, "num_negatives": 3},
        "tiers": [],
        "treatments": ["default"],
        "train": None,
    }
    (tmp_path / "foreign.yaml").write_text(yaml.safe_dump(config))
    place = Place(tmp_path / "what? a #home", str(tmp_path / "store"))
    printed = place.run("curate", str(tmp_path / "foreign.yaml"), "--json")
    record = json.loads(printed.splitlines()[-1])
    assert record["parts"]["computed"] >= 5
    database = f"{(place.home / 'prefect' / 'prefect.db').as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(database, uri=True)) as history:
        runs = history.execute("select state_type, count(*) from flow_run group by 1").fetchall()
        parts = history.execute("select state_type, count(*) from task_run group by 1").fetchall()
        lines = history.execute("select count(*) from log").fetchone()[0]
    assert (runs, parts) == ([("COMPLETED", 1)], [("COMPLETED", record["parts"]["computed"])])
    assert lines >= record["parts"]["computed"]
    password = (place.home / "prefect" / "auth-string").read_text().strip()
    forms = {password.encode(), base64.b64encode(password.encode())}
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in left if any(form in path.read_bytes() for form in forms)] == ["auth-string"]
    assert password not in printed
