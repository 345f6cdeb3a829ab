"""Input folders for ingest, and what became of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tasks import schemas
from tasks.data.ingest import IngestConfig, ingest

Tables = dict[str, Any]
HIDDEN = ("dataset", "text_hash", "shown_hash", "guard_hash", "source")


TABLES = {
    "queries": schemas.QUERIES,
    "positives": schemas.POSITIVES,
    "given": schemas.GIVEN,
    "irrelevant": schemas.IRRELEVANT,
    "teacher": schemas.TEACHER,
    "extras": schemas.EXTRAS,
    "passages": schemas.PASSAGES,
    "qrels": schemas.QRELS,
    "known": schemas.KNOWN,
    "copies": schemas.COPIES,
    "rejects": schemas.REJECTS,
    "query_places": schemas.PLACES,
    "passage_places": schemas.PLACES,
    "generations": schemas.GENERATIONS,
}
PLACES = ("query_places", "passage_places", "generations")


def row_of(query: str, positives: str, negatives: str = "", /, **more: object) -> dict[str, object]:
    """A Tevatron row; `"d1 d2=other"` are passages with their id as text, or the text given."""

    def passages(names: str) -> list[dict[str, str]]:
        pairs = [name.partition("=") for name in names.split()]
        return [{"docid": doc_id, "title": "", "text": text or f"text of {doc_id}"} for doc_id, _, text in pairs]

    return {
        "query_id": query,
        "query": f"about {query}",
        "positive_passages": passages(positives),
        "negative_passages": passages(negatives),
    } | more


def write_lines(path: Path, *lines: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")


def write_beir(folder: Path, documents: dict[str, str], queries: dict[str, str], **qrels: str) -> None:
    """A BEIR folder; qrels are `"q1 d1 1, q1 d2 0"`."""
    write_lines(folder / "corpus.jsonl", *({"_id": key, "text": text} for key, text in documents.items()))
    write_lines(folder / "queries.jsonl", *({"_id": key, "text": text} for key, text in queries.items()))
    for split, lines in qrels.items():
        rows = ["\t".join(line.split()) for line in lines.split(",") if line]
        write_lines(folder / "qrels" / f"{split}.tsv", "query-id\tcorpus-id\tscore", *rows)


def ingest_parts(source: Path, before: Tables | None = None, **config: object) -> Tables:
    """Ingest, after an earlier ingest if one is given, and list the frames of tables in parts."""
    said = {} if before is None else {name: before[name] for name in PLACES}
    places = {name: pl.concat(table) if isinstance(table, list) else table for name, table in said.items()}
    out = ingest(IngestConfig.model_validate({"dataset": "d"} | config), source=source, **places)
    return {name: list(found) if isinstance(found, Iterator) else found for name, found in out.items()}


def ingest_all(source: Path, **config: object) -> Tables:
    """Ingest, check all tables against their schemas, and put the parts back together."""
    out = ingest_parts(source, **config)
    assert list(out) == [*TABLES, "facts"]
    assert 0 <= out["facts"]["rows_kept"] <= out["facts"]["rows_read"]
    for name, schema in TABLES.items():
        frames = out[name] if isinstance(out[name], list) else [out[name]]
        for frame in frames:
            assert dict(frame.schema) == schema.columns
            assert not schema.key or frame.equals(frame.sort(schema.key))
            needed = [column for column in schema.columns if column not in schema.nullable]
            assert frame.select(needed).null_count().sum_horizontal().sum() == 0
        out[name] = pl.concat(frames)
        assert not schema.key or not out[name].select(schema.key).is_duplicated().any()
    return out


def reasons_of(out: Tables) -> list[tuple[str, str]]:
    return list(out["rejects"].select("key", "reason").iter_rows())


def pairs_of(frame: pl.DataFrame) -> list[str]:
    return [" ".join(map(str, row)) for row in frame.drop(*HIDDEN, strict=False).iter_rows()]
