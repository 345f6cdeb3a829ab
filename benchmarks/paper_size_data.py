"""Generate data of the paper's shape at any size: rows with passages, an encoder's folder, and two judges' files.

Texts are functions of a passage's number, so any part of the data can be written without the rest, and equal arguments
give equal bytes. Seven datasets, 1.1 positives and 20 negatives a row, texts of about 100 words; a passage is named by
three rows on average.
"""

import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

Numbers = npt.NDArray[np.uint64]

DATASETS = ("msmarco", "nq", "hotpotqa", "fever", "fiqa", "scidocs", "arguana")
NEGATIVES = 20
DIMENSIONS = 64
_SECOND = 0.1  # share of rows with a second positive
_PASSAGES_PER_ROW = 7  # 21.1 mentions a row, three mentions a passage
_WORDS = 30_000
_LENGTH = 100  # words of a passage
_QUERY_WORDS = 9
_SHARD = 10_000  # rows of one file
_GROUP = 1_000  # rows of one row group
_SYLLABLES = ("ba", "den", "ko", "li", "mar", "no", "per", "ri", "sta", "ten", "u", "ven")
_QUERIES, _PASSAGES, _SCORES = 1, 2, 3  # streams of the random numbers
_RELEVANT = 0.08  # share of the negatives that the judges call relevant


