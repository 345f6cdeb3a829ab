"""What a corpus part sends: to each query part the passages that it wants, and the vectors of their texts."""

import numpy as np
import polars as pl

from tasks import schemas
from tasks.fetching.fetch import FetchConfig, fetch_texts, fetch_vectors
from tasks.fetching.want import WANTED

PASSAGES = pl.DataFrame(
    [("d", doc, "title", f"text {doc}", f"hash {doc}") for doc in "abc"] + [("e", "a", "", "text a", "hash a")],
    schema=schemas.PASSAGES.columns,
    orient="row",
)


def wanted(*rows: tuple[int, str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        [(part, dataset, doc, f"hash {doc}") for part, dataset, doc in rows], schema=WANTED.columns, orient="row"
    )


def embeddings(*docs: str) -> pl.DataFrame:
    vectors = np.arange(2 * len(docs), dtype=np.float32).reshape(-1, 2)
    return pl.DataFrame({"text_hash": [f"hash {doc}" for doc in docs], "vector": vectors})


def test_each_query_part_gets_the_passages_it_wants_sorted_and_in_the_order_of_the_parts() -> None:
    asked = wanted((9, "d", "b"), (2, "d", "c"), (2, "d", "a"), (9, "e", "a"), (9, "d", "absent"))
    made = fetch_texts(FetchConfig(), wanted=asked, passages=PASSAGES)
    sent = list(made["texts"])
    assert [(part, frame.select("dataset", "doc_id").rows()) for part, frame in sent] == [
        (2, [("d", "a"), ("d", "c")]),
        (9, [("d", "b"), ("e", "a")]),
    ]
    assert all(dict(frame.schema) == schemas.PASSAGES.columns for _, frame in sent)
    shuffled = fetch_texts(FetchConfig(), wanted=asked.reverse(), passages=PASSAGES.reverse())["texts"]
    assert all(one.equals(two) for (_, one), (_, two) in zip(sent, shuffled, strict=True))


def test_a_vector_is_sent_once_to_a_part_whatever_the_ids_and_datasets_of_its_text() -> None:
    asked = wanted((1, "d", "a"), (1, "e", "a"), (1, "d", "b"), (0, "e", "a"))
    made = dict(fetch_vectors(FetchConfig(), wanted=asked, embeddings=embeddings("a", "b", "c", "a"))["vectors"])
    assert {part: frame["text_hash"].to_list() for part, frame in made.items()} == {
        0: ["hash a"],
        1: ["hash a", "hash b"],
    }
    assert made[1]["vector"].to_list() == [[0.0, 1.0], [2.0, 3.0]]
    assert made[1].schema["vector"] == pl.Array(pl.Float32, 2)


def test_nothing_wanted_or_nothing_found_sends_nothing() -> None:
    for asked in (wanted(), wanted((1, "d", "absent"))):
        assert list(fetch_texts(FetchConfig(), wanted=asked, passages=PASSAGES)["texts"]) == []
        assert list(fetch_vectors(FetchConfig(), wanted=asked, embeddings=embeddings("a"))["vectors"]) == []
