"""Send the passages of one corpus part, or their vectors, to the query parts that want them.

Each corpus part is read once, whatever the number of query parts.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.schemas import EMBEDDINGS, PASSAGES, Schema

_PASSAGE = ["dataset", "doc_id"]


class FetchConfig(BaseModel):
    """Nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def fetch_texts(config: FetchConfig, *, wanted: pl.DataFrame, passages: pl.DataFrame) -> dict[str, Any]:
    """Return `texts`: query parts and the passages that each wants of this corpus part, as PASSAGES."""
    del config
    found = wanted.select("part", *_PASSAGE).unique().join(passages, on=_PASSAGE)
    return {"texts": _by_query_part(found, PASSAGES)}


def fetch_vectors(config: FetchConfig, *, wanted: pl.DataFrame, embeddings: pl.DataFrame) -> dict[str, Any]:
    """Return `vectors`: query parts and the vectors that each wants of this corpus part, one for each distinct text.

    Only the vectors that are wanted are copied, and those of one query part at a time.
    """
    del config
    distinct = wanted.select("part", "text_hash").unique()
    places = embeddings.select("text_hash").with_row_index("place").unique("text_hash", keep="first")
    found = distinct.join(places, on="text_hash").sort("part", "text_hash")
    vectors = embeddings["vector"]
    sent = (
        (part, rows.select("text_hash", vector=vectors.gather(rows["place"])).select(*EMBEDDINGS.columns))
        for part, rows in _cut(found)
    )
    return {"vectors": sent}


def _by_query_part(rows: pl.DataFrame, schema: Schema) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the rows of each query part, sorted by the schema's key; nothing for a part without rows.

    Only one part's rows are copied at a time: a passage that many queries want is sent many times.
    """
    for part, own in _cut(rows.sort("part", *schema.key)):
        yield part, own.select(*schema.columns)


def _cut(ordered: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the rows of each part, of rows that are sorted by part."""
    start = 0
    for part, count in ordered.group_by("part", maintain_order=True).len().iter_rows():
        yield part, ordered.slice(start, count)
        start += count
