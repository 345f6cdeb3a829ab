"""Search with the vectors of a further encoder, beside those of the curation's own."""

from typing import Any

import polars as pl

from tasks.mining.dense.corpus import Frames, Texts
from tasks.mining.dense.search import search
from tasks.mining.search import SearchConfig


class SearchWithConfig(SearchConfig):
    """How to search, and the name under which the hits go: that of the encoder in the settings. The flow sets it."""

    retriever: str


def search_with(  # noqa: PLR0913 - one keyword per table
    config: SearchWithConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passages: Texts,
    hashes: Frames,
    passage_embeddings: Frames,
) -> dict[str, Any]:
    """Search as `tasks.mining.dense.search.search` does, with the vectors of another encoder.

    Returns:
        `hits` and `facts` as the dense search; the scores are those of this encoder, and the hits bear its name.

    Raises:
        ValueError: as the dense search.
    """
    found = search(
        config,
        queries=queries,
        positives=positives,
        query_embeddings=query_embeddings,
        passages=passages,
        hashes=hashes,
        passage_embeddings=passage_embeddings,
    )
    name = pl.lit(config.retriever)
    return found | {"hits": ((part, hits.with_columns(retriever=name)) for part, hits in found["hits"])}
