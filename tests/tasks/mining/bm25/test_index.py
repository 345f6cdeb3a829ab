"""The index of one part: counts of words, and the hashes of its passages."""

import polars as pl

from tasks import schemas
from tasks.mining.bm25.index import DOCUMENTS, POSTINGS, TERMS, TOTALS, index_terms
from tasks.mining.bm25.words import WordsConfig, hash_term
from tasks.texts import hash_guard, hash_shown
from tests.tasks.mining.bm25.tables import passages_of

HERON, POND = hash_term("heron"), hash_term("pond")


def test_each_word_is_found_where_it_stands() -> None:
    passages = passages_of(["heron pond heron", "!", "the heron"])
    made = index_terms(WordsConfig(), passages=passages[::-1])
    assert made["documents"].select("doc_id", "words").rows() == [("p000", 3), ("p001", 0), ("p002", 2)]
    postings = made["postings"].filter(pl.col("term").is_in([HERON, POND])).sort("count", "doc").rows()
    assert postings == [(POND, 0, 1), (HERON, 2, 1), (HERON, 0, 2)]
    assert made["terms"].filter(term=HERON).rows() == [("d", HERON, 2)]
    assert made["totals"].rows() == [("d", 3, 5)]


def test_datasets_of_one_part_are_counted_apart() -> None:
    passages = pl.concat([passages_of(["heron"], "e"), passages_of(["heron", "pond"], "d")])
    made = index_terms(WordsConfig(), passages=passages)
    assert made["documents"].select("dataset", "doc_id").rows() == [("d", "p000"), ("d", "p001"), ("e", "p000")]
    assert made["terms"].filter(term=HERON).rows() == [("d", HERON, 1), ("e", HERON, 1)]
    assert made["totals"].rows() == [("d", 2, 2), ("e", 1, 1)]


def test_titles_are_words_too_and_the_hashes_are_those_that_the_masks_compare() -> None:
    made = index_terms(WordsConfig(), passages=passages_of(["A pond"], title="Heron"))
    assert set(made["terms"]["term"]) == {HERON, hash_term("a"), POND}
    assert made["documents"].select("shown_hash", "guard_hash", "body_hash").row(0) == (
        hash_shown("Heron", "A pond"),
        hash_guard("Heron", "A pond"),
        hash_guard("", "A pond"),
    )


def test_tables_follow_their_schemas_also_without_passages() -> None:
    expected = {
        "documents": DOCUMENTS, "postings": POSTINGS, "terms": TERMS, "totals": TOTALS
    }  # fmt: skip
    for passages in (passages_of(["heron"]), schemas.PASSAGES.empty()):
        made = index_terms(WordsConfig(), passages=passages)
        assert {name: made[name].schema for name in made} == {
            name: schema.empty().schema for name, schema in expected.items()
        }
