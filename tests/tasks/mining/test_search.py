"""Search: exact, in an order of its own whatever faiss does with ties."""

import numpy as np
import polars as pl
import pytest

from tasks import schemas
from tasks.mining.search import SearchConfig, nearest, search
from tasks.texts import hash_guard, hash_shown, hash_text
from tests.tasks.settings import settings_of

EMBEDDINGS: dict[str, schemas.Dtype] = {"text_hash": pl.String, "vector": pl.Array(pl.Float32, 2)}
UP, RIGHT, DIAGONAL = [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]


def _embeddings(**vectors: list[float]) -> pl.DataFrame:
    """Embeddings from hash=vector."""
    return pl.DataFrame({"text_hash": list(vectors), "vector": list(vectors.values())}, schema=EMBEDDINGS)


def _queries(*rows: tuple[str, str, str, str]) -> pl.DataFrame:
    """Queries from (dataset, query_id, hash, split)."""
    full = [(dataset, query_id, "a question", text_hash, split) for dataset, query_id, text_hash, split in rows]
    return pl.DataFrame(full, schema=schemas.QUERIES.columns, orient="row")


def _passages(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Passages from (dataset, doc_id, hash)."""
    full = [(dataset, doc_id, "", f"the text {text_hash}", text_hash) for dataset, doc_id, text_hash in rows]
    return pl.DataFrame(full, schema=schemas.PASSAGES.columns, orient="row")


QUERY = _queries(("d", "q1", "hq", "train"))
QUERY_EMBEDDINGS = _embeddings(hq=UP)


def test_hits_are_ranked_by_score_and_cut_at_depth() -> None:
    hits = search(
        SearchConfig(depth=2),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=_passages(("d", "p1", "a"), ("d", "p2", "b"), ("d", "p3", "c")),
        passage_embeddings=_embeddings(a=RIGHT, b=DIAGONAL, c=UP),
    )["hits"]
    shown = [hash_text(f"the text {name}") for name in "bc"]
    score = float(np.float32(0.8))
    assert hits.rows() == [
        ("d", "q1", "p2", "b", shown[0], shown[0], None, "dense", 2, score),
        ("d", "q1", "p3", "c", shown[1], shown[1], None, "dense", 1, 1.0),
    ]
    assert hits.schema == schemas.HITS.empty().schema


def test_ties_at_the_cut_go_to_the_lowest_doc_id() -> None:
    ids = [f"p{number:03d}" for number in range(100)]
    passages = _passages(*[("d", doc_id, f"h{doc_id}") for doc_id in ids[::-1]])
    embeddings = _embeddings(**{f"h{doc_id}": DIAGONAL for doc_id in ids})
    hits = search(
        SearchConfig(depth=3),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=passages,
        passage_embeddings=embeddings,
    )["hits"]
    assert hits.select("doc_id", "rank").rows() == [("p000", 1), ("p001", 2), ("p002", 3)]


def test_one_text_under_two_ids_is_two_hits() -> None:
    hits = search(
        SearchConfig(depth=5),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=_passages(("d", "p2", "a"), ("d", "p1", "a")),
        passage_embeddings=_embeddings(a=UP),
    )["hits"]
    assert hits.select("doc_id", "rank").rows() == [("p1", 1), ("p2", 2)]


def test_a_query_finds_passages_of_its_own_dataset_only() -> None:
    hits = search(
        SearchConfig(),
        queries=_queries(("d", "q1", "hq", "train"), ("e", "q1", "hq", "train"), ("f", "q1", "hq", "train")),
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=_passages(("d", "p1", "a"), ("e", "p1", "b"), ("g", "p1", "a")),
        passage_embeddings=_embeddings(a=UP, b=RIGHT),
    )["hits"]
    assert hits.select("dataset", "doc_id", "score").rows() == [("d", "p1", 1.0), ("e", "p1", 0.0)]


def test_held_out_queries_are_not_searched() -> None:
    hits = search(
        SearchConfig(),
        queries=_queries(("d", "q1", "unseen", "test")),
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=_passages(("d", "p1", "a")),
        passage_embeddings=_embeddings(a=UP),
    )["hits"]
    assert hits.equals(schemas.HITS.empty())


def test_an_empty_corpus_part_gives_no_hits() -> None:
    hits = search(
        SearchConfig(),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=schemas.PASSAGES.empty(),
        passage_embeddings=_embeddings(),
    )["hits"]
    assert hits.equals(schemas.HITS.empty())


def test_vectors_of_two_models_are_refused() -> None:
    other = pl.DataFrame({"text_hash": ["a"], "vector": [[1.0]]}, schema_overrides={"vector": pl.Array(pl.Float32, 1)})
    with pytest.raises(ValueError, match="query vectors have 2 dimensions, passage vectors 1"):
        search(
            SearchConfig(),
            queries=QUERY,
            positives=schemas.POSITIVES.empty(),
            query_embeddings=QUERY_EMBEDDINGS,
            passages=_passages(("d", "p1", "a")),
            passage_embeddings=other,
        )


def test_the_nearest_agree_with_a_full_sort_and_with_any_company() -> None:
    rng = np.random.default_rng(1)
    left, right = (rng.normal(size=(n, 8)).astype(np.float32) for n in (40, 300))
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    left_rows, right_rows = nearest(left, right, 10)
    for row in range(40):
        best = np.argsort(-(right @ left[row]))[:10]
        assert set(best) <= set(right_rows[left_rows == row])


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(SearchConfig) == {"depth": (100, ">=1"), "threads": (1, ">=1", "operational")}


def _at_cosines(cosines: np.ndarray) -> np.ndarray:
    """Unit vectors with these cosines to (1, 0)."""
    return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)


def test_a_clear_cut_is_searched_once_with_sixteen_texts_of_slack() -> None:
    query = np.array([[1.0, 0.0]], np.float32)
    left_rows, right_rows = nearest(query, _at_cosines(np.linspace(0.9, 0.1, 200)), 2)
    assert left_rows.tolist() == [0] * 18
    assert right_rows.tolist() == list(range(18))


def test_a_tie_at_the_cut_is_searched_twice_as_deep_until_it_ends() -> None:
    query = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    texts = _at_cosines(np.array([0.5] * 40 + np.linspace(0.4, 0.1, 160).tolist()))
    left_rows, right_rows = nearest(query, texts, 2)
    assert np.bincount(left_rows).tolist() == [72, 18]
    assert set(range(40)) <= set(right_rows[left_rows == 0].tolist())
    everything = nearest(query[:1], texts[:40], 2)
    assert sorted(everything[1].tolist()) == list(range(40))


def _row_of_passages(count: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Passages p00, p01, …, each farther from the query than the one before, with their embeddings."""
    names = [f"p{number:02d}" for number in range(count)]
    cosines = np.linspace(0.99, 0.1, count)
    vectors = {f"h{name}": [float(np.sqrt(1 - c * c)), float(c)] for name, c in zip(names, cosines, strict=True)}
    return _passages(*[("d", name, f"h{name}") for name in names]), _embeddings(**vectors)


def test_a_query_with_many_positives_is_searched_deeper_until_it_has_depth_hits_beside_them() -> None:
    passages, embeddings = _row_of_passages(60)
    positives = [("d", "q1", f"p{n:02d}", f"hp{n:02d}", *[f"the text hp{n:02d}"] * 2, "label") for n in range(30)]
    hits = search(
        SearchConfig(depth=5),
        queries=QUERY,
        positives=pl.DataFrame(positives, schema=schemas.POSITIVES.columns, orient="row"),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=passages,
        passage_embeddings=embeddings,
    )["hits"].sort("rank")
    assert hits["doc_id"].to_list() == [f"p{n:02d}" for n in range(35)]
    assert hits["rank"].to_list() == list(range(1, 36))


def test_copies_and_the_query_s_own_text_take_no_place_of_the_depth() -> None:
    texts = ["A question", "b", "B ", "a  QUESTION", "c", "d", "e"]
    rows = [("d", f"p{n}", "", text, f"h{n}") for n, text in enumerate(texts)]
    vectors = {f"h{n}": [float(np.sqrt(1 - c * c)), c] for n, c in enumerate([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])}
    hits = search(
        SearchConfig(depth=2),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=pl.DataFrame(rows, schema=schemas.PASSAGES.columns, orient="row"),
        passage_embeddings=_embeddings(**vectors),
    )["hits"].sort("rank")
    assert hits["doc_id"].to_list() == ["p0", "p1", "p2", "p3", "p4"]
    assert hits["repeats"].to_list() == ["normalised text", None, None, "normalised text", None]
    assert hits["shown_hash"].to_list() == [hash_shown("", text) for text in texts[:5]]
    assert hits["guard_hash"].to_list() == [hash_guard("", text) for text in texts[:5]]
