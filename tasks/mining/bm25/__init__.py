"""BM25: words of any script, an index per part of the corpus, one set of statistics for all of them."""
