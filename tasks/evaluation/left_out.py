"""The passages that are left out of a query's ranking, because they are the query itself.

In some collections queries are passages too, under the same ids (ArguAna, Quora). BEIR leaves the passage with the
query's id out of its ranking. In others both have small numbers that have nothing to do with each other (Cranfield).
Then the passage with the query's number is one like any other.
"""

from typing import Literal

import polars as pl

from tasks.mining.masks import NEAR, OTHER, SAME_ID_AS_QUERY, SAME_TEXT_AS_QUERY, find_own, is_near

SharedIds = Literal["auto"] | bool
_PAIR = ["dataset", "query_id", "doc_id"]
LEFT_OUT = dict.fromkeys([*_PAIR, "reason", "detail"], pl.String)
_MOST = 0.5  # share of equal ids with near the same text from which the ids are the same names


def find_same(queries: pl.DataFrame, passages: pl.DataFrame) -> pl.DataFrame:
    """Return the passages that have a query's own text, or its id: the columns of `LEFT_OUT`.

    `passages` may be a part of the corpus; the results of all parts together are what `choose_left_out` reads.
    """
    return find_own(queries, passages, same_id=True)


def find_same_ids(queries: pl.DataFrame, passages: pl.DataFrame) -> pl.DataFrame:
    """Return the passages that have a query's id, as `find_same` does, without those that have its text alone."""
    pairs = queries.select("dataset", "query_id", query="text").join(
        passages.select("dataset", "title", "text", "text_hash", doc_id="doc_id"),
        left_on=["dataset", "query_id"],
        right_on=["dataset", "doc_id"],
        coalesce=True,
    )
    rows = [
        (name, id_, id_, SAME_ID_AS_QUERY, f"{NEAR if is_near(asked, title, text) else OTHER} {text_hash}")
        for name, id_, asked, title, text, text_hash in pairs.iter_rows()
    ]
    return pl.DataFrame(rows, schema=LEFT_OUT, orient="row")


def choose_left_out(
    found: pl.DataFrame, relevant: pl.DataFrame, *, same_id: SharedIds, same_text: bool
) -> pl.DataFrame:
    """Choose what is left out among the passages that have a query's own text, or its id.

    Args:
        found: what `find_same` found in the whole corpus.
        relevant: dataset, query_id and doc_id of what is labelled relevant.
        same_id: `True`: a passage with the query's id is left out, whatever its label, as in BEIR. `False`: none is.
            `auto`: it is, unless it is labelled relevant, where the id is no plain number, or where at least half of
            the equal ids of the dataset are of texts that are near the same.
        same_text: whether a passage that is the query's own text under another id is left out, unless it is labelled
            relevant.
    """
    ids, text = pl.col("query_id") == pl.col("doc_id"), pl.col("reason") == SAME_TEXT_AS_QUERY
    near = text | pl.col("detail").str.starts_with(NEAR)
    number = pl.col("query_id").str.contains(r"^\d+$")
    named_alike = near.filter(ids).mean().over("dataset") >= _MOST
    no_chance = {"auto": near | ~number | named_alike, True: pl.lit(value=True), False: pl.lit(value=False)}[same_id]
    labelled = relevant.select(*_PAIR, _labelled=pl.lit(value=True)).unique()
    marked = found.join(labelled, on=_PAIR, how="left", maintain_order="left")
    stays = pl.col("_labelled").fill_null(value=False)
    if same_id is True:
        stays &= ~ids
    return marked.filter((ids & no_chance) | (text & pl.lit(same_text)), ~stays).select(*LEFT_OUT)
