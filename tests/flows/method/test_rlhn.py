"""The paper's rules, worked by hand: two tiers, better, equal, worse, more than seven (flows/config/rlhn.yaml).

Each passage says what either judge thinks of it. The paper: tier 1 forwards a row with anything better, equal or worse;
tier 2 judges the whole row again; better and equal are false negatives; more than 7 drop the row; ArguAna is skipped.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from flows.config.curation import CurationConfig
from flows.config.load import parse_config
from flows.method.curate import curate_method
from flows.method.setup import Outcome, Setup, Tier
from infra.engines.specs import SentenceTransformersSpec
from infra.stages.runner import Runner
from infra.storage.artifacts import read_table, write_directory
from infra.storage.store import Store
from tests.conftest import ROOT
from tests.flows.fakes import InProcess, ScriptedListwise

# query: (weak, strong) opinion of each negative; None where tier 2 must not see it.
ROWS: dict[str, list[tuple[str, str | None]]] = {
    "untouched": [("none", None), ("none", None)],
    "cleared by tier 2": [("worse", "none"), ("none", "none")],
    "tier 2 sees the whole row": [("equal", "none"), ("none", "better")],
    "worse is no false negative": [("better", "equal"), ("none", "worse")],
    "seven are kept": [("better", "better")] * 7 + [("none", "none")],
    "eight drop the row": [("better", "better")] * 8 + [("none", "none")],
}


def text_of(query: str, number: int, weak: str, strong: str | None) -> str:
    return f"Passage {number} about {query}. weak={weak} strong={strong or 'asked-in-error'} ."


def write_rows(folder: Path) -> Path:
    path = folder / "arguana-mirror" / "rows.jsonl"  # the folder's name must not matter (PAPER.md section 7, 8)
    path.parent.mkdir(parents=True)
    rows = [row_of(query, "nq", opinions) for query, opinions in ROWS.items()]
    rows.append(row_of("skipped", "arguana", [("better", None), ("better", None)]))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row_of(query: str, subset: str, opinions: list[tuple[str, str | None]]) -> dict[str, Any]:
    negatives = [
        {"docid": f"{query}/{n}", "title": "", "text": text_of(query, n, *said)} for n, said in enumerate(opinions)
    ]
    positive = {"docid": f"{query}/+", "title": "", "text": f"The answer to {query}."}
    return {
        "query_id": query,
        "query": f"{query}?",
        "positive_passages": [positive],
        "negative_passages": negatives,
        "subset": subset,
    }


def paper_config(source: Path) -> CurationConfig:
    settings = yaml.safe_load((ROOT / "flows" / "config" / "rlhn.yaml").read_text())
    return parse_config({**settings, "source": {"path": str(source)}, "ingest": {"query_parts": 2}}, "rlhn.yaml")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Runner, dict[str, ScriptedListwise]]:
    folder = tmp_path_factory.mktemp("rlhn")
    config = paper_config(write_rows(folder))
    store = Store.open(str(folder / "store"))
    judges = {tier.engine.model: ScriptedListwise(tier.name) for tier in config.tiers}
    runner = Runner(store, InProcess(store, folder / "scratch", judges))
    setup = Setup(
        config=config,
        source=write_directory(store, "source", Path(str(config.source.path)).parent),
        base_model=None,
        encoder=SentenceTransformersSpec(model="", digest="hash-encoder"),
        tiers=tuple(Tier.of(tier, config, tier.engine, str(tier.engine.model)) for tier in config.tiers),
        encoder_key="hash-encoder",
        base_model_key="",
        base_model_path="",
        page={},
    )
    outcome = curate_method(runner, setup)
    assert {r.name: r.failed for r in runner.runs if r.failed} == {}
    return outcome, runner, {tier.name: judges[tier.engine.model] for tier in config.tiers}


def numbers(ids: list[str]) -> list[int]:
    return sorted(int(doc.rpartition("/")[2]) for doc in ids if not doc.endswith("+"))


def instances(run: tuple[Outcome, Runner, Any], treatment: str) -> dict[str, tuple[list[int], list[int]]]:
    """Query to the numbers of its passages: among the positives, among the negatives."""
    frame = read_table(run[1].store, run[0].instances[treatment])
    return {r["query_id"]: (numbers(r["positives"]), numbers(r["negatives"])) for r in frame.iter_rows(named=True)}


def test_tier_1_sees_every_row_but_the_skipped_ones_and_tier_2_whole_rows_with_anything_found(run: Any) -> None:
    judges = run[2]
    assert len(judges["weak"].asked) == len(ROWS)
    assert sum(len(call) for call in judges["weak"].asked) == sum(len(opinions) for opinions in ROWS.values())
    second = {text for call in judges["strong"].asked for text in call}
    expected = {
        text_of(query, n, *said)
        for query, opinions in ROWS.items()
        for n, said in enumerate(opinions)
        if query != "untouched"
    }
    assert second == expected
    assert not any("asked-in-error" in text for text in second)


def test_better_and_equal_become_positives_and_worse_stays_a_negative(run: Any) -> None:
    assert instances(run, "relabel") == {
        "untouched": ([], [0, 1]),
        "cleared by tier 2": ([], [0, 1]),
        "tier 2 sees the whole row": ([1], [0]),
        "worse is no false negative": ([0], [1]),
        "seven are kept": ([0, 1, 2, 3, 4, 5, 6], [7]),
        "skipped": ([], [0, 1]),
    }


def test_removing_takes_false_negatives_out_and_drops_the_same_row(run: Any) -> None:
    assert instances(run, "remove_hn") == {
        "untouched": ([], [0, 1]),
        "cleared by tier 2": ([], [0, 1]),
        "tier 2 sees the whole row": ([], [0]),
        "worse is no false negative": ([], [1]),
        "seven are kept": ([], [7]),
        "skipped": ([], [0, 1]),
    }


def test_remove_drops_every_row_with_a_false_negative_and_default_changes_nothing(run: Any) -> None:
    assert set(instances(run, "remove")) == {"untouched", "cleared by tier 2", "skipped"}
    default = instances(run, "default")
    assert {query: len(negatives) for query, (_, negatives) in default.items()} == {
        **{query: len(opinions) for query, opinions in ROWS.items()},
        "skipped": 2,
    }


def test_the_edits_name_the_judges_and_no_skipped_row_is_touched(run: Any) -> None:
    manifests = next(r for r in run[1].runs if r.name == "decide").manifests
    decided = pl.concat(
        [pl.read_parquet(run[1].store.url + "/" + p.object) for m in manifests for p in m.tables["decisions"]]
    )
    assert "arguana" not in set(decided["dataset"])
    assert decided.filter(pl.col("preference") == "worse")["state"].unique().to_list() == ["unsure"]
    assert decided.filter(pl.col("query_id") == "untouched")["judge"].unique().str.starts_with("gpt-4o-mini").all()
    assert decided.filter(pl.col("query_id") == "seven are kept")["judge"].unique().str.starts_with("gpt-4o-2024").all()
