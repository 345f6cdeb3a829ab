"""An upgrade between two nights: what is reported, what is computed again, and what is never paid twice."""

import hashlib
import io
import json
from pathlib import Path

import polars as pl
import pytest

from flows.config.section import ConfigError
from flows.curation.explain import explain
from flows.curation.lookup import look, look_at
from flows.curation.prepare import prepare
from flows.curation.records import draft_curation, load_curation
from flows.planning.plan import plan_tiers
from flows.results.history import read_history
from infra.provenance import UNRECORDED, Origin
from infra.storage.store import Store
from tests.flows.animals import tier
from tests.flows.nightly import ENDPOINT, Contrary, Nights, sources, write_gold
from tests.infra.test_provenance import install

FAR = {"tiers": [{**tier(), "engine": ENDPOINT}]}
OLD = Origin({"vllm": "0.31.0"}, {"device": "cpu", "name": "AMD EPYC"})
NEW = Origin({"vllm": "0.32.0"}, {"device": "cpu", "name": "AMD EPYC"})


def test_answers_from_before_and_after_an_upgrade_are_reported_as_a_mixture(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    first, second = sources(tmp_path, 6, 9)
    nights.judge.origin = OLD
    result = nights.curate(first)
    assert "No stage mixes results" in (result.folder / "report.html").read_text()
    (asked,) = result.summary["computed_by"]["judge-llm"]["by"].items()
    assert asked == (OLD.line, len(nights.judge.asked))
    nights.sleep()
    nights.judge.origin = NEW
    result = nights.curate(second)
    new = len(nights.judge.asked) - asked[1]
    assert result.summary["computed_by"]["judge-llm"] == {"unit": "answers", "by": {OLD.line: asked[1], NEW.line: new}}
    assert json.loads((result.folder / "summary.json").read_text())["computed_by"] == result.summary["computed_by"]
    page = (result.folder / "report.html").read_text()
    assert "Some stages mix results of different software" in page
    change = f"Since the night before, judge-llm was computed by [{OLD.line}]; now by [{OLD.line}] and [{NEW.line}]"
    assert f"<p>{change}.</p>" in page
    assert change in nights.said
    rows = read_history(nights.workspace.store)
    assert [row["origin_changes"] for row in rows] == [[], [change]]
    parts = range(3)  # two of the first night, and one of what came in the second
    told = [explain(nights.workspace, result.curation, "judge-llm", part).computed_by for part in parts]
    assert {line.partition(" by ")[2] for lines in told for line in lines} >= {OLD.line, NEW.line}


def test_an_alarm_after_an_upgrade_names_it_as_a_possible_cause(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    gold = {"gold": {"path": str(write_gold(tmp_path / "gold.jsonl"))}}
    first, second, third = sources(tmp_path, 4, 6, 8)
    nights.judge.origin = Origin(endpoint="openai judge-2026-01-01")
    for source in (first, second):
        nights.curate(source, **FAR, **gold)
        nights.sleep()
    nights.judge = Contrary()
    nights.judge.origin = Origin(endpoint="openai judge-2026-01-01 at other.example")
    nights.curate(third, **FAR, **gold)
    alarms = read_history(nights.workspace.store)[-1]["alarms"]
    assert [alarm["kind"] for alarm in alarms if alarm["tier"] == "llm" and "computed llm" in alarm["advice"]] != []


@pytest.mark.parametrize("changes", [{}, {"software": "recompute_local"}], ids=["ignored", "recomputed"])
def test_an_upgrade_of_a_local_engine_is_ignored_unless_the_settings_say_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    installed_ = tmp_path / "packages"
    install(installed_, "vllm", "0.31.0")
    monkeypatch.syspath_prepend(str(installed_))
    curation = nights.curate(source, **changes).curation
    asked = len(nights.judge.asked)
    assert nights.curate(source, **changes).computed == 0
    monkeypatch.syspath_prepend(str(tmp_path / "upgraded"))
    install(tmp_path / "upgraded", "vllm", "0.32.0")
    workspace, config = nights.workspace, nights.config(source, **changes)
    setup = prepare(workspace, draft_curation(workspace, config))
    (plan,) = plan_tiers(workspace, setup, look(workspace.store, setup)[1]).tiers
    if not changes:
        assert plan.calls == plan.known
        nights.curate(source)
        assert (nights.computed, len(nights.judge.asked)) == ({"report"}, asked)  # the report names the versions
        return
    assert plan.known == 0
    assert 0 < (plan.calls or 0) <= asked  # some are asked twice, because their first answer cannot be read
    explained = explain(workspace, curation, "judge-llm", 0)
    assert explained.reasons == ("software.vllm: 0.31.0 → 0.32.0",)
    assert nights.curate(source, **changes).computed > 0
    assert len(nights.judge.asked) == 2 * asked
    assert "judge-llm" in nights.computed
    assert not {stage for stage in nights.computed if stage.startswith(("encode", "search", "mine"))}
    assert nights.curate(source, **changes).computed == 0


def test_an_upgrade_of_the_encoder_computes_everything_again_that_reads_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    nights.curate(source, software="recompute_local", tiers=[])
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "sentence-transformers", "99.0")
    nights.curate(source, software="recompute_local", tiers=[])
    assert nights.computed >= {"encode_passages", "encode_queries", "mine", "judge_similarity"}
    workspace = nights.workspace
    assert look_at(workspace, load_curation(workspace.store, "animals-000001"))[0] is not None


@pytest.mark.parametrize(("software", "times"), [("ignore", 1), ("recompute_local", 1), ("recompute_all", 2)])
def test_an_endpoint_is_paid_again_after_an_upgrade_only_if_the_settings_say_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, software: str, times: int
) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    settings = {**FAR, "software": software}
    nights.curate(source, **settings)
    asked = len(nights.judge.asked)
    monkeypatch.syspath_prepend(str(tmp_path / "upgraded"))
    for package in ("vllm", "torch", "sentence-transformers", "faiss"):
        install(tmp_path / "upgraded", package, "99.0")
    nights.curate(source, **settings)
    assert len(nights.judge.asked) == times * asked


