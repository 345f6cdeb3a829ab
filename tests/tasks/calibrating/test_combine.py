"""P(relevant) of every pair after the tiers so far."""

from functools import cache
from pathlib import Path

import polars as pl
import pytest

from tasks.calibrating.combine import FILE, CombineStageConfig, combine
from tasks.schemas import FEATURES, VERDICTS
from tasks.verdicts.calibration import Calibration, Origin, calibrate
from tasks.verdicts.combiner import CombineConfig
from tests.tasks.verdicts.fitting.pairs import labels_of, make_pairs

PAIRS = make_pairs(queries=30)
FEATURES_OF_ALL = PAIRS.select(*FEATURES.columns)


@cache
def fitted() -> Calibration:
    return calibrate(CombineConfig(tiers=("weak", "strong")), wide=PAIRS, labels=labels_of(PAIRS), origin=Origin())


def verdicts(tier: str, pairs: pl.DataFrame, state: str = "unsure") -> pl.DataFrame:
    score = pl.col(f"score_{tier}") if state != "unparsed" else pl.lit(None, dtype=pl.Float64)
    made = pairs.select(
        "dataset", "query_id", "doc_id", tier=pl.lit(tier), judge=pl.lit(f"{tier}-judge"), state=pl.lit(state),
        score=score, grade=None, preference=None, call_id=pl.lit("call"), attempt=pl.lit(1),
    )  # fmt: skip
    return made.select(pl.col(name).cast(dtype) for name, dtype in VERDICTS.columns.items())


def combined(tmp_path: Path, said: pl.DataFrame, tiers: tuple[str, ...], **band: float) -> pl.DataFrame:
    (tmp_path / FILE).write_text(fitted().model_dump_json())
    config = CombineStageConfig(tiers=tiers, **band)
    found = combine(config, features=FEATURES_OF_ALL, llm_verdicts=said, calibration=tmp_path)["combined"]
    assert dict(found.schema) == VERDICTS.columns
    assert found.select("dataset", "query_id", "doc_id").equals(
        PAIRS.select("dataset", "query_id", "doc_id").sort(pl.all())
    )
    return found


def test_every_pair_has_p_after_similarity_alone_and_a_better_one_after_each_tier(tmp_path: Path) -> None:
    truth = PAIRS.sort("dataset", "query_id", "doc_id")["relevant"]
    both = pl.concat([verdicts("weak", PAIRS), verdicts("strong", PAIRS)])
    errors = [
        float(((combined(tmp_path, both, tiers)["score"] - truth.cast(pl.Float64)) ** 2).mean())  # type: ignore[arg-type]
        for tiers in ((), ("weak",), ("weak", "strong"))
    ]
    assert errors[0] > errors[1] > errors[2]
    found = combined(tmp_path, both, ("weak", "strong"))
    assert found.select("tier", "judge", "call_id").unique().rows() == [
        ("combined", f"calibration-{fitted().digest[:8]}", None)
    ]
    assert found["score"].is_between(0, 1, closed="none").all()


def test_pairs_in_the_band_are_open_and_without_a_band_all_are(tmp_path: Path) -> None:
    none = VERDICTS.empty()
    assert set(combined(tmp_path, none, ())["state"]) == {"unsure"}
    found = combined(tmp_path, none, (), lower=0.3, upper=0.6)
    states = {state: frame["score"] for (state,), frame in found.partition_by("state", as_dict=True).items()}
    assert set(states) == {"relevant", "unsure", "not_relevant"}
    assert states["not_relevant"].max() < 0.3 <= states["unsure"].min()  # type: ignore[operator]
    assert states["unsure"].max() <= 0.6 < states["relevant"].min()  # type: ignore[operator]
    with pytest.raises(ValueError, match="lower and upper come together"):
        CombineStageConfig(lower=0.3)


def test_a_pair_whose_last_answer_could_not_be_read_has_no_score_until_a_later_tier_answers(tmp_path: Path) -> None:
    one, rest = PAIRS.head(1), PAIRS.slice(1)
    weak = pl.concat([verdicts("weak", one, "unparsed"), verdicts("weak", rest)])
    doc = one["doc_id"].item()
    found = combined(tmp_path, weak, ("weak",)).filter(doc_id=doc)
    assert found.select("state", "score").row(0) == ("unparsed", None)
    later = pl.concat([weak, verdicts("strong", one)])
    found = combined(tmp_path, later, ("weak", "strong")).filter(doc_id=doc)
    assert found["state"].item() == "unsure"
    assert found["score"].item() is not None
