"""Measure how well the similarity judge ranks relevant candidates above others, by grades of people (TREC DL 2019).

    python -m benchmarks.similarity_trec_dl19 --model PATH [--data ../shared/data/trec_dl19]

PATH is a sentence-transformers folder; the stored figures are for all-MiniLM-L6-v2. Only judged pairs are used;
relevant means grade 2 and above. The positive of a query is its grade-3 passage with the lowest doc_id in the qrels of
the collection, retrieved or not. Queries without one are left out. The other judged passages are the candidates. They
go through the same `adopt`, `encode` and `judge_similarity` as in a curation. `bm25` is the set on which the default
weights are fitted (`fit`). `splade` has the candidates of another retriever for the same queries. `folds` is the mean
AUC on test folds (5 folds of queries, drawn 20 times) when the weights are fitted on the other folds.
"""

import argparse
import gzip
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from tasks import schemas
from tasks.judging.similarity import SimilarityConfig, judge_similarity, similarity_features
from tasks.mining.adopt import AdoptConfig, adopt
from tasks.mining.encode import EncodeConfig, encode_passages, encode_queries
from tasks.mining.mine import score_pairs
from tasks.texts import hash_passage, hash_text

REQUIRED_AUC = 0.75
SETS = {"bm25": "candidates.jsonl.gz", "splade": "candidates.splade_pp_ed.jsonl.gz"}
DATASET = "trec_dl19"
RELEVANT_FROM = 2
PERFECT = 3
RESULTS = Path(__file__).parent / "results" / "similarity_trec_dl19.json"
SEED = 0

Floats = npt.NDArray[np.float64]
Tables = dict[str, pl.DataFrame]


class Model:
    """A sentence-transformers model as an `Encoder` of the method."""

    def __init__(self, path: Path) -> None:
        """Load the model; the results name it by its digest."""
        self.model = SentenceTransformer(str(path), device="cpu")
        self.digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"]) -> pl.Series:
        """Encode texts as unit vectors; this model has no prompts, so the role makes no difference."""
        vectors = self.model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))


