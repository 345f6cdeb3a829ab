"""Combine what is known of each pair so far into P(relevant), by a calibration."""

from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.schemas import VERDICTS
from tasks.verdicts.calibration import Calibration
from tasks.verdicts.features import COMBINED, join_scores
from tasks.verdicts.pairs import PAIR, check_band

FILE = "calibration.json"  # in the folder that the stage gets
_EPSILON = 1e-6  # P is clipped by this: 1 as a threshold calls nothing relevant


class CombineStageConfig(BaseModel):
    """What is combined, and which pairs stay open.

    tiers: the tiers apart from similarity that have answered so far, in the order asked; set by the flow.
    lower, upper: pairs with P between them, bounds included, are `unsure`, and the next tier is asked about them;
        unset: all pairs are. Set by the flow, from the next tier's `escalate` or from the thresholds of `decide`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tiers: tuple[str, ...] = ()
    lower: float | None = Field(None, ge=0, le=1)
    upper: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> "CombineStageConfig":
        check_band(self.lower, self.upper)
        return self


def combine(
    config: CombineStageConfig, *, features: pl.DataFrame, llm_verdicts: pl.DataFrame, calibration: Path
) -> dict[str, pl.DataFrame]:
    """Give each pair P(relevant) after the tiers so far.

    Args:
        config: see CombineStageConfig.
        features: FEATURES of all candidates of each query.
        llm_verdicts: VERDICTS of the tiers so far. Those on other pairs and of other tiers are ignored.
        calibration: a folder with `calibration.json`.

    Returns:
        `combined`: VERDICTS of tier "combined", one row per pair. Where the answer of the last tier that was asked
            could not be read, the state is `unparsed` and there is no score: the next tier is asked, or nobody decides.
    """
    fitted = Calibration.model_validate_json((calibration / FILE).read_bytes())
    said = llm_verdicts.filter(pl.col("tier").is_in(config.tiers)).join(features.select(PAIR), on=PAIR, how="semi")
    p = fitted.predict(join_scores(features, said, config.tiers)).clip(_EPSILON, 1 - _EPSILON).rename("p")
    place = pl.col("tier").replace_strict(
        list(config.tiers), list(range(len(config.tiers))), default=-1, return_dtype=pl.Int64
    )
    last = said.sort(*PAIR, place).unique(PAIR, keep="last", maintain_order=True)
    unread = last.select(*PAIR, unread=pl.col("state") == "unparsed")
    made = features.select(PAIR).with_columns(p).join(unread, on=PAIR, how="left", maintain_order="left")
    unparsed = pl.col("unread").fill_null(False)
    verdicts = made.with_columns(
        tier=pl.lit(COMBINED),
        judge=pl.lit(name_of(fitted)),
        state=pl.when(unparsed).then(pl.lit("unparsed")).otherwise(_state(config)),
        score=pl.when(~unparsed).then("p"),
        grade=None,
        preference=None,
        call_id=None,
        attempt=1,
    )
    columns = [pl.col(name).cast(dtype) for name, dtype in VERDICTS.columns.items()]
    return {"combined": verdicts.select(columns).sort(VERDICTS.key)}


def name_of(calibration: Calibration) -> str:
    """Name a calibration as the judge of its verdicts, by its content."""
    return f"calibration-{calibration.digest[:8]}"


def _state(config: CombineStageConfig) -> pl.Expr:
    if config.lower is None or config.upper is None:
        return pl.lit("unsure")
    return (
        pl.when(pl.col("p") > config.upper)
        .then(pl.lit("relevant"))
        .when(pl.col("p") < config.lower)
        .then(pl.lit("not_relevant"))
        .otherwise(pl.lit("unsure"))
    )
