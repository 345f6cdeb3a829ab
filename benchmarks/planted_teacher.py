"""Fit the reranker of `benchmarks.planted`, and score pairs with it.

    python -m benchmarks.planted_teacher --folder FOLDER [--data ../shared/data]

It stands for the cross-encoder of three baselines: the relabelling by a cross-encoder, TopK-PercPos, and distillation.
It is no cross-encoder: none can be had from a package index, and one that was trained here on TREC DL 2019 was no
better than chance on these collections. It is a logistic regression on two features of a query and a passage: the
cosine of MiniLM, and the share of the query's words that the passage has, each word by how rare it is. As a
cross-encoder it sees no known positive. The one for a collection is fitted on the picked negatives of the other
collection, with what was planted there as the relevant ones; it reads no label of the collection that it scores.
"""

import argparse
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.planted_data import COLLECTIONS, Collection, Planted
from benchmarks.planted_judges import FEATURES, other_of
from benchmarks.planted_setup import prepare
from tasks.schemas import TEACHER
from tasks.texts import show_passage

_PAIR = ["dataset", "query_id", "doc_id"]


def path_of(folder: Path, name: str) -> Path:
    """Name the file with the scores of a collection."""
    return folder / name / "teacher.parquet"


def pairs_of(collection: Collection, planted: Planted, features: pl.DataFrame) -> pl.DataFrame:
    """Return the features of the candidates and of the labelled positives: the pair, cosine, words.

    features: FEATURES of the candidates; each query has one labelled positive.
    """
    near = features.select(*_PAIR, cosine="to_query")
    own = features.select("dataset", "query_id", cosine="positive_to_query").unique(["dataset", "query_id"])
    known = planted.positives.select(_PAIR).join(own, on=["dataset", "query_id"])
    pairs = pl.concat([near, known]).sort(_PAIR)
    return pairs.with_columns(words=pl.Series(_shared_words(collection, pairs)))


def _shared_words(collection: Collection, pairs: pl.DataFrame) -> list[float]:
    """Return for each pair the share of the query's words that the passage has; a rare word counts for more."""
    words = {
        doc: frozenset(show_passage(title, text).lower().split())
        for doc, title, text in collection.passages.select("doc_id", "title", "text").iter_rows()
    }
    asked = {query: frozenset(text.lower().split()) for query, text in collection.queries["query_id", "text"].rows()}
    counts = Counter(word for one in words.values() for word in one)
    rare = {word: math.log((len(words) + 1) / (counts[word] + 0.5)) for one in asked.values() for word in one}
    total = {query: sum(rare[word] for word in one) for query, one in asked.items()}
    return [
        sum(rare[word] for word in asked[query] & words[doc]) / total[query]
        for query, doc in pairs["query_id", "doc_id"].rows()
    ]


def fit(pairs: pl.DataFrame, planted: Planted) -> Any:
    """Fit the reranker on the picked negatives of a collection, those that were planted being relevant."""
    from sklearn.linear_model import LogisticRegression

    picked = pairs.join(planted.negatives, on=_PAIR, how="semi").join(
        planted.hidden.select("query_id", "doc_id", is_hidden=pl.lit(1)), on=["query_id", "doc_id"], how="left"
    )
    return LogisticRegression(C=100.0).fit(_inputs(picked), picked["is_hidden"].fill_null(0).to_numpy())


def score(model: Any, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return P(relevant) of each pair: TEACHER."""
    return pairs.with_columns(score=pl.Series(model.predict_proba(_inputs(pairs))[:, 1])).select(*TEACHER.columns)


def _inputs(pairs: pl.DataFrame) -> npt.NDArray[np.float64]:
    return pairs.select("cosine", "words").to_numpy()


def main() -> int:
    """Fit a reranker on each collection, and score the other one with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the collections")
    arguments = parser.parse_args()
    read, models = {}, {}
    for name in COLLECTIONS:
        collection, planted, _ = prepare(arguments.folder, arguments.data, name)
        read[name] = pairs_of(collection, planted, pl.read_parquet(arguments.folder / name / FEATURES))
        models[name] = fit(read[name], planted)
        print(name, "fitted:", models[name].coef_[0].round(2), models[name].intercept_.round(2), flush=True)
    for name in COLLECTIONS:
        score(models[other_of(name)], read[name]).write_parquet(path_of(arguments.folder, name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
