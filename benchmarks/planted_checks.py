"""How far the results of `benchmarks.planted` carry: shared passages, other contrasts, the reranker's figures.

Queries that share relevant passages are no independent samples. So there are also intervals whose clusters are queries
that share passages.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import mannwhitneyu

from benchmarks.planted_data import Collection, Planted
from benchmarks.planted_summary import BASELINE, comparisons, difference

SHARED = 0.5  # of the relevant passages of the query that has fewer of them
# What a treatment is compared with besides `default`: the one that differs from it in one step.
CONTRASTS = (
    ("relabel_oracle", "remove_hn_oracle"),
    ("relabel_judges", "remove_hn"),
    ("relabel_judges", "random_removal"),
    ("relabel_judges", "relabel_random"),
    ("relabel_judges", "relabel_right"),
    ("relabel_judges", "relabel_wrong"),
    ("relabel_right_remove_wrong", "relabel_right"),
    ("relabel_judges", "relabel_oracle"),
    ("relabel_random", "random_removal"),
    ("remove_hn", "random_removal"),
    ("distillation", "kl_labels"),
    ("soft_labels", "kl_labels"),
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
        if row["name"] != BASELINE
        and (found := difference(scores, clusters, row["name"], comparisons(row["name"], others)))
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


def measure_teacher(planted: Planted, teacher: pl.DataFrame, limit: float = 0.5) -> dict[str, Any]:
    """Tell how well the reranker's scores tell what was planted from the other picked negatives."""
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
