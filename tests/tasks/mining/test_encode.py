"""Encoding: distinct texts once, independent of the rows' order."""

import weakref
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import polars as pl
import pytest

from tasks import schemas
from tasks.mining.encode import EncodeConfig, dot_pairs, encode_passages, encode_queries, vectors_of
from tasks.texts import show_passage
from tests.tasks.mining.test_embed import Came
from tests.tasks.settings import settings_of

CONFIG = EncodeConfig()


class LengthEncoder:
    """Encodes a text as (number of characters, 1 for a query) and remembers what it was asked."""

    def __init__(self, fill: float = 1.0) -> None:
        """Store the value by which every vector is multiplied."""
        self.fill = fill
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"]) -> pl.Series:
        """Encode."""
        self.seen += texts
        vectors = np.array([[len(text), role == "query"] for text in texts], dtype=np.float32).reshape(-1, 2)
        return pl.Series(vectors * np.float32(self.fill), dtype=pl.Array(pl.Float32, 2))


def _passages(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Passages from (title, text, hash)."""
    return pl.DataFrame(
        [("d", f"p{number}", *row) for number, row in enumerate(rows)], schema=schemas.PASSAGES.columns, orient="row"
    )


def _queries(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Queries from (text, hash, split)."""
    return pl.DataFrame(
        [("d", f"q{number}", *row) for number, row in enumerate(rows)], schema=schemas.QUERIES.columns, orient="row"
    )


def test_identical_texts_are_encoded_once_and_rows_are_sorted_by_hash() -> None:
    engine = LengthEncoder()
    passages = _passages(("", "long text", "h1"), ("", "ab", "h2"), ("", "long text", "h1"))
    embeddings = encode_passages(CONFIG, passages=passages, engine=engine)["embeddings"]
    assert engine.seen == ["ab", "long text"]
    assert embeddings.rows() == [("h1", [9.0, 0.0]), ("h2", [2.0, 0.0])]


def test_a_title_is_read_with_its_text() -> None:
    engine = LengthEncoder()
    encode_passages(CONFIG, passages=_passages(("Title", "text", "h1"), ("", "text", "h2")), engine=engine)
    assert engine.seen == ["text", "Title text"]


def test_frames_are_read_when_they_are_encoded_and_nobody_holds_them_then() -> None:
    held: list[weakref.ref[pl.DataFrame]] = []

    def frames() -> Iterator[pl.DataFrame]:
        for row in (("Title", "b", "h2"), ("", "a", "h1")):
            frame = _passages(row)
            held.append(weakref.ref(frame))
            yield frame
            del frame

    class Looking(LengthEncoder):
        def encode(self, texts: Sequence[str], role: Literal["query", "passage"]) -> pl.Series:
            assert [frame() for frame in held] == [None, None]
            return super().encode(texts, role)

    engine = Looking()
    embeddings = encode_passages(CONFIG, passages=frames(), engine=engine)["embeddings"]
    assert engine.seen == ["a", show_passage("Title", "b")]
    assert embeddings["text_hash"].to_list() == ["h1", "h2"]
    assert encode_passages(CONFIG, passages=[], engine=engine)["embeddings"].is_empty()


def test_the_order_of_rows_reaches_neither_encoder_nor_output() -> None:
    rows = [("", "bb", "h3"), ("", "aa", "h1"), ("", "c", "h2")]
    one, other = LengthEncoder(), LengthEncoder()
    first = encode_passages(CONFIG, passages=_passages(*rows), engine=one)["embeddings"]
    second = encode_passages(CONFIG, passages=_passages(*rows[::-1]), engine=other)["embeddings"]
    assert one.seen == other.seen == ["c", "aa", "bb"]
    assert first.equals(second)


def test_only_training_queries_are_encoded_and_as_queries() -> None:
    queries = _queries(("abc", "h1", "train"), ("abcd", "h2", "test"))
    embeddings = encode_queries(CONFIG, queries=queries, engine=LengthEncoder())["embeddings"]
    assert embeddings.rows() == [("h1", [3.0, 1.0])]


def test_an_empty_part_gives_no_rows_of_the_engines_dimension() -> None:
    embeddings = encode_passages(CONFIG, passages=schemas.PASSAGES.empty(), engine=LengthEncoder())["embeddings"]
    assert embeddings.schema == {"text_hash": pl.String, "vector": pl.Array(pl.Float32, 2)}
    assert embeddings.height == 0


def test_vectors_that_are_not_finite_are_refused_with_their_number() -> None:
    with pytest.raises(ValueError, match="1 of 1 query vectors are not finite"):
        encode_queries(CONFIG, queries=_queries(("a", "h1", "train")), engine=LengthEncoder(float("nan")))


def test_vectors_are_found_by_hash_whatever_else_is_there() -> None:
    embeddings = pl.DataFrame(
        {"text_hash": ["c", "a", "b", "a"], "vector": [[3.0], [1.0], [2.0], [9.0]]},
        schema={"text_hash": pl.String, "vector": pl.Array(pl.Float32, 1)},
    )
    vectors, rows = vectors_of(embeddings, pl.Series(["c", "a", "c"]), of="queries")
    assert vectors[rows].tolist() == [[3.0], [1.0], [3.0]]


def test_a_missing_embedding_is_counted_and_named() -> None:
    embeddings = pl.DataFrame(
        {"text_hash": ["a"], "vector": [[1.0]]}, schema={"text_hash": pl.String, "vector": pl.Array(pl.Float32, 1)}
    )
    with pytest.raises(ValueError, match=r"2 of 3 distinct positives have no embedding \(first: b\)"):
        vectors_of(embeddings, pl.Series(["c", "a", "b", "b"]), of="positives")


def test_equal_vectors_tie_exactly() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(1, 384)).astype(np.float32), rng.normal(size=(1, 384)).astype(np.float32)
    scores = dot_pairs(left, np.repeat(right, 40_000, axis=0), np.zeros(40_000, np.int64), np.arange(40_000))
    assert scores.n_unique() == 1
    assert scores[0] == float(np.float32(scores[0]))


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(EncodeConfig) == {"found": False, "split": "train", "at_once": (0, ">=0", "operational")}


