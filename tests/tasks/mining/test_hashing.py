"""The hashes of a corpus."""

import polars as pl

from tasks import schemas
from tasks.mining.hashing import HASHES, HashConfig, hash_corpus
from tasks.texts import hash_guard, hash_passage, hash_shown


def test_each_passage_comes_with_its_four_hashes_and_without_its_text() -> None:
    rows = [("Wings", " In  Air", hash_passage("Wings", " In  Air")), ("", "ﬁne", hash_passage("", "ﬁne"))]
    passages = pl.DataFrame(
        [("d", f"p{number}", *row) for number, row in enumerate(rows)], schema=schemas.PASSAGES.columns, orient="row"
    )
    hashes = hash_corpus(HashConfig(), passages=passages)["hashes"]
    assert hashes.rows() == [
        ("d", f"p{number}", text_hash, hash_shown(title, text), hash_guard(title, text), hash_guard("", text))
        for number, (title, text, text_hash) in enumerate(rows)
    ]
    assert hash_corpus(HashConfig(), passages=schemas.PASSAGES.empty())["hashes"].equals(HASHES.empty())
