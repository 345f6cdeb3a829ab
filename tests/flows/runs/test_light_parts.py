"""Parts that need no engine, computed in this process."""

from pathlib import Path

import polars as pl
import pytest

from flows import stages as st
from flows.runs.light_parts import LightParts
from infra.engines.specs import SentenceTransformersSpec
from infra.stages.runner import Runner
from infra.storage.store import Store
from tasks import schemas
from tasks.mining.encode import EncodeConfig
from tasks.verdicts.complete import CompleteConfig, TallyConfig
from tasks.verdicts.escalate import AdmitConfig

DECISION = ("d", "q", "a", "cascade", "j", "unparsed", None, None, None, None, 1)


def light(folder: Path) -> Runner:
    store = Store.open(str(folder / "store"))
    return Runner(store, LightParts(store, folder / "scratch"))


def test_a_part_is_computed_once_and_found_again(tmp_path: Path) -> None:
    run = light(tmp_path)
    candidates = run.keep_table("candidates", schemas.CANDIDATES.empty(), schemas.CANDIDATES)
    for _ in range(2):
        run(st.ADMIT, AdmitConfig(), candidates=candidates)
    assert [(done.computed, done.reused) for done in run.runs] == [(1, 0), (0, 1)]


def test_a_part_whose_stage_refuses_its_input_has_failed_with_the_reason(tmp_path: Path) -> None:
    run = light(tmp_path)
    frame = pl.DataFrame([DECISION], schema=schemas.VERDICTS.columns, orient="row")
    decisions = run.keep_table("decisions", frame, schemas.VERDICTS)
    run(st.COMPLETE, CompleteConfig(), tally=run(st.TALLY, TallyConfig(), decisions=decisions)["tally"])
    assert "1 of 1 pairs unparsed" in run.runs[-1].failed[0]


def test_a_part_that_needs_an_engine_is_refused(tmp_path: Path) -> None:
    run = light(tmp_path)
    queries = run.keep_table("queries", schemas.QUERIES.empty(), schemas.QUERIES)
    with pytest.raises(ValueError, match="a stage without an engine expected"):
        run(st.ENCODE_QUERIES, EncodeConfig(), engine=SentenceTransformersSpec(model="", digest="x"), queries=queries)