def draw(stream: int, numbers: npt.NDArray[Any], width: int) -> npt.NDArray[np.float64]:
    """Return uniform numbers in [0, 1) of shape (len(numbers), width), a function of stream and number alone."""
    base = numbers.astype(np.uint64)[:, None] * np.uint64(1024) + np.arange(width, dtype=np.uint64)
    mixed = base + np.uint64(stream * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


@cache
def words() -> pl.Series:
    """Return the vocabulary: all different, of one to four syllables, the frequent ones short."""
    made = ("".join(syllables) for size in range(1, 5) for syllables in product(_SYLLABLES, repeat=size))
    return pl.Series(list(dict.fromkeys(made)), dtype=pl.String).head(_WORDS)


def write_texts(stream: int, numbers: npt.NDArray[Any], length: int) -> pl.Series:
    """Write the texts of queries or passages; frequent words are those with low places, as in any language."""
    places = (draw(stream, numbers, length) ** 3 * len(words())).astype(np.uint32)
    drawn = words().gather(places.ravel()).reshape((len(numbers), length))
    return drawn.arr.join(" ")


def passages_of(rows: npt.NDArray[np.int64], total: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the numbers of the passages that rows name: positives (rows, 2), -1 for none, and negatives (rows, 20).

    The positives and five negatives of a row are its own. The others are those of any row of its dataset, of `total`.
    """
    drawn = draw(4, rows, NEGATIVES + 2)
    own = rows[:, None] * _PASSAGES_PER_ROW + np.arange(_PASSAGES_PER_ROW)
    of_dataset = total // len(DATASETS)  # rows of one dataset, at least
    owner = (drawn[:, :NEGATIVES] * of_dataset).astype(np.int64) * len(DATASETS) + (rows % len(DATASETS))[:, None]
    place = (drawn[:, :NEGATIVES] * of_dataset % 1 * _PASSAGES_PER_ROW).astype(np.int64)
    anywhere = owner * _PASSAGES_PER_ROW + place
    second = np.where(drawn[:, NEGATIVES] < _SECOND, own[:, 1], -1)
    negatives = np.concatenate([own[:, 2:], anywhere[:, : NEGATIVES - own.shape[1] + 2]], axis=1)
    return np.stack([own[:, 0], second], axis=1), negatives


def write_source(folder: Path, first: int, rows: int, total: int) -> None:
    """Write rows `first` to `first + rows` as parquet files in the layout in which the paper's data is published."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(first, first + rows, _SHARD):
        numbers = np.arange(start, min(start + _SHARD, first + rows))
        schema = _table(numbers[:1], total).schema
        with pq.ParquetWriter(folder / f"rows-{start:09d}.parquet", schema, compression="zstd") as writer:
            for group in range(0, len(numbers), _GROUP):
                writer.write_table(_table(numbers[group : group + _GROUP], total))


def write_scores(path: Path, rows: int, total: int, seed: int) -> None:
    """Write a judge's P(relevant) of every negative of the rows: parquet with dataset, query_id, doc_id, score."""
    with pq.ParquetWriter(path, _scores(np.arange(1), total, seed).schema, compression="zstd") as writer:
        for start in range(0, rows, _SHARD):
            writer.write_table(_scores(np.arange(start, min(start + _SHARD, rows)), total, seed))


def write_encoder(folder: Path) -> None:
    """Write a sentence-transformers model that adds up one fixed vector per word, with mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[UNK]": 0, **{word: place for place, word in enumerate(words().to_list(), start=1)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = torch.randn((len(vocabulary), DIMENSIONS), generator=torch.Generator().manual_seed(0))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights.numpy())]).save(str(folder))


def _table(numbers: npt.NDArray[np.int64], total: int) -> pa.Table:
    positives, negatives = passages_of(numbers, total)
    kept = positives >= 0
    return pa.table(
        {
            "query_id": pa.array([f"q{number}" for number in numbers]),
            "query": _as_arrow(write_texts(_QUERIES, numbers, _QUERY_WORDS)),
            "positive_passages": _lists(positives[kept], kept.sum(axis=1)),
            "negative_passages": _lists(negatives.ravel(), np.full(len(numbers), NEGATIVES)),
            "subset": pa.array([DATASETS[number % len(DATASETS)] for number in numbers]),
        }
    )


def _lists(chosen: npt.NDArray[np.int64], counts: npt.NDArray[Any]) -> pa.Array:
    distinct, places = np.unique(chosen, return_inverse=True)
    texts = _as_arrow(write_texts(_PASSAGES, distinct, _LENGTH).gather(places))
    ids = _as_arrow(pl.Series(chosen).cast(pl.String)).cast(pa.string())
    empty = pa.array([""] * len(chosen))
    structs = pa.StructArray.from_arrays([ids, empty, texts], names=["docid", "title", "text"])
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32()), structs)


def _as_arrow(texts: pl.Series) -> pa.Array:
    return texts.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string())


def _scores(numbers: npt.NDArray[np.int64], total: int, seed: int) -> pa.Table:
    _, negatives = passages_of(numbers, total)
    of = np.repeat(numbers, NEGATIVES)
    # Two judges agree on what is relevant, and differ in how sure they are.
    truth = draw(_SCORES, of * 2**24 + negatives.ravel() % 2**24, 1)[:, 0] < _RELEVANT
    noise = draw(_SCORES + 2 + seed, of * 2**24 + negatives.ravel() % 2**24, 1)[:, 0]
    return pa.table(
        {
            "dataset": pa.array([DATASETS[number % len(DATASETS)] for number in of]),
            "query_id": pa.array([f"q{number}" for number in of]),
            "doc_id": _as_arrow(pl.Series(negatives.ravel()).cast(pl.String)),
            "score": pa.array(np.where(truth, 0.55 + 0.45 * noise, 0.45 * noise).round(4)),
        }
    )


def write_config(path: Path, source: Path, scores: Path, encoder: Path) -> None:
    """Write the configuration of the benchmark: similarity, two judges from files, two treatments, no training."""
    columns = {"dataset": "dataset", "query_id": "query_id", "doc_id": "doc_id", "score": "score"}

    def tier(name: str, escalate: dict[str, Any]) -> dict[str, Any]:
        engine = {"kind": "scores", "path": str(scores / f"{name}.parquet"), "columns": columns, "scale": "probability"}
        return {"name": name, "engine": engine, "escalate": escalate}

    config = {
        "name": "paper-size",
        "source": {"path": str(source)},
        "treatments": ["default", "relabel"],
        "encoder": {"model": str(encoder)},
        "tiers": [tier("weak", {"lower": 0.0, "upper": 1.0}), tier("strong", {"lower": 0.3, "upper": 1.0})],
        "train": None,
    }
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML


def count_rows(folder: Path) -> int:
    """Count the rows of a source."""
    return int(pl.scan_parquet(folder / "*.parquet").select(pl.len()).collect().item())
