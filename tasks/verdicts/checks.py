"""Check the labels that came with the data: positives that are none, and queries that have no clear answer.

A positive is put to a judge as a candidate of its query, against the query's other positives. A query with one positive
is asked about without any. What the judge doubts ends in the state `unsure` and in the report. Training data stays as
it is: only people take a label back.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.schemas import CANDIDATES, CHECKED, POSITIVES, QUERIES, QUERY_CHECKS, VERDICTS
from tasks.texts import combine_hashes
from tasks.verdicts.decide import TIER
from tasks.verdicts.pairs import PAIR

RETRIEVER = "positive"  # of a positive that was put to a judge as a candidate
NO_POSITIVES = combine_hashes([])
NO_POSITIVE, MANY_RELEVANT = "no positive found relevant", "many candidates relevant"
_QUERY = PAIR[:2]


class CheckConfig(BaseModel):
    """What is checked of the labels that came with the data. Nothing by default, as it costs calls.

    positives: put positives to a judge as candidates.
    queries: name the queries that have no clear answer: none of their positives is found relevant (with `positives`),
        or too many of their candidates are.
    sample: share of the training queries whose positives are put to the judge, drawn by the hash of the query.
    relevant_share: a query with a larger share of relevant ones among its candidates has no clear answer.
    tier: the judge that is asked; by default the last tier.
    alone: whether queries with one positive are asked about; set by the flow, as some prompts need a positive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    positives: bool = False
    queries: bool = False
    sample: float = Field(1.0, gt=0, le=1)
    relevant_share: float = Field(0.5, ge=0, le=1)
    tier: str | None = None
    alone: bool = Field(True, json_schema_extra={"keyed_when_set": True})


@dataclass(frozen=True)
class Questions:
    """What a judge is asked about positives.

    asked: the positives as CANDIDATES. queries, positives: of these candidates. checked: which positive each
    is.
    """

    asked: pl.DataFrame
    queries: pl.DataFrame
    positives: pl.DataFrame
    checked: pl.DataFrame


def put_positives(config: CheckConfig, *, queries: pl.DataFrame, positives: pl.DataFrame) -> dict[str, Any]:
    """Make the questions about the positives of one query part; returns the fields of `Questions` by name."""
    return dict(vars(ask_about(config, queries=queries, positives=positives)))


def ask_about(config: CheckConfig, *, queries: pl.DataFrame, positives: pl.DataFrame) -> Questions:
    """Make a candidate of each positive of the training queries, with the query's other positives as its positives.

    A judge is shown the positives of a query, so each of these candidates has a query of its own, with the same text.
    """
    training = queries.filter(pl.col("split") == "train").select(*_QUERY, "text", "text_hash", "split")
    drawn = training.filter(pl.Series([_is_drawn(h, config.sample) for h in training["text_hash"]], dtype=pl.Boolean))
    labelled = positives.join(drawn.select(*_QUERY, query_hash="text_hash"), on=_QUERY).sort(PAIR)
    # Copies of a text under several ids are one positive.
    labelled = labelled.unique([*_QUERY, "text_hash"], keep="first", maintain_order=True)
    labelled = labelled.with_columns(
        asked_id=pl.Series([combine_hashes(row) for row in labelled.select(PAIR).rows()], dtype=pl.String)
    )
    others = (
        labelled.select(*_QUERY, "asked_id", of="text_hash")
        .join(labelled.select(*POSITIVES.columns), on=_QUERY)
        .filter(pl.col("of") != pl.col("text_hash"))
    )
    shown = others.sort("text_hash").group_by("asked_id", maintain_order=True).agg("text_hash")
    hashes = {asked: combine_hashes(texts) for asked, texts in shown.rows()}
    against = [hashes.get(asked, NO_POSITIVES) for asked in labelled["asked_id"]]
    labelled = labelled.with_columns(positives_hash=pl.Series(against, dtype=pl.String))
    if not config.alone:
        labelled = labelled.filter(pl.col("positives_hash") != NO_POSITIVES)
    kept = labelled.select("dataset", "asked_id")
    asked = labelled.select(
        "dataset",
        "doc_id",
        "text_hash",
        "query_hash",
        "positives_hash",
        query_id="asked_id",
        retriever=pl.lit(RETRIEVER),
        rank=pl.lit(0, dtype=pl.Int32),
        score=pl.lit(None, dtype=pl.Float64),
    )
    renamed = pl.col("asked_id").alias("query_id")
    return Questions(
        asked=asked.select(*CANDIDATES.columns).sort(CANDIDATES.key),
        queries=drawn.join(labelled.select(*_QUERY, "asked_id"), on=_QUERY)
        .with_columns(renamed)
        .select(*QUERIES.columns)
        .sort(QUERIES.key),
        positives=others.join(kept, on=["dataset", "asked_id"], how="semi")
        .with_columns(renamed)
        .select(*POSITIVES.columns)
        .sort(POSITIVES.key),
        checked=labelled.select(*CHECKED.columns).sort(CHECKED.key),
    )


