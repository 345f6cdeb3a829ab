"""What the verdicts are worth, measured by labels of people."""

import io
import json

import polars as pl
import pytest

from flows.method.afterwards.validate import ValidateConfig, validate_method
from flows.method.curate import curate_method
from infra.stages.runner import Runner
from infra.storage.artifacts import read_table
from tasks.schemas import HUMAN
from tests.flows.trained import Place, keep_labels

pytestmark = pytest.mark.slow  # a model is trained, tiny as it is


def test_labels_of_the_sheet_say_what_the_verdicts_are_worth(curated: Place) -> None:
    look = Runner(curated.store)
    curate_method(look, curated.setup)
    tables = {name: table for r in look.runs for m in r.manifests for name, table in m.tables.items()}
    samples = pl.read_parquet(io.BytesIO(curated.store.get_object(tables["samples"][0].object)))
    pieces = [p for r in look.runs if r.name == "adopt" for m in r.manifests for p in m.tables["candidates"]]
    candidates = pl.concat(pl.read_parquet(io.BytesIO(curated.store.get_object(p.object))) for p in pieces)
    drawn = samples.join(candidates, on=["dataset", "query_id", "doc_id"])
    human = drawn.with_columns(
        annotator=pl.lit("ada"),
        label=pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("relevant")).otherwise(pl.lit("not_relevant")),
        at=pl.lit("2026-01-01T00:00:00Z"),
        curation=pl.lit(""),
        comment=pl.lit(""),
    ).select(*HUMAN.columns)
    few, _ = curated.runner()
    keep_labels(curated.store, human.head(3))
    validate_method(few, curated.setup, ValidateConfig(min_labels=10))
    assert "at least 10 sampled pairs expected, 3 came" in few.runs[-1].failed[0]
    keep_labels(curated.store, human)
    run, _ = curated.runner()
    outcome = validate_method(run, curated.setup, ValidateConfig(min_labels=10))
    assert {r.name: r.failed for r in run.runs if r.failed} == {}
    table = read_table(curated.store, outcome.validation)
    share = table.row(by_predicate=(pl.col("measure") == "relevant_share"), named=True)
    assert share["low"] <= 1 / 3 <= share["high"]
    assert set(table["subject"]) >= {"cascade", "llm", "similarity", "pool"}
    assert json.loads(curated.file(outcome.page, "validation.json"))["counts"]["clear"] == samples.height
