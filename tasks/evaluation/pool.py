"""Pool what several models rank first for the held-out queries and nobody has labelled, and score with its verdicts.

People label few of the passages that a new model finds, and an unlabelled passage counts as not relevant. So judges
are asked about the unlabelled ones among the first `depth` of every model that is compared, all models alike. Each
measure is then taken twice: with the labels alone, and with what the judges call relevant added to them.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.evaluation.measures import measure_queries, refuse_deep
from tasks.mining.dense.corpus import Frames, frames_of
from tasks.schemas import CANDIDATES, POSITIVES, SCORES
from tasks.texts import combine_hashes, hash_guard, hash_shown

RETRIEVER = "ranked"  # of a pair that a model ranked, and nobody labelled
JUDGED = "Judged@10"  # of ir_measures: the share of the first ten that has a label
_TOP = 10
_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_HASHES = ["text_hash", "shown_hash", "guard_hash"]


class PoolConfig(BaseModel):
    """Whether judges complete the labels of the held-out queries, and how deep. It costs calls.

    depth: of each model's ranking, so many passages are put to the judges, unless they have a label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(20, ge=1)


class RankedConfig(BaseModel):
    """Which pairs are put to the judges.

    depth: passages of each ranking. split: of the queries. min_relevance: the least label of a relevant passage.
    parts: of the queries. skip: datasets that are not judged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(20, ge=1)
    split: str = "test"
    min_relevance: int = 1
    parts: int = Field(1, ge=1)
    skip: tuple[str, ...] = ()


class CompletedConfig(BaseModel):
    """What is measured. model_name, seed: of the model in the scores. The others are those of the evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: str
    seed: int = 42
    split: str = "test"
    measures: tuple[str, ...] = Field(min_length=1)
    depth: int = Field(100, ge=1)
    min_relevance: int = 1


def least_label(qrels: pl.DataFrame, wanted: int) -> int:
    """Return the least label of a relevant passage: 1 where no label is as high, as labels of rows are 1.

    >>> least_label(pl.DataFrame({"relevance": [1, 1]}), 2), least_label(pl.DataFrame({"relevance": [1, 3]}), 2)
    (1, 2)
    """
    return wanted if (qrels["relevance"] >= wanted).any() else 1


def pool_unlabelled(
    config: RankedConfig, *, run: Frames, queries: pl.DataFrame, qrels: pl.DataFrame, passages: Frames
) -> dict[str, Any]:
    """Find the unlabelled pairs among the first passages of all rankings, and what judges need to read them.

    Args:
        config: see RankedConfig.
        run: the rankings of all models, in frames.
        queries: of all splits, each with the number of its part in the column `part`.
        qrels: of the held-out queries. A passage with any label is not put to the judges.
        passages: one frame for each part of the corpus.

    Returns:
        By part of the queries, `candidates`: the pairs with the best rank that a model gave them; and `positives`: the
        labelled passages of their queries, which judges compare with. Queries whose relevant passages are all missing
        in the corpus are left out; `facts` counts them.
    """
    least = least_label(qrels, config.min_relevance)
    relevant = qrels.filter(pl.col("relevance") >= least)
    asked = queries.filter(pl.col("split") == config.split, ~pl.col("dataset").is_in(config.skip))
    asked = asked.join(relevant, on=_QUERY, how="semi").select(*_QUERY, "part", query_hash="text_hash")
    top = _top(config.depth, run, asked).join(qrels, on=_PAIR, how="anti")
    labelled = relevant.join(asked, on=_QUERY, how="semi").select(_PAIR)
    hashes = _hashes(passages, pl.concat([top.select("dataset", "doc_id"), labelled.select("dataset", "doc_id")]))
    positives = labelled.join(hashes, on=["dataset", "doc_id"]).sort(_PAIR).with_columns(source=pl.lit("qrels"))
    positives = positives.unique([*_QUERY, "text_hash"], keep="first", maintain_order=True)
    known = positives.sort(*_QUERY, "text_hash").group_by(_QUERY, maintain_order=True).agg("text_hash")
    of_query = known.select(
        *_QUERY, positives_hash=pl.Series([combine_hashes(found) for found in known["text_hash"]], dtype=pl.String)
    )
    found = top.join(hashes, on=["dataset", "doc_id"]).join(asked, on=_QUERY).join(of_query, on=_QUERY)
    found = found.with_columns(retriever=pl.lit(RETRIEVER), score=pl.lit(None, pl.Float64))
    needed = positives.join(found, on=_QUERY, how="semi").join(asked.select(*_QUERY, "part"), on=_QUERY)
    unanswerable = asked.join(of_query, on=_QUERY, how="anti").height
    return {
        "candidates": _by_part(config.parts, found, CANDIDATES),
        "positives": _by_part(config.parts, needed, POSITIVES),
        "facts": {"queries": asked.height, "pairs": found.height, "queries_without_positive": unanswerable},
    }


