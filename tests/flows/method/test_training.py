"""Which verdicts reach the training of which treatment."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.method.curate import curate_method, judge_data
from flows.method.training import list_known_pairs, train, training_of
from infra.cluster.weights import ensure
from infra.engines.rerankers.cross_encoder import CrossEncoderEngine
from infra.engines.specs import CrossEncoderSpec
from infra.stages.runner import Failure, PartSpec, Runner
from infra.storage.artifacts import Manifest, read_table, write_directory
from infra.storage.store import Store
from tasks.summaries import KNOWN_PAIRS
from tasks.training.train_config import TrainConfig
from tests.flows.animals import make_setup, write_source
from tests.flows.fakes import InProcess
from tests.flows.trained import TRAIN, Place
from tests.tasks.training.rerankers.rows import build_tiny_cross_encoder

RERANKER = {"model": "path:cross", "steps": 2, "batch_size": 4, "num_negatives": 2, "threads": 1, "max_seq_length": 64}


def listed(tmp_path: Path, **train: Any) -> tuple[pl.DataFrame | None, Runner]:
    store = Store.open(str(tmp_path / "store"))
    run = Runner(store, InProcess(store, tmp_path / "scratch"))
    source = tmp_path / "source"
    source = source if source.exists() else write_source(source)
    setup = make_setup(store, source, train={"steps": 1, **train})
    known = list_known_pairs(run, setup, judge_data(run, setup))
    return None if known is None else read_table(store, known), run


def test_what_the_judges_decided_is_listed_part_by_part_where_the_mask_reads_it(tmp_path: Path) -> None:
    known, run = listed(tmp_path)
    assert known is not None
    assert known.height
    assert set(known["state"]) <= {"relevant", "unsure"}
    assert known["score"].is_null().all()
    assert run.runs[-1].parts == 2
    soft, _ = listed(tmp_path, objective="kl")
    assert soft is not None
    assert soft.height >= known.height
    assert soft["score"].is_not_null().any()


@pytest.mark.parametrize("mask", ["none", "positives"])
def test_nothing_is_listed_where_nothing_reads_it(tmp_path: Path, mask: str) -> None:
    known, run = listed(tmp_path, mask=mask)
    assert known is None
    assert "list_known_pairs" not in [done.name for done in run.runs]


def test_default_reads_no_verdict_but_its_soft_labels(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    run = Runner(store, InProcess(store, tmp_path / "scratch"))
    rows = pl.DataFrame({"query": [1], "text": [2], "state": ["unsure"], "score": [0.5]})
    table = run.keep_table("known", rows.cast({"query": pl.UInt64, "text": pl.UInt64}), KNOWN_PAIRS)
    config, known = training_of(run, TrainConfig(), "default", table)
    assert (config.mask, known.rows) == ("positives", 0)
    config, known = training_of(run, TrainConfig(objective="kl"), "default", table)
    assert (config.mask, known.rows) == ("positives", 1)
    config, known = training_of(run, TrainConfig(), "relabel", table)
    assert (config.mask, known.rows) == ("unsure", 1)
    assert training_of(run, TrainConfig(mask="none"), "default", table)[0].mask == "none"


def test_nothing_is_trained_without_held_out_queries_or_a_model(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    run = Runner(store, InProcess(store, tmp_path / "scratch"))
    setup = make_setup(store, write_source(tmp_path / "source"), train={"steps": 1})
    made = judge_data(run, setup)
    assert train(run, setup, made.data, {}, None) == {}


def test_a_reranker_is_trained_for_each_treatment_and_ranks_the_held_out_queries_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path, tiny_model, ingest={"holdout": 0.3, "dev": 0.3}, train_reranker=RERANKER)
    start = build_tiny_cross_encoder(tmp_path / "cross")
    setup = replace(place.setup, reranker_start=write_directory(place.store, "model", start), reranker_start_key="tiny")
    executor = Reranking(place.store, place.scratch)
    run = Runner(place.store, executor)
    outcome = curate_method(run, setup)
    assert {r.name: r.failed for r in run.runs if r.failed} == {}
    assert set(outcome.rerankers) == {"default", "relabel"}
    for table in (outcome.scores, outcome.dev_scores):
        scores = read_table(place.store, table)
        asked = {name: set(own["query_id"]) for (name,), own in scores.group_by("model")}
        assert set(asked) == {"base", "default", "relabel", "reranker-default", "reranker-relabel"}
        assert len(set(map(frozenset, asked.values()))) == 1  # the same queries for each model
        recall = scores.filter(pl.col("measure") == "R@100").pivot(
            "model", index=["dataset", "query_id"], values="value"
        )
        assert recall["reranker-relabel"].equals(recall["base"], check_names=False)  # the same candidates
    page = place.file(outcome.page, "report.html")
    assert "Reranker-relabel" in page
    assert "Of two rerankers of the same candidates, reranker-relabel has nDCG@10" in page
    summaries = [json.loads(place.file(model, "training.json")) for model in outcome.rerankers.values()]
    assert [summary["mask"] for summary in summaries] == ["positives", "unsure"]
    assert {summary["steps"] for summary in summaries} == {2}
    again = Runner(place.store, Reranking(place.store, place.scratch))
    curate_method(again, setup)
    assert again.executor is not None
    assert again.executor.computed == []  # type: ignore[attr-defined]


def test_a_reranker_alone_ranks_what_the_untrained_model_found(tiny_model: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, tiny_model, train=None, train_reranker=RERANKER, train_on=["relabel"])
    kept = [
        write_directory(place.store, "model", folder)
        for folder in (tiny_model, build_tiny_cross_encoder(tmp_path / "c"))
    ]
    setup = replace(place.setup, base_model=kept[0], reranker_start=kept[1], reranker_start_key="tiny")
    run = Runner(place.store, Reranking(place.store, place.scratch))
    outcome = curate_method(run, setup)
    assert {r.name: r.failed for r in run.runs if r.failed} == {}
    assert set(read_table(place.store, outcome.scores)["model"]) == {"base", "reranker-relabel"}
    assert (outcome.models, set(outcome.rerankers)) == ({}, {"relabel"})


class Reranking(InProcess):
    """Loads the trained rerankers from the store, as an actor of a node does."""

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        engine = specs[0].engine if specs else None
        if isinstance(engine, CrossEncoderSpec):
            self._judges = {"": CrossEncoderEngine(ensure(self.store, engine, self.scratch / "cache"))}
        return super().run_stage(name, specs, finished)


def test_early_stop_scores_the_development_queries_of_the_curation(tiny_model: Path, tmp_path: Path) -> None:
    trained = {**TRAIN, "early_stop": {"every": 1, "passages": 5}}
    ingest = {"holdout": 0.3, "dev": 0.3}
    place = Place(tmp_path, tiny_model, ingest=ingest, train=trained, train_on=["relabel"]).curate()
    (key,) = place.store.list("parts/train")
    manifest = Manifest.from_json(place.store.read(key) or b"")
    summary = json.loads(place.store.get_object(manifest.directories["model"]["training.json"]))
    assert [step for step, _ in summary["dev_scores"]] == [1, 2]
    assert summary["best_step"] in (1, 2)
    assert "qrels" in manifest.ingredients["inputs"]
    assert place.store.list("checkpoints") == []
