"""Hash the passages of a corpus once, so that no search reads their texts."""

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.mining.masks import hash_passages
from tasks.schemas import Schema

# A passage under each of its hashes, and that of its normalised text without the title.
HASHES = Schema(
    dict.fromkeys(("dataset", "doc_id", "text_hash", "shown_hash", "guard_hash", "body_hash"), pl.String),
    key=("dataset", "doc_id"),
)


class HashConfig(BaseModel):
    """Nothing is configured."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def hash_corpus(config: HashConfig, *, passages: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Hash one part of the corpus.

    Returns:
        hashes: each passage, in the order of `passages`, with its four hashes (`tasks.mining.masks.hash_passages`).
    """
    del config
    return {"hashes": hash_passages(passages).select(*HASHES.columns)}
