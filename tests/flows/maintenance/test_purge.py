"""`reneg purge` on a small curation with fake engines: nothing of the text is left, nothing else is paid for again."""

import io
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.cli.__main__ import app
from flows.cli.store_commands import show_purged
from flows.config.section import ConfigError
from flows.curation.records import open_curation
from flows.curation.workspace import Workspace
from flows.maintenance.purge import Wanted, purge, resolve
from flows.method.curate import curate_method
from flows.results.output_folder import lay_out
from infra.ledger.ledger import Ledger
from infra.settings import Settings
from infra.stages.runner import Runner
from infra.storage.artifacts import Manifest
from infra.storage.store import Store, StoreError
from tasks.texts import hash_passage, hash_text
from tests.flows.animals import make_setup, write_source
from tests.flows.fakes import InProcess
from tests.flows.purging import files_below, purged, traces

DOC = "animals/otter-forest"
TEXT = "The otter lives near the forest, where the otter hunts and sleeps in spring number 0."
HASH = hash_passage("", TEXT)


def settings_of(tmp_path: Path, store: str = "") -> Settings:
    return Settings(tmp_path / "home", store or str(tmp_path / "store"), tmp_path / "cache", None, None)


def curate(settings: Settings, source: Path) -> InProcess:
    """Curate a source as `reneg curate` does, in this process: recorded, computed, laid out."""
    workspace = Workspace.open(settings)
    setup = make_setup(workspace.store, source)
    curation = open_curation(workspace, setup.config, own_file=True)
    executor = InProcess(workspace.store, settings.scratch)
    runner = Runner(workspace.store, executor)
    outcome = curate_method(runner, setup)
    assert {run.name: run.failed for run in runner.runs if run.failed} == {}
    lay_out(workspace, curation.id, outcome)
    return executor


def remove_from(source: Path) -> None:
    for path in source.rglob("*.*"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if "otter-forest" not in line))


def test_a_purged_passage_leaves_no_trace_and_only_what_named_it_is_paid_for_again(tmp_path: Path) -> None:
    settings, source = settings_of(tmp_path), write_source(tmp_path / "source")
    first = curate(settings, source)
    store = Store.open(settings.store)
    known = Ledger(store).stats()
    assert len(traces(settings, TEXT, HASH)) > 15

    kept = [store.list(""), files_below(settings.home), files_below(settings.cache)]
    found = purged(settings, Wanted(doc=DOC), yes=False)
    assert [store.list(""), files_below(settings.home), files_below(settings.cache)] == kept
    assert found["ledger_rows"] > 0
    assert found["sources"] == [
        {"curation": "animals-000001", "file": "corpus.jsonl", "path": str(source / "corpus.jsonl")}
    ]
    assert {Path(path).name for path in found["files"]} >= {"report.html", "sheet.csv", "train.jsonl"}

    done = purged(settings, Wanted(doc=DOC), yes=True)
    assert done == found | {"removed": True}
    assert traces(settings, TEXT, HASH) == []
    left = Ledger(store).stats()
    assert sum(s.rows for s in left.values()) == sum(s.rows for s in known.values()) - found["ledger_rows"]
    again = purged(settings, Wanted(hash=HASH), yes=True)
    assert (again["objects"], again["parts"], again["files"], again["ledger_rows"]) == (0, {}, [], 0)

    remove_from(source)
    second = curate(settings, source)
    assert len([name for name in second.computed if name.startswith("encode_passages")]) == 1
    assert [name for name in second.computed if name.startswith("encode_queries")] == []
    # The fake judge cannot be read for one prompt in sixteen, and what was not read is asked again.
    repeated = [content for content in second.llm.asked if content in first.llm.asked]
    assert all(second.llm.answer_to(content).text == "Maybe" for content in repeated)
    assert traces(settings, TEXT, HASH) == []


def test_a_query_is_purged_with_its_rows(tmp_path: Path) -> None:
    settings, source = settings_of(tmp_path), write_source(tmp_path / "source")
    curate(settings, source)
    text = "where does the heron live"
    by_id = purged(settings, Wanted(query="animals/q1"), yes=False)
    by_hash = purged(settings, Wanted(hash=hash_text(text).upper()), yes=False)
    assert by_id == by_hash
    assert by_id["ledger_rows"] > 0
    store = Store.open(settings.store)
    store.replace("checkpoints/train/5f3c-000/000000010/0000/weights", b"\xff of a training that was killed")
    purged(settings, Wanted(query="animals/q1"), yes=True)
    assert store.list("checkpoints") == []
    assert traces(settings, text, hash_text(text)) == []


def test_a_purge_in_a_bucket(seaweedfs: str, s3_environment: Callable[[str], None], tmp_path: Path) -> None:
    s3_environment(seaweedfs)
    settings = settings_of(tmp_path, f"s3://reneg/{uuid.uuid4().hex}")
    curate(settings, write_source(tmp_path / "source", queries=2))
    assert purged(settings, Wanted(doc=DOC), yes=True)["ledger_rows"] > 0
    assert traces(settings, TEXT, HASH) == []


@pytest.mark.parametrize("content", [TEXT, f"{TEXT}\n", f"{TEXT}\r\n", f"\n {TEXT} \n"])
def test_a_text_in_a_file_is_the_passage_whatever_an_editor_put_around_it(tmp_path: Path, content: str) -> None:
    store = Store.open(settings_of(tmp_path).store)
    Path(tmp_path / "text").write_bytes(content.encode())
    target = resolve(store, Wanted(text_file=tmp_path / "text"))
    assert TEXT in target.texts
    assert target.hashes >= {HASH, hash_text(TEXT)}


def test_passages_of_equal_text_under_other_titles_go_too_and_a_title_stands_in_for_a_missing_text(
    tmp_path: Path,
) -> None:
    settings, source = settings_of(tmp_path), write_source(tmp_path / "source", queries=2)
    with (source / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"_id": "copy", "title": "Otters", "text": TEXT}) + "\n")
        corpus.write(json.dumps({"_id": "bare", "title": "Of otters and men", "text": ""}) + "\n")
    curate(settings, source)
    store = Store.open(settings.store)
    both = {hash_text(TEXT), HASH, hash_passage("Otters", TEXT)}
    (tmp_path / "text").write_text(TEXT)
    for wanted in (Wanted(doc=DOC), Wanted(doc="animals/copy"), Wanted(hash=HASH), Wanted(text_file=tmp_path / "text")):
        assert resolve(store, wanted).hashes == both
    bare = resolve(store, Wanted(doc="animals/bare"))
    assert bare.texts == {"Of otters and men"}
    assert hash_passage("Of otters and men", "") in bare.hashes


def test_a_text_known_to_the_ledger_alone_is_forgotten_by_its_hash(tmp_path: Path) -> None:
    settings, out = settings_of(tmp_path), io.StringIO()
    with Ledger(Store.open(settings.store)) as ledger:
        ledger.remember("judge", [("entry", [hash_text("query"), HASH], "payload")])
    found = purge(settings, Wanted(hash=HASH), yes=True)
    show_purged(found, Console(file=out, width=200), removed=True)
    done = found.as_json(removed=True)
    assert (done["ledger_rows"], done["text_known"]) == (1, False)
    assert "Give --text-file" in out.getvalue()
    assert Ledger(Store(settings.store)).stats() == {}


@pytest.mark.parametrize("deletions", [0, 3, 12, 30])
def test_a_killed_purge_is_finished_by_repeating_it_with_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    settings, left = settings_of(tmp_path), iter(range(deletions))
    curate(settings, write_source(tmp_path / "source", queries=2))
    delete = Store.delete

    def fail_later(self: Store, key: str) -> None:
        if next(left, None) is None:
            raise StoreError("killed here")
        delete(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", fail_later)
        with pytest.raises(StoreError, match="killed here"):
            purged(settings, Wanted(doc=DOC), yes=True)
    (tmp_path / "text").write_text(TEXT)
    purged(settings, Wanted(text_file=tmp_path / "text"), yes=True)
    assert traces(settings, TEXT, HASH) == []


def test_what_names_no_text_is_refused_with_what_to_give(tmp_path: Path) -> None:
    store = Store.open(settings_of(tmp_path).store)
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    refused = {
        Wanted(): "one of --text-file, --hash, --doc, --query expected, none came",
        Wanted(hash=HASH, doc=DOC): "hash and doc came",
        Wanted(hash="abc"): "32 hexadecimal digits expected",
        Wanted(doc="animals/unicorn"): "DATASET/ID expected, and no table of passages",
        Wanted(query="animals/unicorn"): "no table of queries",
        Wanted(text_file=tmp_path / "empty"): "the file is empty",
        Wanted(text_file=tmp_path / "binary"): "cannot be read as UTF-8",
        Wanted(text_file=tmp_path / "none"): "cannot be read",
    }
    for wanted, message in refused.items():
        with pytest.raises(ConfigError, match=message):
            resolve(store, wanted)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `reneg …` in this process; returns what it printed and the JSON of its last line."""
    settings = settings_of(tmp_path)
    for name in ("home", "store", "cache"):
        monkeypatch.setenv(f"RENEG_{name.upper()}", str(getattr(settings, name)))

    def run(*arguments: str) -> tuple[str, Any]:
        result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output, json.loads(result.output.splitlines()[-1])

    return run


def test_the_commands_print_tables_and_one_line_of_json(tmp_path: Path, command: Callable[..., Any]) -> None:
    curate(settings_of(tmp_path), write_source(tmp_path / "source", queries=2))
    _, before = command("ledger")
    _, after = command("ledger", "--compact")
    assert sum(row["rows"] for row in before) == sum(row["rows"] for row in after) > 0
    assert sum(row["segments"] for row in after) <= sum(row["segments"] for row in before)
    _, dry = command("purge", "--doc", DOC)
    _, done = command("purge", "--doc", DOC, "--yes")
    assert done == dry | {"removed": True}
    _, none = command("purge", "--hash", HASH)
    assert none["ledger_rows"] == 0


def test_a_purged_positive_takes_with_it_what_was_judged_against_it(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    curate(settings, write_source(tmp_path / "source"))
    store = Store(settings.store)

    def judged() -> set[str]:
        manifests = [Manifest.from_json(store.read(key) or b"") for key in store.list("parts/judge")]
        pieces = [store.read(piece.object) for m in manifests for piece in m.tables["verdicts"]]
        return {query for piece in pieces if piece is not None for query in pl.read_parquet(piece)["query_id"]}

    assert "q0" in judged()
    found = purged(settings, Wanted(doc="animals/otter-river"), yes=True)
    assert found["parts"]["judge"] >= 1
    assert "q0" not in judged()
    assert traces(settings, "The otter lives near the river", hash_text("unused")) == []
