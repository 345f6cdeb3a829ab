"""Make a calibration where nobody gave labels, from what the data itself tells. It ranks, and decides nothing."""

from pathlib import Path

import polars as pl

from tasks.calibrating.combine import FILE
from tasks.calibrating.fit import PAGE_FILE, FitConfig
from tasks.calibrating.page import calibration_page
from tasks.verdicts.calibration import DATA, Origin, calibrate
from tasks.verdicts.features import join_scores
from tasks.verdicts.fitting.from_data import TRUST, Frames, FromDataConfig, labels_from_data


def fit_data(
    config: FitConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    query_embeddings: Frames,
    passage_embeddings: Frames,
    out: Path,
) -> dict[str, pl.DataFrame]:
    """Fit a calibration of similarity alone; writes `calibration.json` and `calibration.md` into `out`.

    No judge was asked about a positive that was left out, so the calibration covers no tier.

    Args:
        config: see FitConfig; its tiers and judges are not used.
        queries: QUERIES; only training queries with several positives give labels.
        positives: POSITIVES.
        query_embeddings: EMBEDDINGS of the queries, or frames of it.
        passage_embeddings: EMBEDDINGS of the positives, and of any other texts; or frames of it.
        out: the folder to write.

    Raises:
        NotEnoughLabels: too few queries have several positives.
    """
    made = labels_from_data(
        FromDataConfig(seed=config.fit.seed),
        queries=queries.filter(pl.col("split") == "train"),
        positives=positives,
        query_embeddings=query_embeddings,
        passage_embeddings=passage_embeddings,
    )
    origin = Origin(
        curation=config.curation,
        labels_from=DATA,
        encoder=config.encoder,
        at=config.at,
        command=config.command,
        trust=TRUST,
    )
    alone = config.fit.model_copy(update={"tiers": (), "within": False})
    wide = join_scores(made["features"], pl.DataFrame(), ())
    fitted = calibrate(alone, wide=wide, labels=made["labels"], origin=origin)
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_text(fitted.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (out / PAGE_FILE).write_text(calibration_page(fitted), encoding="utf-8")
    return {}
