"""Write rows for the trainers of sentence-transformers: n-tuples, triplets and pairs, labelled pairs and lists.

All columns of a row are inputs of the loss, in their order; `label` and `labels` are its target. So nothing else can
stand in a row.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from tasks.data.writing.config import ExportConfig
from tasks.data.writing.files import JsonRows, Parquet, RowFile, alone_folder
from tasks.data.writing.training_set import Chunk, Numbers, Side, TrainingSet

_PAIR = ("anchor", "positive")


def write_sentence_transformers(config: ExportConfig, folder: Path, rows: TrainingSet) -> dict[str, int]:
    """Write `train.parquet` or `train.jsonl` in the wanted shape, and count the rows.

    `short` counts rows with fewer negatives than asked for, `dropped` rows that are left out because of that, `pairs`
    those without negatives that are written as pairs to a folder of their own, and `unscored` those left out because
    one of their passages has no score.
    """
    counts = Counter(rows=0, short=0, dropped=0)
    with ExitStack() as stack:
        file = stack.enter_context(_open(config, folder, columns_of(config)))
        pairs: RowFile | None = None
        if rows.without_negatives > 0 and _keeps_pairs(config):
            pairs = stack.enter_context(_open(config, alone_folder(folder), _PAIR))
        for chunk in rows.chunks():
            file.add(_scored(config, _SHAPES[config.shape](config, chunk, counts), counts))
            if pairs is not None:
                pairs.add(_pairs(config, chunk.only(chunk.negatives.counts == 0), counts))
    counts.update(rows=file.count, **({} if pairs is None else {"pairs": pairs.count}))
    return dict(counts)


def columns_of(config: ExportConfig) -> tuple[str, ...]:
    """Name the columns of a row in order.

    >>> columns_of(ExportConfig(num_negatives=2, soft_labels="teacher"))
    ('anchor', 'positive', 'negative_1', 'negative_2', 'label')
    """
    label = () if config.soft_labels == "none" else ("label",)
    return {
        "n-tuple": (*_PAIR, *(f"negative_{number}" for number in range(1, config.num_negatives + 1)), *label),
        "triplet": (*_PAIR, "negative", *label),
        "pair": _PAIR,
        "labeled-pair": ("query", "passage", "label"),
        "labeled-list": ("query", "docs", "labels"),
    }[config.shape]


def _open(config: ExportConfig, folder: Path, columns: tuple[str, ...]) -> RowFile:
    number: pl.DataType = pl.Float64() if config.shape == "labeled-pair" else pl.List(pl.Float64)
    kinds = {"label": number, "labels": number, "docs": pl.List(pl.String)}
    schema = pl.Schema({name: kinds.get(name, pl.String()) for name in columns})
    if config.file_type == "jsonl":
        return JsonRows(folder / "train.jsonl", schema)
    return Parquet(folder / "train.parquet", schema)


def _keeps_pairs(config: ExportConfig) -> bool:
    """Tell whether rows without negatives are written as pairs, to be learned from the negatives of their batch."""
    return config.shape == "triplet" or (
        config.shape == "n-tuple" and config.short == "pad" and config.num_negatives > 0
    )


def _tuples(config: ExportConfig, chunk: Chunk, counts: Counter[str]) -> pl.DataFrame:
    """Make a row of each positive: anchor, positive, negative_1 … negative_n."""
    size, negatives = config.num_negatives, chunk.negatives
    row = _row_numbers(chunk.positives)
    there = negatives.counts[row]
    counts["short"] += int((there < size).sum())
    kept = {"drop": there >= size, "pad": (there > 0) | (size == 0), "keep": there >= 0}[config.short]
    counts["dropped"] += int((~kept & ~((there == 0) & _keeps_pairs(config))).sum())
    row, there = row[kept], there[kept]
    first = np.flatnonzero(kept)
    columns = [chunk.rows["query"][row].alias("anchor"), chunk.positives.shown[first].alias("positive")]
    scores, shown = [_scores(config, chunk.positives, first)], negatives.shown
    for number in range(size):
        place = negatives.starts[row] + number % np.maximum(there, 1)
        missing = number >= there if config.short == "keep" else np.zeros(len(row), bool)
        columns.append(_take(shown, place, missing).alias(f"negative_{number + 1}"))
        scores.append(_scores(config, negatives, place))
    return _labelled(config, pl.DataFrame(columns), scores)


def _triplets(config: ExportConfig, chunk: Chunk, counts: Counter[str]) -> pl.DataFrame:
    """Make a row of each positive with each of its first negatives."""
    row = _row_numbers(chunk.positives)
    there = np.minimum(chunk.negatives.counts, config.num_negatives)[row]
    counts["short"] += int((there < config.num_negatives).sum())
    positive = np.repeat(np.arange(len(row)), there)
    negative = chunk.negatives.starts[row][positive] + _numbers_within(there)
    frame = pl.DataFrame(
        [
            chunk.rows["query"][row[positive]].alias("anchor"),
            chunk.positives.shown[positive].alias("positive"),
            chunk.negatives.shown[negative].alias("negative"),
        ]
    )
    scores = [_scores(config, chunk.positives, positive), _scores(config, chunk.negatives, negative)]
    return _labelled(config, frame, scores)


def _pairs(_config: ExportConfig, chunk: Chunk, _counts: Counter[str]) -> pl.DataFrame:
    """Make a row of each positive."""
    anchors = chunk.rows["query"][_row_numbers(chunk.positives)]
    return pl.DataFrame([anchors.alias("anchor"), chunk.positives.shown.alias("positive")])


def _labelled_pairs(config: ExportConfig, chunk: Chunk, counts: Counter[str]) -> pl.DataFrame:
    """Make a row of each positive and of each of the first negatives, with its label."""
    return _labelled_passages(config, chunk, counts).select("query", "passage", "label")


def _labelled_lists(config: ExportConfig, chunk: Chunk, counts: Counter[str]) -> pl.DataFrame:
    """Make a row of each query that has negatives: its positives, then its first negatives, and their labels."""
    counts["dropped"] += int((chunk.negatives.counts == 0).sum())
    passages = _labelled_passages(config, chunk.only(chunk.negatives.counts > 0), counts)
    lists = passages.group_by("row", "query", maintain_order=True).agg(docs="passage", labels="label")
    return lists.select("query", "docs", "labels")


def _labelled_passages(config: ExportConfig, chunk: Chunk, counts: Counter[str]) -> pl.DataFrame:
    counts["short"] += int((chunk.negatives.counts < config.num_negatives).sum())
    sides = []
    for side, most, label in ((chunk.positives, None, 1.0), (chunk.negatives, config.num_negatives, 0.0)):
        row = _row_numbers(side)
        first = np.flatnonzero(_numbers_within(side.counts) < most) if most is not None else np.arange(len(row))
        labels = side.passages["score"] if config.soft_labels != "none" else pl.repeat(label, len(row), eager=True)
        sides.append(
            pl.DataFrame(
                [
                    pl.Series("row", row[first]),
                    chunk.rows["query"][row[first]],
                    side.shown[first].alias("passage"),
                    labels[first].alias("label"),
                ]
            )
        )
    return pl.concat(sides).sort("row", maintain_order=True)


def _labelled(config: ExportConfig, frame: pl.DataFrame, scores: list[pl.Series]) -> pl.DataFrame:
    """Add the scores of a row's passages, in their order, as its label."""
    if config.soft_labels == "none":
        return frame
    return frame.with_columns(label=pl.concat_list(scores) if frame.height else pl.lit([], dtype=pl.List(pl.Float64)))


