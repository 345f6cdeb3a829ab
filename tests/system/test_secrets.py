"""Plant secrets of many shapes, run, and search everything that is left behind; and look at who may connect meanwhile.

Searched are all objects of the bucket, the home folder with Prefect's database and logs, Ray's session folder, what the
commands printed, and what was added to the model cache; each secret as it is, percent-encoded, in base64 and in JSON.
"""

import base64
import contextlib
import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import polars.selectors as cs
import pytest
import s3fs
import yaml

from infra.storage.tables import BUNDLE, slices_of
from tests.conftest import free_port, stop, wait_for_http, weed_command
from tests.infra.misbehaving import MisbehavingServer, answer_by_hash
from tests.system.place import Place
from tests.system.test_kill_judge import write_config

VARIABLES = {
    "OPENAI_API_KEY": "sk-plantedEndpoint/7Qx+Zm4Kd9WvT2",
    "AWS_SECRET_ACCESS_KEY": "plantedStore/uG5+nB8sXr3LpYc6Hj",
    "PREFECT_API_AUTH_STRING": "planted-user:plantedPrefect/eD4+tFa1Rk",
    "RAY_AUTH_TOKEN": "plantedRayToken0yNq7Uw3Mi5Vb8",
    "SLACK_URL": "https://chat.example/hooks/plantedHook8Zq2",
    "DB_PASS": "plantedPass4!x",
    "GH_PAT": "plantedPat-9Kw3-x7",
    "SESSION_COOKIE": "sid=plantedCookie5Vb",
    "SERVICE_CREDENTIALS": "plantedUser1/plantedWord2",
    "OUR_VENDOR": "plantedNamedOnly7Tz4",  # a secret by `api_key_env` alone
    "DATABASE_URL": "postgresql://me:plantedDb%2F6Yx@db.example/x",
}
# Put together here, so that no scanner takes this file for one with a secret in it.
_DASHES = "-" * 5
_PRIVATE = f"PRIVATE KEY{_DASHES}"
_A = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2bC3dE4fG5hJ6"  # of no real token
# What a careless endpoint says in its errors, as {}, and the secret in it; nothing else tells that it is one.
SAID = {
    "userinfo": ("https://me:{}@host.example/x", "plantedInfo3Rk"),
    "token as name": ("https://{}@host.example/x", "plantedName6Hd"),
    "signature": ("https://acc.blob.example/f?sv=2026&sig={}", "plantedSig8%2Fx%3D"),
    "presigned": ("https://b.s3.example/k?X-Amz-Signature={}&x=1", "0a1bplantedAmz"),
    "query key": ("GET /v1?page=1&api_key={}", "plantedQuery2Wm"),
    "header": ("Authorization: Bearer {}", "planted.Bearer.77x"),
    "assigned": ("host=db password={} dbname=x", "plantedDsn5Lc"),
    "account key": ("AccountName=a;AccountKey={};", "plantedAcc/9Jp+=="),
    "OpenAI": ("{}", f"sk-proj-{_A}"),
    "Anthropic": ("{}", f"sk-ant-api03-{_A}"),
    "Hugging Face": ("{}", f"hf_{_A[:34]}"),
    "GitHub": ("{}", f"ghp_{_A[:36]}"),
    "GitLab": ("{}", f"glpat-{_A[:20]}"),
    "AWS": ("{}", "AKIA" + "PLANTEDEXAMPLE77"),
    "Google": ("{}", f"AIza{_A[:35]}"),
    "Slack": ("{}", "xoxb-" + "123456789012-plantedXx"),
    "Slack's hook": ("https://hooks.slack.com/services/{}", "T0PLANTED/B0/xyz"),
    "Stripe": ("{}", f"sk_live_{_A[:24]}"),
    "JWT": ("{}", "eyJhbGciOiJIUzI1NiJ9.eyJwbGFudGVkIjoxfQ.c2lnbmF0dXJl"),
    "private key": ("{}", f"{_DASHES}BEGIN {_PRIVATE}\nMIIEplanted\n{_DASHES}END {_PRIVATE}"),
}
SECRETS = (
    {name: value for name, value in VARIABLES.items() if name != "DATABASE_URL"}
    | {"DATABASE_URL": "plantedDb%2F6Yx"}
    | {name: secret for name, (_, secret) in SAID.items()}
)
_SHAPES = [text.format(secret) for text, secret in SAID.values()] + list(VARIABLES.values())
MESSAGES = [" | ".join(_SHAPES[first : first + 4]) for first in range(0, len(_SHAPES), 4)]
Searched = Iterator[tuple[str, bytes]]


