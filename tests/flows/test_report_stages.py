"""The report's stages: parts count, and the report reads counts, and of its examples alone what it shows."""

from pathlib import Path

from flows import report_stages, stages
from flows.method.curate import curate_method
from flows.method_stage import MethodStage
from infra.stages.runner import Runner
from infra.storage.artifacts import Table, read_table
from infra.storage.store import Store
from tasks.report.report import ReportConfig, report
from tests.flows.animals import make_setup, run_method, write_source
from tests.flows.method.test_fetching import Watched


def test_the_report_shows_its_examples_and_reads_only_their_passages_and_verdicts(tmp_path: Path) -> None:
    assert all(each in stages.STAGES for each in vars(report_stages).values() if isinstance(each, MethodStage))
    outcome, run, _ = run_method(
        tmp_path,
        write_source(tmp_path / "source"),
        report={"examples": 1},
        decide={"relevant_from": 0.97, "not_relevant_below": 0.5},
    )
    done = {each.name: each for each in run.runs}
    page = run.store.get_object(outcome.page.files["report.html"]).decode()
    assert page.count('<ul class="passages">') >= 1
    assert "lives near the river, where the" in page
    (excerpt,) = done["excerpt"].manifests
    rows = {name: sum(piece.rows for piece in pieces) for name, pieces in excerpt.tables.items()}
    assert 0 < rows["texts"] < 12
    assert rows["queries"] == 1
    (report,) = done["report"].manifests
    assert len(report.ingredients["inputs"]["passages"]) == 1
    assert report.ingredients["inputs"]["verdicts"] == [piece.content for piece in excerpt.tables["verdicts"]]
    assert not {"candidates", "similarity", "llm_verdicts", "decisions"} & set(report.ingredients["inputs"])
    assert f'<dd class="big">{48}</dd>' in page
    assert done["measure"].rows == done["decide"].rows


def test_the_report_is_the_same_from_streams_and_from_whole_tables(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    executor = Watched(store, tmp_path / "scratch")
    outcome = curate_method(Runner(store, executor), make_setup(store, write_source(tmp_path / "source")))
    (spec,) = executor.specs["report"]
    assert {"tallies", "verdict_scores", "errors", "dots"} <= set(spec.stage.streams)
    whole = {name: read_table(store, table) for name, table in spec.inputs.items() if isinstance(table, Table)}
    (tmp_path / "page").mkdir()
    report(ReportConfig.model_validate(dict(spec.config)), **whole, out=tmp_path / "page")
    for name, key in outcome.page.files.items():
        assert (tmp_path / "page" / name).read_bytes() == store.get_object(key)


def test_a_part_of_the_counting_reads_no_column_that_it_does_not_need(tmp_path: Path) -> None:
    columns = report_stages.SUM_UP_VERDICTS.columns
    assert "text" not in columns["queries"]
    assert "raw" not in columns["calls"]
    _, run, executor = run_method(tmp_path, write_source(tmp_path / "source"))
    assert len([name for name in executor.computed if name.startswith("sum_up_verdicts")]) == 2  # one a query part
    done = {each.name: each for each in run.runs}
    assert done["sum_up_verdicts"].failed == {}
