"""Export curated instances in the file formats that trainers read. The same instances give the same bytes.

Each format has its own folder below `out`. `export.json` counts what was written and what was left out.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, cycle, groupby, islice
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.texts import combine_hashes, show_passage

Target = Literal["tevatron", "flagembedding", "sentence-transformers", "beir", "trec"]
FORMATS: tuple[Target, ...] = get_args(Target)

_QUERY = ["dataset", "query_id"]
_PASSAGE = ["dataset", "doc_id"]


class ExportConfig(BaseModel):
    """Which formats to write. All fields except `formats` apply to sentence-transformers, whose rows have equal length.

    formats: one folder each. file_type: file type of the rows for sentence-transformers.
    short: a row with fewer than `num_negatives` negatives is left out (`drop`), repeats its negatives from the first
        (`pad`; without negatives it is left out), or has nulls in the missing columns (`keep`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    formats: tuple[Target, ...] = Field(("tevatron",), min_length=1)
    num_negatives: int = Field(7, ge=0, description="negative_1 … negative_n; further ones are left out (RLHN: 7)")
    short: Literal["drop", "pad", "keep"] = "pad"
    file_type: Literal["parquet", "jsonl"] = "parquet"


@dataclass(frozen=True, slots=True)
class Document:
    """A passage of an instance."""

    doc_id: str
    title: str
    text: str
    text_hash: str

    @property
    def shown(self) -> str:
        """Title and text, joined as encoder, judge and trainer read them."""
        return show_passage(self.title, self.text)


@dataclass(frozen=True, slots=True)
class Example:
    """An instance with its texts."""

    dataset: str
    query_id: str
    query: str
    positives: list[Document]
    negatives: list[Document]


def export(
    config: ExportConfig, *, instances: pl.DataFrame, queries: pl.DataFrame, passages: pl.DataFrame, out: Path
) -> dict[str, pl.DataFrame]:
    """Write instances with their texts below `out`, sorted by dataset and query_id.

    `tevatron/train.jsonl` (RLHN rows) · `flagembedding/train.jsonl` · `sentence-transformers/train.parquet` (a row for
    each positive: anchor, positive, negative_1 … negative_n) · `beir/<dataset>/` (the instances' own passages,
    positives in `qrels/train.tsv`) · `trec/<dataset>.qrels` (positives 1, negatives 0).

    Raises:
        ValueError: a text is missing or not the one the instance was made of, or an instance has no positive.
    """
    examples = list(_join_texts(instances, queries, passages))
    out.mkdir(parents=True, exist_ok=True)
    formats = {name: _WRITERS[name](config, out / name, examples) for name in sorted(set(config.formats))}
    summary = {
        "config": config.model_dump(mode="json"),
        "datasets": Counter(example.dataset for example in examples),
        "formats": formats,
        "instances": len(examples),
        "treatments": Counter(instances["treatment"]),
        "without_negatives": sum(not example.negatives for example in examples),
    }
    _write_lines(out / "export.json", [json.dumps(summary, indent=2, sort_keys=True, ensure_ascii=False)])
    return {}


def _join_texts(instances: pl.DataFrame, queries: pl.DataFrame, passages: pl.DataFrame) -> Iterator[Example]:
    """Join texts by id in the order of dataset and query_id, each instance checked."""
    asked = queries.join(instances, on=_QUERY, how="semi")
    named = pl.concat(
        [instances.select("dataset", doc_id=name).explode("doc_id") for name in ("positives", "negatives")]
    )
    needed = passages.join(named, on=_PASSAGE, how="semi").select("dataset", *Document.__annotations__)
    texts = {(row[0], row[1]): row[2:] for row in asked.select(*_QUERY, "text", "text_hash").iter_rows()}
    documents = {(row[0], row[1]): Document(*row[1:]) for row in needed.iter_rows()}
    for row in instances.sort(_QUERY).iter_rows(named=True):
        yield _example(row, texts, documents)


def _example(
    row: Mapping[str, Any],
    texts: Mapping[tuple[str, str], tuple[str, str]],
    documents: Mapping[tuple[str, str], Document],
) -> Example:
    """Join one instance with its texts, and check that they are the texts it was made of."""
    dataset, query_id = row["dataset"], row["query_id"]
    where = f"export: instance {dataset}/{query_id}"
    if not row["positives"]:
        raise ValueError(f"{where} has no positive, expected at least one; treat must reject such rows")
    missing = [doc_id for doc_id in (*row["positives"], *row["negatives"]) if (dataset, doc_id) not in documents]
    if missing or (dataset, query_id) not in texts:
        what = f"passage {missing[0]}" if missing else "its query"
        raise ValueError(f"{where}: no text for {what}; give the tables of the same curation")
    query, query_hash = texts[dataset, query_id]
    positives, negatives = ([documents[dataset, key] for key in row[name]] for name in ("positives", "negatives"))
    found = combine_hashes([query_hash, *(document.text_hash for document in (*positives, *negatives))])
    if found != row["texts_hash"]:
        raise ValueError(
            f"{where}: texts_hash is {row['texts_hash']}, its texts now give {found}; they changed since the instance "
            "was made: curate again, or give the tables of the same curation"
        )
    return Example(dataset, query_id, query, positives, negatives)


def _write_tevatron(_config: ExportConfig, folder: Path, examples: list[Example]) -> dict[str, int]:
    def passages(documents: list[Document]) -> list[dict[str, str]]:
        return [{"docid": item.doc_id, "text": item.text, "title": item.title} for item in documents]

    rows = (
        {
            "query_id": example.query_id,
            "query": example.query,
            "positive_passages": passages(example.positives),
            "negative_passages": passages(example.negatives),
            "subset": example.dataset,
        }
        for example in examples
    )
    return {"rows": _write_rows(folder / "train.jsonl", rows)}


def _write_flagembedding(_config: ExportConfig, folder: Path, examples: list[Example]) -> dict[str, int]:
    rows = (
        {
            "query": example.query,
            "pos": [document.shown for document in example.positives],
            "neg": [document.shown for document in example.negatives],
        }
        for example in examples
    )
    return {"rows": _write_rows(folder / "train.jsonl", rows)}


def _write_tuples(config: ExportConfig, folder: Path, examples: list[Example]) -> dict[str, int]:
    """Write n-tuples for sentence-transformers, one row for each positive, and count the rows."""
    columns = ["anchor", "positive", *(f"negative_{number}" for number in range(1, config.num_negatives + 1))]
    counts = Counter(rows=0, short=0, dropped=0)
    rows: list[list[str | None]] = []
    for example in examples:
        count = len(example.positives)
        negatives = _fit(config, [document.shown for document in example.negatives])
        counts["short"] += count * (len(example.negatives) < config.num_negatives)
        counts["dropped"] += count * (negatives is None)
        if negatives is not None:
            rows.extend([example.query, document.shown, *negatives] for document in example.positives)
    counts["rows"] = len(rows)
    if config.file_type == "jsonl":
        _write_rows(folder / "train.jsonl", (dict(zip(columns, row, strict=True)) for row in rows))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
        frame.write_parquet(folder / "train.parquet", compression="zstd")
    return dict(counts)


def _fit(config: ExportConfig, negatives: list[str]) -> list[str | None] | None:
    """Return exactly `num_negatives` negatives, or None where the row is left out.

    >>> _fit(ExportConfig(num_negatives=3), ["a", "b"])
    ['a', 'b', 'a']
    """
    size = config.num_negatives
    if len(negatives) >= size:
        return [*negatives[:size]]
    if config.short == "keep":
        return [*negatives, *[None] * (size - len(negatives))]
    if config.short == "drop" or not negatives:
        return None
    return list(islice(cycle(negatives), size))


def _write_beir(_config: ExportConfig, folder: Path, examples: list[Example]) -> dict[str, int]:
    counts: Counter[str] = Counter(documents=0, queries=0, qrels=0)
    for dataset, group in _by_dataset(examples):
        place = folder / _file_name(dataset)
        documents = {item.doc_id: item for example in group for item in chain(example.positives, example.negatives)}
        corpus = (documents[doc_id] for doc_id in sorted(documents))
        counts["documents"] += _write_rows(
            place / "corpus.jsonl", ({"_id": item.doc_id, "title": item.title, "text": item.text} for item in corpus)
        )
        counts["queries"] += _write_rows(
            place / "queries.jsonl", ({"_id": example.query_id, "text": example.query} for example in group)
        )
        labels = [f"{example.query_id}\t{item.doc_id}\t1" for example in group for item in example.positives]
        _write_lines(place / "qrels" / "train.tsv", ["query-id\tcorpus-id\tscore", *labels])
        counts["qrels"] += len(labels)
    return dict(counts)


def _write_trec(_config: ExportConfig, folder: Path, examples: list[Example]) -> dict[str, int]:
    counts: Counter[str] = Counter(qrels=0)
    for dataset, group in _by_dataset(examples):
        judged = [
            (example.query_id, document.doc_id, relevance)
            for example in group
            for relevance, documents in ((1, example.positives), (0, example.negatives))
            for document in documents
        ]
        split = next((key for row in judged for key in row[:2] if key.split() != [key]), None)
        if split is not None:
            raise ValueError(
                f"export: id {split!r} of {dataset} holds spaces, which trec cannot write; use beir instead"
            )
        lines = [f"{query_id} 0 {doc_id} {relevance}" for query_id, doc_id, relevance in judged]
        counts["qrels"] += _write_lines(folder / f"{_file_name(dataset)}.qrels", lines)
    return dict(counts)


def _by_dataset(examples: list[Example]) -> Iterator[tuple[str, list[Example]]]:
    for dataset, group in groupby(examples, key=lambda example: example.dataset):
        yield dataset, list(group)


def _file_name(dataset: str) -> str:
    """Turn the name of a dataset into a safe file name.

    >>> _file_name("../a b")
    '%2E.%2Fa%20b'
    """
    name = quote(dataset, safe="")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    return _write_lines(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def _write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines and return their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for line in lines:
            stream.write(f"{line}\n")
            count += 1
    return count


_WRITERS: dict[Target, Callable[[ExportConfig, Path, list[Example]], dict[str, int]]] = {
    "tevatron": _write_tevatron,
    "flagembedding": _write_flagembedding,
    "sentence-transformers": _write_tuples,
    "beir": _write_beir,
    "trec": _write_trec,
}
