"""Search: exact, in one order whatever the parts, blocks and threads."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from tasks import schemas
from tasks.mining.dense import approximate
from tasks.mining.dense import search as module
from tasks.mining.dense.nearest import Nearest
from tasks.mining.dense.search import search
from tasks.mining.hashing import HashConfig, hash_corpus
from tasks.mining.masks import hash_hits, mask
from tasks.mining.search import SearchConfig, rank_by_score
from tasks.texts import hash_guard, hash_shown, hash_text

EMBEDDINGS: dict[str, schemas.Dtype] = {"text_hash": pl.String, "vector": pl.Array(pl.Float32, 2)}
UP, RIGHT, DIAGONAL = [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]


def _search(config: SearchConfig, **tables: Any) -> pl.DataFrame:
    """The hits of all parts of the queries in one frame."""
    return pl.concat(frame for _, frame in _run(config, **tables)["hits"])


def _run(config: SearchConfig, **tables: Any) -> dict[str, Any]:
    """Hash the passages, part by part, and search."""
    parts = [tables["passages"]] if isinstance(tables["passages"], pl.DataFrame) else tables["passages"]
    hashes = [hash_corpus(HashConfig(), passages=part)["hashes"] for part in parts]
    return search(config, **tables, hashes=hashes if len(parts) > 1 else hashes[0])


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
    hits = _search(
        SearchConfig(depth=2),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=_passages(("d", "p1", "a"), ("d", "p2", "b"), ("d", "p3", "c")),
        passage_embeddings=_embeddings(a=RIGHT, b=DIAGONAL, c=UP),
    )
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
    hits = _search(
        SearchConfig(depth=3),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=passages,
        passage_embeddings=embeddings,
    )
    assert hits.select("doc_id", "rank").rows() == [("p000", 1), ("p001", 2), ("p002", 3)]


def test_one_text_under_two_ids_is_two_hits() -> None:
    hits = _search(
        SearchConfig(depth=5),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=_passages(("d", "p2", "a"), ("d", "p1", "a")),
        passage_embeddings=_embeddings(a=UP),
    )
    assert hits.select("doc_id", "rank").rows() == [("p1", 1), ("p2", 2)]


def test_a_query_finds_passages_of_its_own_dataset_only() -> None:
    hits = _search(
        SearchConfig(),
        queries=_queries(("d", "q1", "hq", "train"), ("e", "q1", "hq", "train"), ("f", "q1", "hq", "train")),
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=_passages(("d", "p1", "a"), ("e", "p1", "b"), ("g", "p1", "a")),
        passage_embeddings=_embeddings(a=UP, b=RIGHT),
    )
    assert hits.select("dataset", "doc_id", "score").rows() == [("d", "p1", 1.0), ("e", "p1", 0.0)]


def test_held_out_queries_are_not_searched() -> None:
    hits = _search(
        SearchConfig(),
        queries=_queries(("d", "q1", "unseen", "test")),
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=_passages(("d", "p1", "a")),
        passage_embeddings=_embeddings(a=UP),
    )
    assert hits.equals(schemas.HITS.empty())


def test_an_empty_corpus_part_gives_no_hits() -> None:
    hits = _search(
        SearchConfig(),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=schemas.PASSAGES.empty(),
        passage_embeddings=_embeddings(),
    )
    assert hits.equals(schemas.HITS.empty())


def test_vectors_of_two_models_are_refused() -> None:
    other = pl.DataFrame({"text_hash": ["a"], "vector": [[1.0]]}, schema_overrides={"vector": pl.Array(pl.Float32, 1)})
    with pytest.raises(ValueError, match="query vectors have 2 dimensions, passage vectors 1"):
        _search(
            SearchConfig(),
            queries=QUERY,
            positives=schemas.POSITIVES.empty(),
            query_embeddings=QUERY_EMBEDDINGS,
            passages=_passages(("d", "p1", "a")),
            passage_embeddings=other,
        )


def _row_of_passages(count: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Passages p00, p01, …, each farther from the query than the one before, with their embeddings."""
    names = [f"p{number:02d}" for number in range(count)]
    cosines = np.linspace(0.99, 0.1, count)
    vectors = {f"h{name}": [float(np.sqrt(1 - c * c)), float(c)] for name, c in zip(names, cosines, strict=True)}
    return _passages(*[("d", name, f"h{name}") for name in names]), _embeddings(**vectors)


