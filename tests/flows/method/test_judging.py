"""Similarity judges first, then each tier what the tier before left open; each pair has one decision."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.method.curate import curate_method
from flows.method.setup import Outcome
from flows.method.tables import Finished
from flows.results.data_stats import data_of
from flows.results.verdict_layer import verdict_parts
from infra.engines.encoder import EncoderEngine
from infra.stages.runner import Runner
from infra.storage.artifacts import read_table
from infra.storage.store import Store
from tasks.verdicts.pairs import PAIR
from tests.flows.animals import make_setup, run_method, tier, write_rows, write_source
from tests.flows.fakes import InProcess
from tests.flows.floored import build_encoder, write_unrelated


def table(run: Runner, stage: str, name: str) -> pl.DataFrame:
    return read_table(run.store, Finished({done.name: done for done in run.runs}).table(name, stage))


@pytest.fixture(scope="module")
def floored(tmp_path_factory: pytest.TempPathFactory) -> EncoderEngine:
    """An encoder whose cosines of unrelated texts lie above 0.85."""
    return build_encoder(tmp_path_factory.mktemp("encoder") / "floored", bias=2.0)


def curate_with(tmp_path: Path, source: Path, encoder: object, **changes: Any) -> tuple[Outcome, Runner, InProcess]:
    store = Store.open(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch", encoder=encoder)
    run = Runner(store, executor)
    outcome = curate_method(run, make_setup(store, source, **changes))
    assert {done.name: done.failed for done in run.runs if done.failed} == {}
    return outcome, run, executor


@pytest.mark.parametrize("tiers", [[], [{"name": "llm", "escalate": {"max_pairs": 20}}]], ids=["alone", "with a judge"])
def test_an_encoder_for_which_all_texts_are_near_relabels_nothing_and_the_judge_is_asked(
    tmp_path: Path, floored: EncoderEngine, tiers: list[dict[str, Any]]
) -> None:
    outcome, run, executor = curate_with(
        tmp_path,
        write_unrelated(tmp_path / "source"),
        floored,
        ingest={"query_parts": 2, "passage_parts": 2},
        similarity={},
        tiers=tiers,
        treat={"max_false_negatives": 20},
    )
    features = table(run, "judge_similarity", "features")
    assert (features.height, features["to_query"].min() > 0.85) == (500, True)  # type: ignore[operator]
    decisions = table(run, "decide", "decisions")
    assert decisions.filter(pl.col("state") == "relevant").is_empty()
    asked = decisions.filter(pl.col("call_id").is_not_null())
    assert decisions.filter(pl.col("call_id").is_null()).select("state", "score").unique().rows() == [("unsure", None)]
    assert asked.height == len(executor.llm.asked) == (20 if tiers else 0)
    scores = table(run, "judge_similarity", "verdicts")["score"]
    assert scores.min() > 0.8  # type: ignore[operator]  # P by MiniLM's weights: all would have been relevant
    before, after = (read_table(run.store, outcome.instances[name]) for name in ("default", "relabel"))
    assert before["positives"].equals(after["positives"])


def test_each_tier_judges_what_the_tier_before_left_open_and_every_pair_has_one_decision(tmp_path: Path) -> None:
    tiers = [tier("weak", max_pairs=20), tier("strong", lower=0.3, upper=1.0)]
    _, run, _ = run_method(tmp_path, write_source(tmp_path / "source"), tiers=tiers)
    weak, strong = table(run, "judge-weak", "verdicts"), table(run, "judge-strong", "verdicts")
    assert weak.height == 20
    open_ = weak.filter(pl.col("score").is_between(0.3, 1.0) | pl.col("state").is_in(["unsure", "unparsed"]))
    assert strong.select(PAIR).sort(PAIR).equals(open_.select(PAIR).sort(PAIR))
    decisions, candidates = table(run, "decide", "decisions"), table(run, "judge_similarity", "verdicts")
    assert decisions.select(PAIR).sort(PAIR).equals(candidates.select(PAIR).sort(PAIR))


def test_a_dataset_that_a_policy_skips_is_judged_by_no_tier(tmp_path: Path) -> None:
    _, run, _ = run_method(
        tmp_path,
        write_rows(tmp_path / "rows"),
        ingest={"query_parts": 2, "passage_parts": 2},
        policies={"fever": {"skip": True}},
    )
    judged = table(run, "judge-llm", "verdicts")
    assert set(judged["dataset"]) == {"data/MS MARCO", "data/ms-marco"}
    assert set(table(run, "decide", "decisions")["dataset"]) == set(judged["dataset"])


def test_without_tiers_similarity_alone_judges(tmp_path: Path) -> None:
    outcome, run, executor = run_method(tmp_path, write_source(tmp_path / "source"), tiers=[])
    assert not executor.llm.asked
    assert not table(run, "decide", "decisions")["call_id"].is_not_null().any()
    assert read_table(run.store, outcome.instances["default"]).height == 9


def test_positives_are_put_to_the_judge_and_doubts_are_named_but_nothing_is_edited(tmp_path: Path) -> None:
    """Each query has one positive, and this judge finds nothing relevant without a known text to compare with."""
    source = write_source(tmp_path / "source")
    plain, before, _ = run_method(tmp_path, source)
    asked = sum(done.name == "judge-check-llm" for done in before.runs)
    checked, run, _ = run_method(tmp_path, source, check={"positives": True, "queries": True})
    assert (asked, {done.name for done in run.runs} - {done.name for done in before.runs}) == (
        0,
        {"put_positives", "want-asked", "fetch_texts-asked", "judge-check-llm", "check"},
    )
    for treatment, table_ in plain.instances.items():
        assert read_table(run.store, checked.instances[treatment]).equals(read_table(run.store, table_))
    positives = table(run, "ingest", "positives").join(
        table(run, "ingest", "queries").filter(split="train"), on=["dataset", "query_id"], how="semi"
    )
    decided = table(run, "check", "decisions")
    assert decided.select(PAIR).sort(PAIR).equals(positives.select(PAIR).sort(PAIR))
    assert set(decided["state"]) <= {"unsure", "unparsed"}
    doubted = decided.filter(state="unsure").select("dataset", "query_id")
    unclear = table(run, "check", "queries").filter(reason="no positive found relevant")
    assert unclear.select("dataset", "query_id").sort(pl.all()).equals(doubted.sort(pl.all()))
    assert data_of(run.store, run.runs)["checks"]["doubted"] == doubted.height
    page = run.store.get_object(checked.page.files["report.html"]).decode()
    assert "Positives in doubt" in page
    parts = list(verdict_parts(run.store, checked.evidence))
    assert set(pl.concat(part.candidates for part in parts[2:])["retriever"]) == {"positive"}
    # Again, with the answers remembered, it asks nothing; the queries alone cost nothing at all.
    again, _, executor = run_method(tmp_path, source, check={"queries": True})
    assert executor.llm.asked == []
    assert "check_decisions" in again.evidence


def test_a_check_of_positives_needs_a_judge_that_can_be_asked() -> None:
    rows = {"name": "animals", "source": {"path": "rows"}, "ingest": {}, "check": {"positives": True}}
    for changes in ({"tiers": []}, {"check": {"positives": True, "tier": "strong"}}):
        with pytest.raises(ConfigError, match=r"the name of a tier with an engine expected in check\.tier"):
            parse_config({**rows, **changes}, "test")
