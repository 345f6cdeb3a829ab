"""Treat: make one training set of the data and the decisions, in one of the paper's four ways (paper §3.2, §3.3).

`default` changes nothing · `remove` drops a row with a false negative · `remove_hn` takes the false negatives out of
the negatives · `relabel` makes them positives. Verdicts are a layer beside the data: all four come from the same
decisions, every change is a row of `edits`, every query that is not trained on is one of `rejects`.

Two readings of the paper are fixed here. Its row is judged whole (up to 25 negatives) and trained on in part (7 of
them): the pool of candidates is that row, `negatives` are the 7. So `relabel` takes false negatives from the pool, and
the cut of k counts them there, for `relabel` and `remove_hn` alike: both drop the same queries and stay comparable.
`remove` and `remove_hn` repair what is trained on, the negatives. And the paper's text counts: more than 7 drop a row,
so 8 do, where its code keeps 8; a passage under two ids counts once.
"""

from dataclasses import dataclass, replace
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tasks.schemas import EDITS, HUMAN_JUDGE, INSTANCES, REJECTS, Treatment
from tasks.texts import combine_hashes

STAGE = "treat"
# The query is not trained on. Queries in = instances + these.
NO_POSITIVES = "no_positives"
NO_NEGATIVES = "no_negatives"
AMBIGUOUS = "ambiguous"
HAS_FALSE_NEGATIVE = "has_false_negative"
DROP_REASONS = (NO_POSITIVES, AMBIGUOUS, HAS_FALSE_NEGATIVE, NO_NEGATIVES)
# Counted only: what is named stays, or its query does.
FEW_NEGATIVES = "few_negatives"
UNPARSED_KEPT = "unparsed_kept"
NEGATIVE_IS_POSITIVE = "negative_is_positive"

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_TEXT = [*_QUERY, "text_hash"]


class TreatConfig(BaseModel):
    """Which treatment, and its rules.

    treatment: one of `treatments`; set by the flow.
    max_false_negatives: a query with more distinct false negatives is dropped by `relabel` and `remove_hn` (§3.3: 7).
    relabel_from: where `relabel` and the cut look for false negatives: in the whole pool, or in the negatives only.
    refill: a removed negative's place goes to the next candidate of the pool, so that all treatments train on as many.
    drop_ambiguous: negatives that are `unsure` are removed, as ARHN does.
    drop_unparsed: negatives that are `unparsed` are removed; without it they stay and are counted.
    skip: datasets that were not judged: their rows pass untouched under every treatment; set by the flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    treatment: Treatment = "relabel"
    max_false_negatives: int = Field(7, ge=0)
    relabel_from: Literal["negatives", "pool"] = "pool"
    refill: bool = True
    drop_ambiguous: bool = False
    drop_unparsed: bool = False
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rows:
    """The training queries' rows before any edit.

    pool: candidates with state, score, who decided (`because`) and whether they are `picked` as negatives; no text of a
        labelled positive.
    picks: the picked ones alone, in the columns of the pool.
    """

    queries: pl.DataFrame
    labelled: pl.DataFrame
    pool: pl.DataFrame
    picks: pl.DataFrame
    contradictions: pl.DataFrame


@dataclass(frozen=True)
class _Plan:
    """What a treatment does, as rows of the pool: to whole queries, to positives, to negatives."""

    dropped: pl.DataFrame  # with `reason`
    promoted: pl.DataFrame
    removed: pl.DataFrame  # with `because`


def treat(
    config: TreatConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    candidates: pl.DataFrame,
    negatives: pl.DataFrame,
    decisions: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Build the instances of one treatment for the training queries.

    Returns:
        instances: positives are the labelled ones by doc_id, then the relabelled by falling score; negatives the kept
            picks by rank, then what refilled them.
        edits: one row per false negative that was promoted, removed, or dropped with its query.
        rejects: queries left out (`DROP_REASONS`; queries in = instances + these), and counted oddities.

    Raises:
        ValueError: a candidate has no decision, or a negative is no candidate.
    """
    rows = _read(config, queries, positives, candidates, negatives, decisions)
    plan = _plan(config, rows)
    kept, row_negatives = _without_dropped(rows.queries, plan), _final_negatives(config, rows, plan)
    bare = kept.join(row_negatives, on=_QUERY, how="anti").select(*_QUERY, reason=pl.lit(NO_NEGATIVES))
    plan = replace(plan, dropped=pl.concat([plan.dropped, bare]))
    instances = _instances(config, _without_dropped(kept, plan), _final_positives(rows, plan), row_negatives)
    return {
        "instances": instances,
        "edits": _edits(rows, plan),
        "rejects": _rejects(rows, plan, instances, row_negatives),
    }