class Returning:
    """An encoder that returns what it is given."""

    def __init__(self, vectors: pl.Series) -> None:
        self.vectors = vectors

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"]) -> pl.Series:
        return self.vectors


@pytest.mark.parametrize(
    "vectors",
    [
        pl.Series([[1.0], [2.0]], dtype=pl.Array(pl.Float32, 1)),
        pl.Series([[1.0]], dtype=pl.Array(pl.Float64, 1)),
        pl.Series([[1.0]], dtype=pl.List(pl.Float32)),
    ],
    ids=["too many", "float64", "list"],
)
def test_an_encoder_that_breaks_its_protocol_is_refused(vectors: pl.Series) -> None:
    with pytest.raises(ValueError, match=r"must return Array\(Float32\) of length 1, got "):
        encode_queries(CONFIG, queries=_queries(("a", "h1", "train")), engine=Returning(vectors))


def test_the_first_vector_that_is_not_finite_is_named() -> None:
    vectors = pl.Series([[1.0], [float("inf")], [float("nan")]], dtype=pl.Array(pl.Float32, 1))
    queries = _queries(("a", "h1", "train"), ("bb", "h2", "train"), ("ccc", "h3", "train"))
    with pytest.raises(ValueError, match=r"2 of 3 query vectors are not finite \(first text_hash: h2\)"):
        encode_queries(CONFIG, queries=queries, engine=Returning(vectors))


def test_vectors_of_different_dimensions_cannot_be_compared_unless_there_is_nothing_to_compare() -> None:
    left, right = np.ones((1, 2), np.float32), np.ones((1, 3), np.float32)
    with pytest.raises(ValueError, match="vectors of 2 and 3 dimensions cannot be compared"):
        dot_pairs(left, right, np.zeros(1, np.int64), np.zeros(1, np.int64))
    nothing = np.empty(0, np.int64)
    assert dot_pairs(left, right, nothing, nothing).len() == 0