def test_a_query_with_many_positives_is_searched_deeper_until_it_has_depth_hits_beside_them() -> None:
    passages, embeddings = _row_of_passages(60)
    positives = [("d", "q1", f"p{n:02d}", f"hp{n:02d}", *[f"the text hp{n:02d}"] * 2, "label") for n in range(30)]
    hits = _search(
        SearchConfig(depth=5),
        queries=QUERY,
        positives=pl.DataFrame(positives, schema=schemas.POSITIVES.columns, orient="row"),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=passages,
        passage_embeddings=embeddings,
    ).sort("rank")
    assert hits["doc_id"].to_list() == [f"p{n:02d}" for n in range(35)]
    assert hits["rank"].to_list() == list(range(1, 36))


def test_copies_and_the_query_s_own_text_take_no_place_of_the_depth() -> None:
    texts = ["A question", "b", "B ", "a  QUESTION", "c", "d", "e"]
    rows = [("d", f"p{n}", "", text, f"h{n}") for n, text in enumerate(texts)]
    vectors = {f"h{n}": [float(np.sqrt(1 - c * c)), c] for n, c in enumerate([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])}
    hits = _search(
        SearchConfig(depth=2),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=pl.DataFrame(rows, schema=schemas.PASSAGES.columns, orient="row"),
        passage_embeddings=_embeddings(**vectors),
    ).sort("rank")
    assert hits["doc_id"].to_list() == ["p0", "p1", "p2", "p3", "p4"]
    assert hits["repeats"].to_list() == ["normalised text", None, None, "normalised text", None]
    assert hits["shown_hash"].to_list() == [hash_shown("", text) for text in texts[:5]]
    assert hits["guard_hash"].to_list() == [hash_guard("", text) for text in texts[:5]]


def _corpus(seed: int, queries: int, passages: int) -> dict[str, pl.DataFrame]:
    """Two datasets of random texts and vectors, with copies, positives, queries that are passages, and many ties."""
    rng = np.random.default_rng(seed)
    words = np.array(["one", "two", "Two", "three  four", "three four", "five"])
    rows = [
        (f"d{n % 2}", f"p{n:04d}", "", f"{rng.choice(words)} {rng.integers(passages // 2)}") for n in range(passages)
    ]
    asked = [
        (f"d{n % 2}", f"p{n:04d}" if n % 5 == 0 else f"q{n:03d}", rows[n][3] if n % 3 == 0 else f"what {n}")
        for n in range(queries)
    ]
    texts = pl.DataFrame([(*row, hash_text(row[3])) for row in rows], schema=schemas.PASSAGES.columns, orient="row")
    known = [(*one[:2], f"p{(n + 2) % passages // 2 * 2 + n % 2:04d}") for n, one in enumerate(asked)]
    positives = (
        pl.DataFrame(known, schema=["dataset", "query_id", "doc_id"], orient="row")
        .join(texts, on=["dataset", "doc_id"])
        .with_columns(
            shown_hash=pl.col("text").map_elements(lambda text: hash_shown("", text), pl.String),
            guard_hash=pl.col("text").map_elements(lambda text: hash_guard("", text), pl.String),
            source=pl.lit("label"),
        )
        .select(*schemas.POSITIVES.columns)
    )
    return {
        "queries": pl.DataFrame(
            [(*one, hash_text(one[2]), "train") for one in asked], schema=schemas.QUERIES.columns, orient="row"
        ),
        "positives": positives,
        "query_embeddings": _random(rng, {hash_text(one[2]) for one in asked}),
        "passages": texts,
        "passage_embeddings": _random(rng, set(texts["text_hash"])),
    }


