"""Fine-tune an embedding model on the instances of one treatment (paper §4: InfoNCE with hard negatives).

There is one row per (query, positive), each with the same number of hard negatives; a query without any gets those of
other queries. The texts of the other rows of the
batch are negatives too. A batch contains no text twice, so the positive of a row is not a negative of another row. Each
treatment is trained for the same number of optimiser steps, whatever its number of rows.
"""

import json
from pathlib import Path

import polars as pl

from tasks.training.training_rows import TrainConfig, training_rows

SUMMARY_FILE = "training.json"


def train(
    config: TrainConfig,
    *,
    instances: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    out: Path,
    base: Path | None = None,
) -> dict[str, pl.DataFrame]:
    """Fine-tune a model and write it below `out`, with `training.json` (rows, steps, seed, loss by step).

    The model is `base` if a directory was passed with the part, else `config.model`, which may exist on some machines
    only. `queries` and `passages` may hold more rows than needed. On one kind of machine the same input gives the same
    weights.

    Raises:
        ValueError: a text is missing or is not the one that the instance was made with, a query is held out, or there
            is no instance to train on.
    """
    rows = training_rows(config, instances=instances, queries=queries, passages=passages)
    if not len(rows):
        raise ValueError(
            f"train: at least one instance expected, {instances.height} came and {rows.skipped} of them have no "
            "negative and can borrow none; see why queries were left out (rejects in the report)"
        )
    from tasks.training.trainer import fit

    start = config if base is None else config.model_copy(update={"model": str(base)})
    losses = fit(start, rows.columns, out)
    summary = {
        "instances": rows.instances,
        "skipped_without_negatives": rows.skipped,
        "rows": len(rows),
        "rows_with_repeated_negatives": rows.padded,
        "rows_with_borrowed_negatives": rows.borrowed,
        "steps": len(losses),
        **config.model_dump(exclude={"model", "steps"}),
        "loss": [round(loss, 6) for loss in losses],
    }
    (out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return {}
