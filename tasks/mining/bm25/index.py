"""Index the words of one part of the corpus: where each stands, and how often.

The index holds counts and no scores. A score needs the frequencies of words in the whole corpus, which one part does
not know (`tasks.mining.bm25.statistics`). So a part is indexed once, whatever the rest of the corpus is, and neither
`k1` nor `b` nor growth makes it again.
"""

import polars as pl

from tasks.mining.bm25.words import WordsConfig, count_words
from tasks.mining.masks import hash_passages
from tasks.schemas import Schema
from tasks.texts import show_passage

_TEXT = pl.String
# The passages of one part by dataset and doc_id. `body_hash` is the `guard_hash` of the text without its title.
DOCUMENTS = Schema(
    {
        **dict.fromkeys(["dataset", "doc_id", "text_hash", "shown_hash", "guard_hash", "body_hash"], _TEXT),
        "words": pl.Int32,
    },
    key=("dataset", "doc_id"),
)
# `doc` is the row in DOCUMENTS. Term and doc are unique; to check that for millions of rows takes longer than indexing.
POSTINGS = Schema({"term": pl.UInt64, "doc": pl.Int32, "count": pl.Int32}, key=())
TERMS = Schema({"dataset": _TEXT, "term": pl.UInt64, "passages": pl.Int64}, key=("dataset", "term"))
TOTALS = Schema({"dataset": _TEXT, "passages": pl.Int64, "words": pl.Int64}, key=("dataset",))


def index_terms(config: WordsConfig, *, passages: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Index passages, title and text joined.

    Returns:
        documents: the passages by dataset and doc_id, with their hashes and their number of words.
        postings: which word stands in which document (its row in `documents`), and how often.
        terms: in how many passages of each dataset a word stands.
        totals: how many passages and words each dataset has.
    """
    ordered = passages.sort("dataset", "doc_id")
    shown = [show_passage(title, text) for title, text in ordered.select("title", "text").iter_rows()]
    counts = count_words(pl.Series(shown, dtype=pl.String), config).rename({"row": "doc"})
    words = counts.group_by("doc").agg(words=pl.col("count").sum().cast(pl.Int32))
    documents = (
        hash_passages(ordered)
        .with_columns(doc=pl.int_range(pl.len(), dtype=pl.Int32))
        .join(words, on="doc", how="left", maintain_order="left")
        .with_columns(pl.col("words").fill_null(0))
    )
    found = counts.join(documents.select("doc", "dataset"), on="doc")
    terms = found.group_by("dataset", "term").agg(passages=pl.len().cast(pl.Int64))
    totals = documents.group_by("dataset").agg(passages=pl.len().cast(pl.Int64), words=pl.col("words").sum())
    return {
        "documents": documents.select(*DOCUMENTS.columns),
        "postings": counts.sort("term", "doc").select(*POSTINGS.columns),
        "terms": terms.sort("dataset", "term").select(*TERMS.columns),
        "totals": totals.with_columns(pl.col("words").cast(pl.Int64)).sort("dataset").select(*TOTALS.columns),
    }