def _random(rng: np.random.Generator, hashes: set[str]) -> pl.DataFrame:
    """Vectors of small whole numbers: many inner products are equal."""
    vectors = rng.integers(-2, 3, (len(hashes), 4)).astype(np.float32)
    return pl.DataFrame({"text_hash": sorted(hashes), "vector": pl.Series(vectors, dtype=pl.Array(pl.Float32, 4))})


def _by_sorting(
    depth: int, *, queries: pl.DataFrame, positives: pl.DataFrame, passages: pl.DataFrame, **vectors: pl.DataFrame
) -> pl.DataFrame:
    """The hits as the definition has them: all pairs, scored, sorted and masked."""
    left = queries.join(vectors["query_embeddings"], on="text_hash").select("dataset", "query_id", q="vector")
    pairs = left.join(passages.join(vectors["passage_embeddings"], on="text_hash"), on="dataset")
    score = pl.Series("score", (pairs["q"].to_numpy().astype(float) * pairs["vector"].to_numpy()).sum(axis=1))
    found = []
    ranked = rank_by_score(pairs.select("dataset", "query_id", "doc_id", "text_hash", score, retriever=pl.lit("dense")))
    for dataset in sorted(set(queries["dataset"])):
        own = pl.col("dataset") == dataset
        hashed = hash_hits(ranked.filter(own), queries.filter(own), passages.filter(own))
        usable = mask(hashed, positives=positives, same_id=True).with_columns(
            usable=pl.col("reason").is_null().cast(pl.Int64)
        )
        before = pl.col("usable").cum_sum().over("query_id") - pl.col("usable")
        found.append(usable.filter(before < depth).select(*schemas.HITS.columns))
    return pl.concat(found).sort(schemas.HITS.key)


@pytest.mark.parametrize("seed", range(4))
def test_hits_are_those_of_sorting_and_masking_all_pairs(seed: int) -> None:
    tables = _corpus(seed, 30, 200)
    assert _search(SearchConfig(depth=7, threads=2), **tables).sort(schemas.HITS.key).equals(_by_sorting(7, **tables))


