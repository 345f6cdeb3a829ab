"""The stages of the fetch: what each passes on by index, and where its settings are found."""

from flows import stages
from flows.fetching_stages import FETCH_TEXTS, FETCH_VECTORS, WANT, WANT_LABELLED
from flows.stage_names import section_of


def test_a_want_knows_its_part_and_both_ways_are_scattered() -> None:
    for stage in (WANT, WANT_LABELLED, FETCH_TEXTS, FETCH_VECTORS):
        assert stage in stages.STAGES
        assert stage.scatters == tuple(stage.outputs)
        assert not stage.every
    assert (WANT.numbered, WANT_LABELLED.numbered) == (("candidates",), ("queries",))
    assert (section_of("want"), section_of("fetch_vectors")) == ("ingest", "encode")


def test_no_stage_but_the_search_reads_the_corpus_or_its_vectors_with_each_part_of_the_queries() -> None:
    """What is `late` or `every` is read whole by each part; only stages of one part may do that with passages."""
    big = {"passages", "passage_embeddings", "query_embeddings", "embeddings", "queries", "positives"}
    for stage in stages.STAGES:
        if stage.arity in ("map", "grid"):
            assert not big & {*stage.every, *stage.late}, stage.name
