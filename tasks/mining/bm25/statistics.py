"""Add up over all parts of the corpus what BM25 must know of the whole of it."""

import polars as pl

from tasks.mining.bm25.index import TERMS, TOTALS
from tasks.mining.bm25.words import WordsConfig, count_words


def count_terms(
    config: WordsConfig, *, queries: pl.DataFrame, terms: pl.DataFrame, totals: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Add up in how many passages of its dataset each word of the training queries stands.

    Only these words are needed, so the result grows with the queries and not with the corpus.

    Returns:
        frequencies: of the words of the queries that some passage has. corpus: passages and words of each dataset.
    """
    asked = queries.filter(pl.col("split") == "train")
    words = count_words(asked["text"], config)
    named = words.with_columns(dataset=asked["dataset"].gather(words["row"])).select("dataset", "term").unique()
    frequencies = (
        terms.join(named, on=["dataset", "term"], how="semi")
        .group_by("dataset", "term")
        .agg(pl.col("passages").sum())
        .sort("dataset", "term")
    )
    corpus = totals.group_by("dataset").agg(pl.col("passages", "words").sum()).sort("dataset")
    return {
        "frequencies": frequencies.select(*TERMS.columns),
        "corpus": corpus.select(*TOTALS.columns),
    }