@pytest.mark.parametrize("parts", [1, 3, 8])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("together", [1, 1_500, 1 << 28])
def test_hits_do_not_depend_on_the_parts_of_the_corpus_or_on_threads(
    parts: int, threads: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = _corpus(9, 40, 300)
    whole = _search(SearchConfig(depth=5, threads=1), **tables)
    monkeypatch.setattr(module, "_BYTES", together)
    part = pl.col("text_hash").str.slice(0, 8).str.to_integer(base=16) % parts
    for name in ("passages", "passage_embeddings"):
        tables[name] = [tables[name].filter(part == number) for number in range(parts)]
    assert _search(SearchConfig(depth=5, threads=threads), **tables).equals(whole)


def test_parts_are_compared_together_up_to_a_size_of_all_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = _corpus(9, 40, 300)
    part = pl.col("text_hash").str.slice(0, 8).str.to_integer(base=16) % 8
    for name in ("passages", "passage_embeddings"):
        tables[name] = [tables[name].filter(part == number) for number in range(8)]
    compared = list[int]()
    add = Nearest.add

    def counting(self: Nearest, vectors: np.ndarray, *rest: Any) -> None:
        compared.append(vectors.nbytes)
        add(self, vectors, *rest)

    monkeypatch.setattr(Nearest, "add", counting)
    monkeypatch.setattr(module, "_BYTES", 1)
    one_by_one, bytes_of_all = _search(SearchConfig(depth=5), **tables), sum(compared)
    each = len(compared)
    compared.clear()
    monkeypatch.setattr(module, "_BYTES", bytes_of_all // 3)
    assert _search(SearchConfig(depth=5), **tables).equals(one_by_one)
    assert each > len(compared)
    assert bytes_of_all == sum(compared)
    assert max(compared) <= bytes_of_all // 2  # not all of them waited until the end


def test_hits_come_by_the_part_of_the_query_also_where_a_part_has_none() -> None:
    tables = _corpus(3, 12, 50)
    queries = tables["queries"].with_columns(part=pl.Series([4] * 5 + [9] * 7, dtype=pl.Int32))
    held_out = queries.head(1).with_columns(query_id=pl.lit("unseen"), split=pl.lit("test"), part=pl.lit(11, pl.Int32))
    whole = _search(SearchConfig(depth=5), **tables)
    made = list(_run(SearchConfig(depth=5), **{**tables, "queries": pl.concat([queries, held_out])})["hits"])
    assert [part for part, _ in made] == [4, 9, 11]
    for part, hits in made:
        own = queries.filter(pl.col("part") == part)
        assert hits.equals(whole.join(own, on=["dataset", "query_id"], how="semi", maintain_order="left"))


def test_many_equal_vectors_are_all_ranked_by_doc_id() -> None:
    names = [f"p{n:05d}" for n in range(9_000)]
    vectors = pl.DataFrame({"text_hash": names, "vector": [DIAGONAL] * len(names)}, schema=EMBEDDINGS)
    hits = _search(
        SearchConfig(depth=2, threads=1),
        queries=QUERY,
        positives=schemas.POSITIVES.empty(),
        query_embeddings=QUERY_EMBEDDINGS,
        passages=_passages(*[("d", name, name) for name in names[::-1]]),
        passage_embeddings=vectors,
    )
    assert hits["doc_id"].to_list() == ["p00000", "p00001"]


def test_a_passage_without_vector_is_named() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 distinct passages have no embedding \(first: b\)"):
        _search(
            SearchConfig(),
            queries=QUERY,
            positives=schemas.POSITIVES.empty(),
            query_embeddings=QUERY_EMBEDDINGS,
            passages=_passages(("d", "p1", "a"), ("d", "p2", "b")),
            passage_embeddings=_embeddings(a=UP),
        )


def _clustered(count: int) -> dict[str, pl.DataFrame]:
    """20 queries, and passages around 40 centres."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(40, 16))
    vectors = (centres[rng.integers(40, size=count + 20)] + 0.9 * rng.normal(size=(count + 20, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"p{n:05d}" for n in range(count + 20)]
    table = pl.DataFrame({"text_hash": names, "vector": pl.Series(vectors, dtype=pl.Array(pl.Float32, 16))})
    return {
        "queries": _queries(*[("d", name, name, "train") for name in names[count:]]),
        "positives": schemas.POSITIVES.empty(),
        "query_embeddings": table.tail(20),
        "passages": _passages(*[("d", name, name) for name in names[:count]]),
        "passage_embeddings": table.head(count),
    }


def test_lists_find_most_of_the_nearest_and_say_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, ivf = _clustered(4_000), {"index": "ivf", "nlist": 40, "depth": 10}
    exact = _search(SearchConfig(depth=10), **tables).select("query_id", "doc_id", "score")
    made = _run(SearchConfig(**ivf, nprobe=2), **tables)
    hits = pl.concat(frame for _, frame in made["hits"])
    found = exact.join(hits, on=["query_id", "doc_id", "score"], how="semi").height
    assert made["facts"] == {
        "recall": round(found / 200, 4),
        "recall_queries": 20,
        "recall_nearest": 200,
        "searched_exactly": 0,
    }
    assert 0.5 < found / 200 < 1.0
    assert _search(SearchConfig(**ivf, nprobe=2, threads=1), **tables).equals(hits)
    assert _search(SearchConfig(**ivf, nprobe=40), **tables).select(exact.columns).equals(exact)
    monkeypatch.setattr(approximate, "_BYTES", 1)  # an index for each part
    for name in ("passages", "passage_embeddings"):
        tables[name] = [tables[name].head(2_000), tables[name].tail(2_000)]
    assert _search(SearchConfig(**ivf, nprobe=40), **tables).select(exact.columns).equals(exact)


def test_too_few_texts_for_lists_are_searched_exactly_and_counted() -> None:
    tables = _clustered(100)
    made = _run(SearchConfig(index="ivf", depth=10), **tables)
    assert pl.concat(frame for _, frame in made["hits"]).equals(_search(SearchConfig(depth=10), **tables))
    assert made["facts"]["searched_exactly"] == 100
    assert made["facts"]["recall"] == 1.0
