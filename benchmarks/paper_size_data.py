"""Generate data of the paper's shape at any size: rows with passages, a corpus, an encoder, and two judges' files.

Texts are functions of a passage's number, so any part of the data can be written without the rest, and equal arguments
give equal bytes. Seven datasets, 1.1 positives and 20 negatives a row, texts of about 100 words; a passage is named by
three rows on average. A corpus has one dataset; a query has the first words of its positive.
"""

import json
from collections.abc import Mapping, Sequence
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
_AT_ONCE = 50_000  # passages of a corpus that are made together
_GROUP = 1_000  # rows of one row group
_SYLLABLES = ("ba", "den", "ko", "li", "mar", "no", "per", "ri", "sta", "ten", "u", "ven")
_QUERIES, _PASSAGES, _SCORES = 1, 2, 3  # streams of the random numbers
_RELEVANT = 0.08  # share of the negatives that the judges call relevant
JUDGES = ("weak", "strong")
SCORES = pa.schema([*((name, pa.string()) for name in ("dataset", "query_id", "doc_id")), ("score", pa.float64())])


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


def write_corpus(folder: Path, passages: int, queries: int) -> None:
    """Write a corpus, queries and labels in the layout of BEIR; every tenth query has a second positive."""
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("wb") as file:
        for start in range(0, passages, _AT_ONCE):
            numbers = np.arange(start, min(start + _AT_ONCE, passages))
            texts = write_texts(_PASSAGES, numbers, _LENGTH)
            pl.DataFrame({"_id": numbers.astype(str), "title": "", "text": texts}).write_ndjson(file)
    positives = np.arange(queries) * (passages // queries)
    asked = [f"q{number}" for number in range(queries)]
    texts = write_texts(_PASSAGES, positives, _QUERY_WORDS)
    pl.DataFrame({"_id": asked, "text": texts}).write_ndjson(folder / "queries.jsonl")
    pairs = {"query-id": [*asked, *asked[::10]], "corpus-id": [*positives, *(positives[::10] + 1)], "score": 1}
    pl.DataFrame(pairs).write_csv(folder / "qrels" / "train.tsv", separator="\t")


def write_scores(path: Path, rows: int, total: int, seed: int) -> None:
    """Write a judge's P(relevant) of every negative of the rows: parquet with dataset, query_id, doc_id, score."""
    with pq.ParquetWriter(path, SCORES, compression="zstd") as writer:
        for start in range(0, rows, _SHARD):
            numbers = np.arange(start, min(start + _SHARD, rows))
            negatives = passages_of(numbers, total)[1].ravel()
            of = np.repeat(numbers, NEGATIVES)
            datasets = [DATASETS[number % len(DATASETS)] for number in of]
            writer.write_table(judge(datasets, of, negatives, seed))


def judge(datasets: Sequence[str], queries: npt.NDArray[Any], passages: npt.NDArray[Any], seed: int) -> pa.Table:
    """Return a judge's P(relevant) of pairs, given by their numbers, with the columns of `SCORES`.

    Two judges agree on what is relevant, and differ in how sure they are.
    """
    pair = queries.astype(np.int64) * 2**24 + passages.astype(np.int64) % 2**24
    truth = draw(_SCORES, pair, 1)[:, 0] < _RELEVANT
    noise = draw(_SCORES + 2 + seed, pair, 1)[:, 0]
    columns = {
        "dataset": pa.array(datasets),
        "query_id": pa.array([f"q{number}" for number in queries]),
        "doc_id": _as_arrow(pl.Series(passages).cast(pl.String)),
        "score": pa.array(np.where(truth, 0.55 + 0.45 * noise, 0.45 * noise).round(4)),
    }
    return pa.table(columns, schema=SCORES)


def write_encoder(folder: Path, dimensions: int = DIMENSIONS) -> None:
    """Write a sentence-transformers model that adds up one fixed vector per word, with mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[UNK]": 0, **{word: place for place, word in enumerate(words().to_list(), start=1)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = torch.randn((len(vocabulary), dimensions), generator=torch.Generator().manual_seed(0))
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


def write_config(
    path: Path, name: str, source: Path, scores: Path | None, encoder: Path, further: Mapping[str, Any] | None = None
) -> None:
    """Write the configuration of a curation: similarity, two judges from files, two treatments, no training.

    scores: the folder with a file for each judge; None for no judges. further: sections that it also has.
    """
    columns = {"dataset": "dataset", "query_id": "query_id", "doc_id": "doc_id", "score": "score"}

    def tier(judge: str, lower: float) -> dict[str, Any]:
        file = {"path": str(scores / f"{judge}.parquet")} if scores else {}
        engine = {"kind": "scores", **file, "columns": columns, "scale": "probability"}
        return {"name": judge, "engine": engine, "escalate": {"lower": lower, "upper": 1.0}}

    config = {
        "name": name,
        "source": {"path": str(source)},
        "treatments": ["default", "relabel"],
        "encoder": {"model": str(encoder), "batch_size": 256},
        "tiers": [tier("weak", 0.0), tier("strong", 0.3)] if scores else [],
        "train": None,
        **(further or {}),
    }
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML
