"""The whole method through the command line: real Ray, Prefect, vLLM, faiss, sentence-transformers; tiny models."""

import json
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.prefect_api.server import PrefectServer
from infra.storage.artifacts import Manifest, newest_attempts, read_manifest
from infra.storage.store import Store
from tests.system.place import CONFIG, Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
COMPARED = ("judge_similarity", "judge", "decide", "treat", "export")


def manifests(url: str, stage: str) -> list[Manifest]:
    store = Store(url)
    return [read_manifest(store, stage, key, n) for key, n in sorted(newest_attempts(store, stage).items())]


def content(url: str) -> dict[str, list[Any]]:
    """Return the digests of every compared stage's outputs: equal digests are equal bytes."""
    return {s: sorted((m.key, str(m.tables), str(m.directories)) for m in manifests(url, s)) for s in COMPARED}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    place = Place(folder / "home", str(folder / "store"))
    return place, place.demo()


def test_the_last_line_says_all_that_a_script_needs(undisturbed: tuple[Place, dict[str, Any]]) -> None:
    _, record = undisturbed
    assert set(record) >= {
        "curation", "queries", "passages", "candidates", "verdicts", "known_false_negatives", "known_found", "found",
        "llm_calls", "ndcg10", "parts", "seconds", "report",
    }  # fmt: skip
    assert set(record["verdicts"]) == {"relevant", "not_relevant", "unsure", "unparsed"}
    assert sum(record["verdicts"].values()) == record["candidates"]
    assert set(record["ndcg10"]) >= {"default", "relabel"}
    assert 0 <= record["known_found"] <= record["known_false_negatives"] <= record["candidates"]
    assert record["llm_calls"] >= 40
    assert record["parts"]["reused"] == 0
    page = Path(record["report"]).read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "http://" not in page.replace("http://www.w3.org/", "")


def test_a_second_run_computes_nothing_and_starts_nothing(
    undisturbed: tuple[Place, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, first = undisturbed
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    log = place.home / "prefect" / "server.log"
    before = log.stat().st_size
    again = place.demo()
    assert again["parts"] == {"computed": 0, "reused": first["parts"]["computed"] + first["parts"]["reused"]}
    assert not (tmp_path / "ray").exists()
    assert log.stat().st_size == before
    assert {k: v for k, v in again.items() if k not in ("parts", "seconds")} == {
        k: v for k, v in first.items() if k not in ("parts", "seconds")
    }


def test_the_embedded_server_is_gone_after_the_run(undisturbed: tuple[Place, dict[str, Any]]) -> None:
    place, _ = undisturbed
    assert PrefectServer(place.home).running() is None


def test_killed_while_judging_nothing_is_judged_twice_and_the_bytes_are_the_same(
    undisturbed: tuple[Place, dict[str, Any]],
    tmp_path: Path,
    seaweedfs: str,
    s3_environment: Callable[[str], None],
) -> None:
    s3_environment(seaweedfs)
    place = Place(tmp_path / "home", f"s3://reneg/{uuid.uuid4().hex}")
    process = place.start("demo", "--config", str(CONFIG))
    store = Store(place.store)
    deadline = time.monotonic() + 600
    while not (judged := store.list("parts/judge")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the judge did not start"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    judged = store.list("parts/judge")
    expected = len(manifests(undisturbed[0].store, "judge"))
    assert 0 < len(judged) < expected, "the kill came too late to be in the middle of judging"
    stamps = {key: store._fs.info(store._path(key))["LastModified"] for key in judged}

    resumed = place.demo()

    assert resumed["parts"]["reused"] >= len(judged)
    store._fs.invalidate_cache()
    assert {key: store._fs.info(store._path(key))["LastModified"] for key in judged} == stamps
    assert content(place.store) == content(undisturbed[0].store)
    same = ("queries", "passages", "candidates", "verdicts", "known_false_negatives", "known_found", "found")
    assert {k: resumed[k] for k in same} == {k: undisturbed[1][k] for k in same}


def test_status_list_plan_and_export_tell_of_the_finished_curation(
    undisturbed: tuple[Place, dict[str, Any]], tmp_path: Path
) -> None:
    place, record = undisturbed
    assert "finished" in place.run("status", record["curation"])
    listed = json.loads(place.run("list", "--json").splitlines()[-1])
    assert [row["curation"] for row in listed] == [record["curation"]]
    assert "Nothing to compute" in place.run("plan", str(CONFIG))
    out = tmp_path / "export"
    place.run("export", record["curation"], "--format", "flagembedding", "--out", str(out))
    rows = [json.loads(line) for path in out.rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert rows
    assert all(set(row) >= {"query", "pos", "neg"} for row in rows)


def test_mistakes_on_the_command_line_are_one_clear_message(
    undisturbed: tuple[Place, dict[str, Any]], tmp_path: Path
) -> None:
    place, record = undisturbed
    assert "no curation 'nonsense'" in place.run("status", "nonsense", expect=2)
    wrong = place.run("export", record["curation"], "--format", "csv", "--out", str(tmp_path / "x"), expect=2)
    assert "unknown format 'csv'; known:" in wrong
    part = place.run("rerun", record["curation"], "--stage", "treat-relabel", "--part", "99", expect=2)
    assert "treat-relabel has 3 parts" in part


def test_a_rerun_part_is_computed_again_and_everything_else_reused(
    undisturbed: tuple[Place, dict[str, Any]],
) -> None:
    place, record = undisturbed
    line = place.run("rerun", record["curation"], "--stage", "treat-relabel", "--part", "1", "--json").splitlines()[-1]
    # The same bytes again, so nothing downstream but the report, which shows what each stage cost.
    assert json.loads(line)["parts"]["computed"] in (1, 2)
