"""Models are evaluated on collections by the encoder's engine, out of core, with the scores of mteb."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.method.curate import curate_method
from flows.method.evaluating import Scored, complete_labels, evaluate_collections, join_scores, least_relevance
from flows.method.setup import Outcome, Setup
from flows.method.tables import Finished
from infra.engines.encoder import EncoderEngine
from infra.engines.specs import CrossEncoderSpec, SentenceTransformersSpec
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, Piece, Table, read_table, write_directory
from infra.storage.store import Store
from tasks.evaluation.pool import JUDGED, PoolConfig
from tasks.report.parts.completed import CAUTION
from tests.flows.ahead import Stopping
from tests.flows.animals import make_setup, write_source
from tests.flows.fakes import InProcess
from tests.flows.trained import Place
from tests.tasks.evaluation.collection import write_collection, write_model
from tests.tasks.evaluation.test_search import MEASURES, MTEB


def _setup(store: Store, folder: Path, **evaluate: Any) -> Setup:
    collection = write_collection(folder / "set")
    named = {"path": str(collection), "name": "Mine", "languages": ["eng-Latn"]}
    settings = {"collections": [named], "measures": list(MEASURES), "max_seq_length": 64, **evaluate}
    setup = make_setup(store, write_source(folder / "source"), evaluate=settings)
    return replace(setup, collections=(write_directory(store, "source", collection),))


def test_a_model_for_dot_products_has_on_a_collection_the_scores_of_mteb(tmp_path: Path) -> None:
    store, folder = Store.open(str(tmp_path / "store")), write_model(tmp_path / "model", "dot")
    spec = SentenceTransformersSpec(model=str(folder), digest="d", similarity="dot", max_seq_length=64)
    executor = InProcess(store, tmp_path / "scratch", encoder=EncoderEngine(spec))
    run, setup = Runner(store, executor), _setup(store, tmp_path, ignore_same_id=True)
    model = write_directory(store, "model", folder)
    found = evaluate_collections(run, setup, {"base": model, "lost": Directory("model", {}, frozenset({0}))})
    assert {done.name: done.failed for done in run.runs if done.failed} == {}
    assert list(found) == ["base-mine"]
    assert {done.name for done in run.runs} == {"read_collection-mine"} | {
        f"{stage}-base-mine"
        for stage in ("encode_passages", "encode_queries", "search_collection", "score_collection", "write_results")
    }
    result = json.loads(store.get_object(found["base-mine"].files["results/animals-base/hash-encoder/Mine.json"]))
    (scores,) = result["scores"]["test"]
    names = ("ndcg_at_10", "recall_at_100", "mrr_at_10", "map_at_100", "precision_at_10", "hit_rate_at_1")
    assert [scores[name] for name in names] == pytest.approx(MTEB["dot", True], abs=5e-5)
    assert (scores["main_score"], scores["languages"]) == (scores["ndcg_at_10"], ["eng-Latn"])
    encoded = next(done for done in run.runs if done.name == "encode_passages-base-mine")
    assert {part["engine"]["similarity"] for part in encoded.ingredients.values()} == {"dot"}
    assert store.read_json("weights/hash-encoder.json")["files"] == dict(model.files)
    again = Runner(store, executor)
    executor.computed.clear()
    evaluate_collections(again, setup, {"base": model})
    assert executor.computed == []
    assert evaluate_collections(Runner(store), setup, {}) == {}


def test_a_cross_encoder_ranks_again_what_the_untrained_model_finds(tmp_path: Path) -> None:
    store, folder = Store.open(str(tmp_path / "store")), write_model(tmp_path / "model")
    spec = SentenceTransformersSpec(model=str(folder), digest="d", max_seq_length=64)
    executor = InProcess(store, tmp_path / "scratch", {"overlap": Overlap()}, encoder=EncoderEngine(spec))
    setup = _setup(store, tmp_path, measures=["RR@10"], depth=20)
    setup = replace(setup, reranker=CrossEncoderSpec(model="overlap", digest="o"))
    model, run = write_directory(store, "model", folder), Runner(store, executor)
    found = evaluate_collections(run, setup, {"base": model, "relabel": model})
    assert {done.name: done.failed for done in run.runs if done.failed} == {}
    assert set(found) == {"base-mine", "relabel-mine", "reranker-mine"}
    result = json.loads(store.get_object(found["reranker-mine"].files["results/animals-reranker/o/Mine.json"]))
    assert 0 < result["scores"]["test"][0]["main_score"] < 1


def test_lines_of_a_collection_that_cannot_be_read_are_a_note_of_the_run(tmp_path: Path) -> None:
    store, folder = Store.open(str(tmp_path / "store")), write_model(tmp_path / "model")
    setup, notes = _setup(store, tmp_path), list[str]()
    with (tmp_path / "set" / "corpus.jsonl").open("a") as corpus:
        corpus.write("{broken\n")
    setup = replace(setup, collections=(write_directory(store, "source", tmp_path / "set"),))
    spec = SentenceTransformersSpec(model=str(folder), digest="d", max_seq_length=64)
    executor = InProcess(store, tmp_path / "scratch", encoder=EncoderEngine(spec))
    evaluate_collections(
        Runner(store, executor, on_note=notes.append), setup, {"base": write_directory(store, "model", folder)}
    )
    said = "1 lines could not be read and were left out (corpus: broken_json 1)"
    assert notes == [f"evaluate.collections: Mine: {said}"]


class Overlap:
    """Scores a pair by the share of the query's words that the passage has."""

    def score(self, pairs: Sequence[tuple[str, str]], instructions: Sequence[str] = ()) -> list[float]:
        asked = [(set(query.split()), set(passage.split())) for query, passage in pairs]
        return [len(query & passage) / len(query) for query, passage in asked]