def main() -> int:
    """Measure both sets, write the results, and fail if the required AUC is not reached."""
    parser = argparse.ArgumentParser(description="AUC of the similarity judge on TREC DL 2019")
    parser.add_argument("--model", type=Path, required=True, help="folder of a sentence-transformers model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/trec_dl19"), help="folder of the collection")
    arguments = parser.parse_args()
    model = Model(arguments.model)
    tables = {name: read_tables(arguments.data, file) for name, file in SETS.items()}
    passages = pl.concat([table["passages"] for table in tables.values()])
    queries = pl.concat([table["queries"] for table in tables.values()])
    embeddings = {
        "query_embeddings": encode_queries(EncodeConfig(), queries=queries, engine=model)["embeddings"],
        "passage_embeddings": encode_passages(EncodeConfig(), passages=passages, engine=model)["embeddings"],
    }
    sets = {name: measure(table, embeddings) for name, table in tables.items()}
    result = {
        "collection": DATASET,
        "model_sha256": model.digest,
        "config": SimilarityConfig().model_dump(),
        "required_auc": REQUIRED_AUC,
        "seed": SEED,
        "sets": sets,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(
        json.dumps({name: {key: found[key] for key in ("queries", "pairs", "judge")} for name, found in sets.items()})
    )
    return 0 if sets["bm25"]["judge"]["auc"] >= REQUIRED_AUC else 1


def read_tables(data: Path, file: str) -> Tables:
    """Read one file of candidates into the tables that `ingest` makes of rows with negatives, and their grades."""
    qrels = pl.read_csv(data / "qrels" / "test.tsv", separator="\t", new_columns=["query_id", "doc_id", "grade"]).cast(
        {"query_id": pl.String, "doc_id": pl.String}
    )
    perfect = qrels.filter(pl.col("grade") == PERFECT).sort(pl.col("doc_id").cast(pl.Int64))
    labelled = perfect.unique("query_id", keep="first", maintain_order=True)
    with gzip.open(data / "corpus.jsonl.gz", "rt") as lines:
        corpus = {row["_id"]: (row["title"], row["text"]) for row in map(json.loads, lines)}
    with gzip.open(data / file, "rt") as lines:
        rows = [row for row in map(json.loads, lines) if row["query_id"] in set(labelled["query_id"])]
    pairs = pl.DataFrame(
        [
            (row["query_id"], found["docid"], found["rank"], found["score"])
            for row in rows
            for found in row["candidates"]
        ],
        schema={"query_id": pl.String, "doc_id": pl.String, "rank": pl.Int32, "score": pl.Float64},
        orient="row",
    )
    judged = pairs.join(qrels, on=["query_id", "doc_id"]).join(labelled, on=["query_id", "doc_id"], how="anti")
    needed = sorted(set(judged["doc_id"]) | set(labelled["doc_id"]))
    passages = pl.DataFrame(
        [(DATASET, doc_id, *corpus[doc_id], hash_passage(*corpus[doc_id])) for doc_id in needed],
        schema=schemas.PASSAGES.columns,
        orient="row",
    )
    queries = [(DATASET, row["query_id"], row["query"], hash_text(row["query"]), "train") for row in rows]
    copies = {"shown_hash": pl.col("text_hash"), "guard_hash": pl.col("text_hash")}  # copies are no question here
    hashed = passages.select("dataset", "doc_id", "text_hash", **copies)
    return {
        "queries": pl.DataFrame(queries, schema=schemas.QUERIES.columns, orient="row"),
        "passages": passages,
        "positives": labelled.join(hashed, on="doc_id")
        .with_columns(source=pl.lit("qrels"))
        .select(*schemas.POSITIVES.columns),
        "given": judged.join(hashed, on="doc_id").select(*schemas.GIVEN.columns),
        "grades": judged.select("query_id", "doc_id", relevant=pl.col("grade") >= RELEVANT_FROM),
    }


def measure(tables: Tables, embeddings: Tables) -> dict[str, Any]:
    """Judge one set and compare the judge, its fit and other scores of the same vectors with the grades."""
    named = {name: tables[name] for name in ("given", "queries", "positives")}
    adopted = adopt(AdoptConfig(), **named, irrelevant=schemas.IRRELEVANT.empty())
    inputs = {"candidates": adopted["candidates"], "positives": tables["positives"], **embeddings}
    verdicts = judge_similarity(SimilarityConfig(), **inputs)["verdicts"]
    pairs = ["dataset", "query_id", "doc_id"]
    anchors = score_pairs(
        queries=adopted["candidates"].select("dataset", "query_id", "query_hash").unique(),
        pairs=tables["positives"],
        of="positives",
        **embeddings,
    ).select("query_id", anchor="score")
    table = (
        similarity_features(**inputs)
        .drop("score", "rank")
        .join(verdicts.select(*pairs, "score", "state"), on=pairs)
        .join(anchors, on="query_id")
        .join(tables["grades"], on=["query_id", "doc_id"])
        .sort(pairs)
    )
    relevant, queries = table["relevant"].to_numpy(), table["query_id"].to_numpy()
    score = table["score"].to_numpy()
    names = ["to_query", "to_positive"]
    fitted = LogisticRegression(C=np.inf, max_iter=1000).fit(table.select(names).to_numpy(), relevant)
    return {
        "queries": table["query_id"].n_unique(),
        "pairs": table.height,
        "relevant": int(relevant.sum()),
        "prevalence": round(float(relevant.mean()), 4),
        "judge": {**auc(score, relevant, queries), "brier": round(float(brier_score_loss(relevant, score)), 4)},
        "fit": {
            **dict(zip(["w_query", "w_positive"], fitted.coef_[0].round(4).tolist(), strict=True)),
            "bias": round(float(fitted.intercept_[0]), 4),
        },
        "states": count_states(table),
        "folds": {
            "to_query, to_positive": fold_auc(table.select(names).to_numpy(), relevant, queries),
            "to_query, to_positive, anchor": fold_auc(table.select(*names, "anchor").to_numpy(), relevant, queries),
        },
        "other_scores": {
            name: auc(table.select(value).to_series().to_numpy(), relevant, queries) for name, value in OTHERS.items()
        },
    }


def _within(column: str) -> pl.Expr:
    """Return a column as z-scores within the candidates of a query."""
    value = pl.col(column)
    return (value - value.mean().over("query_id")) / value.std().over("query_id")


_QUERY, _POSITIVE, _ANCHOR = pl.col("to_query"), pl.col("to_positive"), pl.col("anchor")
OTHERS = {
    "to_query": _QUERY,
    "to_positive": _POSITIVE,
    "sum": _QUERY + _POSITIVE,
    "larger": pl.max_horizontal("to_query", "to_positive"),
    "smaller": pl.min_horizontal("to_query", "to_positive"),
    "to_query - anchor": _QUERY - _ANCHOR,
    "cosine to query + positive": (_QUERY + _POSITIVE) / (2 + 2 * _ANCHOR).sqrt(),
    "sum of z-scores within the query": _within("to_query") + _within("to_positive"),
}


def auc(score: Floats, relevant: npt.NDArray[np.bool_], queries: npt.NDArray[Any]) -> dict[str, Any]:
    """Return AUC over all pairs and mean AUC within a query, with bootstrap intervals over queries (95%)."""
    groups = [np.flatnonzero(queries == query) for query in np.unique(queries)]
    within = [roc_auc_score(relevant[rows], score[rows]) for rows in groups if 0 < relevant[rows].sum() < len(rows)]
    rng = np.random.default_rng(SEED)
    drawn = (np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]) for _ in range(1000))
    pooled = [roc_auc_score(relevant[rows], score[rows]) for rows in drawn]
    means = rng.choice(within, (1000, len(within))).mean(axis=1)
    return {
        "auc": round(float(roc_auc_score(relevant, score)), 4),
        "interval": np.percentile(pooled, [2.5, 97.5]).round(4).tolist(),
        "within_query": round(float(np.mean(within)), 4),
        "within_query_interval": np.percentile(means, [2.5, 97.5]).round(4).tolist(),
        "queries_with_both": len(within),
    }


def fold_auc(features: Floats, relevant: npt.NDArray[np.bool_], queries: npt.NDArray[Any]) -> float:
    """Return the mean AUC on held-out folds of queries, each scored by a fit on the rest."""
    rng, found = np.random.default_rng(SEED), []
    for _ in range(20):
        order = rng.permutation(np.unique(queries))
        for fold in range(5):
            held_out = np.isin(queries, order[fold::5])
            fitted = LogisticRegression(C=np.inf, max_iter=1000).fit(features[~held_out], relevant[~held_out])
            found.append(roc_auc_score(relevant[held_out], fitted.decision_function(features[held_out])))
    return round(float(np.mean(found)), 4)


def count_states(table: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Count pairs and relevant pairs in each state of the judge."""
    counts = table.group_by("state").agg(pairs=pl.len(), relevant=pl.col("relevant").sum()).sort("state")
    return {state: {"pairs": pairs, "relevant": relevant} for state, pairs, relevant in counts.iter_rows()}


if __name__ == "__main__":
    sys.exit(main())
