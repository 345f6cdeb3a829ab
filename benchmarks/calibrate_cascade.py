"""Fit the fusion of similarity and LLM scores on a finished curation whose false negatives are known.

    reneg curate benchmarks/demo_dev.yaml
    python -m benchmarks.calibrate_cascade demo-dev-000001

Fits P(known false negative) by logistic regression on the two log-odds, on the pairs that both tiers judged. Writes
weights, counts and the AUC of the tiers to benchmarks/results/calibrate_cascade.json. Relevant pairs without a label
count as negatives here, so the fitted probabilities are too low. Only the ranking is used.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from flows.curation.lookup import look_at
from flows.curation.records import load_curation
from flows.curation.workspace import Workspace
from infra.settings import read_settings
from infra.storage.artifacts import Piece, Table, read_table

PAIR = ["dataset", "query_id", "doc_id"]
RESULT = Path(__file__).parent / "results" / "calibrate_cascade.json"


def logit(values: pl.Series) -> np.ndarray:
    clipped = np.clip(values.to_numpy(), 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curation", help="id of a finished curation with known false negatives")
    curation = parser.parse_args().curation
    workspace = Workspace.open(read_settings(), write=False)
    _, runs = look_at(workspace, load_curation(workspace.store, curation))

    def table(stage: str, name: str) -> pl.DataFrame:
        manifests = next(run for run in runs if run.name == stage).manifests
        pieces: tuple[Piece, ...] = tuple(piece for m in manifests for piece in m.tables[name])
        return read_table(workspace.store, Table(name, pieces))

    known = table("ingest", "known").with_columns(known=pl.lit(1))
    similarity = table("judge_similarity", "verdicts").select(*PAIR, similarity="score")
    llm = table("judge-llm", "verdicts").select(*PAIR, llm="score").drop_nulls()
    pairs = (
        llm.join(similarity, on=PAIR)
        .join(known, on=PAIR, how="left")
        .with_columns(pl.col("known").fill_null(0))
        .sort(PAIR)
    )
    features = np.column_stack([logit(pairs["similarity"]), logit(pairs["llm"])])
    labels, groups = pairs["known"].to_numpy(), pairs["query_id"].to_numpy()
    model = LogisticRegression()
    folds = cross_val_predict(model, features, labels, cv=GroupKFold(5), groups=groups, method="decision_function")
    model.fit(features, labels)
    result = {
        "command": f"python -m benchmarks.calibrate_cascade {curation}",
        "pairs": pairs.height,
        "known": int(labels.sum()),
        "queries": int(pairs["query_id"].n_unique()),
        "weights": {
            "similarity": round(float(model.coef_[0][0]), 3),
            "llm": round(float(model.coef_[0][1]), 3),
        },
        "bias": round(float(model.intercept_[0]), 3),
        "auc": {
            "similarity": round(float(roc_auc_score(labels, features[:, 0])), 4),
            "llm": round(float(roc_auc_score(labels, features[:, 1])), 4),
            "fusion, held-out queries": round(float(roc_auc_score(labels, folds)), 4),
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
