"""Passages, queries and the index of BM25 over any number of parts."""

from collections.abc import Sequence

import polars as pl

from tasks import schemas
from tasks.mining.bm25.index import index_terms
from tasks.mining.bm25.search import Bm25Config, search_bm25
from tasks.mining.bm25.statistics import count_terms
from tasks.texts import hash_passage, hash_text


def passages_of(texts: Sequence[str], dataset: str = "d", title: str = "") -> pl.DataFrame:
    """Passages p000, p001, … of these texts."""
    rows = [(dataset, f"p{n:03d}", title, text, hash_passage(title, text)) for n, text in enumerate(texts)]
    return pl.DataFrame(rows, schema=schemas.PASSAGES.columns, orient="row")


def queries_of(*texts: str, dataset: str = "d", split: str = "train") -> pl.DataFrame:
    """Queries q0, q1, … of these texts."""
    rows = [(dataset, f"q{n}", text, hash_text(text), split) for n, text in enumerate(texts)]
    return pl.DataFrame(rows, schema=schemas.QUERIES.columns, orient="row")


def cut(passages: pl.DataFrame, parts: int) -> list[pl.DataFrame]:
    """Deal passages out to parts."""
    row = pl.int_range(pl.len())
    return [passages.filter(row % parts == part) for part in range(parts)]


def search_parts(
    config: Bm25Config, queries: pl.DataFrame, passages: list[pl.DataFrame], positives: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Index the parts, add up their words, and search each; returns the hits of all, ranked within their part."""
    positives = schemas.POSITIVES.empty() if positives is None else positives
    indexed = [index_terms(config.as_words, passages=part) for part in passages]
    known = {name: pl.concat(one[name] for one in indexed) for name in ("terms", "totals")}
    whole = count_terms(config.as_words, queries=queries, **known)
    hits = [
        search_bm25(
            config,
            queries=queries,
            positives=positives,
            passages=part,
            documents=index["documents"],
            postings=index["postings"],
            **whole,
        )["hits"]
        for part, index in zip(passages, indexed, strict=True)
    ]
    return pl.concat(hits)