def make_old(store: Store) -> None:
    """Leave a store as it was written before origins were recorded: no origins, older manifests and segments."""
    for key in store.list("origins"):
        store.delete(key)
    for key in store.list("parts"):
        record = json.loads(store.read(key) or b"")
        for name in ("origin", "answers"):
            record["stats"].pop(name, None)
        store.repair(key, json.dumps(record, sort_keys=True, indent=1).encode())
    for key in store.list("ledger"):
        rows = pl.read_parquet(store.read(key) or b"").select("entry", "subjects", "payload")
        store.delete(key)
        buffer = io.BytesIO()
        rows.write_parquet(buffer, compression="zstd")
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        store.create(f"{key[: -len(digest) - len('.parquet')]}{digest}.parquet", buffer.getvalue())


def test_a_store_from_before_origins_opens_and_its_paid_answers_are_not_asked_again(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    first, second = sources(tmp_path, 6, 9)
    curation = nights.curate(first, **FAR).curation
    asked = list(nights.judge.asked)
    make_old(nights.workspace.store)
    assert nights.curate(first, **FAR).computed == 0
    assert explain(nights.workspace, curation, "judge-llm", 0).computed_by[0] == f"computed by {UNRECORDED}"
    nights.judge.origin = NEW
    nights.judge.asked.clear()
    nights.sleep()
    result = nights.curate(second, **FAR)
    assert not set(nights.judge.asked) & set(asked)
    by = result.summary["computed_by"]["judge-llm"]["by"]
    assert by == {NEW.line: len(nights.judge.asked), UNRECORDED: len(asked)}


def test_another_word_for_software_is_refused(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    with pytest.raises(ConfigError, match=r"ignore.*recompute_local.*recompute_all"):
        nights.config(tmp_path, software="recompute")
