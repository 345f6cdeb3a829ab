"""A calibration: a fitted combiner, what it was fitted on, and how good it is on queries it was not fitted on."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.texts import hash_text
from tasks.verdicts.combiner import CombineConfig, Combiner, cross_fit, fit_combiner
from tasks.verdicts.features import SIMILARITY, score_column
from tasks.verdicts.fitting.figures import Figures, Point, Scored, measure, sweep
from tasks.verdicts.pairs import PAIR

PEOPLE = "people"
KNOWN = "known"  # the pairs of `ingest.known_split`
DATA = "data"
# A threshold that calls fewer pairs relevant has no precision that one could state: as a share, and in labels.
_LEAST_CALLED, _LEAST_LABELS = 0.01, 10


class Origin(BaseModel):
    """What a calibration was made from.

    curation: its id. labels_from: "people", "known", "data", or the tier whose verdicts were taken as labels.
    encoder: key of the encoder that gave the cosines; None without cosines. judges: identity of the judge, by tier.
    at: when, ISO 8601; no part of the digest. command: that made it. trust: how far the labels can be trusted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    curation: str = ""
    labels_from: str = PEOPLE
    encoder: str | None = None
    judges: Mapping[str, str] = Field(default_factory=dict)
    at: str = ""
    command: str = ""
    trust: str = ""


class Counts(BaseModel):
    """Labelled pairs behind a calibration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: int
    relevant: int
    queries: int


class Calibration(BaseModel):
    """A versioned artifact; `model_dump_json` and `model_validate_json` are each other's reverse.

    format: of this file. combiner: fitted on all labels. datasets: those with labels. figures, sweep: of combiners
    fitted on other queries than they score, never of `combiner` itself. after: the same, for P after similarity and
    after each tier but the last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    origin: Origin
    counts: Counts
    datasets: tuple[str, ...]
    combiner: Combiner
    figures: Figures
    sweep: tuple[Point, ...]
    after: Mapping[str, Figures] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of the content, without the time it was made."""
        return hash_text(self.model_dump_json(exclude={"origin": {"at"}}))

    @property
    def by_machine(self) -> bool:
        """Tell whether the thresholds rest on labels of machines, not of people or of the source."""
        return self.origin.labels_from not in (PEOPLE, KNOWN)

    @property
    def separates(self) -> bool:
        """False: "these scores do not separate". Within a query they order the candidates no better than chance."""
        return self.figures.separates

    def predict(self, wide: pl.DataFrame) -> pl.Series:
        """Return P(relevant) of each row, as `Combiner.predict`.

        Where the labels were a tier's verdicts and this tier answered, its own score is returned: it is what the
        combiner predicts.
        """
        p = self.combiner.predict(wide)
        column = score_column(self.origin.labels_from)
        if column not in wide.columns:
            return p
        said = wide[column].cast(pl.Float64).fill_nan(None)
        return pl.select(pl.coalesce(said, p).alias("p"))["p"]

    def threshold_for(
        self, *, precision: float | None = None, recall: float | None = None, f1: bool = False, sure: bool = False
    ) -> float | None:
        """Return the threshold that reaches a target on queries left out; None if no threshold does.

        Args:
            precision: the lowest threshold with at least this precision, on at least ten labelled pairs that it calls
                relevant. On one or two of a hundred, scores that tell nothing reach any precision by chance.
            recall: the highest threshold with at least this recall.
            f1: the threshold with the highest F1, the lower of two.
            sure: the lower end of the interval must reach the target, not only the estimate.

        Raises:
            ValueError: not exactly one target is named.
        """
        if (precision is not None) + (recall is not None) + f1 != 1:
            raise ValueError("exactly one of precision=, recall= and f1 expected")

        def reached(point: Point, name: str) -> float:
            value = getattr(point, name)
            found = value.low if sure else value.value
            return -1.0 if found is None else float(found)

        points = [point for point in self.sweep if point.share >= _LEAST_CALLED]
        if f1:
            return max(points, key=lambda point: reached(point, "f1")).threshold if points else None
        if precision is not None:
            points = [point for point in points if point.share * self.counts.labels >= _LEAST_LABELS]
            return min((p.threshold for p in points if reached(p, "precision") >= precision), default=None)
        return max((p.threshold for p in points if reached(p, "recall") >= (recall or 0.0)), default=None)


def calibrate(config: CombineConfig, *, wide: pl.DataFrame, labels: pl.DataFrame, origin: Origin) -> Calibration:
    """Fit a combiner and measure it on queries it was not fitted on.

    Args:
        config: how to fit, and the tiers.
        wide: as for `fit_combiner`: all candidates of each query.
        labels: as for `fit_combiner`.
        origin: what the artifact says of itself. The tier that gave the labels, if one did, is no column of the fit.

    Raises:
        NotEnoughLabels, ValueError: as `fit_combiner` and `cross_fit`.
    """
    tiers = tuple(tier for tier in config.tiers if tier != origin.labels_from)
    config = config.model_copy(update={"tiers": tiers})
    out = cross_fit(config, wide=wide, labels=labels)
    scored = Scored(out["p"].to_numpy(), out["relevant"].to_numpy(), out["group"].to_numpy(), out["weight"].to_numpy())
    known = out.select(PAIR).join(wide, on=PAIR, how="left", maintain_order="left")
    after = [column for column in out.columns if column.startswith("p_after_")]
    singles = {SIMILARITY: out["p_after_similarity"].to_numpy()} if tiers else {}
    singles |= {tier: _scores(known, tier) for tier in tiers}
    return Calibration(
        origin=origin,
        counts=Counts(labels=out.height, relevant=int(out["relevant"].sum()), queries=out["group"].n_unique()),
        datasets=tuple(out["dataset"].unique().sort().to_list()),
        combiner=fit_combiner(config, wide=wide, labels=labels),
        figures=measure(scored, singles, config.seed),
        sweep=sweep(scored, config.seed),
        after={
            name.removeprefix("p_after_"): measure(scored.with_scores(out[name].to_numpy()), {}, config.seed)
            for name in after
        },
    )


def _scores(frame: pl.DataFrame, tier: str) -> np.ndarray:
    name = score_column(tier)
    if name not in frame.columns:
        return np.full(frame.height, np.nan)
    return frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
