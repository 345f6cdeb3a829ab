"""Write the instances of each dataset as TREC qrels, and the negatives' ranks and scores of mining as a run."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
from polars import selectors as cs

from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import Lines, file_names
from tasks.data.writing.training_set import Chunk, TrainingSet

_MINED = ("rank", "mined_score", "retriever")


def write_trec(_config: ExportConfig, folder: Path, rows: TrainingSet) -> dict[str, int]:
    """Write `<dataset>.qrels` (positives 1, negatives 0) and, with candidates, `<dataset>.run` for each dataset.

    Raises:
        ValueError: an id holds spaces.
    """
    has_ranks = rows.has("rank")
    counts = Counter(qrels=0, **({"run": 0} if has_ranks else {}))
    names = file_names(rows.datasets)
    for dataset, chunks in rows.by_dataset():
        with ExitStack() as stack:
            qrels = stack.enter_context(Lines(folder / f"{names[dataset]}.qrels"))
            run = stack.enter_context(Lines(folder / f"{names[dataset]}.run")) if has_ranks else None
            for chunk in chunks:
                judged = _judged(dataset, chunk)
                qrels.write(_joined(judged, "query_id", pl.lit("0"), "doc_id", "relevance"))
                if run is not None:
                    ranked = _ranked(judged)
                    run.write(_joined(ranked, "query_id", pl.lit("Q0"), "doc_id", "rank", "score", "retriever"))
            counts.update(qrels=qrels.count, **({} if run is None else {"run": run.count}))
    return dict(counts)


def _judged(dataset: str, chunk: Chunk) -> pl.DataFrame:
    """Return query_id, doc_id, relevance and the columns of mining: for each row its positives, then its negatives."""
    sides = []
    for relevance, side in ((1, chunk.positives), (0, chunk.negatives)):
        row = np.repeat(np.arange(chunk.rows.height), side.counts)
        query_id = chunk.rows["query_id"][row]
        known = side.passages.select("doc_id", cs.by_name(*_MINED, require_all=False))
        named = pl.DataFrame([pl.Series("row", row), query_id]).hstack(known)
        sides.append(named.with_columns(relevance=relevance))
    judged = pl.concat(sides).sort("row", maintain_order=True).drop("row")
    for name in ("query_id", "doc_id"):
        for split in judged[name].filter(judged[name].str.contains(r"^$|\s")).head(1):
            raise ValueError(
                f"export: id {split!r} of {dataset} holds spaces, which trec cannot write; use beir instead"
            )
    return judged


def _ranked(judged: pl.DataFrame) -> pl.DataFrame:
    """Return the negatives with their scores of mining. Where a query has no scores, 1/rank keeps the order."""
    unscored = pl.col("mined_score").is_null().any().over("query_id")
    score = pl.when(unscored).then(1 / pl.col("rank")).otherwise("mined_score")
    return judged.filter(relevance=0).with_columns(score=score)


def _joined(frame: pl.DataFrame, *columns: str | pl.Expr) -> list[str]:
    return frame.select(pl.concat_str(*columns, separator=" ")).to_series().to_list()
