"""The report in the whole method: it shows the texts of its examples, and reads no other passage."""

from pathlib import Path

from flows import stages
from flows.method.curate import curate_method
from flows.report_stages import CHOOSE_EXAMPLES, EXCERPT, MEASURE
from infra.stages.runner import Runner
from infra.storage.artifacts import Table, read_table
from infra.storage.store import Store
from tasks.report.report import ReportConfig, report
from tests.flows.animals import make_setup, run_method, write_source
from tests.flows.method.test_fetching import Watched


def test_the_report_shows_its_examples_and_reads_only_their_passages(tmp_path: Path) -> None:
    assert all(stage in stages.STAGES for stage in (CHOOSE_EXAMPLES, EXCERPT, MEASURE))
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
    texts = sum(piece.rows for m in done["excerpt"].manifests for piece in m.tables["texts"])
    assert 0 < texts < 12
    (report,) = done["report"].manifests
    assert len(report.ingredients["inputs"]["passages"]) == 1
    assert f'<dd class="big">{48}</dd>' in page
    assert done["measure"].rows == done["decide"].rows


def test_the_report_needs_no_other_columns_than_those_that_it_reads(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    executor = Watched(store, tmp_path / "scratch")
    outcome = curate_method(Runner(store, executor), make_setup(store, write_source(tmp_path / "source")))
    (spec,) = executor.specs["report"]
    assert set(spec.stage.columns) < set(spec.inputs)
    whole = {name: read_table(store, table) for name, table in spec.inputs.items() if isinstance(table, Table)}
    (tmp_path / "page").mkdir()
    report(ReportConfig.model_validate(dict(spec.config)), **whole, out=tmp_path / "page")
    for name, key in outcome.page.files.items():
        assert (tmp_path / "page" / name).read_bytes() == store.get_object(key)
    (calls,) = (artifact for name, artifact in spec.inputs.items() if name in spec.stage.streams)
    assert calls.rows > 1
