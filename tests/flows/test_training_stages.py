"""The stages of training and evaluation: no part holds a whole corpus, or more of the known pairs than their names."""

from flows import stages, training_stages
from flows.stage_names import section_of
from flows.training_stages import LIST_KNOWN_PAIRS, TRAIN, training_stage
from tasks.summaries import KNOWN_PAIRS
from tasks.training.train_config import EarlyStopConfig, TrainConfig


def test_pairs_are_listed_with_each_part_of_the_queries_and_training_reads_their_names() -> None:
    assert all(stage in stages.STAGES for stage in (LIST_KNOWN_PAIRS, TRAIN))
    assert LIST_KNOWN_PAIRS.arity == "map"
    assert not LIST_KNOWN_PAIRS.every
    assert LIST_KNOWN_PAIRS.outputs == {"known": KNOWN_PAIRS}
    assert "known" in TRAIN.every
    assert LIST_KNOWN_PAIRS.settings == TRAIN.settings == "train"
    assert not LIST_KNOWN_PAIRS.decides_labels


def test_those_of_collections_are_in_the_table_belong_to_the_evaluation_and_decide_no_label() -> None:
    made = [training_stages.READ_COLLECTION, training_stages.SEARCH_COLLECTION]
    made += [training_stages.SCORE_COLLECTION, training_stages.WRITE_RESULTS, training_stages.RERANK]
    assert all(stage in stages.STAGES and not stage.decides_labels for stage in made)
    assert {section_of(stage.name) for stage in made} == {"evaluate"}


def test_a_reranker_is_trained_as_a_retriever_is_and_ranks_each_part_of_the_corpus() -> None:
    made = training_stages.TRAIN_RERANKER
    assert all(stage in stages.STAGES for stage in (made, training_stages.RERANK_HELD_OUT))
    assert (made.trains, made.every, made.late, made.directories) == (True, TRAIN.every, TRAIN.late, ("model",))
    assert section_of(made.name) == "train_reranker"
    assert training_stages.RERANK_HELD_OUT.each == ("passages",)
    assert "text" not in training_stages.SCORE_RERANKED.columns["queries"]


def test_no_part_of_the_search_holds_a_whole_corpus_or_the_texts_of_its_passages() -> None:
    search = training_stages.SEARCH_COLLECTION
    assert set(search.across) == set(search.streams) == {"passages", "passage_embeddings"}
    assert "text" not in search.columns["passages"]
    assert training_stages.WRITE_RESULTS.streams == ("run",)


def test_with_early_stop_a_training_reads_the_development_queries_and_its_key_covers_their_texts() -> None:
    assert training_stage(TrainConfig()) is TRAIN
    early = training_stage(TrainConfig(early_stop=EarlyStopConfig()))
    assert set(early.inputs) == {*TRAIN.inputs, "qrels"}
    assert set(early.late) == {"base"}
    assert (early.name, early.version, early.trains) == (TRAIN.name, TRAIN.version, True)


def test_the_pool_of_held_out_queries_streams_the_corpus_and_has_the_parts_of_the_queries() -> None:
    pooled, scored = training_stages.POOL_UNLABELLED, training_stages.SCORE_COMPLETED
    assert {"run", "passages"} == set(pooled.streams)
    assert set(pooled.splits) == {"candidates", "positives"}
    assert pooled.numbered == ("queries",)
    assert scored.streams == ("run",)
    assert set(scored.outputs) == {"labelled", "completed"}
    assert all(stage in stages.STAGES and not stage.decides_labels for stage in (pooled, scored))