def test_scores_of_several_models_are_one_table_and_a_gap_in_one_is_a_gap(tmp_path: Path) -> None:
    def scored(name: str, missing: frozenset[int]) -> Scored:
        tables = [
            Table(kind, (Piece(0, f"{kind}-{name}", 3),), missing) for kind in ("scores", "dev_scores", "rejects")
        ]
        return Scored(*tables)

    made = join_scores([scored("a", frozenset()), scored("b", frozenset({0}))])
    assert [piece.object for piece in made.scores.pieces] == ["scores-a", "scores-b"]
    assert made.dev_scores.missing == {0}
    assert [piece.object for piece in made.rejects.pieces] == ["rejects-b"]


@pytest.mark.parametrize(("least", "found"), [(1, None), (2, 2)])
def test_the_least_label_of_a_positive_is_that_of_ingest(tmp_path: Path, least: int, found: int | None) -> None:
    store = Store.open(str(tmp_path / "store"))
    assert least_relevance(make_setup(store, write_source(tmp_path / "s"), ingest={"min_relevance": least})) == found


PAIR = ["dataset", "query_id", "doc_id"]


def _curated(place: Place, **evaluate: Any) -> tuple[Outcome, Runner, InProcess]:
    run, executor = place.runner()
    config = place.setup.config.evaluate.model_copy(update={"depth": 10, "measures": ("nDCG@10", "RR@10")})
    changed = type(config).model_validate(config.model_dump() | evaluate)
    setup = replace(place.setup, config=place.setup.config.model_copy(update={"evaluate": changed}))
    outcome = curate_method(run, setup)
    assert {done.name: done.failed for done in run.runs if done.failed} == {}
    return outcome, run, executor


def _table(run: Runner, name: str, *stages: str) -> pl.DataFrame:
    return read_table(run.store, Finished({done.name: done for done in run.runs}).table(name, *stages))


