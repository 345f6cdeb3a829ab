"""Small literal tables for the tests of the guards."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from tasks import schemas
from tasks.guards.compare import compare_texts
from tasks.guards.config import NearConfig, SketchConfig
from tasks.guards.duplicates import pair_texts, sketch_passages
from tasks.guards.tables import BANDS, NEAR_CANDIDATES
from tasks.texts import hash_guard, hash_passage, hash_shown, hash_text

DATASET = "d"


def passages_of(texts: Mapping[str, str], dataset: str = DATASET) -> pl.DataFrame:
    rows = [(dataset, doc_id, "", text, hash_passage("", text)) for doc_id, text in texts.items()]
    return pl.DataFrame(rows, schema=schemas.PASSAGES.columns, orient="row")


def queries_of(texts: Mapping[str, str], split: str = "train") -> pl.DataFrame:
    rows = [(DATASET, query_id, text, hash_text(text), split) for query_id, text in texts.items()]
    return pl.DataFrame(rows, schema=schemas.QUERIES.columns, orient="row")


def positives_of(pairs: Iterable[tuple[str, str, str]]) -> pl.DataFrame:
    """Positives from query_id, doc_id and text."""
    rows = [
        (DATASET, query_id, doc_id, hash_passage("", text), hash_shown("", text), hash_guard("", text), "label")
        for query_id, doc_id, text in pairs
    ]
    return pl.DataFrame(rows, schema=schemas.POSITIVES.columns, orient="row")


def candidates_of(pairs: Iterable[tuple[str, str, str]], retriever: str = "dense") -> pl.DataFrame:
    """Candidates from query_id, doc_id and text, ranked in this order."""
    rows = [
        (DATASET, query_id, doc_id, hash_passage("", text), "q", "p", retriever, rank, 0.5)
        for rank, (query_id, doc_id, text) in enumerate(pairs, start=1)
    ]
    return pl.DataFrame(rows, schema=schemas.CANDIDATES.columns, orient="row")


def negatives_of(candidates: pl.DataFrame, *doc_ids: str) -> pl.DataFrame:
    """Negatives with these ids, ranked in this order within their query."""
    chosen = pl.DataFrame({"doc_id": doc_ids}, schema={"doc_id": pl.String})
    rows = chosen.join(candidates.drop("rank"), on="doc_id", maintain_order="left")
    ranked = rows.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("dataset", "query_id"))
    return ranked.select(*schemas.NEGATIVES.columns)


def gathered(made: Mapping[str, Any], name: str, index: int, schema: schemas.Schema) -> pl.DataFrame:
    """What several parts scattered to one index."""
    frames = [frame for at, frame in made[name] if at == index]
    return pl.concat([schema.empty(), *frames])


def find_near(parts: list[pl.DataFrame], similarity: float, shards: int) -> pl.DataFrame:
    """Near duplicates of a corpus in parts: all stages one after another, without a store."""
    config = SketchConfig(shards=shards, generations=(len(parts),))
    bands = [list(sketch_passages(config, passages=part)["bands"]) for part in parts]
    pairs: list[tuple[int, pl.DataFrame]] = []
    for shard in range(shards):
        mine = pl.concat([BANDS.empty(), *(frame for scattered in bands for at, frame in scattered if at == shard)])
        pairs += list(pair_texts(config, bands=mine)["pairs"])
    texts, found = pl.concat(parts), []
    for shard in range(shards):
        mine = pl.concat([NEAR_CANDIDATES.empty(), *(frame for at, frame in pairs if at == shard)])
        found.append(compare_texts(NearConfig(similarity=similarity), pairs=mine, texts=texts)["near"])
    return pl.concat(found).sort("left_hash", "right_hash")
