"""Scores and provenance of the passages of an export: columns beside each passage, joined by query and passage."""

from dataclasses import dataclass

import polars as pl

from tasks.data.writing.config import ExportConfig
from tasks.schemas import HUMAN_JUDGE

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
LABEL, JUDGE, HUMAN, NOBODY = "label", "judge", "human", "nobody"  # values of `decided_by`


@dataclass(frozen=True)
class Evidence:
    """The tables that tell what is known of the pairs and queries of a part besides the instances; None: not given.

    positives: the labelled positives. negatives: the negatives as picked. decisions: the final verdicts.
    teacher: scores of the source's rows. extras: further fields of the source's rows. candidates: ranks of mining.
    """

    positives: pl.DataFrame | None = None
    negatives: pl.DataFrame | None = None
    decisions: pl.DataFrame | None = None
    teacher: pl.DataFrame | None = None
    extras: pl.DataFrame | None = None
    candidates: pl.DataFrame | None = None


def mark(config: ExportConfig, evidence: Evidence, pairs: pl.DataFrame, *, positive: bool) -> pl.DataFrame:
    """Add the columns that the settings ask for to pairs (dataset, query_id, doc_id), in the order of the pairs.

    `teacher`: the source's score, where there is such a table. `score`: the soft label (`soft_labels`). `decided_by`
    and `origin`: `provenance`. `rank`, `mined_score` and `retriever`: of mining, where there are candidates. `positive`
    tells on which side of the instances the pairs stand.

    Raises:
        ValueError: the settings need a table that was not given.
    """
    marked = pairs
    if evidence.teacher is not None:
        marked = _join(marked, evidence.teacher.select(*_PAIR, teacher="score"))
    if config.soft_labels == "teacher":
        scores = pl.col("teacher") if evidence.teacher is not None else pl.lit(None, dtype=pl.Float64)
        marked = marked.with_columns(score=scores)
    if config.soft_labels == "decision" or config.provenance:
        marked = _with_decisions(config, evidence, marked, positive=positive)
    if config.provenance:
        marked = _with_origins(evidence, marked)
    if evidence.candidates is not None:
        marked = _join(marked, evidence.candidates.select(*_PAIR, "rank", "retriever", mined_score="score"))
    return marked


def _with_decisions(config: ExportConfig, evidence: Evidence, pairs: pl.DataFrame, *, positive: bool) -> pl.DataFrame:
    """Add P(relevant) of the decision and who decided.

    A labelled positive, and a passage that no judge was asked about, were decided by their label alone. Where the
    judges' answer could not be read nobody decided, so there is no score: it never counts as "not relevant".
    """
    labelled, decisions = _given(evidence.positives, "positives"), _given(evidence.decisions, "decisions")
    is_human = pl.col("judge").str.starts_with(f"{HUMAN_JUDGE}:")
    decided = decisions.select(
        *_PAIR, p=pl.col("score").fill_nan(None), by=pl.when(is_human).then(pl.lit(HUMAN)).otherwise(pl.lit(JUDGE))
    )
    joined = _join(_join(pairs, decided), labelled.select(*_PAIR, is_label=pl.lit(True)))
    by_label = pl.col("is_label").fill_null(False) | pl.col("by").is_null()
    columns = {}
    if config.soft_labels == "decision":
        columns["score"] = pl.when(by_label).then(pl.lit(float(positive))).otherwise("p")
    if config.provenance:
        unread = pl.col("p").is_null() & (pl.col("by") == JUDGE)
        columns["decided_by"] = pl.when(by_label).then(pl.lit(LABEL)).when(unread).then(pl.lit(NOBODY)).otherwise("by")
    return joined.with_columns(**columns).drop("p", "by", "is_label")


def _with_origins(evidence: Evidence, pairs: pl.DataFrame) -> pl.DataFrame:
    """Add where a pair stood before any treatment: among the positives, the picked negatives, or in the pool only."""
    sides = (("positive", evidence.positives), ("negative", evidence.negatives))
    origins = [_given(table, f"{name}s").select(*_PAIR, origin=pl.lit(name)) for name, table in sides]
    known = pl.concat(origins).unique(_PAIR, keep="first", maintain_order=True)
    return _join(pairs, known).with_columns(pl.col("origin").fill_null("pool"))


def _join(pairs: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    return pairs.join(table, on=_PAIR, how="left", maintain_order="left")


def _given(table: pl.DataFrame | None, name: str) -> pl.DataFrame:
    if table is None:
        raise ValueError(f"export: soft labels of decisions and provenance need the table `{name}`, and none was given")
    return table
