"""Make a training set from data and decisions, by one of the four treatments of the paper (§3.2, §3.3) or by ARHN's.

`default` changes nothing. `remove` drops a query that has a false negative among its negatives. `remove_hn` removes
false negatives from the negatives. `relabel` makes them positives. `drop_ambiguous` does this too, and removes the
negatives that the judges are unsure of (ARHN, arXiv 2604.11092). All use the same decisions. Each change is a row of
`edits`; each query that is left out is a row of `rejects`.

Where the paper leaves a choice, this module decides as follows. The paper judges up to 25 negatives of a row and trains
on 7 of them. Here the pool of candidates is what is judged, and `negatives` are the 7. `relabel` takes false negatives
from the whole pool. `relabel` and `remove_hn` drop a query with too many false negatives in the pool, so both drop the
same queries and can be compared. `remove` and `remove_hn` change only the negatives. A query is dropped for more than 7
false negatives, as the text of the paper says; its code keeps 8. A passage with two ids counts once. A query that is
left without negatives is kept, since it is trained on with the negatives of its batch.
"""

from dataclasses import dataclass, replace
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from tasks.schemas import EDITS, HUMAN_JUDGE, INSTANCES, REJECTS, Treatment
from tasks.texts import combine_hashes

STAGE = "treat"
# Reasons for which a query is left out. Each training query is an instance or one of these rejects.
NO_POSITIVES = "no_positives"
NO_NEGATIVES = "no_negatives"
AMBIGUOUS = "ambiguous"
HAS_FALSE_NEGATIVE = "has_false_negative"
DROP_REASONS = (NO_POSITIVES, AMBIGUOUS, HAS_FALSE_NEGATIVE, NO_NEGATIVES)
# Reasons that are only counted: the query stays.
FEW_NEGATIVES = "few_negatives"
KEPT_WITHOUT_NEGATIVES = "kept_without_negatives"
UNPARSED_KEPT = "unparsed_kept"
NEGATIVE_IS_POSITIVE = "negative_is_positive"

_QUERY = ["dataset", "query_id"]
_PAIR = [*_QUERY, "doc_id"]
_TEXT = [*_QUERY, "text_hash"]
_KEYED_WHEN_SET: dict[str, JsonValue] = {"keyed_when_set": True}


