"""Make the training rows of each treatment of `benchmarks.planted`, all with the same number of hard negatives.

Every edit goes through `tasks.data.treatments.treat`; the treatments differ by the decisions that it reads. A removed
negative is replaced by the next mined passage that the same decisions do not call relevant.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from benchmarks.planted_data import Collection, Planted
from tasks.data.known_pairs import KnownPairsConfig, list_known_pairs
from tasks.data.treatments import TreatConfig, treat
from tasks.schemas import TEACHER, VERDICTS, Treatment

PERCENT_OF_POSITIVE = 0.95  # TopK-PercPos of NV-Retriever
_PAIR = ["dataset", "query_id", "doc_id"]
_QUERY = ["dataset", "query_id"]


@dataclass(frozen=True)
class Evidence:
    """What is known of the pairs. judges: decisions. teacher: P(relevant) by the reranker, also of positives."""

    judges: pl.DataFrame
    teacher: pl.DataFrame


@dataclass(frozen=True)
class Rows:
    """The training rows of a treatment, its known pairs, and the settings of training that it changes."""

    instances: pl.DataFrame
    known: pl.DataFrame | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """What treatments are made of. seed: of random draws."""

    collection: Collection
    planted: Planted
    evidence: Evidence
    seed: int = 0

    def treat(self, treatment: Treatment, decisions: pl.DataFrame) -> pl.DataFrame:
        """Return the instances; false negatives are looked for among the picked negatives."""
        config = TreatConfig(treatment=treatment, relabel_from="negatives", refill_unsure=True)
        tables = {"queries": self.collection.queries, **self.planted.tables}
        return treat(config, decisions=decisions, **tables)["instances"]

    def known(self, decisions: pl.DataFrame, soft: Any = None, teacher: pl.DataFrame | None = None) -> pl.DataFrame:
        """Return the pairs that training treats apart, and soft labels."""
        return list_known_pairs(
            KnownPairsConfig(soft_labels=soft),
            queries=self.collection.queries,
            positives=self.planted.positives,
            candidates=self.planted.candidates,
            decisions=decisions,
            teacher=TEACHER.empty() if teacher is None else teacher,
        )["known"]


def decisions_of(candidates: pl.DataFrame, judge: str, score: pl.Expr, state: pl.Expr) -> pl.DataFrame:
    """Return a decision for each candidate. score, state: expressions over the candidates' columns."""
    nothing = pl.lit(None)
    decided = candidates.with_columns(new_score=score).with_columns(
        tier=pl.lit("cascade"),
        judge=pl.lit(judge),
        state=state,
        score="new_score",
        grade=nothing,
        preference=nothing,
        call_id=nothing,
        attempt=pl.lit(1),
    )
    return decided.select(pl.col(name).cast(dtype) for name, dtype in VERDICTS.columns.items()).sort(VERDICTS.key)


def oracle(planted: Planted) -> pl.DataFrame:
    """Decide that exactly the planted pairs are relevant."""
    marked = planted.candidates.join(
        planted.hidden.select("query_id", "doc_id", is_hidden=pl.lit(True)), on=["query_id", "doc_id"], how="left"
    ).with_columns(pl.col("is_hidden").fill_null(False))
    state = pl.when("is_hidden").then(pl.lit("relevant")).otherwise(pl.lit("not_relevant"))
    return decisions_of(marked, "oracle", pl.col("is_hidden").cast(pl.Float64), state)


