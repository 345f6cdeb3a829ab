"""Write the instances of each dataset as TREC qrels, and the negatives' ranks and scores of mining as a run."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl

from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import Lines, file_names
from tasks.data.writing.training_set import Chunk, TrainingSet

_PAIR = ["dataset", "query_id", "doc_id"]


def write_trec(_config: ExportConfig, folder: Path, rows: TrainingSet) -> dict[str, int]:
    """Write `<dataset>.qrels` (positives 1, negatives 0) and, with candidates, `<dataset>.run` for each dataset.

    Raises:
        ValueError: an id holds spaces.
    """
    counts = Counter(qrels=0, **({} if rows.evidence.candidates is None else {"run": 0}))
    groups = list(rows.by_dataset())
    names = file_names(name for name, _ in groups)
    for dataset, group in groups:
        with Lines(folder / f"{names[dataset]}.qrels") as qrels:
            for chunk in group.chunks():
                judged = _judged(dataset, chunk)
                qrels.write(_joined(judged, "query_id", pl.lit("0"), "doc_id", "relevance"))
        counts.update(qrels=qrels.count)
        if rows.evidence.candidates is not None:
            with Lines(folder / f"{names[dataset]}.run") as run:
                for chunk in group.chunks():
                    ranked = _ranked(dataset, _judged(dataset, chunk), rows.evidence.candidates)
                    run.write(_joined(ranked, "query_id", pl.lit("Q0"), "doc_id", "rank", "score", "retriever"))
            counts.update(run=run.count)
    return dict(counts)


def _judged(dataset: str, chunk: Chunk) -> pl.DataFrame:
    """Return query_id, doc_id and relevance: for each row its positives, then its negatives."""
    sides = []
    for relevance, side in ((1, chunk.positives), (0, chunk.negatives)):
        row = np.repeat(np.arange(chunk.rows.height), side.counts)
        query_id = chunk.rows["query_id"][row]
        sides.append(
            pl.DataFrame([pl.Series("row", row), query_id, side.passages["doc_id"]]).with_columns(relevance=relevance)
        )
    judged = pl.concat(sides).sort("row", maintain_order=True).drop("row")
    for name in ("query_id", "doc_id"):
        for split in judged[name].filter(judged[name].str.contains(r"^$|\s")).head(1):
            raise ValueError(
                f"export: id {split!r} of {dataset} holds spaces, which trec cannot write; use beir instead"
            )
    return judged


def _ranked(dataset: str, judged: pl.DataFrame, candidates: pl.DataFrame) -> pl.DataFrame:
    """Add rank, score and retriever of mining to the negatives. Where a query has no scores, 1/rank keeps the order."""
    negatives = judged.filter(relevance=0).with_columns(dataset=pl.lit(dataset))
    found = negatives.join(candidates.select(*_PAIR, "rank", "score", "retriever"), on=_PAIR, maintain_order="left")
    unscored = pl.col("score").is_null().any().over("query_id")
    return found.with_columns(score=pl.when(unscored).then(1 / pl.col("rank")).otherwise("score"))


def _joined(frame: pl.DataFrame, *columns: str | pl.Expr) -> list[str]:
    return frame.select(pl.concat_str(*columns, separator=" ")).to_series().to_list()