def _scored(config: ExportConfig, frame: pl.DataFrame, counts: Counter[str]) -> pl.DataFrame:
    """Leave out rows in which a passage has no score: a loss cannot read them."""
    name = columns_of(config)[-1]
    if config.soft_labels == "none" or config.shape == "pair" or frame.is_empty():
        return frame
    has_null = (
        pl.col(name).is_null()
        if config.shape == "labeled-pair"
        else pl.col(name).list.eval(pl.element().is_null()).list.any()
    )
    scored = frame.filter(~has_null)
    counts["unscored"] += frame.height - scored.height
    return scored


def _scores(config: ExportConfig, side: Side, places: Numbers) -> pl.Series:
    return side.passages["score"][places] if config.soft_labels != "none" else pl.Series(dtype=pl.Float64)


def _take(texts: pl.Series, places: Numbers, missing: npt.NDArray[np.bool_]) -> pl.Series:
    """Take texts by place; null where it is missing."""
    wanted = pl.Series(places).to_frame("at").select(pl.when(pl.Series(missing)).then(None).otherwise("at")).to_series()
    return texts.gather(wanted)


def _row_numbers(side: Side) -> Numbers:
    """Return the number of the row of each passage."""
    return np.repeat(np.arange(len(side.counts)), side.counts)


def _numbers_within(counts: Numbers) -> Numbers:
    """Number the passages of each row from 0.

    >>> _numbers_within(np.array([2, 0, 1])).tolist()
    [0, 1, 0]
    """
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


_SHAPES: dict[str, Callable[[ExportConfig, Chunk, Counter[str]], pl.DataFrame]] = {
    "n-tuple": _tuples,
    "triplet": _triplets,
    "pair": _pairs,
    "labeled-pair": _labelled_pairs,
    "labeled-list": _labelled_lists,
}
