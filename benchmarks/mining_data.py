"""Generate a corpus with vectors, and queries with positives, for the benchmark of mining.

Vectors are unit vectors around centres, the centres themselves around fewer ones, as encoders make them of topics.
Texts have about 80 words. Of the passages, 3% are nearly another one: its words but a few, and its vector but a little;
0.5% are another one in capitals, which normalisation finds; 0.2% repeat another one under an id of their own. A query
is near its positive, and every tenth has a second positive, near the first. Equal arguments give equal data.

Passages are cut into parts by the hash of their text, as ingest does it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tasks import schemas
from tasks.texts import hash_guard, hash_passage, hash_shown, hash_text, part_of

_PHRASES, _SYLLABLES = 5_000, ("ba", "den", "ko", "li", "mar", "no", "per", "ri", "sta", "ten", "u", "ven")
_NEAR, _CAPITALS, _AGAIN = 0.03, 0.005, 0.002  # shares of passages
_AT_ONCE = 50_000
_DATASET = "generated"


@dataclass(frozen=True)
class Size:
    """How much is generated."""

    passages: int
    queries: int
    dimension: int = 384
    query_parts: int = 40
    passage_parts: int = 4
    seed: int = 7


def write_data(folder: Path, size: Size) -> None:
    """Write what both sides read.

    `size.json`; `passages-<part>.parquet` and `passage_vectors-<part>.parquet`, `queries-<part>.parquet`,
    `positives-<part>.parquet`, `query_vectors-<part>.parquet`, as tables of the stages; and for sentence-transformers
    `pairs.parquet` of queries and positives, and `corpus.npy` and `queries.npy`, vectors in the order of
    `texts.parquet` and of the queries' parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "size.json").write_text(json.dumps(asdict(size)), encoding="utf-8")
    numbers = np.random.default_rng(size.seed)
    vectors = _vectors(numbers, size)
    texts = _texts(numbers, size, vectors)
    hashes = [hash_passage("", text) for text in texts]
    passages = pl.DataFrame(
        {
            "dataset": _DATASET,
            "doc_id": [f"p{n:07d}" for n in range(size.passages)],
            "title": "",
            "text": texts,
            "text_hash": hashes,
        }
    )
    _write_queries(folder, numbers, size, passages, vectors)
    _pairs(folder, size, passages).write_parquet(folder / "pairs.parquet")
    part = pl.Series("part", [part_of(text_hash, size.passage_parts) for text_hash in hashes])
    unique = passages.with_columns(part).with_row_index("row").unique("text_hash", keep="first", maintain_order=True)
    np.save(folder / "corpus.npy", vectors[unique["row"].to_numpy()])
    unique.select("text", "doc_id").write_parquet(folder / "texts.parquet")
    for number in range(size.passage_parts):
        passages.filter(part == number).write_parquet(folder / f"passages-{number}.parquet")
        own = unique.filter(pl.col("part") == number).sort("text_hash")
        _embeddings(own["text_hash"], vectors[own["row"].to_numpy()]).write_parquet(
            folder / f"passage_vectors-{number}.parquet"
        )


def read_part(folder: Path, name: str, part: int) -> pl.DataFrame:
    """Read one part of a table."""
    return pl.read_parquet(folder / f"{name}-{part}.parquet")


def fill_store(folder: Path, url: str) -> None:
    """Put the tables into a store, each part as a piece, and the pieces into `tables.json`."""
    from infra.storage.artifacts import write_table
    from infra.storage.store import Store

    store, size, found = Store.open(url), read_size(folder), {}
    of_queries = ("queries", schemas.QUERIES), ("positives", schemas.POSITIVES), ("query_vectors", schemas.EMBEDDINGS)
    of_passages = ("passages", schemas.PASSAGES), ("passage_vectors", schemas.EMBEDDINGS)
    empty = ("given", schemas.GIVEN), ("irrelevant", schemas.IRRELEVANT)
    for parts, tables in ((size.query_parts, (*of_queries, *empty)), (size.passage_parts, of_passages)):
        for name, schema in tables:
            none = (name, schema) in empty
            frames = (schema.empty() if none else read_part(folder, name, part) for part in range(parts))
            found[name] = [vars(write_table(store, name, frame, schema, n)) for n, frame in enumerate(frames)]
    (folder / "tables.json").write_text(json.dumps(found), encoding="utf-8")


def read_size(folder: Path) -> Size:
    """Return how much was generated."""
    return Size(**json.loads((folder / "size.json").read_text(encoding="utf-8")))


