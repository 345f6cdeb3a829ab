"""What the data looks like, from the stages that are finished."""

from pathlib import Path

from flows.results.data_stats import data_of
from tests.flows.animals import run_method, write_source


def test_the_figures_are_those_of_the_summary_and_are_there_as_soon_as_the_negatives_are(tmp_path: Path) -> None:
    _, run, _ = run_method(tmp_path, write_source(tmp_path / "source"))
    names = [done.name for done in run.runs]
    found = data_of(run.store, run.runs[: names.index("describe_passages") + 1])
    (row,) = found["data"]["datasets"]
    assert (row["dataset"], row["queries"], row["passages"]) == ("animals", {"train": 9, "test": 3}, 48)
    assert row["negatives_per_query"] == {"count": 9, "total": 27, "min": 3, "median": 3, "max": 3}
    assert (row["negative_rank"]["min"], row["negative_rank"]["max"]) == (1, 3)
    assert found["rejects"]["rows_read"] == 48 + 12 + 12 + 9
    assert found["rejects"]["lost"] == 0
    assert data_of(run.store, run.runs)["data"]["datasets"] == found["data"]["datasets"]
    assert data_of(run.store, [])["rejects"] is None
