"""Calibrate similarity for two encoders whose cosines of unrelated texts differ, and compare kappa with people.

    python -m benchmarks.two_encoders [--data ../shared/data/trec_dl19] [--model package:minilm] [--cache FOLDER]

The first encoder is MiniLM. The second is MiniLM followed by a Dense module that adds one constant component and by a
Normalize module, so that unrelated texts have a cosine of about 0.85, as some published encoders give. Both are loaded
by the encoder engine of curations. For each, similarity is calibrated on the grades of TREC DL 2019 (the pairs of
`benchmarks.judge_data`), and each pair is decided by a fit on other queries: relevant from P = 0.5. The difference of
kappa is paired by query, its interval draws queries (95%). Writes benchmarks/results/two_encoders.json.

`fixed_weights` is what the shipped weights of similarity, fitted for MiniLM, say with the former threshold of 0.8.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.cascade import confusion, interval, kappa
from benchmarks.judge_data import Collection, read_collection
from infra.engines.encoder import EncoderEngine
from infra.engines.specs import SentenceTransformersSpec
from infra.models.resolve import resolve
from infra.settings import read_settings
from tasks.judging.similarity import SimilarityConfig, judge_similarity
from tasks.mining.encode import EncodeConfig, encode_passages, encode_queries
from tasks.verdicts.combiner import CombineConfig, cross_fit
from tasks.verdicts.features import join_scores
from tasks.verdicts.fitting.figures import Scored, auc, draw_counts, ece
from tasks.verdicts.fitting.folds import Bools

RESULT = Path(__file__).parent / "results" / "two_encoders.json"
FLOOR = 0.85
MINILM_FLOOR = 0.05  # about the mean cosine of unrelated texts under MiniLM
DECIDED_FROM = 0.5
FORMER_THRESHOLD = 0.8
MOST_DIFFERENCE = 0.05
DRAWS = 1000
_PAIR = ["dataset", "query_id", "doc_id"]


def write_raised(model: Path, folder: Path, floor: float = FLOOR, before: float = MINILM_FLOOR) -> None:
    """Write an encoder whose cosines are (cos + c²) / (1 + c²), so that `before` becomes `floor`; standard modules."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    base = SentenceTransformer(str(model), device="cpu")
    width = int(base.get_embedding_dimension() or 0)
    constant = float(np.sqrt((floor - before) / (1 - floor)))
    dense = Dense(width, width + 1, bias=True, activation_function=torch.nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(torch.cat([torch.eye(width), torch.zeros(1, width)]))
        dense.linear.bias.copy_(torch.tensor([0.0] * width + [constant]))
    SentenceTransformer(modules=[*base, Normalize(), dense, Normalize()], device="cpu").save(str(folder))


def judge(collection: Collection, model: Path) -> pl.DataFrame:
    """Return the pairs with features, `score` by fixed weights, `relevant`, and `p` by fits on other queries."""
    spec = SentenceTransformersSpec(model=str(model), digest="benchmark", device="cpu", max_seq_length=128)
    engine = EncoderEngine(spec)
    found = judge_similarity(
        SimilarityConfig(),
        candidates=collection.candidates,
        positives=collection.positives,
        query_embeddings=encode_queries(EncodeConfig(), queries=collection.queries, engine=engine)["embeddings"],
        passage_embeddings=encode_passages(EncodeConfig(), passages=collection.passages, engine=engine)["embeddings"],
    )
    engine.close()
    return score(found["features"], found["verdicts"], collection.grades)


def score(features: pl.DataFrame, verdicts: pl.DataFrame, grades: pl.DataFrame) -> pl.DataFrame:
    """Calibrate and score every pair by a fit on other queries."""
    wide = join_scores(features, verdicts, ())
    labels = wide.select(_PAIR).join(grades, on=["query_id", "doc_id"])
    p = cross_fit(CombineConfig(), wide=wide, labels=labels).select(*_PAIR, "p")
    return wide.join(labels, on=_PAIR).join(p, on=_PAIR).join(verdicts.select(*_PAIR, "score"), on=_PAIR).sort(_PAIR)


def compare(first: pl.DataFrame, second: pl.DataFrame, draws: int = DRAWS) -> dict[str, Any]:
    """Return the figures of both, and the difference of kappa, paired by query."""
    relevant, query = first["relevant"].to_numpy(), first["query_id"].to_numpy()
    if not (first.select(_PAIR).equals(second.select(_PAIR)) and first["relevant"].equals(second["relevant"])):
        raise ValueError("two encoders: the same pairs and labels expected, got different ones")
    counts = draw_counts(query, 0, draws)
    cells = [_cells(frame["p"].to_numpy() >= DECIDED_FROM, relevant, query) for frame in (first, second)]
    values = [float(kappa(one.sum(axis=0)[None, :])[0]) for one in cells]
    drawn = [kappa(counts @ one) for one in cells]
    return {
        "pairs": first.height,
        "queries": first["query_id"].n_unique(),
        "encoders": [
            _figures(frame, value, interval(one))
            for frame, value, one in zip((first, second), values, drawn, strict=True)
        ],
        "kappa_difference": {
            "value": round(values[1] - values[0], 4),
            "interval": interval(drawn[1] - drawn[0]),
            "allowed": MOST_DIFFERENCE,
        },
    }


def _cells(called: Bools, relevant: Bools, query: np.ndarray) -> np.ndarray:
    return np.array([confusion(called[query == one], relevant[query == one]) for one in np.unique(query)])


def _figures(frame: pl.DataFrame, value: float, bounds: list[float]) -> dict[str, Any]:
    relevant = frame["relevant"].to_numpy()
    scored = Scored(frame["p"].to_numpy(), relevant, frame["query_id"].to_numpy(), np.ones(len(relevant)))
    fixed = frame["score"].to_numpy() >= FORMER_THRESHOLD
    low, middle = np.quantile(frame["to_query"].to_numpy(), [0.01, 0.5])
    return {
        "cosine_to_query": {"1%": round(float(low), 3), "median": round(float(middle), 3)},
        "kappa": round(value, 4),
        "kappa_interval": bounds,
        "auc": round(auc(scored), 4),
        "ece": round(ece(scored), 4),
        "brier": round(float(np.mean((scored.p - relevant) ** 2)), 4),
        "fixed_weights": {
            "called_relevant": round(float(fixed.mean()), 4),
            "kappa": round(float(kappa(confusion(fixed, relevant)[None, :])[0]), 4),
        },
    }


def reached(result: Mapping[str, Any]) -> bool:
    return bool(abs(result["kappa_difference"]["value"]) <= MOST_DIFFERENCE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/trec_dl19"), help="folder of the collection")
    parser.add_argument("--model", default="package:minilm", help="the first encoder")
    parser.add_argument("--cache", type=Path, default=None, help="cache of models; unset: the user's")
    asked = parser.parse_args()
    model = resolve(asked.model, asked.cache or read_settings().cache).path
    collection = read_collection(asked.data)
    with tempfile.TemporaryDirectory(prefix="reneg-encoder-") as folder:
        write_raised(model, Path(folder))
        found = compare(judge(collection, model), judge(collection, Path(folder)))
    result = {
        "command": "python -m benchmarks.two_encoders",
        "model": asked.model,
        "decided_from": DECIDED_FROM,
        **found,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    print("reached" if reached(result) else "MISSED")
    return 0 if reached(result) else 1


if __name__ == "__main__":
    sys.exit(main())
