"""Write the instances of each dataset as a BEIR folder, as its own loader reads it."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import Lines, file_names, json_objects
from tasks.data.writing.training_set import TrainingSet

_BREAKS = re.compile(r"[\t\r\n]")


def write_beir(_config: ExportConfig, folder: Path, rows: TrainingSet) -> dict[str, int]:
    """Write corpus.jsonl (the passages of the instances alone), queries.jsonl and qrels/train.tsv for each dataset.

    Raises:
        ValueError: an id holds a tab or a line break.
    """
    counts = Counter(documents=0, queries=0, qrels=0)
    names = file_names(rows.datasets)
    for (dataset, chunks), (_, documents) in zip(rows.by_dataset(), rows.documents(), strict=True):
        place = folder / names[dataset]
        with Lines(place / "corpus.jsonl") as corpus:
            for frame in documents:
                corpus.write(json_objects(frame.select("doc_id", "title", "text").rename({"doc_id": "_id"})))
        with Lines(place / "queries.jsonl") as queries, Lines(place / "qrels" / "train.tsv") as qrels:
            qrels.write(["query-id\tcorpus-id\tscore"])
            for chunk in chunks:
                queries.write(
                    json_objects(chunk.rows.select("query_id", "query").rename({"query_id": "_id", "query": "text"}))
                )
                asked = np.repeat(chunk.rows["query_id"].to_numpy(), chunk.positives.counts)
                found = chunk.positives.passages["doc_id"]
                qrels.write(_tab_separated(dataset, zip(asked, found, ["1"] * len(asked), strict=True)))
        counts.update(documents=corpus.count, queries=queries.count, qrels=qrels.count - 1)
    return dict(counts)


def _tab_separated(dataset: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """Write rows of ids as Python's csv does, which BEIR's loader reads them with: quoted where it is needed."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    for row in rows:
        broken = next((value for value in row if _BREAKS.search(value)), None)
        if broken is not None:
            raise ValueError(
                f"export: id {broken!r} of {dataset} holds a tab or a line break, which beir cannot write; give ids "
                "without them, or use another format"
            )
        writer.writerow(row)
    return text.getvalue().split("\n")[:-1]
