"""Combine the labels of people, apply them to the decisions of the judges, and measure the judges by them.

A label is for two texts, a query and a passage. It also holds for these texts under other ids, in another dataset or on
another night. The positives shown beside them are not part of it: they show what is searched for, and may change.
"""

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.quality.sample import as_sample, with_strata
from tasks.schemas import HUMAN, HUMAN_JUDGE, LABELLED, PEOPLE, VERDICTS
from tasks.statistics import Interval

_CASCADE = "cascade"
_PAIR = ["dataset", "query_id", "doc_id"]
_TEXTS = ["query_hash", "text_hash"]
_SCORES = {"relevant": 1.0, "not_relevant": 0.0, "unsure": 0.5}
_SURE = ("relevant", "not_relevant")
_TRUTH = pl.when(pl.col("label") != "unsure").then(pl.col("label") == "relevant")


class LabelsConfig(BaseModel):
    """No settings: a label of people replaces the decision of the judges."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PeopleConfig(BaseModel):
    """How the tiers are compared with people.

    tiers: the tiers apart from similarity, in the order asked; set by the flow. seed: seed of the intervals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: tuple[str, ...] = ("llm",)
    seed: int = 0


def newest(labels: pl.DataFrame) -> pl.DataFrame:
    """Keep the latest label of each person for each pair of texts; at equal times, the alphabetically last one."""
    order = labels.sort(*_TEXTS, "annotator", "at", "label", "curation", "comment")
    return order.unique([*_TEXTS, "annotator"], keep="last", maintain_order=True).select(*HUMAN.columns)


def settle(labels: pl.DataFrame) -> pl.DataFrame:
    """Combine the labels of several people into the most frequent one; with a tie the label is `unsure`.

    Returns:
        query_hash, text_hash, label, annotators (their number), tied.
    """
    votes = newest(labels).group_by(*_TEXTS, "label").agg(votes=pl.len())
    first = pl.col("votes") == pl.col("votes").max()
    settled = (
        votes.sort(*_TEXTS, "label")
        .group_by(_TEXTS, maintain_order=True)
        .agg(
            label=pl.col("label").filter(first).first(),
            annotators=pl.col("votes").sum().cast(pl.Int32),
            tied=first.sum() > 1,
        )
    )
    return settled.with_columns(label=pl.when("tied").then(pl.lit("unsure")).otherwise("label"))


def label_pairs(candidates: pl.DataFrame, settled: pl.DataFrame) -> pl.DataFrame:
    """Return the candidates that people labelled, with the combined label."""
    return candidates.join(settled, on=_TEXTS).select(*LABELLED.columns).sort(LABELLED.key)


def apply_labels(config: LabelsConfig, *, decisions: pl.DataFrame, labelled: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Set state and score of each labelled pair by its label, and its judge to `human:<number of people>`.

    The score becomes 1, 0, or 0.5 for `unsure`. Call, grade and preference stay those of the judges.
    """
    said = labelled.select(*_PAIR, "label", "annotators")
    both = decisions.join(said, on=_PAIR, how="left")
    human = pl.col("label").is_not_null()
    decided = both.with_columns(
        judge=pl.when(human).then(pl.format(HUMAN_JUDGE + ":{}", "annotators")).otherwise("judge"),
        state=pl.coalesce("label", "state"),
        score=pl.when(human).then(pl.col("label").replace_strict(_SCORES, default=None)).otherwise("score"),
    )
    return {"decisions": decided.select(*VERDICTS.columns).sort(VERDICTS.key)}


def agree_with_people(
    config: PeopleConfig,
    *,
    samples: pl.DataFrame,
    labelled: pl.DataFrame,
    similarity: pl.DataFrame,
    llm_verdicts: pl.DataFrame,
    decisions: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Compare each tier with people, over the pairs that the tier judged and people labelled.

    Kappa, precision and recall are estimates for all pairs that the tier judged, from the drawn pairs, with intervals
    clustered by query (tasks.clustered). Labelled pairs of a stratum are treated as a random choice. Kappa is that of
    two states: `relevant` against everything else that the tier said. Pairs that people are unsure of count as not
    labelled. A pair that a tier left `unsure` or `unparsed` counts as not found by it. `decisions` are those of the
    judges, without labels.

    Returns:
        `people`: one row per tier, including `similarity` and `cascade`.
    """
    strata = with_strata(decisions.select(_PAIR), decisions).select(*_PAIR, "stratum")
    drawn = labelled.join(samples, on=_PAIR, how="semi").select(*_PAIR, truth=_TRUTH)
    pool = strata.join(labelled.select(*_PAIR, "label"), on=_PAIR, how="left").join(drawn, on=_PAIR, how="left")
    asked = {tier: llm_verdicts.filter(pl.col("tier") == tier) for tier in config.tiers}
    tiers = {_CASCADE: decisions, **asked, "similarity": similarity}
    rows = [
        _measure(config, tier, pool.join(verdicts.select(*_PAIR, "state"), on=_PAIR).sort(_PAIR))
        for tier, verdicts in tiers.items()
    ]
    return {"people": pl.DataFrame(rows, schema=PEOPLE.columns).sort(PEOPLE.key)}


def share_labelled(samples: pl.DataFrame, labelled: pl.DataFrame) -> tuple[int, int]:
    """Return how many of the drawn pairs are labelled, and how many were drawn."""
    return samples.join(labelled, on=_PAIR, how="semi").height, samples.height


def _measure(config: PeopleConfig, tier: str, pool: pl.DataFrame) -> dict[str, str | int | float | None]:
    """Measure one tier. `pool` has the pairs it judged: stratum, state, label, and `truth` of the drawn pairs."""
    sure = pool.filter(pl.col("label").is_in(_SURE))
    said, called = as_sample(pool, "truth", config.seed), (pool["state"] == "relevant").to_numpy()
    return {
        "tier": tier,
        "labelled": pool["label"].count(),
        "contradicted": sure.filter(pl.col("state").is_in(_SURE), pl.col("state") != pl.col("label")).height,
        "unsure": pool["label"].count() - sure.height,
        "sampled": pool["truth"].count(),
        **_figure("kappa", said.kappa(called)),
        **_figure("precision", said.precision(called)),
        **_figure("recall", said.recall(called)),
    }


def _figure(name: str, interval: Interval) -> dict[str, float | None]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