def test_judges_complete_the_labels_of_test_queries_and_each_measure_is_taken_twice(
    tiny_model: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path, tiny_model, train_on=["relabel"])
    _, plain, _ = _curated(place)
    outcome, run, executor = _curated(place, pool={"depth": 5})
    before, after = ({done.name for done in made.runs} for made in (plain, run))
    assert before <= after
    assert {"judge-heldout-llm", "decide-heldout", "score_completed-base", "score_completed-relabel"} <= after - before
    # What the method made without is reused; the page is the only thing besides that is made anew.
    assert {done.name for done in run.runs if done.name in before and done.computed} == {"report"}
    pairs = _table(run, "candidates", "pool_unlabelled")
    test = _table(run, "queries", "ingest").filter(split="test").select("dataset", "query_id")
    ranked = pl.concat(
        _table(run, "run", f"evaluate-{name}").filter(pl.col("rank") <= 5) for name in ("base", "relabel")
    )
    unlabelled = ranked.select(PAIR).unique().join(_table(run, "qrels", "ingest"), on=PAIR, how="anti")
    assert pairs.select(PAIR).sort(PAIR).equals(unlabelled.select(PAIR).sort(PAIR))
    assert pairs.join(test, on=["dataset", "query_id"], how="anti").is_empty()
    decisions = _table(run, "decisions", "decide-heldout")
    assert decisions.select(PAIR).sort(PAIR).equals(pairs.select(PAIR).sort(PAIR))
    # The labels alone give the scores of the evaluation, by which the gate goes.
    labelled = _table(run, "labelled", "score_completed-base", "score_completed-relabel").filter(
        pl.col("measure") != JUDGED
    )
    scores = read_table(run.store, outcome.scores)
    keys = ["model", "dataset", "measure", "query_id"]
    assert labelled.sort(keys).equals(scores.sort(keys))
    completed = _table(run, "completed", "score_completed-base", "score_completed-relabel")
    shares = [
        frame.filter(measure=JUDGED)["value"].mean()
        for frame in (completed, _table(run, "labelled", "score_completed-base"))
    ]
    assert shares[0] > shares[1]
    summary = json.loads(run.store.get_object(outcome.page.files["summary.json"]))["completed_labels"]
    states = dict(decisions["state"].value_counts().iter_rows())
    assert {state: count for state, count in summary["states"].items() if count} == states
    assert (summary["pairs"], summary["depth"], set(summary["measures"])) == (
        pairs.height,
        5,
        {"nDCG@10", "RR@10", JUDGED},
    )
    assert set(summary["measures"]["nDCG@10"]) == {"base", "relabel"}
    assert summary["caution"] == CAUTION
    page = run.store.get_object(outcome.page.files["report.html"]).decode()
    assert "With the labels that the judges add" in page
    assert CAUTION.replace("'", "&#39;") in page
    # A deeper pool asks about new pairs, and again about those whose answers could not be read: they are not kept.
    _, deeper, again = _curated(place, pool={"depth": 6})
    new = _table(deeper, "candidates", "pool_unlabelled").join(pairs, on=PAIR, how="anti")
    asked, before_it = set(again.llm.asked), set(executor.llm.asked)
    assert {again.llm.answer_to(question).text for question in asked & before_it} <= {"Maybe"}
    first = {
        question for question in asked - before_it if "exactly one word" not in question
    }  # what is put again is not
    assert 0 < len(first) <= new.select("query_hash", "text_hash").n_unique()


def test_a_pool_without_pairs_asks_nobody_and_without_models_there_is_none(tiny_model: Path, tmp_path: Path) -> None:
    place = Place(tmp_path, tiny_model, ("fever",), train_on=["relabel"], policies={"fever": {"skip": True}})
    outcome, run, executor = _curated(place, pool={"depth": 5})
    assert executor.llm.asked == []
    assert _table(run, "candidates", "pool_unlabelled").is_empty()
    summary = json.loads(run.store.get_object(outcome.page.files["summary.json"]))["completed_labels"]
    assert (summary["pairs"], summary["queries"]) == (0, 0)
    empty = Table("empty")
    nothing: Any = None
    assert complete_labels(run, place.setup, nothing, nothing, Scored(empty, empty, empty)) is None


def test_a_failed_part_of_the_pool_blocks_what_reads_it_and_the_next_run_goes_on_from_there(
    tiny_model: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path, tiny_model, train_on=["relabel"])
    changes = {"depth": 10, "measures": ("nDCG@10",), "pool": PoolConfig(depth=5)}
    pooled = place.setup.config.evaluate.model_copy(update=changes)
    config = place.setup.config.model_copy(update={"evaluate": pooled})
    executor = Stopping(place.store, place.scratch)
    executor.stop = ("judge-heldout-llm", frozenset({0}))
    run = Runner(place.store, executor)
    outcome = curate_method(run, replace(place.setup, config=config))
    done = {made.name: made for made in run.runs}
    assert {name for name, made in done.items() if made.failed} == {"judge-heldout-llm"}
    assert {name for name, made in done.items() if made.blocked} == {
        *("decide-heldout", "score_completed-base", "score_completed-relabel", "report")
    }
    assert not outcome.scores.incomplete  # what the gate reads is there
    again, computing = place.runner()
    assert not curate_method(again, replace(place.setup, config=config)).page.incomplete
    assert {name.rpartition("-")[0] for name in computing.computed} == {
        *("judge-heldout-llm", "decide-heldout", "score_completed-base", "score_completed-relabel", "report")
    }