def read_checks(
    config: CheckConfig,
    *,
    checked: pl.DataFrame,
    verdicts: pl.DataFrame,
    asked: pl.DataFrame,
    decisions: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Say which positives and queries of one query part are in doubt.

    Args:
        config: what is checked.
        checked: which positive each question is about.
        verdicts: of the judge on the questions.
        asked: the questions as candidates.
        decisions: on the candidates of all queries.

    Returns:
        `candidates`, `verdicts`, `decisions`: the positives that were put to the judge, as the candidates of their
            queries, as a judge's verdicts, and as decisions: `unsure` where it calls a positive not relevant.
        `queries`: one row per query that has no clear answer, with the reason; empty without `config.queries`.
    """
    names = checked.rename({"query_id": "real_id"}).select("dataset", "doc_id", "real_id", query_id="asked_id")

    def of_their_queries(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.join(names, on=PAIR).with_columns(query_id="real_id").select(*frame.columns)

    said = of_their_queries(verdicts)
    doubted = pl.when(pl.col("state") == "not_relevant").then(pl.lit("unsure")).otherwise("state")
    return {
        "candidates": of_their_queries(asked).sort(CANDIDATES.key),
        "verdicts": said.sort(VERDICTS.key),
        "decisions": said.with_columns(tier=pl.lit(TIER), state=doubted).sort(VERDICTS.key),
        "queries": _unclear(config, said, decisions) if config.queries else QUERY_CHECKS.empty(),
    }


def _unclear(config: CheckConfig, said: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    relevant, read = pl.col("state") == "relevant", pl.col("state") != "unparsed"
    of_positives = said.filter(read).group_by(_QUERY).agg(positives=pl.len(), positives_relevant=relevant.sum())
    of_candidates = decisions.group_by(_QUERY).agg(candidates=pl.len(), candidates_relevant=relevant.sum())
    counted = of_candidates.join(of_positives, on=_QUERY, how="full", coalesce=True).with_columns(
        pl.col("candidates", "candidates_relevant", "positives", "positives_relevant").fill_null(0).cast(pl.Int64)
    )
    none = (pl.col("positives") > 0) & (pl.col("positives_relevant") == 0)
    many = pl.col("candidates_relevant") > config.relevant_share * pl.col("candidates")
    reason = pl.when(none).then(pl.lit(NO_POSITIVE)).when(many).then(pl.lit(MANY_RELEVANT))
    unclear = counted.with_columns(reason=reason, state=pl.lit("unsure")).filter(pl.col("reason").is_not_null())
    return unclear.select(*QUERY_CHECKS.columns).sort(QUERY_CHECKS.key)


def _is_drawn(text_hash: str, share: float) -> bool:
    """Draw a query by its hash: the same queries in each run, and a larger share holds those of a smaller one."""
    return int(combine_hashes(["check", text_hash])[:8], 16) < share * 16**8