# ---- searching ----


def forms(secret: str) -> list[bytes]:
    """Give the ways a secret may be written; base64 at each of its three alignments, without the uncertain ends."""
    found = {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1], secret.replace("/", "\\/")}
    found.add(secret.encode().hex())
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret.encode()).decode().rstrip("=")
        middle = encoded[4 if shift else 0 : -2]
        found |= {middle, middle.replace("+", "-").replace("/", "_")}
    return [form.encode() for form in found]


def readings(name: str, data: bytes) -> Searched:
    """Give a file's bytes, and what they hold where they are compressed or in pages."""
    yield name, data
    if name.endswith(".gz"):
        yield f"{name} unpacked", gzip.decompress(data)
    for number, piece in enumerate(slices_of(data) if name.endswith(BUNDLE) else [data]):
        if piece[:4] == b"PAR1":
            yield f"{name} as rows, {number}", rows_of(piece)
    if data[:15] == b"SQLite format 3":
        with tempfile.TemporaryDirectory() as folder, contextlib.closing(sqlite3.connect(f"{folder}/copy")) as database:
            (Path(folder) / "copy").write_bytes(data)
            for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
                rows = database.execute(f'select * from "{table}"').fetchall()
                yield f"{name}, table {table}", "\n".join(map(str, rows)).encode()


def rows_of(parquet: bytes) -> bytes:
    """Write a table's rows as text; what its columns hold as bytes, which JSON cannot say, follows as it is."""
    frame = pl.read_parquet(io.BytesIO(parquet))
    blobs = [value for column in frame.select(cs.binary()) for value in column.drop_nulls()]
    return b"\n".join([frame.select(~cs.binary()).write_ndjson().encode(), *blobs])


def files_of(folder: Path, since: float = 0.0) -> Searched:
    """Give every file below a folder that was changed since; sockets and what vanishes meanwhile are left out."""
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= since:
                yield from readings(str(path), path.read_bytes())


def find_secrets(texts: Iterable[tuple[str, bytes]]) -> tuple[list[str], int]:
    """List where which secret stands, and count what was searched."""
    sought = {name: forms(value) for name, value in SECRETS.items()}
    found, searched = [], 0
    for place, data in texts:
        searched += 1
        found += [f"{name} in {place}" for name, ways in sought.items() if any(way in data for way in ways)]
    return found, searched


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_the_search_finds_a_secret_in_every_form_and_file(name: str, tmp_path: Path) -> None:
    secret = SECRETS[name]
    encoded = base64.b64encode(f"key {secret} end".encode()).decode()
    (tmp_path / "plain.log").write_text(f"a header with {secret} in it")
    (tmp_path / "encoded.json").write_text(json.dumps({"quoted": quote(secret, safe="")}))
    (tmp_path / "base64.txt").write_text(f"Authorization: Basic {encoded}")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(secret.encode()))
    pl.DataFrame({"reason": [f"401 {secret}"] * 100}).write_parquet(tmp_path / "rows.parquet")
    pl.DataFrame({"held": [f"401 {secret}".encode(), None]}).write_parquet(tmp_path / "bytes.parquet")
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect.db")) as database:
        database.execute("create table log (message text)")
        database.execute("insert into log values (?)", ("x" * 5000 + secret,))
        database.commit()
    found, _ = find_secrets(files_of(tmp_path))
    assert all(any(path.name in line for line in found) for path in tmp_path.iterdir()), found
    assert {line.partition(" in /")[0] for line in found} == {name}


# ---- sockets ----


