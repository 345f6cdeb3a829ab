"""Labels from the data itself."""

import numpy as np
import polars as pl
import pytest

from tasks.schemas import FEATURES, POSITIVES, QUERIES
from tasks.verdicts.calibration import DATA, Origin, calibrate
from tasks.verdicts.combiner import CombineConfig
from tasks.verdicts.fitting.from_data import TRUST, FromDataConfig, labels_from_data


def collection(queries: int, floor: float, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Queries with 1 to 3 positives near them; all vectors share a direction, so unrelated cosines are `floor`."""
    rng = np.random.default_rng(seed)

    def vectors(names: list[str], near: np.ndarray) -> pl.DataFrame:
        own = near / np.linalg.norm(near, axis=1, keepdims=True) * np.sqrt(1 - floor)
        full = np.column_stack([np.full(len(own), np.sqrt(floor)), own]).astype(np.float32)
        return pl.DataFrame({"text_hash": names, "vector": pl.Series(full, dtype=pl.Array(pl.Float32, full.shape[1]))})

    topics = rng.normal(size=(queries, 32))
    owner = np.repeat(np.arange(queries), 1 + np.arange(queries) % 3)
    docs = [f"p{n}" for n in range(len(owner))]
    asked = pl.DataFrame(
        [("d", f"q{n}", f"text {n}", f"hq{n}", "train") for n in range(queries)], schema=QUERIES.columns, orient="row"
    )
    labelled = pl.DataFrame(
        [("d", f"q{n}", doc, doc, doc, doc, "source") for n, doc in zip(owner, docs, strict=True)],
        schema=POSITIVES.columns,
        orient="row",
    )
    return {
        "queries": asked,
        "positives": labelled,
        "query_embeddings": vectors([f"hq{n}" for n in range(queries)], topics),
        "passage_embeddings": vectors(docs, topics[owner] + rng.normal(size=(len(owner), 32))),
    }


def test_one_positive_is_left_out_and_the_features_are_those_of_the_others() -> None:
    data = collection(30, floor=0.0)
    made = labels_from_data(FromDataConfig(others=4), **data)
    features, labels = made["features"], made["labels"]
    assert dict(features.schema) == FEATURES.columns
    assert labels["query_id"].n_unique() == 20  # every third query has one positive only
    assert labels.group_by("query_id").agg(pl.col("relevant").sum())["relevant"].unique().to_list() == [1]
    assert labels.height == 20 * 5 and features["rank"].null_count() == features.height
    assert features["to_positive"].max() < 0.999  # type: ignore[operator] - a passage is not compared with itself
    joined = features.join(labels, on=["dataset", "query_id", "doc_id"])
    counts = joined.group_by("query_id").agg(pl.col("positives").first())["positives"].to_list()
    assert sorted(set(counts)) == [1, 2]


def test_no_positive_of_the_query_counts_as_irrelevant_and_the_weights_give_the_assumed_share() -> None:
    data = collection(12, floor=0.0)
    made = labels_from_data(FromDataConfig(others=30, prevalence=0.2), **data)
    own = data["positives"].select("query_id", text_hash="text_hash")
    wrong = made["labels"].filter(~pl.col("relevant")).join(made["features"], on=["query_id", "doc_id"])
    assert wrong.height > 0 and wrong.join(own, on=["query_id", "text_hash"]).height == 0
    full = labels_from_data(FromDataConfig(others=4, prevalence=0.2), **data)["labels"]
    share = full.filter("relevant")["weight"].sum() / full["weight"].sum()
    assert share == pytest.approx(0.2)


def test_labels_are_seeded_and_few_queries_are_drawn_of_many() -> None:
    data = collection(30, floor=0.0)
    one, again, other = (labels_from_data(FromDataConfig(seed=s, most_queries=8), **data)["labels"] for s in (0, 0, 1))
    assert one.equals(again) and not one.equals(other)
    assert one["query_id"].n_unique() == 8


@pytest.mark.parametrize("floor", [0.0, 0.85])
def test_a_calibration_on_them_separates_whatever_the_encoder_gives_unrelated_texts(floor: float) -> None:
    """Cosines of 0.85 between unrelated texts made every pair relevant under one encoder's constants."""
    made = labels_from_data(FromDataConfig(), **collection(60, floor))
    found = calibrate(
        CombineConfig(within=False),
        wide=made["features"],
        labels=made["labels"],
        origin=Origin(labels_from=DATA, trust=TRUST),
    )
    assert found.separates and found.by_machine
    p = found.predict(made["features"])
    relevant = made["labels"]["relevant"]
    ordered = made["features"].select("query_id", "doc_id").equals(made["labels"].select("query_id", "doc_id"))
    assert ordered
    assert p.filter(relevant).mean() > 0.8 and p.filter(~relevant).mean() < 0.2  # type: ignore[operator]


def test_a_collection_with_one_positive_each_gives_no_labels() -> None:
    data = collection(3, floor=0.0)
    one = data["positives"].unique("query_id", keep="first", maintain_order=True)
    made = labels_from_data(FromDataConfig(), **{**data, "positives": one})
    assert made["labels"].height == 0 and made["features"].height == 0


def test_vectors_may_come_in_frames_with_those_of_other_texts() -> None:
    data = collection(30, floor=0.0)
    names = ("query_embeddings", "passage_embeddings")
    more = {name: pl.concat([data[name], data[name].with_columns(pl.col("text_hash") + " too")]) for name in names}
    whole = labels_from_data(FromDataConfig(most_queries=8), **data)
    in_frames = {name: more[name].iter_slices(7) for name in names}
    made = labels_from_data(FromDataConfig(most_queries=8), **(data | in_frames))
    assert all(frame.equals(whole[name]) for name, frame in made.items())
