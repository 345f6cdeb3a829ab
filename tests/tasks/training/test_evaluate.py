"""Evaluation: scores per held-out query, and the difference of two models on the same queries."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from tasks import schemas
from tasks.evaluation.pool import PoolConfig
from tasks.summaries import RUN
from tasks.texts import hash_passage, hash_text
from tasks.training import evaluate as evaluate_module
from tasks.training.evaluate import (
    Comparison,
    EvaluateConfig,
    choose_pair,
    compare,
    evaluate,
    paired_differences,
)
from tests.tasks.records import mutable_records
from tests.tasks.settings import settings_of

WORDS = ("red", "green", "blue", "old", "new")


@pytest.fixture(scope="module")
def bag_of_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose vector counts words: what it finds can be worked out by hand."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate((*WORDS, "?"))}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    embedding = StaticEmbedding(tokenizer, embedding_weights=torch.eye(6).numpy())
    folder = tmp_path_factory.mktemp("bag")
    SentenceTransformer(modules=[embedding], device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder


def queries_of(*rows: tuple[str, str, str, str]) -> pl.DataFrame:
    """Rows of dataset, query_id, text, split."""
    full = [(dataset, query_id, text, hash_text(text), split) for dataset, query_id, text, split in rows]
    return pl.DataFrame(full, schema=schemas.QUERIES.columns, orient="row")


def passages_of(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Rows of dataset, doc_id, text."""
    full = [(dataset, doc_id, "", text, hash_passage("", text)) for dataset, doc_id, text in rows]
    return pl.DataFrame(full, schema=schemas.PASSAGES.columns, orient="row")