def test_every_pair_has_its_own_product_across_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.mining.encode._PAIRS_AT_ONCE", 3)
    left, right = np.arange(8, dtype=np.float32).reshape(-1, 1), np.array([[1.0], [-2.0]], np.float32)
    rows = np.arange(8)
    assert dot_pairs(left, right, rows, rows % 2).to_list() == [0.0, -2.0, 2.0, -6.0, 4.0, -10.0, 6.0, -14.0]


def test_vectors_that_are_no_array_are_refused() -> None:
    embeddings = pl.DataFrame({"text_hash": ["a"], "vector": [[1.0]]})
    with pytest.raises(ValueError, match="vectors must be an Array of Float32, got List"):
        vectors_of(embeddings, pl.Series(["a"]), of="queries")


def test_files_of_vectors_are_asked_by_dataset_id_and_hash_and_each_text_once() -> None:
    class Files:
        def find(self, keys: pl.DataFrame, role: str) -> pl.Series:
            self.asked = keys.rows(), role
            return pl.Series([[1.0, 0.0]] * keys.height, dtype=pl.Array(pl.Float32, 2))

    files = Files()
    passages = pl.DataFrame(
        [("d", "p1", "", "one", "h1"), ("d", "p2", "", "one", "h1"), ("d", "p3", "", "other", "h2")],
        schema=["dataset", "doc_id", "title", "text", "text_hash"],
        orient="row",
    )
    kept = Kept()
    kept.rows["passage"]["h1"] = [0.0, 1.0]
    made = encode_passages(EncodeConfig(found=True), passages=passages, engine=files, vectors=kept)
    assert files.asked == ([("d", "p1", "h1"), ("d", "p3", "h2")], "passage")
    assert made["embeddings"].rows() == [("h1", [1.0, 0.0]), ("h2", [1.0, 0.0])]
    assert made["facts"] == {"found": 2}
    assert list(kept.rows["passage"]) == ["h1"]  # neither recalled nor remembered


