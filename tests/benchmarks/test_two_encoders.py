"""Two encoders with different cosine floors, each calibrated."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.two_encoders import compare, score, write_raised
from tasks.schemas import FEATURES
from tests.tasks.verdicts.fitting.pairs import make_pairs
from tests.tasks.verdicts.judged import verdicts

COSINES = ["to_query", "to_positive", "to_positives", "positive_to_query"]


def raised(pairs: pl.DataFrame, floor: float) -> pl.DataFrame:
    """The same pairs under an encoder that gives unrelated texts this cosine."""
    return pairs.with_columns(pl.col(name) * (1 - floor) + floor for name in COSINES)


def scored(pairs: pl.DataFrame) -> pl.DataFrame:
    weights = 1 / (1 + (-(1.82 * pl.col("to_query") + 5.27 * pl.col("to_positive") - 4.5)).exp())
    fixed = pairs.select("dataset", "query_id", "doc_id", score=weights)
    said = verdicts([(q, d, "unsure", s) for _, q, d, s in fixed.iter_rows()])
    grades = pairs.select("query_id", "doc_id", "relevant")
    return score(pairs.select(*FEATURES.columns), said, grades)


def test_calibrated_decisions_are_the_same_where_fixed_weights_call_everything_relevant() -> None:
    pairs = make_pairs(queries=60, per_query=12)
    found = compare(*(scored(raised(pairs, floor)) for floor in (0.0, 0.85)), draws=200)
    plain, high = found["encoders"]
    assert high["fixed_weights"]["called_relevant"] > 0.95 and high["fixed_weights"]["kappa"] < 0.05
    assert plain["kappa"] > 0.3
    assert abs(found["kappa_difference"]["value"]) <= 0.05
    low, up = found["kappa_difference"]["interval"]
    assert -0.1 < low <= up < 0.1
    assert high["cosine_to_query"]["1%"] > 0.85


def test_other_pairs_cannot_be_compared() -> None:
    one = scored(make_pairs(queries=12))
    with pytest.raises(ValueError, match="the same pairs and labels expected"):
        compare(one, one.head(10))


@pytest.mark.slow
def test_the_raised_encoder_loads_in_our_engine_and_its_cosines_are_those_of_the_first_raised(tmp_path: Path) -> None:
    from infra.engines.encoder import EncoderEngine
    from infra.engines.specs import SentenceTransformersSpec
    from infra.models.resolve import resolve

    model = resolve("tiny:encoder", Path(os.environ["RENEG_TEST_CACHE"])).path
    write_raised(model, tmp_path / "raised", floor=0.85, before=0.0)
    cosines = []
    for folder in (model, tmp_path / "raised"):
        engine = EncoderEngine(
            SentenceTransformersSpec(model=str(folder), digest="test", device="cpu", max_seq_length=32)
        )
        vectors = engine.encode(["a red fox", "two green apples", "the moon"], "query").to_numpy().astype(np.float64)
        cosines.append(vectors @ vectors.T)
        engine.close()
    np.testing.assert_allclose(cosines[1], 0.85 + 0.15 * cosines[0], atol=1e-4)
