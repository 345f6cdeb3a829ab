"""The paper's data in its published layout, with made-up texts: `default`, and `rlhn`, which is relabelled."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SUBSETS = ("fiqa", "msmarco_passage")
FALSE = 3  # every third negative is one that the paper's judges call relevant
_PASSAGE = pa.list_(pa.struct([("docid", pa.string()), ("text", pa.string()), ("title", pa.string())]))
LAYOUT = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("positive_passages", _PASSAGE),
        ("negative_passages", _PASSAGE),
        ("subset", pa.string()),
    ]
)


def default_rows(count: int = 12) -> list[dict[str, Any]]:
    """Rows as they were; ids of passages are unique within a subset only, so two subsets have the same ones."""

    def passage(subset: str, number: int, kind: str, place: int = 0) -> dict[str, str]:
        text = f"In {subset} the {kind} {number}.{place} says what is asked, as {kind} {number}.{place} does."
        return {"docid": f"{kind[0]}{number // len(SUBSETS)}-{place}", "text": text, "title": ""}

    return [
        {
            "query_id": f"{number:032x}",
            "query": f"what does {subset} say of {number}",
            "positive_passages": [passage(subset, number, "positive")],
            "negative_passages": [passage(subset, number, "negative", place) for place in range(6)],
            "subset": subset,
        }
        for number in range(count)
        for subset in (SUBSETS[number % len(SUBSETS)],)
    ]


def relabelled_rows(rows: list[dict[str, Any]], dropped: int = 0) -> list[dict[str, Any]]:
    """The rows with every third negative moved to the positives; the last `dropped` rows are cut."""
    return [
        {
            **row,
            "positive_passages": row["positive_passages"] + row["negative_passages"][::FALSE],
            "negative_passages": [one for place, one in enumerate(row["negative_passages"]) if place % FALSE],
        }
        for row in rows[: len(rows) - dropped]
    ]


def write_lines(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as one file of JSON lines."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_set(folder: Path, rows: list[dict[str, Any]], shards: int = 2, seed: int | None = None) -> Path:
    """Write rows as the hub has them: `data/train-00000-of-00002.parquet` and so on, beside a card."""
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\n# Rows\n")
    rows = list(rows)
    if seed is not None:
        random.Random(seed).shuffle(rows)
    for shard in range(shards):
        name = f"train-{shard:05d}-of-{shards:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows[shard::shards], schema=LAYOUT), folder / "data" / name)
    return folder
