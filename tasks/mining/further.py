"""Search with the vectors of a further encoder, beside those of the curation's own."""

import polars as pl

from tasks.mining.search import SearchConfig, search


class SearchWithConfig(SearchConfig):
    """How to search, and the name under which the hits go: that of the encoder in the settings. The flow sets it."""

    retriever: str


def search_with(
    config: SearchWithConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    query_embeddings: pl.DataFrame,
    passages: pl.DataFrame,
    passage_embeddings: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Search as `tasks.mining.search.search` does; the scores are those of this encoder, and the hits bear its name.

    Raises:
        ValueError: as the dense search.
    """
    found = search(
        config,
        queries=queries,
        positives=positives,
        query_embeddings=query_embeddings,
        passages=passages,
        passage_embeddings=passage_embeddings,
    )
    return {"hits": found["hits"].with_columns(retriever=pl.lit(config.retriever))}