def _read(
    config: TreatConfig,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    candidates: pl.DataFrame,
    negatives: pl.DataFrame,
    decisions: pl.DataFrame,
) -> _Rows:
    """Restrict to training queries, join the decisions, take out negatives that contradict a labelled positive."""
    train = queries.filter(pl.col("split") == "train")
    labelled = positives.join(train, on=_QUERY, how="semi")
    pool = candidates.join(train, on=_QUERY, how="semi").join(
        decisions.select(*_PAIR, "state", decided="score", because=_because()), on=_PAIR, how="left"
    )
    untouched = pl.col("dataset").is_in(config.skip) | pl.lit(config.treatment == "default")
    pool = pool.with_columns(
        state=pl.when(untouched).then(pl.lit("untouched")).otherwise("state"),
        decided=pl.when(untouched).then(None).otherwise("decided"),
    )
    if pool["state"].has_nulls():
        raise ValueError(
            f"treat: a decision for each of {pool.height} candidates expected, {pool['state'].null_count()} have none; "
            "judge and decide them first"
        )
    picked = negatives.join(train, on=_QUERY, how="semi").select(*_PAIR, picked=pl.lit(True))
    pool = (
        pool.join(picked, on=_PAIR, how="left")
        .with_columns(pl.col("picked").fill_null(False), score="decided")
        .sort(*_QUERY, "rank", "doc_id")
        .select(*_PAIR, "text_hash", "rank", "state", "score", "picked", "because")
    )
    if pool["picked"].sum() != picked.height:
        raise ValueError(
            f"treat: {picked.height} negatives expected among the candidates, {pool['picked'].sum()} are; mine again"
        )
    clean = pool.join(labelled, on=_TEXT, how="anti", maintain_order="left")
    return _Rows(
        queries=train,
        labelled=labelled,
        pool=clean,
        picks=clean.filter("picked"),
        contradictions=pool.filter("picked").join(labelled, on=_TEXT, how="semi"),
    )


def _because() -> pl.Expr:
    """Say who decided: a judge, or people."""
    human = pl.col("judge").str.starts_with(f"{HUMAN_JUDGE}:")
    return pl.when(human).then(pl.lit("human")).otherwise(pl.lit("judge"))


def _plan(config: TreatConfig, rows: _Rows) -> _Plan:
    unlabelled = rows.queries.join(rows.labelled, on=_QUERY, how="anti").select(*_QUERY, reason=pl.lit(NO_POSITIVES))
    nothing = rows.pool.clear()
    if config.treatment == "default":
        return _Plan(unlabelled, promoted=nothing, removed=nothing)
    false = rows.pool.filter(pl.col("state") == "relevant").sort(
        *_QUERY, "score", "doc_id", descending=[False, False, True, False]
    )
    false_picks = false.filter("picked")
    if config.treatment == "remove":
        hit, reason, promoted = false_picks.select(_QUERY).unique(), HAS_FALSE_NEGATIVE, nothing
    else:
        counted = false if config.relabel_from == "pool" else false_picks
        distinct = counted.unique(_TEXT, keep="first", maintain_order=True)
        hit = distinct.group_by(_QUERY).len().filter(pl.col("len") > config.max_false_negatives).select(_QUERY)
        reason, promoted = AMBIGUOUS, distinct if config.treatment == "relabel" else nothing
    hit = hit.join(unlabelled, on=_QUERY, how="anti").select(*_QUERY, reason=pl.lit(reason))
    return _Plan(pl.concat([unlabelled, hit]), promoted, _removed(config, rows, false_picks, promoted))


def _removed(config: TreatConfig, rows: _Rows, false_picks: pl.DataFrame, promoted: pl.DataFrame) -> pl.DataFrame:
    """Picks that leave the negatives without becoming positives, with who says so."""
    copies = rows.picks.join(promoted, on=_TEXT, how="semi").join(promoted, on=_PAIR, how="anti")
    frames = [
        copies.with_columns(because=pl.lit("rule")),
        false_picks.join(promoted, on=_TEXT, how="anti"),
    ]
    if config.drop_ambiguous:
        frames.append(rows.picks.filter(pl.col("state") == "unsure"))
    if config.drop_unparsed:
        frames.append(rows.picks.filter(pl.col("state") == "unparsed").with_columns(because=pl.lit("rule")))
    return pl.concat(frames).unique(_PAIR, keep="first", maintain_order=True)


def _without_dropped(frame: pl.DataFrame, plan: _Plan) -> pl.DataFrame:
    return frame.join(plan.dropped, on=_QUERY, how="anti", maintain_order="left")


def _final_positives(rows: _Rows, plan: _Plan) -> pl.DataFrame:
    columns = [*_PAIR, "text_hash"]
    promoted = plan.promoted.sort(*_QUERY, "score", "text_hash", descending=[False, False, True, False])
    return pl.concat([rows.labelled.sort(_PAIR).select(columns), promoted.select(columns)])