def _vectors(numbers: np.random.Generator, size: Size) -> Any:
    """Unit vectors in two levels of clusters."""
    topics = numbers.standard_normal((200, size.dimension), dtype=np.float32)
    centres = topics[numbers.integers(len(topics), size=max(size.passages // 40, 1))]
    centres += 0.8 * numbers.standard_normal(centres.shape, dtype=np.float32)
    made = np.empty((size.passages, size.dimension), np.float32)
    for start in range(0, size.passages, _AT_ONCE):
        rows = made[start : start + _AT_ONCE]
        rows[:] = centres[numbers.integers(len(centres), size=len(rows))]
        rows += 0.7 * numbers.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return made


def _texts(numbers: np.random.Generator, size: Size, vectors: Any) -> list[str]:
    """Texts of random phrases; copies of others in the shares above, whose vectors are made to fit."""
    syllables = [_SYLLABLES[n] for n in numbers.integers(len(_SYLLABLES), size=_PHRASES * 24)]
    phrases = [
        " ".join("".join(syllables[n : n + 3]) for n in range(at, at + 24, 3)) for at in range(0, len(syllables), 24)
    ]
    drawn = numbers.integers(_PHRASES, size=(size.passages, 10)).tolist()
    texts = [f"{n} {' '.join([phrases[phrase] for phrase in row])}" for n, row in enumerate(drawn)]
    kinds = numbers.random(size.passages)
    others = numbers.integers(size.passages, size=size.passages)
    originals = kinds >= _NEAR + _CAPITALS + _AGAIN
    for row in np.flatnonzero(~originals & originals[others]).tolist():
        other = int(others[row])
        vectors[row] = vectors[other]
        if kinds[row] < _AGAIN:
            texts[row] = texts[other]
            continue
        near = kinds[row] >= _AGAIN + _CAPITALS
        texts[row] = f"{texts[other]} {row}" if near else texts[other].upper()
        moved = vectors[row] + (0.01 if near else 0.001) * numbers.standard_normal(size.dimension, dtype=np.float32)
        vectors[row] = moved / np.linalg.norm(moved)
    return texts


def _write_queries(
    folder: Path, numbers: np.random.Generator, size: Size, passages: pl.DataFrame, vectors: Any
) -> None:
    once = np.flatnonzero(passages["text"].is_unique().to_numpy())
    labelled = numbers.choice(once, size.queries, replace=False)
    made = vectors[labelled] + 0.03 * numbers.standard_normal((size.queries, size.dimension), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    texts = passages["text"].gather(labelled).to_list()
    asked = [f"{n}: what of {text[:60]}?" for n, text in enumerate(texts)]
    hashes = [hash_text(text) for text in asked]
    queries = pl.DataFrame(
        {
            "dataset": _DATASET,
            "query_id": [f"q{n:06d}" for n in range(size.queries)],
            "text": asked,
            "text_hash": hashes,
            "split": "train",
        }
    )
    second = (labelled[::10] + 1) % size.passages
    pairs = np.concatenate(
        [np.stack([np.arange(size.queries), labelled], 1), np.stack([np.arange(0, size.queries, 10), second], 1)]
    )
    positives = _positives(queries, passages, pairs)
    part = pl.Series("part", [part_of(text_hash, size.query_parts) for text_hash in hashes])
    order = []
    for number in range(size.query_parts):
        own = queries.with_row_index("row").filter(part == number)
        rows = own["row"].to_numpy()
        own.drop("row").write_parquet(folder / f"queries-{number}.parquet")
        positives.join(own, on="query_id", how="semi").write_parquet(folder / f"positives-{number}.parquet")
        _embeddings(own["text_hash"], made[rows]).sort("text_hash").write_parquet(
            folder / f"query_vectors-{number}.parquet"
        )
        order.append(rows)
    np.save(folder / "queries.npy", made[np.concatenate(order)])


def _positives(queries: pl.DataFrame, passages: pl.DataFrame, pairs: Any) -> pl.DataFrame:
    chosen = passages[pairs[:, 1]]
    texts = chosen["text"].to_list()
    return (
        pl.DataFrame(
            {
                "dataset": _DATASET,
                "query_id": queries["query_id"].gather(pairs[:, 0]),
                "doc_id": chosen["doc_id"],
                "text_hash": chosen["text_hash"],
                "shown_hash": [hash_shown("", text) for text in texts],
                "guard_hash": [hash_guard("", text) for text in texts],
                "source": "label",
            }
        )
        .select(*schemas.POSITIVES.columns)
        .sort("query_id", "doc_id")
    )


def _embeddings(hashes: pl.Series, vectors: Any) -> pl.DataFrame:
    dtype = pl.Array(pl.Float32, vectors.shape[1])
    return pl.DataFrame({"text_hash": hashes, "vector": pl.Series(vectors, dtype=dtype)})


def _pairs(folder: Path, size: Size, passages: pl.DataFrame) -> pl.DataFrame:
    """The texts of each query and each of its positives, for sentence-transformers."""
    named = passages.select("doc_id", positive="text")
    found = []
    for part in range(size.query_parts):
        pairs = read_part(folder, "positives", part).join(named, on="doc_id", how="left")
        queries = read_part(folder, "queries", part).select("query_id", anchor="text")
        found.append(queries.join(pairs, on="query_id", maintain_order="left_right").select("anchor", "positive"))
    return pl.concat(found)
