"""Make a calibration of a finished curation: choose the labels, fit, measure on other queries, write page and file."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.calibrating.combine import FILE
from tasks.calibrating.page import calibration_page
from tasks.quality.labels import settle
from tasks.verdicts.calibration import PEOPLE, Calibration, Origin, calibrate
from tasks.verdicts.combiner import CombineConfig, NotEnoughLabels
from tasks.verdicts.features import join_scores
from tasks.verdicts.pairs import PAIR

KNOWN = "known"
PAGE_FILE = "calibration.md"
_SURE = ("relevant", "not_relevant")
_TEXTS = ["query_hash", "text_hash"]


class FitConfig(BaseModel):
    """What a calibration is fitted on, and what it says of itself.

    labels_from: `people`, `known` (the false negatives that are known in advance), or the name of a tier. Empty: the
        first of these with enough labels, of the tiers the last of at least two.
    tiers: those apart from similarity, in the order asked. judges: what each is named in VERDICTS. encoder: key of the
        encoder. curation: its id. fit: how it is fitted. command, at: for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    labels_from: str = ""
    tiers: tuple[str, ...] = ()
    judges: dict[str, str] = Field(default_factory=dict)
    encoder: str | None = None
    curation: str = ""
    fit: CombineConfig = CombineConfig()
    command: str = Field("", json_schema_extra={"operational": True})
    at: str = Field("", json_schema_extra={"operational": True})


def fit(  # noqa: PLR0913 - tables by name
    config: FitConfig,
    *,
    features: pl.DataFrame,
    llm_verdicts: pl.DataFrame,
    samples: pl.DataFrame,
    human: pl.DataFrame,
    known: pl.DataFrame,
    out: Path,
) -> dict[str, pl.DataFrame]:
    """Fit a calibration; writes `calibration.json` and `calibration.md` into `out`.

    Args:
        config: see FitConfig.
        features: FEATURES of all candidates.
        llm_verdicts: VERDICTS of the tiers.
        samples: SAMPLES of the curation: with which probability each pair was drawn for people.
        human: HUMAN, the labels of people; they count wherever the texts are the same.
        known: KNOWN, false negatives that are known in advance; empty where none are.
        out: the folder to write.

    Raises:
        NotEnoughLabels: nobody gave enough labels; the message says how many there are and where others can come from.
    """
    labels = {PEOPLE: label_people(features, samples, human), KNOWN: label_known(features, known)}
    made = _fit(config, features, llm_verdicts, labels)
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (out / PAGE_FILE).write_text(calibration_page(made), encoding="utf-8")
    return {}


def _fit(
    config: FitConfig, features: pl.DataFrame, llm_verdicts: pl.DataFrame, given: Mapping[str, pl.DataFrame]
) -> Calibration:
    """Try the labels that are wanted, else those of people, then what is known, then those of the strong judge."""
    strong = config.tiers[-1:] if len(config.tiers) > 1 else ()  # a single tier would leave nothing to combine
    wanted = [config.labels_from] if config.labels_from else [*given, *strong]
    told = []
    for source in wanted:
        labels = given[source] if source in given else label_by(source, llm_verdicts)
        queries = features.join(labels, on=PAIR, how="semi").select("query_hash").unique()
        wide = join_scores(features.join(queries, on="query_hash", how="semi"), llm_verdicts, config.tiers)
        origin = Origin(
            curation=config.curation,
            labels_from=source,
            encoder=config.encoder,
            judges=config.judges,
            at=config.at,
            command=config.command,
            trust=trust_in(source),
        )
        try:
            return calibrate(
                config.fit.model_copy(update={"tiers": config.tiers}), wide=wide, labels=labels, origin=origin
            )
        except NotEnoughLabels as error:
            told.append(f"{source}: {error}")
    raise NotEnoughLabels("no calibration. " + ". ".join(told))


def label_people(features: pl.DataFrame, samples: pl.DataFrame, human: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs that people labelled: dataset, query_id, doc_id, relevant, weight. `unsure` ones are left out.

    The weight of a drawn pair is 1 / its probability of being drawn and labelled, where the labelled pairs of a stratum
    count as a random choice of the drawn ones. Labelled pairs that were not drawn here stand for themselves, weight 1.
    """
    settled = settle(human).filter(pl.col("label").is_in(_SURE))
    labelled = features.select(*PAIR, *_TEXTS).join(settled, on=_TEXTS)
    drawn = samples.join(labelled.select(*PAIR, has_label=pl.lit(True)), on=PAIR, how="left")
    answered = pl.col("has_label").count().over("stratum") / pl.len().over("stratum")
    weights = drawn.filter(answered > 0).select(*PAIR, weight=1 / (pl.col("inclusion_probability") * answered))
    found = labelled.join(weights, on=PAIR, how="left")
    return found.select(*PAIR, relevant=pl.col("label") == "relevant", weight=pl.col("weight").fill_null(1.0)).sort(
        PAIR
    )


def label_known(features: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Return all pairs, relevant where that is known in advance (weight 1); none where nothing is known."""
    found = features.select(PAIR).join(known.select(*PAIR, said=pl.lit(True)).unique(), on=PAIR, how="left")
    labels = found.select(*PAIR, relevant=pl.col("said").fill_null(False), weight=pl.lit(1.0))
    return labels.sort(PAIR).head(0 if known.is_empty() else labels.height)


def label_by(tier: str, llm_verdicts: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs on which a tier was sure: dataset, query_id, doc_id, relevant, weight (1)."""
    said = llm_verdicts.filter(pl.col("tier") == tier, pl.col("state").is_in(_SURE))
    return said.select(*PAIR, relevant=pl.col("state") == "relevant", weight=pl.lit(1.0)).sort(PAIR)


def trust_in(source: str) -> str:
    """Say how far labels can be trusted."""
    if source == PEOPLE:
        return "Labels of people: thresholds hold for pairs like those that were drawn, as far as people agree on them."
    if source == KNOWN:
        return (
            "Labels known in advance: every other pair counts as not relevant, so where relevant passages are unknown "
            "P is too low, and so is the precision."
        )
    return (
        f"Labels of the tier {source!r}, a machine: precision and recall are against its opinion, not people's. It was "
        "asked about the pairs that the tiers before left open, and P of the others is extrapolated. Let people label "
        "the sheet of the curation, and calibrate on that."
    )