class TreatConfig(BaseModel):
    """The treatment and its rules.

    treatment: one of `treatments`; set by the flow.
    max_false_negatives: a query with more distinct false negatives is dropped by `relabel` and `remove_hn` (§3.3: 7).
    relabel_from: where `relabel` and the cut look for false negatives: in the whole pool, or in the negatives only.
    refill: replace a removed negative by the candidate that mining would have picked next, so that all treatments have
        as many negatives.
    refill_unsure: candidates that the judges are unsure of refill too.
    drop_ambiguous: every treatment that edits removes negatives whose state is `unsure`, as `drop_ambiguous` does.
    drop_unparsed: remove negatives whose state is `unparsed`; otherwise they stay and are counted.
    no_negatives: `keep` a query that has positives and no negative (the negatives of its batch are enough), or `drop`.
    relevant_from: score of a decision from which a pair counts as relevant. A pair that the judges called relevant with
        a lower score counts as unsure. Unset: what was decided. Labels of people are not touched.
    skip: datasets that were not judged. No treatment changes their rows. Set by the flow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    treatment: Treatment = "relabel"
    max_false_negatives: int = Field(7, ge=0)
    relabel_from: Literal["negatives", "pool"] = "pool"
    refill: bool = True
    refill_unsure: bool = Field(False, json_schema_extra=_KEYED_WHEN_SET)
    drop_ambiguous: bool = False
    drop_unparsed: bool = False
    no_negatives: Literal["keep", "drop"] = Field("keep", json_schema_extra=_KEYED_WHEN_SET)
    relevant_from: float | None = Field(None, ge=0, le=1, json_schema_extra=_KEYED_WHEN_SET)
    skip: tuple[str, ...] = ()

    @property
    def removes_unsure(self) -> bool:
        """Whether negatives that the judges are unsure of are removed."""
        return self.treatment == "drop_ambiguous" or self.drop_ambiguous

    @property
    def promotes(self) -> bool:
        """Whether false negatives become positives."""
        return self.treatment in ("relabel", "drop_ambiguous")


@dataclass(frozen=True)
class _Rows:
    """The tables of the training queries before any edit.

    pool: candidates with state, score, who decided (`because`), and whether they are `picked` as negatives. Candidates
        with the text of a labelled positive are not in it.
    picks: the rows of the pool that are picked.
    reserve: the rows of the pool that mining would have picked next, in this order.
    contradictions: picked candidates with the text of a labelled positive.
    """

    queries: pl.DataFrame
    labelled: pl.DataFrame
    pool: pl.DataFrame
    picks: pl.DataFrame
    reserve: pl.DataFrame
    contradictions: pl.DataFrame


@dataclass(frozen=True)
class _Plan:
    """What a treatment does: queries it drops, and rows of the pool that it promotes to positives or removes."""

    dropped: pl.DataFrame  # with `reason`
    promoted: pl.DataFrame
    removed: pl.DataFrame  # with `because`


def treat(  # noqa: PLR0913 - one keyword per table
    config: TreatConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    candidates: pl.DataFrame,
    negatives: pl.DataFrame,
    reserve: pl.DataFrame,
    decisions: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Build the training instances of one treatment.

    `negatives` and `reserve` are candidates: those picked, and those that can replace one of them, by rank.

    Returns:
        instances: the positives are the labelled ones by doc_id, then the relabelled ones by falling score. The
            negatives are the kept ones by rank, then the refills in the order of the reserve; there may be none.
        edits: one row per pair that was promoted, removed, or dropped with its query.
        rejects: queries that are left out (`DROP_REASONS`), and cases that are only counted.

    Raises:
        ValueError: a candidate has no decision, or a negative is not a candidate.
    """
    rows = _read(
        config,
        queries=queries,
        positives=positives,
        candidates=candidates,
        negatives=negatives,
        reserve=reserve,
        decisions=decisions,
    )
    plan = _plan(config, rows)
    kept, row_negatives = _without_dropped(rows.queries, plan), _final_negatives(config, rows, plan)
    if config.no_negatives == "drop":
        bare = kept.join(row_negatives, on=_QUERY, how="anti").select(*_QUERY, reason=pl.lit(NO_NEGATIVES))
        plan = replace(plan, dropped=pl.concat([plan.dropped, bare]))
    instances = _instances(config, _without_dropped(kept, plan), _final_positives(rows, plan), row_negatives)
    return {
        "instances": instances,
        "edits": _edits(rows, plan),
        "rejects": _rejects(rows, plan, instances, row_negatives),
    }


def _read(  # noqa: PLR0913 - one keyword per table
    config: TreatConfig,
    *,
    queries: pl.DataFrame,
    positives: pl.DataFrame,
    candidates: pl.DataFrame,
    negatives: pl.DataFrame,
    reserve: pl.DataFrame,
    decisions: pl.DataFrame,
) -> _Rows:
    """Keep the training queries, join the decisions, and take out negatives with the text of a labelled positive."""
    train = queries.filter(pl.col("split") == "train")
    labelled = positives.join(train, on=_QUERY, how="semi")
    pool = candidates.join(train, on=_QUERY, how="semi").join(
        decisions.select(*_PAIR, state=decided_state(config.relevant_from), decided="score", because=_because()),
        on=_PAIR,
        how="left",
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
        reserve=_in_order(reserve, clean),
        contradictions=pool.filter("picked").join(labelled, on=_TEXT, how="semi"),
    )


