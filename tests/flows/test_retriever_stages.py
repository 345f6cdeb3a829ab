"""The stages of further retrievers stand in the stage table."""

from flows import retriever_stages, stages
from flows.stage_names import section_of


def test_they_are_in_the_table_and_a_change_of_their_settings_is_another_method() -> None:
    made = [retriever_stages.INDEX_TERMS, retriever_stages.COUNT_TERMS, retriever_stages.SEARCH_BM25]
    made += [retriever_stages.SEARCH_WITH, retriever_stages.FUSE]
    assert all(stage in stages.STAGES and stage.decides_labels for stage in made)
    hashing = retriever_stages.HASH_PASSAGES
    assert hashing in stages.STAGES and not hashing.decides_labels
    assert [section_of(stage.name) for stage in made] == ["bm25", "bm25", "bm25", "search", "mine"]


def test_the_frequencies_of_words_are_in_no_key_because_they_grow_with_the_queries() -> None:
    assert retriever_stages.SEARCH_BM25.late == ("frequencies", "corpus")


def test_a_reranker_decides_no_label_because_the_pool_stays() -> None:
    rescoring = [retriever_stages.CHOOSE_POOL, retriever_stages.RESCORE]
    assert all(stage in stages.STAGES and not stage.decides_labels for stage in rescoring)
    assert [section_of(stage.name) for stage in rescoring] == ["mine", "rescore"]
    assert retriever_stages.RESCORE.ledger
    assert "rescored" in stages.MINE.each
