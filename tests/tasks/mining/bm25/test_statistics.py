"""The frequencies of the queries' words over all parts of the corpus."""

import polars as pl

from tasks import schemas
from tasks.mining.bm25.index import TERMS, TOTALS, index_terms
from tasks.mining.bm25.statistics import count_terms
from tasks.mining.bm25.words import WordsConfig, hash_term
from tests.tasks.mining.bm25.tables import cut, passages_of, queries_of

HERON = hash_term("heron")


def _counted(queries: pl.DataFrame, parts: list[pl.DataFrame]) -> dict[str, pl.DataFrame]:
    made = [index_terms(WordsConfig(), passages=part) for part in parts]
    tables = {name: pl.concat(one[name] for one in made) for name in ("terms", "totals")}
    return count_terms(WordsConfig(), queries=queries, **tables)


def test_only_words_of_training_queries_are_kept_and_their_number_does_not_depend_on_the_parts() -> None:
    passages = passages_of(["heron pond", "heron", "stork pond", "stork stork"])
    queries = pl.concat([queries_of("a heron"), queries_of("stork", dataset="e"), queries_of("pond", split="test")])
    whole = _counted(queries, [passages])
    assert whole["frequencies"].rows() == [("d", HERON, 2)]
    assert whole["corpus"].rows() == [("d", 4, 7)]
    for parts in (2, 3):
        in_parts = _counted(queries, cut(passages, parts))
        assert all(in_parts[name].equals(whole[name]) for name in whole)


def test_nothing_to_count_gives_empty_tables() -> None:
    made = _counted(schemas.QUERIES.empty(), [schemas.PASSAGES.empty()])
    assert made["frequencies"].equals(TERMS.empty())
    assert made["corpus"].equals(TOTALS.empty())
