"""A further encoder: the same search under another name."""

import polars as pl

from tasks import schemas
from tasks.mining.dense.further import SearchWithConfig, search_with
from tasks.mining.hashing import HashConfig, hash_corpus
from tasks.texts import hash_text
from tests.tasks.mining.tables import EMBEDDINGS


def test_hits_bear_the_name_of_their_encoder() -> None:
    queries = pl.DataFrame([("d", "q1", "a question", "hq", "train")], schema=schemas.QUERIES.columns, orient="row")
    passages = pl.DataFrame([("d", "p1", "", "an answer", "hp")], schema=schemas.PASSAGES.columns, orient="row")
    vectors = pl.DataFrame({"text_hash": ["hq", "hp"], "vector": [[1.0, 0.0], [0.6, 0.8]]}, schema=EMBEDDINGS)
    ((part, hits),) = search_with(
        SearchWithConfig(retriever="gte", depth=2),
        queries=queries,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=vectors,
        passages=passages,
        hashes=hash_corpus(HashConfig(), passages=passages)["hashes"],
        passage_embeddings=vectors,
    )["hits"]
    assert part == 0
    assert hits.select("doc_id", "retriever", "rank").rows() == [("p1", "gte", 1)]
    assert hits["shown_hash"].to_list() == [hash_text("an answer")]
    assert hits.schema == schemas.HITS.empty().schema