def _final_negatives(config: TreatConfig, rows: _Rows, plan: _Plan) -> pl.DataFrame:
    """The picks that stay, and the next candidates of the pool in the places of those that went.

    "Next" starts below the first pick's rank: mining's margins cut from the top of the ranking, so whatever ranks
    before the first pick may have been too near a positive to be picked.
    """
    gone = pl.concat([frame.select(_PAIR) for frame in (plan.promoted, plan.removed)])
    kept = rows.picks.join(gone, on=_PAIR, how="anti", maintain_order="left")
    if not config.refill or config.treatment == "default":
        return kept
    states = ["not_relevant"] if config.drop_ambiguous else ["not_relevant", "unsure"]
    missing = (
        rows.picks.join(gone, on=_PAIR, how="semi")
        .group_by(_QUERY)
        .agg(missing=pl.len())
        .join(rows.picks.group_by(_QUERY).agg(first_rank=pl.col("rank").min()), on=_QUERY)
    )
    spare = (
        rows.pool.filter(~pl.col("picked"), pl.col("state").is_in(states))
        .join(kept, on=_TEXT, how="anti", maintain_order="left")
        .join(plan.promoted, on=_TEXT, how="anti", maintain_order="left")
        .unique(_TEXT, keep="first", maintain_order=True)
        .join(missing, on=_QUERY, maintain_order="left")
        .filter(pl.col("rank") > pl.col("first_rank"))
    )
    refills = spare.filter(pl.int_range(pl.len()).over(_QUERY) < pl.col("missing")).select(kept.columns)
    return pl.concat([kept, refills]).sort(*_QUERY, "picked", "rank", descending=[False, False, True, False])


def _instances(
    config: TreatConfig, kept: pl.DataFrame, positives: pl.DataFrame, negatives: pl.DataFrame
) -> pl.DataFrame:
    """One row per kept query; the order of `positives` and `negatives` is the order in the row."""
    listed = kept.select(*_QUERY, query_hash="text_hash").sort(_QUERY)
    for name, side in (("positives", positives), ("negatives", negatives)):
        lists = side.group_by(_QUERY, maintain_order=True).agg(
            pl.col("doc_id").alias(name), pl.col("text_hash").alias(f"{name}_hashes")
        )
        listed = listed.join(lists, on=_QUERY, how="left", maintain_order="left")
    empty = pl.lit([], dtype=pl.List(pl.String))
    listed = listed.with_columns(
        pl.col(name).fill_null(empty) for name in listed.columns if name.startswith(("pos", "neg"))
    )
    hashes = [
        combine_hashes([query, *of_positives, *of_negatives])
        for query, of_positives, of_negatives in listed.select(
            "query_hash", "positives_hashes", "negatives_hashes"
        ).iter_rows()
    ]
    return listed.with_columns(
        treatment=pl.lit(config.treatment), texts_hash=pl.Series(hashes, dtype=pl.String)
    ).select(*INSTANCES.columns)


def _edits(rows: _Rows, plan: _Plan) -> pl.DataFrame:
    """Every pair that a treatment touched, once."""
    lost = rows.pool.filter(pl.col("state") == "relevant").join(plan.dropped, on=_QUERY, how="semi")
    frames = [
        _without_dropped(plan.promoted, plan).with_columns(to=pl.lit("positive")),
        _without_dropped(plan.removed, plan).with_columns(to=pl.lit("removed")),
        lost.with_columns(to=pl.lit("dropped")),
    ]
    origin = pl.when("picked").then(pl.lit("negative")).otherwise(pl.lit("pool")).alias("from")
    edits = pl.concat([frame.with_columns(origin).select(*EDITS.columns) for frame in frames])
    return edits.sort(EDITS.key)


def _rejects(rows: _Rows, plan: _Plan, instances: pl.DataFrame, negatives: pl.DataFrame) -> pl.DataFrame:
    false = rows.pool.filter(pl.col("state") == "relevant").group_by(_QUERY).agg(false=pl.col("text_hash").n_unique())
    dropped = plan.dropped.join(false, on=_QUERY, how="left").with_columns(pl.col("false").fill_null(0))
    picked = rows.picks.group_by(_QUERY).agg(picked=pl.len())
    left = pl.col("negatives").list.len()
    fewer = instances.join(picked, on=_QUERY).filter(left < pl.col("picked"))
    unparsed = negatives.filter(pl.col("state") == "unparsed").join(instances, on=_QUERY, how="semi")
    frames = [
        _reject(dropped, _QUERY, pl.col("reason"), pl.format("{} false negatives in the pool", "false")),
        _reject(fewer, _QUERY, pl.lit(FEW_NEGATIVES), pl.format("{} of {} left after the edits", left, "picked")),
        _reject(unparsed, _PAIR, pl.lit(UNPARSED_KEPT), pl.lit("kept as a negative without a verdict")),
        _reject(rows.contradictions, _PAIR, pl.lit(NEGATIVE_IS_POSITIVE), pl.lit("text of a labelled positive")),
    ]
    return pl.concat([REJECTS.empty(), *frames]).sort("reason", "key")


def _reject(rows: pl.DataFrame, key: list[str], reason: pl.Expr, detail: pl.Expr) -> pl.DataFrame:
    return rows.select(stage=pl.lit(STAGE), key=pl.concat_str(key, separator="/"), reason=reason, detail=detail)