def score_completed(
    config: CompletedConfig, *, run: Frames, queries: pl.DataFrame, qrels: pl.DataFrame, decisions: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Measure one model's rankings with the labels alone, and with those that the judges' decisions add.

    A passage that is decided to be relevant gets the least label of a relevant one (1 by default), one that is not
    gets 0. What the judges are unsure of, or could not read, gets none. No label of the data is changed.

    Returns:
        `labelled`: a row per measure and query, with the labels alone. `completed`: the same with the added labels.
        Both have `Judged@10`, the share of the first ten that has a label, beside the measures of the settings.
    """
    refuse_deep(config.measures, config.depth)
    least = least_label(qrels, config.min_relevance)
    asked = queries.filter(pl.col("split") == config.split).select(_QUERY)
    asked = asked.join(qrels.filter(pl.col("relevance") >= least), on=_QUERY, how="semi")
    ranked = _ranked(run, asked)
    labels = qrels.join(asked, on=_QUERY, how="semi").select(*_PAIR, pl.col("relevance").cast(pl.Int32))
    told = decisions.filter(pl.col("state").is_in(["relevant", "not_relevant"]))
    value = pl.when(pl.col("state") == "relevant").then(least).otherwise(0).cast(pl.Int32)
    added = told.select(*_PAIR, relevance=value).join(asked, on=_QUERY, how="semi").join(labels, on=_PAIR, how="anti")
    found = {"labelled": labels, "completed": pl.concat([labels, added])}
    return {name: _measure(config, ranked, each, least) for name, each in found.items()}


def _top(depth: int, run: Frames, asked: pl.DataFrame) -> pl.DataFrame:
    """Return the first passages of all rankings, each pair once with its best rank."""
    best = pl.DataFrame(schema=dict.fromkeys(_PAIR, pl.String) | {"rank": pl.Int32})
    for frame in frames_of(run):
        near = frame.filter(pl.col("rank") <= depth).join(asked, on=_QUERY, how="semi").select(*_PAIR, "rank")
        best = pl.concat([best, near]).group_by(_PAIR).agg(pl.col("rank").min())
    return best.sort(_PAIR)


def _hashes(passages: Frames, wanted: pl.DataFrame) -> pl.DataFrame:
    """Return the hashes of some passages, reading the corpus part by part: dataset, doc_id and `_HASHES`."""
    frames = [pl.DataFrame(schema=dict.fromkeys(["dataset", "doc_id", *_HASHES], pl.String))]
    for part in frames_of(passages):
        own = part.join(wanted, on=["dataset", "doc_id"], how="semi")
        texts = own.select("title", "text").rows()
        hashed = {"shown_hash": hash_shown, "guard_hash": hash_guard}
        columns = [pl.Series(name, [of(*text) for text in texts], dtype=pl.String) for name, of in hashed.items()]
        frames.append(own.select("dataset", "doc_id", "text_hash", *columns))
    return pl.concat(frames)


def _by_part(parts: int, rows: pl.DataFrame, schema: Any) -> Iterator[pl.DataFrame]:  # noqa: ANN401 - a Schema
    for number in range(parts):
        own = rows.filter(pl.col("part") == number)
        yield own.select(pl.col(name).cast(dtype) for name, dtype in schema.columns.items()).sort(schema.key)


def _ranked(run: Frames, asked: pl.DataFrame) -> pl.DataFrame:
    frames = [frame.join(asked, on=_QUERY, how="semi").select(*_PAIR, "score") for frame in frames_of(run)]
    return pl.concat([pl.DataFrame(schema=dict.fromkeys(_PAIR, pl.String) | {"score": pl.Float64}), *frames])


def _measure(config: CompletedConfig, ranked: pl.DataFrame, labels: pl.DataFrame, least: int) -> pl.DataFrame:
    names = [*config.measures, *({JUDGED} - set(config.measures) if config.depth >= _TOP else ())]
    frames = [SCORES.empty()]
    for (dataset,), own in labels.partition_by("dataset", as_dict=True).items():
        here = ranked.filter(pl.col("dataset") == dataset)
        measured = measure_queries(names, run=here, labels=own, min_relevance=least)
        model, seed = pl.lit(config.model_name), pl.lit(config.seed, pl.Int64)
        frames.append(measured.with_columns(dataset=pl.lit(dataset), model=model, seed=seed).select(*SCORES.columns))
    return pl.concat(frames).sort(SCORES.key)
