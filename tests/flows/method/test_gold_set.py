"""The gold set inside the method: asked with the curation's own judges, compared with its labels."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.method.curate import curate_method
from flows.method.gold_set import ask_again, judge_gold
from flows.method.setup import Gold, Setup, Tier
from infra.engines.specs import OpenAISpec
from infra.stages.runner import Runner
from infra.storage.artifacts import write_directory
from infra.storage.store import Store
from tests.flows.animals import make_setup, tier, write_source
from tests.flows.fakes import InProcess
from tests.flows.nightly import write_gold


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source and a gold set of eight pairs."""
    folder = tmp_path_factory.mktemp("gold")
    write_source(folder / "source", queries=4)
    (folder / "gold").mkdir()
    write_gold(folder / "gold" / "gold.jsonl", 8)
    return folder


class Judging:
    """One store, in which the gold set is judged with fake engines."""

    def __init__(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, tmp_path / "place")
        self.folder = tmp_path / "place"
        self.store = Store.open(str(tmp_path / "store"))
        self.executor = InProcess(self.store, tmp_path / "scratch")

    def setup(self, night: str = "2026-03-01", **changes: Any) -> Setup:
        setup = make_setup(self.store, self.folder / "source", **changes)
        return replace(setup, gold=Gold(write_directory(self.store, "gold", self.folder / "gold"), night))

    def judge(self, setup: Setup) -> tuple[dict[str, Any], Runner]:
        run = Runner(self.store, self.executor)
        assert setup.gold is not None
        made = judge_gold(run, setup, setup.gold)
        assert {r.name: r.failed for r in run.runs if r.failed} == {}
        return {name: run.read(table) for name, table in made.items()}, run


@pytest.fixture
def judging(folder: Path, tmp_path: Path) -> Judging:
    return Judging(folder, tmp_path)


def test_every_tier_judges_every_pair_and_is_compared_with_its_label(judging: Judging) -> None:
    tables, run = judging.judge(judging.setup(tiers=[tier(), tier("strong")]))
    assert [r.name for r in run.runs] == [
        "read_gold", "encode_passages-gold", "encode_queries-gold", "judge_similarity-gold", "judge-gold-llm",
        "judge-gold-strong", "decide-gold", "agree_gold",
    ]  # fmt: skip
    counted = {row["tier"]: row["items"] for row in tables["agreement"].to_dicts()}
    assert counted == dict.fromkeys(["similarity", "llm", "strong", "cascade"], 8)
    assert tables["verdicts"].group_by("tier").len().sort("tier").rows() == [
        ("cascade", 8), ("llm", 8), ("similarity", 8), ("strong", 8),
    ]  # fmt: skip


def test_without_a_tier_similarity_alone_is_compared(judging: Judging) -> None:
    tables, run = judging.judge(judging.setup(tiers=[]))
    assert "judge-gold-llm" not in {r.name for r in run.runs}
    assert sorted(tables["agreement"]["tier"]) == ["cascade", "similarity"]
    assert judging.executor.llm.asked == []


def test_the_curations_own_definition_of_relevance_is_asked_with(judging: Judging) -> None:
    judging.judge(judging.setup(tiers=[tier(judge={"definition": "A passage counts if it names a valley."})]))
    assert judging.executor.llm.asked
    assert all("if it names a valley" in content for content in judging.executor.llm.asked)


def test_the_verdicts_about_the_gold_set_are_in_no_table_of_the_data(judging: Judging) -> None:
    run = Runner(judging.store, judging.executor)
    curate_method(run, judging.setup())
    done = {r.name: r for r in run.runs}
    assert done["agree_gold"].rows > 0
    decided = [p for m in done["decide"].manifests for p in m.tables["decisions"]]
    queries = pl.concat([pl.read_parquet(judging.store.read(p.object) or b"") for p in decided])["query_id"]
    assert all(query.startswith("q") for query in queries)


def test_pinned_weights_are_asked_under_one_name_and_an_endpoint_under_the_nights(judging: Judging) -> None:
    setup = judging.setup()
    (pinned,) = setup.tiers
    assert ask_again(pinned, "2026-03-01") == pinned.judge
    far = Tier.of(setup.config.tiers[0], setup.config, OpenAISpec(model="judge-2026-01-01"), "judge-2026-01-01")
    asked = ask_again(far, "2026-03-01")
    assert asked.engine == f"{far.judge.engine}@2026-03-01"
    assert asked.ledger_name != ask_again(far, "2026-03-02").ledger_name
    assert asked.model_copy(update={"engine": far.judge.engine}) == far.judge


def test_with_a_guarantee_the_oracles_own_verdicts_are_compared_as_the_decisions(judging: Judging) -> None:
    strong = {"name": "strong", "escalate": {"target": {"recall": 0.9}}}
    verdicts = judging.judge(judging.setup(tiers=[tier(), strong]))[0]["verdicts"]
    said = {
        name: verdicts.filter(pl.col("tier") == name).sort("dataset", "query_id", "doc_id")["state"].to_list()
        for name in ("cascade", "strong")
    }
    assert said["cascade"] == said["strong"]
    assert len(said["strong"]) == 8
