"""Say which passages a query part needs, to each passage part that may hold them.

The part of a passage follows from the hash of its text, within each generation of passages. Which generation holds a
text is not known here, so each one is asked; only the part that holds the passage answers (`tasks.fetching.fetch`).
"""

from collections.abc import Iterator
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.data.ingesting.text_store import from_hex, part_of_hashes
from tasks.schemas import Schema

# What query parts want of one passage part. `part` is the query part that wants it.
WANTED = Schema(
    {"part": pl.Int32, "dataset": pl.String, "doc_id": pl.String, "text_hash": pl.String},
    key=("part", "dataset", "doc_id"),
)
_QUERY = ["dataset", "query_id"]
_PASSAGE = ["dataset", "doc_id"]


class WantConfig(BaseModel):
    """Where passages may be; set by the flow.

    generations: by generation of passages, the number of its first part, and how many parts it has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generations: tuple[tuple[int, int], ...]


def want(config: WantConfig, *, candidates: pl.DataFrame, positives: pl.DataFrame) -> dict[str, Any]:
    """Ask for the candidates of a query part, and for the positives of their queries.

    Args:
        config: where passages may be.
        candidates: of one query part, with its number in the column `part`.
        positives: of the same part.

    Returns:
        `wanted`: an iterable of passage parts and WANTED. `facts`: `wanted`, the number of passages asked for.
    """
    asked = candidates.select(*_QUERY, "part").unique()
    labelled = positives.join(asked, on=_QUERY)
    return _scatter(config, candidates, labelled)


def want_training(
    config: WantConfig, *, queries: pl.DataFrame, candidates: pl.DataFrame, positives: pl.DataFrame
) -> dict[str, Any]:
    """Ask for all that a training set of a query part can hold: its candidates, the positives of its training queries.

    `queries` have the number of their part in the column `part`. Returns the same as `want`.
    """
    numbered = queries.select(*_QUERY, "split", "part")
    training = numbered.filter(pl.col("split") == "train")
    return _scatter(config, candidates.join(numbered, on=_QUERY), positives.join(training, on=_QUERY))


def want_labelled(
    config: WantConfig, *, queries: pl.DataFrame, positives: pl.DataFrame, irrelevant: pl.DataFrame
) -> dict[str, Any]:
    """Ask for the passages that people labelled for the training queries of a part: mining compares scores with theirs.

    `queries` have the number of their part in the column `part`. Returns the same as `want`.
    """
    training = queries.filter(pl.col("split") == "train").select(*_QUERY, "part")
    return _scatter(config, *(pairs.join(training, on=_QUERY) for pairs in (positives, irrelevant)))


def _scatter(config: WantConfig, *pairs: pl.DataFrame) -> dict[str, Any]:
    rows = pl.concat([frame.select(*WANTED.columns) for frame in pairs])
    wanted = rows.unique(_PASSAGE, keep="first", maintain_order=True).sort(WANTED.key)
    return {"wanted": _by_passage_part(config, wanted), "facts": {"wanted": wanted.height}}


def _by_passage_part(config: WantConfig, wanted: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    high, low = from_hex(wanted["text_hash"])
    for first, count in config.generations:
        to = wanted.with_columns(pl.Series("_to", part_of_hashes(high, low, count)))
        parts = to.partition_by("_to", as_dict=True, include_key=False, maintain_order=True)
        yield from ((first + int(number), frame) for (number,), frame in sorted(parts.items()))
