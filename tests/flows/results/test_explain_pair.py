"""Why a pair was decided as it was."""

from pathlib import Path

import pytest

from flows.config.section import ConfigError
from flows.results.explain_pair import PairExplained, explain_pair
from tests.flows.nightly import Nights, sources
from tests.flows.runs.test_calibrate_curation import calibrate, label_all, table


def test_a_pair_is_explained_by_features_answers_p_and_thresholds(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 12)
    plain = nights.curate(source).curation
    before = explain_pair(nights.workspace, plain, "q0", "otter-forest")
    assert before.p == {}
    assert [one["tier"] for one in before.verdicts] == ["similarity", "llm"]
    label_all(nights, plain)
    calibrate(nights, plain)
    curation = nights.curate(source, calibration="latest", decide={"f1": True}).curation
    found = explain_pair(nights.workspace, curation, "q0", "otter-forest", "animals")
    assert set(found.p) == {"similarity", "llm"}
    decisions = table(nights, curation, "combine-llm", "combined").filter(query_id="q0", doc_id="otter-forest")
    assert found.p["llm"] == decisions["score"].item()
    lines = found.lines()
    assert lines[0] == "animals: query q0, passage otter-forest"
    assert lines[1].startswith("known: to_query 0.")
    assert any(line.startswith("P(relevant) after llm: 0.") for line in lines)
    assert lines[-1].startswith("decided: ")
    assert f"relevant from {found.thresholds['relevant_from']:.4g}" in lines[-1]
    with pytest.raises(ConfigError, match="passage 'nothing' is no candidate of query 'q0'"):
        explain_pair(nights.workspace, curation, "q0", "nothing")


def test_the_score_of_a_reranker_is_shown_beside_the_verdicts() -> None:
    found = PairExplained(
        dataset="animals",
        query_id="q0",
        doc_id="otter-forest",
        features={"rank": 2},
        verdicts=({"tier": "llm", "judge": "j", "state": "relevant", "score": 0.75, "grade": None},),
        decision={"state": "relevant", "score": 0.5, "judge": "j"},
        thresholds={"relevant_from": 0.5, "not_relevant_below": 0.5},
        rescored=({"retriever": "dense", "rank": 2, "score": 0.25},),
    )
    assert found.lines()[2:4] == ["rescored, for picking negatives: 0.25", "llm said relevant, score 0.75"]