class Kept:
    """What is remembered, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[float]]] = {"query": {}, "passage": {}}
        self.model = ""

    def recall(self, role: Literal["query", "passage"], hashes: pl.Series) -> pl.DataFrame | None:
        found = {text: self.rows[role][text] for text in sorted(hashes) if text in self.rows[role]}
        schema = {"text_hash": pl.String, "vector": pl.Array(pl.Float32, 2)}
        return (
            pl.DataFrame({"text_hash": list(found), "vector": list(found.values())}, schema=schema) if found else None
        )

    def remember(self, role: Literal["query", "passage"], embeddings: pl.DataFrame) -> None:
        self.rows[role] |= dict(embeddings.select("text_hash", "vector").rows())

    def first_model(self, model: str) -> str:
        self.model = self.model or model
        return self.model


def test_only_texts_without_a_remembered_vector_are_encoded_and_the_rest_is_remembered() -> None:
    kept, engine = Kept(), LengthEncoder()
    kept.rows["passage"]["h2"] = [7.0, 7.0]
    passages = _passages(("", "three", "h3"), ("", "ab", "h2"), ("", "a", "h1"), ("", "three", "h3"))
    made = encode_passages(CONFIG, passages=passages, engine=engine, vectors=kept)
    assert engine.seen == ["a", "three"]
    assert made["embeddings"].rows() == [("h1", [1.0, 0.0]), ("h2", [7.0, 7.0]), ("h3", [5.0, 0.0])]
    assert made["facts"] == {"remembered": 1, "encoded": 2}
    again = encode_passages(CONFIG, passages=passages, engine=engine, vectors=kept)
    assert engine.seen == ["a", "three"]
    assert again["embeddings"].equals(made["embeddings"])
    assert again["facts"] == {"remembered": 3, "encoded": 0}
    encode_queries(CONFIG, queries=_queries(("ab", "h2", "train")), engine=engine, vectors=kept)
    assert engine.seen[2:] == ["ab"]  # a query's vector is another one


def test_an_empty_part_asks_the_engine_for_its_dimension_and_remembers_nothing() -> None:
    kept = Kept()
    made = encode_passages(CONFIG, passages=schemas.PASSAGES.empty(), engine=LengthEncoder(), vectors=kept)
    assert made["embeddings"].schema["vector"] == pl.Array(pl.Float32, 2)
    assert kept.rows["passage"] == {}


def test_vectors_of_two_dimensions_under_one_digest_are_refused() -> None:
    kept = Kept()
    kept.rows["query"]["h1"] = [1.0, 0.0]
    queries = _queries(("a", "h1", "train"), ("b", "h2", "train"))
    wide = Returning(pl.Series([[1.0, 0.0, 0.0]], dtype=pl.Array(pl.Float32, 3)))
    with pytest.raises(ValueError, match="two models have one digest"):
        encode_queries(CONFIG, queries=queries, engine=wide, vectors=kept)
    assert "h2" not in kept.rows["query"]


def test_an_endpoint_is_asked_for_what_is_not_remembered_and_each_share_is_remembered() -> None:
    kept, engine = Kept(), Paid()
    kept.rows["passage"]["h2"] = [7.0, 7.0]
    passages = _passages(("", "three", "h3"), ("", "ab", "h2"), ("", "a", "h1"), ("T", "three", "h4"))
    with pytest.raises(ConnectionError, match="gone"):
        encode_passages(EncodeConfig(at_once=1), passages=passages, engine=engine, vectors=kept)
    assert set(kept.rows["passage"]) == {"h1", "h2", "h3"}
    made = encode_passages(EncodeConfig(at_once=9), passages=passages, engine=engine, vectors=kept)
    assert engine.asked == ["a", "three", "T three", "T three"]
    assert made["embeddings"]["text_hash"].to_list() == ["h1", "h2", "h3", "h4"]
    assert made["facts"] == {"remembered": 3, "encoded": 1, "calls": 1, "prompt_tokens": 10, "model": "m-1"}


def test_an_endpoint_with_vectors_of_another_length_than_remembered_is_refused_before_they_are_kept() -> None:
    kept = Kept()
    kept.rows["query"]["h1"] = [1.0, 0.0]
    queries = _queries(("a", "h1", "train"), ("b", "h2", "train"))
    with pytest.raises(ValueError, match="the endpoint has another model now; set the encoder's `revision`"):
        encode_queries(EncodeConfig(at_once=9), queries=queries, engine=Paid(width=3), vectors=kept)
    assert "h2" not in kept.rows["query"]


def test_vectors_of_an_endpoint_that_answers_as_another_model_than_before_are_refused_and_not_kept() -> None:
    kept, engine, config = Kept(), Paid(), EncodeConfig(at_once=9)
    encode_passages(config, passages=_passages(("", "a", "h1")), engine=engine, vectors=kept)
    engine.model = "m-2"
    both = _passages(("", "a", "h1"), ("", "b", "h2"))
    with pytest.raises(ValueError, match=r"as 'm-1' before, and as 'm-2' now; .* set the encoder's `revision`"):
        encode_passages(config, passages=both, engine=engine, vectors=kept)
    assert set(kept.rows["passage"]) == {"h1"}
    engine.calls = 0
    with pytest.raises(ValueError, match="as 'm-1' before, and as 'm-2' now"):  # nothing is recalled, nor of this role
        encode_queries(config, queries=_queries(("q", "h3", "train")), engine=engine, vectors=kept)
    assert kept.rows["query"] == {}


class Paid:
    """An endpoint that answers each request but the third."""

    def __init__(self, width: int = 2) -> None:
        self.width, self.calls, self.asked, self.model = width, 0, list[str](), "m-1"

    def embed(self, texts: Sequence[str], role: Literal["query", "passage"]) -> Came:
        self.calls += 1
        self.asked += texts
        found = [] if self.calls == 3 else list(range(len(texts)))
        vectors = pl.Series([[1.0] * self.width for _ in found], dtype=pl.Array(pl.Float32, self.width))
        return Came(found, vectors, error=None if found else ConnectionError("gone"), model=self.model)
