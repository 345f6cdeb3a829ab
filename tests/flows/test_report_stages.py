"""The report in the whole method: it shows the texts of its examples, and reads no other passage."""

from pathlib import Path

from flows import stages
from flows.report_stages import CHOOSE_EXAMPLES, EXCERPT, MEASURE
from tests.flows.animals import run_method, write_source


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
