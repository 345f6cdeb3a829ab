"""Fine-tune an embedding model on the instances of one treatment (paper §4: InfoNCE with hard negatives).

There is one row per query. It has one positive and a few hard negatives in each epoch, and they take turns. The texts
of the other rows of the batch are negatives too, except those that are positives of the row's query or that the judges
called relevant or were unsure of (`mask`). Batches are random and full. Each treatment is trained for the same number
of optimiser steps, whatever its number of rows.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from tasks.protocols import Checkpoints, Workers
from tasks.schemas import QRELS
from tasks.training.rotation import Rotation
from tasks.training.train_config import TrainConfig
from tasks.training.training_rows import Rows, training_rows

SUMMARY_FILE = "training.json"
# Settings that the summary names where they are set.
_ONLY_WHEN_SET = ("workers", "early_stop", "lora", "pooling", "gradient_checkpointing")


def train(  # noqa: PLR0913 - one keyword per table
    config: TrainConfig,
    *,
    instances: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    out: Path,
    base: Path | None = None,
    known: pl.DataFrame | None = None,
    qrels: pl.DataFrame | None = None,
    checkpoints: Checkpoints | None = None,
    workers: Workers | None = None,
) -> dict[str, pl.DataFrame]:
    """Fine-tune a model and write it below `out`, with `training.json` (rows, steps, seed, loss by step).

    The model is `base` if a directory was passed with the part, else `config.model`, which may exist on some machines
    only. `queries` and `passages` may hold more rows than needed. On one kind of machine the same input gives the same
    weights. `known` holds KNOWN_PAIRS: what the judges called relevant or were unsure of, and soft labels. `qrels` are
    those of the development queries, for `early_stop`. A training that was killed goes on from its `checkpoints`. With
    `config.workers` above 1 it needs them, and `workers`.

    Raises:
        ValueError: a text is missing or is not the one that the instance was made with, a query is held out, there is
            no instance to train on, the objective learns from soft labels and no row has two, or `early_stop` is set
            and no query is held out for development.
    """
    rows = training_rows(config, instances=instances, queries=queries, passages=passages, known=known)
    refuse_no_rows(rows, instances)
    unlabelled = _count_unlabelled(rows)
    if config.is_soft and unlabelled == len(rows):
        raise ValueError(
            f"train: objective {config.objective} expects rows with soft labels of a positive and a negative, none of "
            f"{len(rows)} has them; the source has no scores of a teacher, or no judge was asked: set soft_labels to "
            "the other, or objective to infonce"
        )
    from tasks.training.loop.dev_set import dev_set
    from tasks.training.together import Share, fit_together
    from tasks.training.trainer import fit

    start = config if base is None else config.model_copy(update={"model": str(base)})
    dev = None
    if (early := config.early_stop) is not None:
        labels = qrels if qrels is not None else QRELS.empty()
        prompts = (config.query_prompt, config.passage_prompt)
        dev = dev_set((queries, passages, labels), early.queries, early.passages, prompts)
    if config.workers == 1:
        curve = fit(start, rows, Rotation(rows.rows, config), out, checkpoints, dev)
    elif checkpoints is None or workers is None:
        raise ValueError(f"train: workers={config.workers} expects workers and checkpoints; none were lent")
    else:
        curve = fit_together(Share(start, rows, checkpoints, dev), workers, out)
    summary = {
        "instances": rows.instances,
        "rows": len(rows),
        "rows_with_fewer_negatives": rows.few,
        "rows_without_negatives": rows.bare,
        "masked_negatives": rows.masked,
        "known_pairs": len(rows.known),
        "rows_without_soft_labels": unlabelled,
        "steps": len(curve.losses),
        **_settings(config),
        "loss": [round(loss, 6) for loss in curve.losses],
    }
    if dev is not None:
        best = max(curve.scores, key=lambda scored: (scored[1], -scored[0]))
        summary |= {"dev_scores": [[step, round(score, 6)] for step, score in curve.scores], "best_step": best[0]}
    (out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return {}


def refuse_no_rows(rows: Rows, instances: pl.DataFrame) -> None:
    """Refuse to train on nothing.

    Raises:
        ValueError: there is no row.
    """
    if not len(rows):
        raise ValueError(
            f"train: at least one instance expected, {instances.height} came; see why queries were left out (rejects "
            "in the report)"
        )


def _settings(config: TrainConfig) -> Mapping[str, Any]:
    """Return the settings that decide the weights; newer ones only where they are set."""
    unset = {name for name in _ONLY_WHEN_SET if getattr(config, name) == TrainConfig.model_fields[name].default}
    return config.model_dump(mode="json", exclude={"model", "steps", "checkpoint_steps", *unset})


def _count_unlabelled(rows: Rows) -> int:
    """Count the rows that soft labels say nothing of: without one of a positive, or of a negative."""
    soft = rows.soft
    if soft is None:
        return 0
    return sum(
        not all(any(soft.holds(row.query, one) for one in side) for side in (row.positives, row.negatives))
        for row in rows.rows
    )
