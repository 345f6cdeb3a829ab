"""BM25 over parts of the corpus: the scores of bm25s on the whole, whatever the parts are."""

import re

import bm25s
import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from tasks import schemas
from tasks.mining.bm25.search import Bm25Config, search_bm25
from tasks.mining.search import rank_by_score
from tasks.texts import hash_guard, hash_shown, hash_text
from tests.tasks.mining.bm25.tables import cut, passages_of, queries_of, search_parts
from tests.tasks.settings import settings_of

WORDS = [f"w{n}" for n in range(300)]


def _texts(seed: int, count: int, length: int) -> list[str]:
    """Texts of words as frequent as Zipf's law has it."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, len(WORDS) + 1)
    return [" ".join(rng.choice(WORDS, rng.integers(1, length), p=shares / shares.sum())) for _ in range(count)]


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_scores_equal_those_of_bm25s_on_the_whole_corpus(parts: int) -> None:
    texts, asked = _texts(0, 200, 40), _texts(1, 20, 8)
    model = bm25s.BM25(k1=1.2, b=0.6)
    model.index([re.findall(r"\w+", text) for text in texts], show_progress=False)
    hits = search_parts(Bm25Config(k1=1.2, b=0.6, depth=200), queries_of(*asked), cut(passages_of(texts), parts))
    for number, text in enumerate(asked):
        expected = model.get_scores([word for word in text.split() if word in model.vocab_dict])
        found = hits.filter(query_id=f"q{number}")
        rows = found["doc_id"].str.slice(1).cast(pl.Int64).to_numpy()
        assert set(rows) == set(np.flatnonzero(expected))
        assert np.abs(found["score"].to_numpy() - expected[rows]).max(initial=0) < 1e-5


def test_merged_hits_are_the_same_bytes_from_any_number_of_parts() -> None:
    passages, queries = passages_of(_texts(2, 150, 30)), queries_of(*_texts(3, 15, 9))
    merged = [
        search_parts(Bm25Config(depth=20), queries, cut(passages, parts))
        .pipe(rank_by_score)
        .filter(pl.col("rank") <= 20)
        for parts in (1, 2, 5)
    ]
    assert merged[0].equals(merged[1])
    assert merged[0].equals(merged[2])
    assert merged[0].height > 15 * 10


def test_hits_are_ranked_cut_at_the_depth_and_named() -> None:
    passages = passages_of(["heron heron", "a heron of some length", "stork", "heron heron"])
    hits = search_parts(Bm25Config(depth=2), queries_of("Heron?"), [passages])
    assert hits.select("doc_id", "retriever", "rank", "repeats").rows() == [
        ("p000", "bm25", 1, None),
        ("p001", "bm25", 3, None),
        ("p003", "bm25", 2, None),
    ]  # p003 is a copy of p000, so it takes no place
    assert hits["shown_hash"].to_list()[0] == hash_shown("", "heron heron")
    assert hits.schema == schemas.HITS.empty().schema


def test_a_query_with_many_copies_of_its_positive_is_searched_again() -> None:
    copies = [f"heron  {' ' * n}heron" for n in range(30)]
    passages = passages_of([*copies, "heron in a pond", "a heron that sleeps in the reeds"])
    guard = hash_guard("", "heron heron")
    positive = ("d", "q0", "p000", hash_text("x"), hash_shown("", copies[0]), guard, "input")
    positives = pl.DataFrame([positive], schema=schemas.POSITIVES.columns, orient="row")
    hits = search_parts(Bm25Config(depth=2), queries_of("heron"), [passages], positives)
    assert hits.height == 32
    assert {"p030", "p031"} <= set(hits["doc_id"])


def test_a_query_finds_passages_of_its_own_dataset_with_the_statistics_of_that() -> None:
    one, other = passages_of(["heron pond", "stork"]), passages_of(["heron", "heron stork"], "e")
    together = search_parts(Bm25Config(), queries_of("heron"), [pl.concat([one, other])])
    assert together.equals(search_parts(Bm25Config(), queries_of("heron"), [one]))


def test_held_out_queries_texts_without_words_and_empty_parts_give_no_hits() -> None:
    passages = passages_of(["heron", "!"])
    assert search_parts(Bm25Config(), queries_of("heron", split="test"), [passages]).is_empty()
    assert search_parts(Bm25Config(), queries_of("?!"), [passages]).is_empty()
    nothing = schemas.PASSAGES.empty()
    assert search_parts(Bm25Config(), queries_of("heron"), [nothing]).equals(schemas.HITS.empty())
    beside = search_parts(Bm25Config(), queries_of("heron"), [nothing, passages])
    assert beside["doc_id"].to_list() == ["p000"]


def test_the_query_s_own_text_and_a_near_twin_under_its_id_are_marked() -> None:
    passages = passages_of(["where does the heron live", "the heron lives"]).with_columns(
        doc_id=pl.Series(["q0", "p1"])
    )
    hits = search_parts(Bm25Config(), queries_of("where does the heron live?", "where does the heron live"), [passages])
    assert hits.sort("query_id", "rank").select("query_id", "doc_id", "repeats").rows()[0] == (
        "q0", "q0", "near the same text",
    )  # fmt: skip
    assert hits.filter(query_id="q1", doc_id="q0")["repeats"].to_list() == ["shown text"]


def test_passages_that_came_after_the_statistics_are_found_with_their_words() -> None:
    """Their words have a frequency of none in the corpus that was counted."""
    config, queries = Bm25Config(), queries_of("axolotl")
    from tasks.mining.bm25.index import index_terms
    from tasks.mining.bm25.statistics import count_terms

    old = index_terms(config.as_words, passages=passages_of(["heron", "stork"]))
    new = index_terms(config.as_words, passages=passages_of(["an axolotl"]))
    whole = count_terms(config.as_words, queries=queries, terms=old["terms"], totals=old["totals"])
    found = search_bm25(
        config,
        queries=queries,
        positives=schemas.POSITIVES.empty(),
        passages=passages_of(["an axolotl"]),
        documents=new["documents"],
        postings=new["postings"],
        **whole,
    )["hits"]
    assert found["doc_id"].to_list() == ["p000"]


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(Bm25Config) == {
        "": "finite", "language": "any", "k1": (1.5, ">0"), "b": (0.75, ">=0", "<=1"), "depth": (100, ">=1")
    }  # fmt: skip
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Bm25Config(b=1.5)