def processes_of(home: Path) -> list[int]:
    """List the processes of the runs of a home: it stands in their environment, which children inherit."""
    wanted, found = f"RENEG_HOME={home}".encode(), []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def listeners() -> dict[str, tuple[str, int]]:
    """Give the address (hexadecimal, as the kernel tells it) and the port of every socket that listens, by its name."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines():
            if " 0A " in line:
                fields = line.split()
                address, port = fields[1].split(":")
                found[f"socket:[{fields[9]}]"] = (address, int(port, 16))
    return found


def listening(pid: int, sockets: Mapping[str, tuple[str, int]]) -> set[tuple[str, str, int]]:
    """Give the command, the address and the port of what a process listens on, of these sockets."""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80]
        own = {target(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
        return {(command, *sockets[name]) for name in own & set(sockets)}
    return set()


def target(descriptor: Path) -> str:
    """Say what an open file is; nothing where it was closed meanwhile."""
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""


def is_loopback(address: str) -> bool:
    """Tell whether an address of /proc/net/tcp or tcp6 is 127.0.0.0/8, ::1, or the former written as the latter."""
    if len(address) == 8:
        return address.endswith("7F")
    return address == "0" * 24 + "01000000" or (address.startswith("0" * 16 + "FFFF0000") and address.endswith("7F"))


def test_a_socket_that_others_can_reach_is_told_from_one_on_loopback() -> None:
    import socket

    with socket.socket() as near, socket.socket() as far:
        near.bind(("127.0.0.1", 0))
        far.bind(("0.0.0.0", 0))
        near.listen()
        far.listen()
        found = {port: address for _, address, port in listening(os.getpid(), listeners())}
        assert is_loopback(found[near.getsockname()[1]])
        assert not is_loopback(found[far.getsockname()[1]])


# ---- the run ----


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    """SeaweedFS with its only account from the environment, as in docker/compose.yaml; yields its endpoint."""
    port, folder = free_port(), tmp_path / "weed"
    command = weed_command(folder, port, is_known=False)
    account = {"AWS_ACCESS_KEY_ID": "planted", "AWS_SECRET_ACCESS_KEY": SECRETS["AWS_SECRET_ACCESS_KEY"]}
    with (tmp_path / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=os.environ | account)
    wait_for_http(f"http://127.0.0.1:{port}", process)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A short path: Ray's sockets lie below it, and theirs may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def planted(bucket: str, ray_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything secret that a user sets, in the environment."""
    variables = VARIABLES | {
        "PREFECT_SERVER_API_AUTH_STRING": SECRETS["PREFECT_API_AUTH_STRING"],
        "AWS_ACCESS_KEY_ID": "planted",
        "AWS_ENDPOINT_URL": bucket,
        "AWS_DEFAULT_REGION": "us-east-1",
        "RAY_AUTH_MODE": "token",
        "RAY_TMPDIR": str(ray_folder),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def objects_of(endpoint: str) -> Searched:
    """Give every object of the bucket."""
    files = s3fs.S3FileSystem(
        key="planted", secret=SECRETS["AWS_SECRET_ACCESS_KEY"], endpoint_url=endpoint, skip_instance_cache=True
    )
    for key in files.find("reneg"):
        yield from readings(f"s3://{key}", files.cat_file(key))


def watch(home: Path, done: threading.Event, seen: set[tuple[str, str, int]]) -> None:
    while not done.wait(1.0):
        sockets = listeners()
        for pid in processes_of(home):
            seen |= listening(pid, sockets)


@contextlib.contextmanager
def watched(home: Path) -> Iterator[set[tuple[str, str, int]]]:
    """Collect what the processes of a home listen on."""
    done, seen = threading.Event(), set[tuple[str, str, int]]()
    watcher = threading.Thread(target=watch, args=(home, done, seen))
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def work(place: Place, folder: Path) -> list[str]:
    """Do what users do, and what goes wrong for them; returns what was printed."""
    printed: list[str] = []

    def command(*arguments: str, expect: int) -> str:
        for _ in range(3):
            process = place.start(*arguments)
            printed.append("".join(process.communicate(timeout=1500)))
            if "timed out during startup" not in printed[-1]:  # Ray gives itself 30 s, too little on a busy machine
                break
        assert process.returncode == expect, f"{arguments}: {process.returncode}\n{printed[-1]}"
        return printed[-1]

    key = SECRETS["OPENAI_API_KEY"]
    with MisbehavingServer(reply=echo_key, key=key) as obliging, MisbehavingServer(key="another") as refusing:
        config = write_config(folder, obliging.url)
        settings = yaml.safe_load(config.read_text())
        command("curate", str(config), "--json", expect=0)
        assert sum(obliging.paid.values()) >= 40
        settings["name"] = "refused"
        settings["tiers"][0]["engine"] |= {"base_url": refusing.url, "model": "judge-2"}
        config.write_text(yaml.safe_dump(settings))
        assert "401" in command("curate", str(config), expect=1)
        assert any(call.path.endswith("/chat/completions") for call in refusing.calls)
    assert "401" in command("status", "refused-000001", expect=0)
    with Careless() as careless:
        settings["name"] = "careless"
        settings["tiers"][0]["engine"] |= {"base_url": careless.url, "model": "judge-3", "api_key_env": "OUR_VENDOR"}
        config.write_text(yaml.safe_dump(settings))
        command("curate", str(config), expect=1)
        assert careless.served >= len(MESSAGES)
    command("status", "careless-000001", expect=0)
    settings["tiers"][0]["engine"]["base_url"] = f"http://me:{quote(key, safe='')}@127.0.0.1:9/v1"
    config.write_text(yaml.safe_dump(settings))
    assert "no name, password or query" in command("curate", str(config), expect=2)
    config.unlink()
    return printed


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("planted")
def test_nothing_that_a_run_leaves_behind_holds_a_secret_and_nobody_else_can_connect(
    bucket: str, ray_folder: Path, tmp_path: Path
) -> None:
    place, began = Place(tmp_path / "home", "s3://reneg/store"), time.time()
    with watched(place.home) as seen:
        printed = work(place, tmp_path)

    searched = {
        "the bucket": (objects_of(bucket), 50),
        "the home folder": (files_of(place.home), 20),
        "Ray's folder": (files_of(ray_folder), 10),
        "the model cache": (files_of(Path(place.environment["RENEG_CACHE"]), since=began), 0),
        "the terminal": ((("the terminal", text.encode()) for text in printed), 4),
    }
    leaks, told = [], 0
    for place_name, (texts, least) in searched.items():
        found, number = find_secrets(counted := Counted(texts))
        told += counted.told
        assert number >= least, f"only {number} texts in {place_name}"
        leaks += found
    assert leaks == []
    assert told >= len(MESSAGES)  # the words of the endpoint arrived, without their secrets
    commands = " ".join(command for command, _, _ in seen)
    assert "prefect" in commands
    assert "raylet" in commands
    assert [one for one in seen if not is_loopback(one[1])] == []


def echo_key(body: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """Answer, and repeat the caller's key beside the answer, as a careless proxy might."""
    text, logprobs = answer_by_hash(body)
    return f"{text} ({SECRETS['OPENAI_API_KEY']})", logprobs


class Careless(MisbehavingServer):
    """Refuses every request, and tells secrets of all shapes in turn while it does so."""

    def __init__(self) -> None:
        super().__init__()
        self.served = 0

    def chat(self, body: Mapping[str, Any]) -> tuple[str, int, Any]:
        with self._lock:
            message = MESSAGES[self.served % len(MESSAGES)]
            self.served += 1
        return "bad_request", 400, {"error": {"message": f"odd: {message}", "code": None}}


class Counted:
    """Texts that count how often a hidden secret stands in what `Careless` said."""

    def __init__(self, texts: Searched) -> None:
        self.texts, self.told = texts, 0

    def __iter__(self) -> Searched:
        for place, data in self.texts:
            self.told += sum(b"***" in said[:300] for said in data.split(b"odd: ")[1:])
            yield place, data
