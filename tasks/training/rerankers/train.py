"""Train a reranker on the instances of one treatment (paper section 5.2): the same rows as those of a retriever.

A row is a query with one positive and a few hard negatives, which take turns. What the judges called relevant or were
unsure of is no negative. Batches are full, and each treatment is trained for the same number of steps.
"""

import json
from pathlib import Path

import polars as pl

from tasks.protocols import Checkpoints, Workers
from tasks.training.rerankers.settings import RerankerTrainConfig
from tasks.training.rotation import Rotation
from tasks.training.train import SUMMARY_FILE, refuse_no_rows
from tasks.training.training_rows import training_rows


def train_reranker(  # noqa: PLR0913 - one keyword per table
    config: RerankerTrainConfig,
    *,
    instances: pl.DataFrame,
    queries: pl.DataFrame,
    passages: pl.DataFrame,
    out: Path,
    base: Path,
    known: pl.DataFrame | None = None,
    checkpoints: Checkpoints | None = None,
    workers: Workers | None = None,
) -> dict[str, pl.DataFrame]:
    """Train a reranker from the folder `base` and write it below `out`, with `training.json`; see `train` in all else.

    Raises:
        ValueError: a text is missing or is not the one that the instance was made with, a query is held out, or no row
            has a negative, so that there is nothing to learn.
    """
    loop = config.loop.model_copy(update={"model": str(base)})
    rows = training_rows(loop, instances=instances, queries=queries, passages=passages, known=known)
    refuse_no_rows(rows, instances)
    if rows.bare == len(rows):
        raise ValueError(
            f"train_reranker: rows with a negative expected, none of {len(rows)} has one: a reranker learns from the "
            "passages of a row alone"
        )
    from tasks.training.rerankers.fit import FitReranker
    from tasks.training.together import Share, fit_together

    how = FitReranker(config.objective)
    if config.workers == 1:
        curve = how(loop, rows, Rotation(rows.rows, loop), out, checkpoints)
    elif checkpoints is None or workers is None:
        raise ValueError(f"train_reranker: workers={config.workers} expects workers and checkpoints; none were lent")
    else:
        curve = fit_together(Share(loop, rows, checkpoints, None, how), workers, out)
    summary = {
        "instances": rows.instances,
        "rows": len(rows),
        "rows_with_fewer_negatives": rows.few,
        "rows_without_negatives": rows.bare,
        "masked_negatives": rows.masked,
        "known_pairs": len(rows.known),
        **config.model_dump(mode="json", exclude={"model", "steps", "checkpoint_steps"}),
        "steps": len(curve.losses),
        "loss": [round(loss, 6) for loss in curve.losses],
    }
    (out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return {}