def qrels_of(*rows: tuple[str, str, str, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schemas.QRELS.columns, orient="row")


PASSAGES = passages_of(
    ("toy", "d1", "red red"), ("toy", "d2", "red red green"), ("toy", "d3", "blue"), ("toy", "d4", "old")
)


def values(scores: pl.DataFrame, measure: str) -> dict[str, float]:
    return dict(scores.filter(pl.col("measure") == measure).select("query_id", "value").iter_rows())


def test_measures_are_those_worked_out_by_hand(bag_of_words: Path) -> None:
    queries = queries_of(("toy", "q1", "red", "test"), ("toy", "q2", "blue", "test"))
    qrels = qrels_of(("toy", "q1", "d2", 1), ("toy", "q2", "d3", 1))
    scores = evaluate(
        EvaluateConfig(model_name="relabel", seed=7),
        queries=queries,
        passages=PASSAGES,
        qrels=qrels,
        model=bag_of_words,
    )["scores"]
    assert scores.columns == list(schemas.SCORES.columns)
    assert values(scores, "RR@10") == {"q1": 1 / 2, "q2": 1.0}
    assert values(scores, "nDCG@10") == pytest.approx({"q1": 1 / np.log2(3), "q2": 1.0})
    assert values(scores, "R@100") == {"q1": 1.0, "q2": 1.0}
    assert scores.select("model", "dataset", "seed").unique().rows() == [("relabel", "toy", 7)]
    assert scores.equals(scores.sort(schemas.SCORES.key))


def test_a_query_whose_passage_is_not_returned_scores_zero(bag_of_words: Path) -> None:
    config = EvaluateConfig(model_name="base", depth=1, measures=("nDCG@1", "R@1", "RR@1"))
    queries = queries_of(("toy", "q1", "red", "test"))
    qrels = qrels_of(("toy", "q1", "d3", 1))
    scores = evaluate(config, queries=queries, passages=PASSAGES, qrels=qrels, model=bag_of_words)["scores"]
    assert scores["value"].to_list() == [0.0, 0.0, 0.0]


def test_a_relevant_passage_outside_the_corpus_counts_as_missed(bag_of_words: Path) -> None:
    queries = queries_of(("toy", "q1", "red", "test"))
    qrels = qrels_of(("toy", "q1", "d1", 1), ("toy", "q1", "gone", 1))
    scores = evaluate(
        EvaluateConfig(model_name="base"), queries=queries, passages=PASSAGES, qrels=qrels, model=bag_of_words
    )["scores"]
    assert values(scores, "R@100") == {"q1": 0.5}


def test_training_queries_and_queries_without_relevant_passages_are_left_out(bag_of_words: Path) -> None:
    queries = queries_of(("toy", "q1", "red", "train"), ("toy", "q2", "blue", "test"), ("toy", "q3", "old", "test"))
    qrels = qrels_of(("toy", "q1", "d1", 1), ("toy", "q2", "d3", 1), ("toy", "q3", "d4", 0))
    scores = evaluate(
        EvaluateConfig(model_name="base"), queries=queries, passages=PASSAGES, qrels=qrels, model=bag_of_words
    )["scores"]
    assert scores["query_id"].unique().to_list() == ["q2"]


def test_the_queries_of_the_dev_split_are_asked_alone(bag_of_words: Path) -> None:
    queries = queries_of(("toy", "q1", "red", "train"), ("toy", "q2", "blue", "test"), ("toy", "q3", "old", "dev"))
    qrels = qrels_of(("toy", "q1", "d1", 1), ("toy", "q2", "d3", 1), ("toy", "q3", "d4", 1))
    config = EvaluateConfig(model_name="base", split="dev")
    scores = evaluate(config, queries=queries, passages=PASSAGES, qrels=qrels, model=bag_of_words)["scores"]
    assert scores["query_id"].unique().to_list() == ["q3"]


def test_each_dataset_searches_its_own_passages_though_ids_repeat(bag_of_words: Path) -> None:
    queries = queries_of(("a", "q1", "red", "test"), ("b", "q1", "red", "test"))
    passages = passages_of(("a", "d1", "red"), ("b", "d1", "blue"), ("b", "d2", "red red"))
    qrels = qrels_of(("a", "q1", "d1", 1), ("b", "q1", "d1", 1))
    scores = evaluate(
        EvaluateConfig(model_name="base"), queries=queries, passages=passages, qrels=qrels, model=bag_of_words
    )["scores"]
    ranks = scores.filter(pl.col("measure") == "RR@10").sort("dataset")
    assert ranks.select("dataset", "value").rows() == [("a", 1.0), ("b", 0.5)]


def test_a_query_does_not_find_itself_where_queries_are_passages_too(bag_of_words: Path) -> None:
    """Before, a passage with the query's id and another text took rank 1, and one labelled relevant rank 2."""
    queries = queries_of(
        ("toy", "d1", "red", "test"), ("toy", "1", "blue", "test"), ("toy", "d5", "new", "test"),
        ("toy", "d7", "old", "test"),
    )  # fmt: skip
    passages = passages_of(
        ("toy", "d1", "red"), ("toy", "d2", "red red green"), ("toy", "d3", "blue blue green"), ("toy", "1", "old"),
        ("toy", "d5", "new"), ("toy", "d6", "new red"), ("toy", "d7", "old old blue"), ("toy", "d8", "old red blue"),
    )  # fmt: skip
    qrels = qrels_of(("toy", "d1", "d2", 1), ("toy", "1", "d3", 1), ("toy", "d5", "d5", 1), ("toy", "d7", "1", 1))
    names = ("nDCG@3", "RR@3")
    made = evaluate(
        EvaluateConfig(depth=3, measures=names), queries=queries, passages=passages, qrels=qrels, model=bag_of_words
    )
    assert values(made["scores"], "RR@3") == {"d1": 1.0, "1": 1.0, "d5": 1.0, "d7": 1.0}
    assert made["rejects"].select("key", "reason").rows() == [
        ("toy/1/1", "same_id_as_query"), ("toy/d1/d1", "same_text_as_query"), ("toy/d7/d7", "same_id_as_query"),
    ]  # fmt: skip
    by_id = EvaluateConfig(depth=3, measures=names, ignore_same_id=True)
    made = evaluate(by_id, queries=queries, passages=passages, qrels=qrels, model=bag_of_words)
    assert made["rejects"]["key"].to_list() == ["toy/1/1", "toy/d1/d1", "toy/d5/d5", "toy/d7/d7"]
    neither = EvaluateConfig(depth=3, measures=names, ignore_same_id=False, ignore_same_text=False)
    made = evaluate(neither, queries=queries, passages=passages, qrels=qrels, model=bag_of_words)
    assert made["rejects"].is_empty()
    assert values(made["scores"], "RR@3")["d1"] == 1 / 2


def test_labels_below_the_least_relevance_are_not_relevant_but_those_of_rows_are_all_alike(bag_of_words: Path) -> None:
    queries = queries_of(("toy", "q1", "red", "test"))
    qrels = qrels_of(("toy", "q1", "d1", 1), ("toy", "q1", "d2", 2))
    given = {"queries": queries, "passages": PASSAGES, "model": bag_of_words}
    made = evaluate(EvaluateConfig(min_relevance=2), qrels=qrels, **given)
    assert values(made["scores"], "RR@10") == {"q1": 1 / 2}
    rows = evaluate(EvaluateConfig(min_relevance=3), qrels=qrels, **given)
    assert values(rows["scores"], "RR@10") == {"q1": 1.0}


def test_development_queries_are_scored_apart_and_the_run_holds_the_rankings_of_both(bag_of_words: Path) -> None:
    queries = queries_of(("toy", "q2", "blue", "test"), ("toy", "q3", "old", "dev"))
    qrels = qrels_of(("toy", "q2", "d3", 1), ("toy", "q3", "d4", 1))
    parts = [PASSAGES[:1], PASSAGES[1:]]
    made = evaluate(EvaluateConfig(), queries=queries, passages=parts, qrels=qrels, model=bag_of_words)
    assert [set(made[name]["query_id"]) for name in ("scores", "dev_scores")] == [{"q2"}, {"q3"}]
    run = pl.concat(made["run"])
    assert dict(run.schema) == RUN.columns
    assert run.filter(rank=1).select("query_id", "doc_id").rows() == [("q2", "d3"), ("q3", "d4")]
    assert run.group_by("query_id").len()["len"].to_list() == [4, 4]
    whole = evaluate(EvaluateConfig(), queries=queries, passages=PASSAGES, qrels=qrels, model=bag_of_words)
    assert pl.concat(whole["run"]).equals(run)


def test_a_measure_that_looks_deeper_than_the_ranking_is_refused_where_it_is_taken(tmp_path: Path) -> None:
    """A record of a former run with such a measure can still be read."""
    config = EvaluateConfig(measures=("nDCG@10", "R@1000"))
    nothing: Any = {"queries": queries_of(), "passages": PASSAGES, "qrels": qrels_of(), "model": tmp_path}
    with pytest.raises(ValueError, match=r"R@1000 looks at 1000 passages of a ranking, and depth is 100"):
        evaluate(config, **nothing)
    deep = EvaluateConfig(measures=("R@1000",), depth=1000)
    none = evaluate(deep, **nothing)
    assert none["scores"].is_empty()


def test_two_collections_of_one_name_are_refused() -> None:
    found = EvaluateConfig.model_validate({"collections": ["sets/one", {"path": "sets/two", "name": "Two"}]})
    assert [each.label for each in found.collections] == ["one", "two"]
    with pytest.raises(ValidationError, match="give each a name"):
        EvaluateConfig.model_validate({"collections": ["a/x", "b/X"]})


@pytest.mark.parametrize(
    ("models", "pair"),
    [
        (["base", "default", "relabel", "remove_hn"], ("default", "relabel")),
        (["base", "default", "remove_hn"], ("default", "remove_hn")),
        (["base", "relabel"], ("base", "relabel")),
        (["base", "remove", "remove_hn"], ("base", "remove")),
        (["base", "default"], ("default", "relabel")),
        ([], ("default", "relabel")),
    ],
)
def test_the_models_that_were_trained_are_compared(models: list[str], pair: tuple[str, str]) -> None:
    """Before, only `default` and `relabel` were, and others counted as not evaluated."""
    assert choose_pair(scores_of(**{model: [0.5, 0.25] for model in models})) == pair


def test_without_held_out_queries_there_are_no_rows_and_no_model_is_loaded(tmp_path: Path) -> None:
    queries = queries_of(("toy", "q1", "red", "train"))
    scores = evaluate(
        EvaluateConfig(model_name="base"),
        queries=queries,
        passages=PASSAGES,
        qrels=schemas.QRELS.empty(),
        model=tmp_path / "nowhere",
    )["scores"]
    assert scores.equals(schemas.SCORES.empty())


def test_prompts_are_put_before_the_texts(bag_of_words: Path) -> None:
    queries = queries_of(("toy", "q1", "red", "test"))
    config = EvaluateConfig(model_name="base", query_prompt="blue blue ")
    scores = evaluate(
        config, queries=queries, passages=PASSAGES, qrels=qrels_of(("toy", "q1", "d1", 1)), model=bag_of_words
    )["scores"]
    assert values(scores, "RR@10") == {"q1": 1 / 2}  # d3 is before it


def test_a_measure_is_kept_in_the_spelling_of_ir_measures() -> None:
    assert EvaluateConfig(model_name="base", measures=("NDCG@5", "MRR@10")).measures == ("nDCG@5", "RR@10")


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(ValidationError, match="measures known to ir_measures expected, such as nDCG@10"):
        EvaluateConfig(model_name="base", measures=("Delight@10",))


def scores_of(**by_model: list[float]) -> pl.DataFrame:
    rows = [
        (model, "toy", "nDCG@10", f"q{i:03}", value, 42)
        for model, values in by_model.items()
        for i, value in enumerate(values)
    ]
    return pl.DataFrame(rows, schema=schemas.SCORES.columns, orient="row")


def test_differences_are_paired_by_query_and_averaged_over_seeds() -> None:
    rows = [
        ("default", "toy", "nDCG@10", "q1", 0.2, 1),
        ("default", "toy", "nDCG@10", "q1", 0.4, 2),
        ("relabel", "toy", "nDCG@10", "q1", 0.5, 1),
        ("relabel", "toy", "nDCG@10", "q2", 0.9, 1),
    ]
    paired = paired_differences(pl.DataFrame(rows, schema=schemas.SCORES.columns, orient="row"))
    assert paired["query_id"].to_list() == ["q1"]
    assert paired["difference"].to_list() == pytest.approx([0.2])


def test_a_steady_gain_is_clear_and_an_even_one_is_not() -> None:
    gain = scores_of(default=[0.1, 0.3, 0.5, 0.2, 0.4, 0.1, 0.6, 0.2], relabel=[0.3, 0.4, 0.8, 0.4, 0.5, 0.4, 0.7, 0.4])
    even = scores_of(default=[0.1, 0.9, 0.5, 0.5, 0.2, 0.6], relabel=[0.9, 0.1, 0.6, 0.4, 0.6, 0.2])
    (clear,), (unclear,) = compare(gain), compare(even)
    assert clear.difference == pytest.approx(0.1875)
    assert clear.low is not None
    assert clear.high is not None
    assert 0.1 < clear.low < clear.difference < clear.high < 0.3
    assert clear.p_value == pytest.approx(2 / 2**8, abs=1e-3)
    assert clear.is_clear
    assert (clear.better, clear.equal, clear.worse, clear.queries) == (8, 0, 0, 8)
    assert unclear.difference == pytest.approx(0.0)
    assert not unclear.is_clear
    assert unclear.p_value == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(3)
    scores = scores_of(default=rng.random(40).tolist(), relabel=rng.random(40).tolist())
    assert compare(scores) == compare(scores)
    assert compare(scores, seed=1) != compare(scores)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(60):
        base = rng.normal(0.5, 0.1, 40)
        (found,) = compare(
            scores_of(default=base.tolist(), relabel=(base + rng.normal(0.05, 0.1, 40)).tolist()), resamples=500
        )
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.05 <= found.high
    assert 51 <= covered <= 60


def test_models_without_any_difference_have_an_interval_of_zero_width() -> None:
    (found,) = compare(scores_of(default=[0.5, 0.25], relabel=[0.5, 0.25]))
    assert (found.low, found.high, found.p_value, found.is_clear) == (0.0, 0.0, 1.0, False)


def test_one_query_has_a_difference_but_no_interval() -> None:
    (found,) = compare(scores_of(default=[0.5], relabel=[0.75]))
    assert (found.difference, found.low, found.high, found.p_value) == (0.25, None, None, None)


def test_nothing_is_compared_where_a_model_is_missing() -> None:
    assert compare(scores_of(default=[0.5, 0.2])) == []
    assert compare(schemas.SCORES.empty()) == []


def test_several_datasets_are_compared_together_and_each_alone() -> None:
    one = scores_of(default=[0.1, 0.2], relabel=[0.2, 0.2])
    scores = pl.concat([one, one.with_columns(dataset=pl.lit("other"))])
    assert [(c.dataset, c.queries) for c in compare(scores)] == [("all", 4), ("other", 2), ("toy", 2)]


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(EvaluateConfig) == {
        "model_name": "base",
        "split": "test",
        "seed": (42, ">=0"),
        "measures": (("nDCG@10", "R@100", "RR@10"), "len>=1"),
        "depth": (100, ">=1"),
        "max_seq_length": (128, ">=8"),
        "query_prompt": "",
        "passage_prompt": "",
        "dtype": "float32",
        "device": "cpu",
        "batch_size": (32, ">=1", "operational"),
        "min_relevance": None,
        "ignore_same_id": "auto",
        "ignore_same_text": True,
        "collections": (),
        "pool": None,
    }


def test_a_pool_is_no_deeper_than_the_rankings() -> None:
    assert EvaluateConfig(depth=20, pool=PoolConfig()).pool == PoolConfig(depth=20)
    with pytest.raises(ValidationError, match=r"pool.depth=20 must not be above depth=10"):
        EvaluateConfig(depth=10, pool=PoolConfig())


def test_interval_and_p_value_are_those_of_scipy_with_the_seed() -> None:
    from scipy import stats

    differences = np.array([0.2, 0.1, 0.3, -0.1, 0.25, 0.0, 0.15])
    scores = scores_of(default=[0.5] * 7, relabel=(0.5 + differences).tolist())
    (found,) = compare(scores, seed=4, resamples=999)
    given = np.array([0.5 + d for d in differences]) - 0.5
    settings = {"n_resamples": 999, "batch": 5_000_000 // 7}
    boot = stats.bootstrap((given,), np.mean, method="percentile", rng=np.random.default_rng(4), **settings)
    test = stats.permutation_test(
        (given,), np.mean, permutation_type="samples", rng=np.random.default_rng(4), **settings
    )
    assert (found.low, found.high) == pytest.approx(tuple(boot.confidence_interval))
    assert found.p_value == pytest.approx(test.pvalue)
    assert (found.better, found.equal, found.worse) == (5, 1, 1)
    assert (found.baseline, found.treatment) == (pytest.approx(0.5), pytest.approx(0.5 + differences.mean()))


def test_the_same_difference_on_every_query_has_a_p_value_and_no_interval() -> None:
    (found,) = compare(scores_of(default=[0.5] * 8, relabel=[0.75] * 8), resamples=999)
    assert (found.low, found.high) == (None, None)
    assert found.p_value == pytest.approx(2 / 2**8, abs=1e-3)
    assert not found.is_clear


def test_the_usual_measures_come_first_and_others_by_name() -> None:
    one = scores_of(default=[0.1, 0.2], relabel=[0.2, 0.4])
    names = ["Success@1", "RR@10", "AP", "R@100", "nDCG@10"]
    scores = pl.concat([one.with_columns(measure=pl.lit(name)) for name in names])
    found = [c.measure for c in compare(scores, resamples=99)]
    assert found == ["nDCG@10", "R@100", "RR@10", "AP", "Success@1"]


@pytest.mark.parametrize(
    ("low", "high", "clear"),
    [(0.1, 0.2, True), (-0.2, -0.1, True), (0.0, 0.2, False), (-0.2, 0.0, False), (-0.1, 0.1, False)],
)
def test_a_difference_is_clear_where_zero_is_outside_its_interval(low: float, high: float, clear: bool) -> None:
    assert Comparison("all", "m", 5, 0.5, 0.6, 0.1, low, high, 0.01, 5, 0, 0).is_clear is clear


def test_records_cannot_be_changed_after_they_were_made() -> None:
    assert mutable_records(evaluate_module) == set()
