"""Combine the labels of people, apply them to the decisions of the judges, and measure the judges by them.

A label is for two texts, a query and a passage. It also holds for these texts under other ids, in another dataset or on
another night. The positives shown beside them are not part of it: they show what is searched for, and may change.
"""

import polars as pl
from pydantic import BaseModel, ConfigDict

from tasks.parts import Rows, in_parts
from tasks.quality.sample import Queries, as_sample, with_strata
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
    similarity: Rows,
    llm_verdicts: Rows,
    decisions: Rows,
) -> dict[str, pl.DataFrame]:
    """Compare each tier with people, over the pairs that the tier judged and people labelled.

    Kappa, precision and recall are estimates for all pairs that the tier judged, from the drawn pairs, with intervals
    clustered by query (tasks.clustered). Labelled pairs of a stratum are treated as a random choice. Kappa is that of
    two states: `relevant` against everything else that the tier said. Pairs that people are unsure of count as not
    labelled. A pair that a tier left `unsure` or `unparsed` counts as not found by it. `decisions` are those of the
    judges, without labels. Verdicts may come in parts, which are read one by one; of pairs without a label only their
    numbers are kept, by query, stratum and state.

    Returns:
        `people`: one row per tier, including `similarity` and `cascade`.
    """
    drawn = labelled.join(samples, on=_PAIR, how="semi").select(*_PAIR, truth=_TRUTH)
    said, asked, decided = (in_parts(table) for table in (similarity, llm_verdicts, decisions))
    queries, pools = Queries(), {tier: list[pl.DataFrame]() for tier in (_CASCADE, *config.tiers, "similarity")}
    for part in decided.parts:
        judged = decided.at(part)
        strata = queries.number(with_strata(judged.select(_PAIR), judged).select(*_PAIR, "stratum"))
        pool = strata.join(labelled.select(*_PAIR, "label"), on=_PAIR, how="left").join(drawn, on=_PAIR, how="left")
        answers = asked.at(part)
        tiers = {tier: answers.filter(pl.col("tier") == tier) for tier in config.tiers}
        for tier, verdicts in {_CASCADE: judged, **tiers, "similarity": said.at(part)}.items():
            pools[tier].append(_counted(pool.join(verdicts.select(*_PAIR, "state"), on=_PAIR)))
    rows = [_measure(config, tier, queries.in_order(pl.concat(pool)).sort(_PAIR)) for tier, pool in pools.items()]
    return {"people": pl.DataFrame(rows, schema=PEOPLE.columns).sort(PEOPLE.key)}


def _counted(pool: pl.DataFrame) -> pl.DataFrame:
    """Put the pairs without a label together by query, stratum and state; `pairs` is their number."""
    others = pool.filter(pl.col("label").is_null()).group_by("query", "stratum", "state").agg(pairs=pl.len())
    labelled = pool.filter(pl.col("label").is_not_null()).with_columns(pairs=pl.lit(1, pl.UInt32))
    return pl.concat([labelled, others], how="diagonal")


def share_labelled(samples: pl.DataFrame, labelled: pl.DataFrame) -> tuple[int, int]:
    """Return how many of the drawn pairs are labelled, and how many were drawn."""
    return samples.join(labelled, on=_PAIR, how="semi").height, samples.height


def _measure(config: PeopleConfig, tier: str, pool: pl.DataFrame) -> dict[str, str | int | float | None]:
    """Measure one tier. `pool` has the pairs it judged: stratum, state, label, `truth` if drawn, and their number."""
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
