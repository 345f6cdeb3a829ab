"""How far planted results carry: clusters by shared passages, contrasts, and the reranker's figures."""

import polars as pl

from benchmarks.planted_checks import cluster_queries, contrasts, measure_teacher, with_shared
from benchmarks.planted_data import Collection, Planted
from tasks import schemas

QRELS = {"a": ["1", "2"], "b": ["2"], "c": ["3", "4", "5", "6"], "d": ["6", "7", "8"], "e": ["9"]}
FOLDS = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}


def collection() -> Collection:
    queries = pl.DataFrame(
        [("x", one, one, one, "train") for one in QRELS], schema=schemas.QUERIES.columns, orient="row"
    )
    labels = [("x", one, doc, 1) for one, docs in QRELS.items() for doc in docs]
    qrels = pl.DataFrame(labels, schema=schemas.QRELS.columns, orient="row")
    rows = [(one, "d-e" if one in "de" else one, fold) for one, fold in FOLDS.items()]
    groups = pl.DataFrame(rows, schema={"query_id": pl.String, "group": pl.String, "fold": pl.Int64}, orient="row")
    return Collection("x", queries, schemas.PASSAGES.empty(), qrels, groups, groups.select("fold"), frozenset())


def planted() -> Planted:
    hidden = pl.DataFrame([("b", "2"), ("c", "6")], schema=["query_id", "doc_id"], orient="row")
    rows = [("x", "b", "2", "h2", 1), ("x", "b", "5", "h5", 2), ("x", "c", "6", "h6", 1), ("x", "c", "1", "h1", 2)]
    negatives = pl.DataFrame(rows, schema=schemas.NEGATIVES.columns, orient="row")
    empty = (schemas.POSITIVES.empty(), schemas.CANDIDATES.empty())
    return Planted(*empty, negatives, schemas.NEGATIVES.empty(), hidden)


def scores() -> pl.DataFrame:
    gains = {"default": 0.0, "relabel_oracle": 0.2, "remove_hn_oracle": 0.1}
    rows = [
        (name, query, seed, 0.5 + gain + number / 100 + seed / 1000 * (1 + gain))
        for name, gain in gains.items()
        for number, query in enumerate(QRELS)
        for seed in (1, 2, 3)
    ]
    return pl.DataFrame(rows, schema=["treatment", "query_id", "seed", "value"], orient="row")


def test_queries_that_share_half_of_their_passages_or_a_conversation_are_one_cluster() -> None:
    found = dict(cluster_queries(collection()).iter_rows())
    assert found["a"] == found["b"]  # all of b's passages are a's
    assert found["d"] == found["e"]  # one conversation
    assert found["c"] not in (found["a"], found["d"])  # one of three shared
    assert len(set(dict(cluster_queries(collection(), 0.3).iter_rows()).values())) == 2


def test_contrasts_and_shared_clusters_stand_beside_the_differences() -> None:
    groups = collection().groups.select("query_id", "group")
    clusters = cluster_queries(collection())
    (contrast,) = contrasts(scores(), groups, clusters)
    assert (contrast["name"], contrast["minus"]) == ("relabel_oracle", "remove_hn_oracle")
    assert abs(contrast["difference"] - 0.1) < 0.01
    rows = with_shared([{"name": "default"}, {"name": "relabel_oracle"}], scores(), clusters)
    assert "by_shared_passages" not in rows[0]
    assert rows[1]["by_shared_passages"]["low"] <= 0.2004 <= rows[1]["by_shared_passages"]["high"]


def test_a_reranker_is_measured_on_the_picked_negatives() -> None:
    rows = [("x", "b", "2", 0.9), ("x", "b", "5", 0.6), ("x", "c", "6", 0.2), ("x", "c", "1", 0.1)]
    teacher = pl.DataFrame(rows, schema=schemas.TEACHER.columns, orient="row")
    assert measure_teacher(planted(), teacher) == {
        "called_relevant": 2, "recall_of_planted": 0.5, "precision_on_planted": 0.5, "auc": 0.75,
    }  # fmt: skip
