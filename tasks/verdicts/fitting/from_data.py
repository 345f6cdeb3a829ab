"""Labels that the data itself gives, where nobody labelled: a positive left out, and positives of other queries."""

from collections.abc import Iterable

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.judging.similarity import similarity_features
from tasks.schemas import CANDIDATES, FEATURES
from tasks.texts import combine_hashes

TRUST = (
    "The labels come from the data itself: of each query with several positives one was left out and counts as "
    "relevant; positives of other queries count as not relevant. These are far easier to tell apart than mined "
    "candidates. So a hard negative gets too high a P, and on candidates the precision is lower than the figures here "
    "say. The share of relevant pairs is assumed, not measured. This ranks and escalates; label pairs before you "
    "relabel by it."
)
Frames = pl.DataFrame | Iterable[pl.DataFrame]
_QUERY = ["dataset", "query_id"]
_RETRIEVER = "data"


class FromDataConfig(BaseModel):
    """How many labels are made.

    others: positives of other queries for each positive left out. most_queries: at most so many queries, drawn.
    prevalence: the share of relevant pairs that the weights of the labels add up to; it is an assumption. seed: of the
    draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    others: int = Field(10, ge=1)
    most_queries: int = Field(5000, ge=1)
    prevalence: float = Field(0.5, gt=0, lt=1)
    seed: int = Field(0, ge=0)


def labels_from_data(
    config: FromDataConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    query_embeddings: Frames,
    passage_embeddings: Frames,
) -> dict[str, pl.DataFrame]:
    """Make labelled pairs of queries that have at least two positives with different texts.

    One positive of such a query is left out, and features are computed with the remaining ones.

    Args:
        config: see FromDataConfig.
        queries: QUERIES.
        positives: POSITIVES; those of queries that are not in `queries` are ignored.
        query_embeddings: EMBEDDINGS of the queries; or frames of it, of which one is in memory at a time.
        passage_embeddings: EMBEDDINGS of the positives, likewise.

    Returns:
        `features`: the columns of FEATURES, `rank` null. `labels`: dataset, query_id, doc_id, `relevant`, `weight`. Fit
        on them with `CombineConfig(within=False)`: the pairs of a query here are no sample of its candidates.

    Raises:
        ValueError: a text has no embedding.
    """
    rng = np.random.default_rng(config.seed)
    pool = positives.join(queries, on=_QUERY, how="semi").sort(*_QUERY, "doc_id")
    texts = pool.unique([*_QUERY, "text_hash"], keep="first", maintain_order=True)
    several = (
        texts.group_by(_QUERY, maintain_order=True).agg("doc_id", "text_hash").filter(pl.col("doc_id").list.len() > 1)
    )
    if several.height > config.most_queries:
        several = several[np.sort(rng.choice(several.height, config.most_queries, replace=False)).tolist()]
    named = several.join(queries.select(*_QUERY, query_hash="text_hash"), on=_QUERY, maintain_order="left")
    known = texts.unique("text_hash", keep="first", maintain_order=True)
    rows, kept = [], []
    for dataset, query, docs, hashes, query_hash in named.iter_rows():
        left_out = int(rng.integers(len(docs)))
        remaining = [one for place, one in enumerate(hashes) if place != left_out]
        kept += [(dataset, query, docs[hashes.index(one)], one) for one in remaining]
        pair = (query_hash, combine_hashes(sorted(remaining)))
        rows.append((dataset, query, docs[left_out], hashes[left_out], *pair, True))
        drawn = rng.choice(known.height, min(known.height, config.others + len(docs)), replace=False)
        free = [one for one in known[drawn.tolist()].select("doc_id", "text_hash").iter_rows() if one[1] not in hashes]
        rows += [(dataset, query, f"{_RETRIEVER}:{doc}", text, *pair, False) for doc, text in free[: config.others]]
    return _tables(config, rows, kept, query_embeddings, passage_embeddings)


def _tables(
    config: FromDataConfig,
    rows: list[tuple[str, str, str, str, str, str, bool]],
    kept: list[tuple[str, str, str, str]],
    query_embeddings: Frames,
    passage_embeddings: Frames,
) -> dict[str, pl.DataFrame]:
    names = [*_QUERY, "doc_id", "text_hash", "query_hash", "positives_hash", "relevant"]
    types = {name: pl.Boolean if name == "relevant" else pl.String for name in names}
    pairs = pl.DataFrame(rows, schema=types, orient="row").unique(
        [*_QUERY, "doc_id"], keep="first", maintain_order=True
    )
    shown = pl.concat([pairs["text_hash"], pl.Series("text_hash", [one[3] for one in kept], pl.String)])
    candidates = pairs.with_columns(retriever=pl.lit(_RETRIEVER), rank=0, score=None)
    found = similarity_features(
        candidates=candidates.select(pl.col(name).cast(dtype) for name, dtype in CANDIDATES.columns.items()),
        query_embeddings=_only(query_embeddings, pairs["query_hash"]),
        passage_embeddings=_only(passage_embeddings, shown),
        positives=pl.DataFrame(kept, schema={name: pl.String for name in names[:4]}, orient="row"),
    )
    weight = pl.when("relevant").then(config.prevalence).otherwise((1 - config.prevalence) / config.others)
    return {
        "features": found.select(*FEATURES.columns).with_columns(rank=pl.lit(None, pl.Int32)),
        "labels": pairs.select(*_QUERY, "doc_id", "relevant", weight=weight).sort(*_QUERY, "doc_id"),
    }


def _only(embeddings: Frames, hashes: pl.Series) -> pl.DataFrame:
    """Keep the embeddings of these texts."""
    wanted = pl.DataFrame({"text_hash": hashes.unique()})
    frames = [embeddings] if isinstance(embeddings, pl.DataFrame) else embeddings
    return pl.concat(frame.join(wanted, on="text_hash", how="semi") for frame in frames)