def _in_order(reserve: pl.DataFrame, pool: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the pool that are in the reserve, in its order."""
    order = reserve.select(*_PAIR, place="rank").sort(*_QUERY, "place")
    return order.join(pool, on=_PAIR, maintain_order="left").select(pool.columns)


def decided_state(relevant_from: float | None) -> pl.Expr:
    """Return the state of each decision, by a threshold of its score where there is one."""
    if relevant_from is None:
        return pl.col("state")
    settled = pl.col("judge").str.starts_with(f"{HUMAN_JUDGE}:") | (pl.col("state") == "unparsed")
    return (
        pl.when(settled | pl.col("score").is_null())
        .then("state")
        .when(pl.col("score") >= relevant_from)
        .then(pl.lit("relevant"))
        .when(pl.col("state") == "relevant")
        .then(pl.lit("unsure"))
        .otherwise("state")
    )


def _because() -> pl.Expr:
    """Return who decided: "judge" or "human"."""
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
        reason, promoted = AMBIGUOUS, distinct if config.promotes else nothing
    hit = hit.join(unlabelled, on=_QUERY, how="anti").select(*_QUERY, reason=pl.lit(reason))
    return _Plan(pl.concat([unlabelled, hit]), promoted, _removed(config, rows, false_picks, promoted))


def _removed(config: TreatConfig, rows: _Rows, false_picks: pl.DataFrame, promoted: pl.DataFrame) -> pl.DataFrame:
    """Return the picks that are removed without becoming positives; `because` says who decided that."""
    copies = rows.picks.join(promoted, on=_TEXT, how="semi").join(promoted, on=_PAIR, how="anti")
    frames = [
        copies.with_columns(because=pl.lit("rule")),
        false_picks.join(promoted, on=_TEXT, how="anti"),
    ]
    if config.removes_unsure:
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
    """Return the picks that stay, and the refills from the reserve.

    The reserve holds what mining could have picked: no margin or bound of its settings excludes it.
    """
    gone = pl.concat([frame.select(_PAIR) for frame in (plan.promoted, plan.removed)])
    kept = rows.picks.join(gone, on=_PAIR, how="anti", maintain_order="left")
    if not config.refill or config.treatment == "default":
        return kept
    states = ["not_relevant", "unsure"] if config.refill_unsure and not config.removes_unsure else ["not_relevant"]
    missing = rows.picks.join(gone, on=_PAIR, how="semi").group_by(_QUERY).agg(missing=pl.len())
    spare = (
        rows.reserve.filter(pl.col("state").is_in(states))
        .join(kept, on=_TEXT, how="anti", maintain_order="left")
        .join(plan.promoted, on=_TEXT, how="anti", maintain_order="left")
        .unique(_TEXT, keep="first", maintain_order=True)
        .join(missing, on=_QUERY, maintain_order="left")
    )
    refills = spare.filter(pl.int_range(pl.len()).over(_QUERY) < pl.col("missing")).select(kept.columns)
    return pl.concat([kept, refills]).sort(*_QUERY, "picked", descending=[False, False, True], maintain_order=True)


def _instances(
    config: TreatConfig, kept: pl.DataFrame, positives: pl.DataFrame, negatives: pl.DataFrame
) -> pl.DataFrame:
    """Build one row per kept query. Positives and negatives keep the order of the two tables."""
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
    """Return one row per pair that the treatment changed."""
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
    bare = instances.filter(left == 0)
    fewer = instances.join(picked, on=_QUERY).filter(left > 0, left < pl.col("picked"))
    unparsed = negatives.filter(pl.col("state") == "unparsed").join(instances, on=_QUERY, how="semi")
    frames = [
        _reject(dropped, _QUERY, pl.col("reason"), pl.format("{} false negatives in the pool", "false")),
        _reject(bare, _QUERY, pl.lit(KEPT_WITHOUT_NEGATIVES), pl.lit("trained on with the negatives of its batch")),
        _reject(fewer, _QUERY, pl.lit(FEW_NEGATIVES), pl.format("{} of {} left after the edits", left, "picked")),
        _reject(unparsed, _PAIR, pl.lit(UNPARSED_KEPT), pl.lit("kept as a negative without a verdict")),
        _reject(rows.contradictions, _PAIR, pl.lit(NEGATIVE_IS_POSITIVE), pl.lit("text of a labelled positive")),
    ]
    return pl.concat([REJECTS.empty(), *frames]).sort("reason", "key")


def _reject(rows: pl.DataFrame, key: list[str], reason: pl.Expr, detail: pl.Expr) -> pl.DataFrame:
    return rows.select(stage=pl.lit(STAGE), key=pl.concat_str(key, separator="/"), reason=reason, detail=detail)
