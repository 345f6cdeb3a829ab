"""How far the results of `benchmarks.planted` carry: shared passages, other contrasts, rows with fewer negatives.

Folds are dealt by query, but queries of several folds share relevant passages. So a passage that is hidden among the
negatives of a training query may be what a test query looks for. Two checks show what that does: intervals whose
clusters are queries that share passages, and the difference by whether a test query's passages were hidden at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import mannwhitneyu

from benchmarks.planted_data import Collection, Planted
from benchmarks.planted_summary import BASELINE, difference

SHARED = 0.5  # of the relevant passages of the query that has fewer of them
# What a treatment is compared with besides `default`: the one that differs from it in one step.
CONTRASTS = (
    ("relabel_oracle", "remove_hn_oracle"),
    ("relabel_judges", "remove_hn"),
    ("relabel_judges", "random_removal"),
    ("remove_hn", "random_removal"),
)


def cluster_queries(collection: Collection, share: float = SHARED) -> pl.DataFrame:
    """Put queries together that share relevant passages, or a conversation: query_id, group.

    Two queries are in one cluster if they share at least `share` of the relevant passages of the one that has fewer,
    or over other queries for which that holds.
    """
    names = collection.queries["query_id"].sort().to_list()
    place = {name: number for number, name in enumerate(names)}
    sizes = dict(collection.qrels.group_by("query_id").len().iter_rows())
    own = collection.qrels.select("query_id", "doc_id")
    common = own.join(own, on="doc_id", suffix="_other").group_by("query_id", "query_id_other").len()
    edges = [
        (place[one], place[other])
        for one, other, count in common.iter_rows()
        if count >= share * min(sizes[one], sizes[other])
    ]
    groups = collection.groups.select("query_id", "group")
    same = groups.join(groups, on="group", suffix="_other")
    edges += [(place[one], place[other]) for one, other in same.select("query_id", "query_id_other").iter_rows()]
    rows, columns = np.array(edges).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(names), len(names)))
    _, found = connected_components(graph, directed=False)
    return pl.DataFrame({"query_id": names, "group": [str(one) for one in found]})


def with_shared(
    treatments: Sequence[Mapping[str, Any]], scores: pl.DataFrame, clusters: pl.DataFrame
) -> list[dict[str, Any]]:
    """Add to each treatment the interval whose clusters are queries that share passages."""
    others = sum(row["name"] != BASELINE for row in treatments)
    wanted = ("low", "high", "p_value", "excludes_zero")
    return [
        {**row, "by_shared_passages": {name: found[name] for name in wanted}}
        if row["name"] != BASELINE and (found := difference(scores, clusters, row["name"], others))
        else dict(row)
        for row in treatments
    ]


def contrasts(scores: pl.DataFrame, groups: pl.DataFrame, clusters: pl.DataFrame) -> list[dict[str, Any]]:
    """Compare pairs of treatments that differ in one step; 95% intervals, without a correction."""
    there = set(scores["treatment"])
    made = []
    for name, other in CONTRASTS:
        if {name, other} <= there:
            pair = scores.filter(pl.col("treatment").is_in([name, other])).with_columns(
                treatment=pl.col("treatment").replace({other: BASELINE})
            )
            by_query, shared = (difference(pair, one, name, 1) for one in (groups, clusters))
            interval = {"low": shared["low"], "high": shared["high"]}
            made.append({"name": name, "minus": other, **by_query, "by_shared_passages": interval})
    return made


def by_exposure(
    scores: pl.DataFrame, collection: Collection, planted: Planted, treatments: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the mean difference to the baseline for test queries by whether training hid any of their passages.

    Hidden in training means: planted among the negatives of a query of another fold. The standard error is over
    queries, whose seeds are averaged.
    """
    fold_of = collection.groups.select("query_id", "fold")
    hidden = planted.hidden.select("query_id", "doc_id").join(fold_of, on="query_id").select("doc_id", other="fold")
    seen = (
        collection.qrels.select("query_id", "doc_id")
        .join(fold_of, on="query_id")
        .join(hidden, on="doc_id")
        .filter(pl.col("fold") != pl.col("other"))["query_id"]
        .unique()
    )
    mean = scores.group_by("treatment", "query_id").agg(pl.col("value").mean())
    base = mean.filter(pl.col("treatment") == BASELINE).select("query_id", base="value")
    made = []
    for name in treatments:
        each = mean.filter(pl.col("treatment") == name).join(base, on="query_id")
        row: dict[str, Any] = {"name": name}
        for label, is_seen in (("none_hidden", False), ("some_hidden", True)):
            part = each.filter(pl.col("query_id").is_in(seen.implode()) == is_seen)
            values = (part["value"] - part["base"]).to_numpy()
            error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
            row[label] = {
                "queries": len(values),
                "difference": round(float(values.mean()), 5) if len(values) else None,
                "standard_error": None if error is None else round(error, 5),
            }
        made.append(row)
    return made


def measure_teacher(planted: Planted, teacher: pl.DataFrame, limit: float = 0.5) -> dict[str, Any]:
    """Tell how well the cross-encoder's scores tell what was planted from the other picked negatives."""
    pair = ["query_id", "doc_id"]
    scored = planted.negatives.select(pair).join(teacher.select(*pair, "score"), on=pair)
    hidden = scored.join(planted.hidden.select(pair), on=pair, how="semi")
    others = scored.join(planted.hidden.select(pair), on=pair, how="anti")
    called = scored.filter(pl.col("score") >= limit).height
    found = hidden.filter(pl.col("score") >= limit).height
    pairs = max(hidden.height * others.height, 1)
    statistic = mannwhitneyu(hidden["score"], others["score"]).statistic if hidden.height and others.height else 0.0
    return {
        "called_relevant": called,
        "recall_of_planted": round(found / max(hidden.height, 1), 4),
        "precision_on_planted": round(found / max(called, 1), 4),
        "auc": round(float(statistic) / pairs, 4),
    }
