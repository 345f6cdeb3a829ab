"""Real collections through the whole method (fake engines), where the development data is at hand."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from infra.storage.artifacts import Table, read_table
from tests.conftest import ROOT
from tests.flows.animals import run_method

DATA = ROOT.parent / "shared" / "data"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.exists(), reason=f"the development collections are not in {DATA}"),
]


def decisions(tmp_path: Path, source: Path, **changes: object) -> pl.DataFrame:
    _, run, _ = run_method(tmp_path, source, **changes)
    decided = next(r for r in run.runs if r.name == "decide")
    pieces = tuple(p for m in decided.manifests for p in m.tables["decisions"])
    return read_table(run.store, Table("decisions", pieces))


@pytest.mark.parametrize(("name", "candidates"), [("msmarco", 250), ("nq", 977)])
def test_every_candidate_of_published_rows_gets_one_verdict(tmp_path: Path, name: str, candidates: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(DATA / "bge_samples" / f"{name}.jsonl", source)
    found = decisions(tmp_path, source, ingest={})
    assert found.height == candidates
    assert found.select("dataset", "query_id", "doc_id").n_unique() == candidates
    assert set(found["state"]) <= {"relevant", "not_relevant", "unsure", "unparsed"}


def test_a_beir_folder_of_people_s_labels_is_mined_and_judged(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(DATA / "cranfield", source)
    ingest = {"train_split": "test", "test_split": None, "holdout": 0.5}
    found = decisions(tmp_path, source, ingest=ingest, mine={"range_max": 10, "num_negatives": 3})
    assert found.height > 500
    assert found.group_by("query_id").len()["len"].max() == 10