def at_random(planted: Planted, like: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Call as many picked negatives of each query relevant as `like` does, drawn at random."""
    called = planted.negatives.select(_PAIR).join(like.filter(pl.col("state") == "relevant"), on=_PAIR, how="semi")
    wanted = called.group_by(_QUERY).len("wanted")
    rng = np.random.default_rng([seed, planted.negatives.height])
    picks = planted.negatives.sort(_PAIR).with_columns(draw=pl.Series(rng.random(planted.negatives.height)))
    drawn = (
        picks.join(wanted, on=_QUERY)
        .filter(pl.col("draw").rank("ordinal").over(_QUERY) <= pl.col("wanted"))
        .select(*_PAIR, drawn=pl.lit(True))
    )
    marked = planted.candidates.join(drawn, on=_PAIR, how="left").with_columns(pl.col("drawn").fill_null(False))
    state = pl.when("drawn").then(pl.lit("relevant")).otherwise(pl.lit("not_relevant"))
    return decisions_of(marked, "random", pl.col("drawn").cast(pl.Float64), state)


def by_percent_of_positive(planted: Planted, teacher: pl.DataFrame) -> pl.DataFrame:
    """Call relevant what the teacher scores above 95% of the query's lowest positive (TopK-PercPos)."""
    scores = teacher.select(*_PAIR, teacher="score")
    bound = planted.positives.join(scores, on=_PAIR).group_by(_QUERY).agg(bound=pl.col("teacher").min())
    marked = planted.candidates.join(scores, on=_PAIR, how="left").join(bound, on=_QUERY, how="left")
    above = pl.col("teacher") > PERCENT_OF_POSITIVE * pl.col("bound")
    state = pl.when(above).then(pl.lit("relevant")).otherwise(pl.lit("not_relevant"))
    return decisions_of(marked, "percent_of_positive", pl.col("teacher"), state)


def by_teacher(planted: Planted, teacher: pl.DataFrame) -> pl.DataFrame:
    """Call relevant what the teacher gives a P(relevant) of one half or more."""
    marked = planted.candidates.join(teacher.select(*_PAIR, teacher="score"), on=_PAIR, how="left")
    state = pl.when(pl.col("teacher") >= 0.5).then(pl.lit("relevant")).otherwise(pl.lit("not_relevant"))
    return decisions_of(marked, "reranker", pl.col("teacher"), state)


def _split(made: Made, right: str, wrong: str) -> pl.DataFrame:
    """Give the pairs that the judges call relevant these states: those that were planted, and the others."""
    hidden = made.planted.hidden.select("query_id", "doc_id", is_hidden=pl.lit(True))
    marked = made.evidence.judges.join(hidden, on=["query_id", "doc_id"], how="left")
    called = pl.col("state") == "relevant"
    state = pl.when(called & pl.col("is_hidden")).then(pl.lit(right)).when(called).then(pl.lit(wrong))
    return (
        marked.with_columns(state=state.otherwise(pl.lit("not_relevant"))).select(*VERDICTS.columns).sort(VERDICTS.key)
    )


def _distilled(made: Made) -> Rows:
    teacher = made.evidence.teacher.with_columns(score=_logit("score"))
    known = made.known(oracle(made.planted).clear(), "teacher", teacher)
    return Rows(_default(made).instances, known, {"objective": "kl", "soft_labels": "teacher"})


def _soft(made: Made) -> Rows:
    known = made.known(made.evidence.judges, "judges")
    return Rows(_default(made).instances, known, {"objective": "kl", "soft_labels": "judges"})


def _labels(made: Made) -> Rows:
    """Learn by KL from one-hot labels: what `distillation` and `soft_labels` are with no one's scores."""
    flat = oracle(made.planted).with_columns(state=pl.lit("not_relevant"), score=pl.lit(0.0))
    return Rows(_default(made).instances, made.known(flat, "judges"), {"objective": "kl", "soft_labels": "judges"})


def _default(made: Made) -> Rows:
    return Rows(
        made.treat("default", oracle(made.planted))
    )  # `default` reads no decision, but asks that there are some


def _masked(made: Made) -> Rows:
    return Rows(_default(made).instances, made.known(made.evidence.judges), {"mask": "relevant"})


def _judged(treatment: Treatment) -> Callable[[Made], Rows]:
    return lambda made: Rows(made.treat(treatment, made.evidence.judges))


# Added after the second trial: where does the gain of the judges' relabelling come from?
ADDED: Mapping[str, Callable[[Made], Rows]] = {
    "relabel_random": lambda made: Rows(
        made.treat("relabel", at_random(made.planted, made.evidence.judges, made.seed))
    ),
    "relabel_right": lambda made: Rows(made.treat("relabel", _split(made, right="relevant", wrong="not_relevant"))),
    "relabel_wrong": lambda made: Rows(made.treat("relabel", _split(made, right="not_relevant", wrong="relevant"))),
    "relabel_right_remove_wrong": lambda made: Rows(
        made.treat("drop_ambiguous", _split(made, right="relevant", wrong="unsure"))
    ),
}
TREATMENTS: Mapping[str, Callable[[Made], Rows]] = {
    "default": _default,
    "remove": _judged("remove"),
    "remove_hn": _judged("remove_hn"),
    "relabel_judges": _judged("relabel"),
    "drop_ambiguous": _judged("drop_ambiguous"),
    "random_removal": lambda made: Rows(
        made.treat("remove_hn", at_random(made.planted, made.evidence.judges, made.seed))
    ),
    "topk_percpos": lambda made: Rows(
        made.treat("remove_hn", by_percent_of_positive(made.planted, made.evidence.teacher))
    ),
    "relabel_reranker": lambda made: Rows(made.treat("relabel", by_teacher(made.planted, made.evidence.teacher))),
    "distillation": _distilled,
    "mask_only": _masked,
    "soft_labels": _soft,
    "kl_labels": _labels,
    "remove_hn_oracle": lambda made: Rows(made.treat("remove_hn", oracle(made.planted))),
    "relabel_oracle": lambda made: Rows(made.treat("relabel", oracle(made.planted))),
    **ADDED,
}


def _logit(column: str) -> pl.Expr:
    clipped = pl.col(column).clip(0.001, 0.999)
    return (clipped / (1 - clipped)).log()
