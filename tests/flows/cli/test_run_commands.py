"""Commands that compute, with fake engines in this process."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import stages as st
from flows.config.section import ConfigError
from flows.curation.records import open_curation
from flows.inputs.partition import recorded
from infra.storage.artifacts import write_directory
from tasks.verdicts.complete import TallyConfig
from tests.flows.cli.conftest import Shell
from tests.flows.nightly import sources


def test_a_curation_is_run_to_its_report_and_the_second_time_reused(shell: Shell) -> None:
    config = shell.nights.written(sources(shell.nights.folder, 5)[0])
    done = shell.json("curate", config)
    assert (done["curation"], done["parts"]["reused"]) == ("animals-000001", 0)
    assert Path(done["report"]).exists()
    again = shell.json("curate", config)
    assert again["parts"] == {"computed": 0, "reused": done["parts"]["computed"]}
    said = shell.run("curate", config)
    assert "curation animals-000001 in" in said
    assert f"report: {done['report']}" in said


def test_a_grown_source_is_cut_into_parts_anew_where_that_is_asked_for(shell: Shell) -> None:
    first, grown = sources(shell.nights.folder, 6, 8)
    shell.json("curate", shell.nights.written(first))
    config = shell.nights.written(grown)
    shell.json("curate", config)
    workspace = shell.nights.workspace
    before = [recorded(workspace.store, f"animals-00000{n}") for n in (1, 2)]
    assert [each is not None and each.before is not None for each in before] == [False, True]
    done = shell.json("curate", config, "--repartition")
    assert (done["curation"], recorded(workspace.store, "animals-000002")) != (done["curation"], before[1])
    assert done["parts"]["computed"] > 0
    assert shell.json("curate", config, "--repartition")["parts"]["computed"] == 0


def test_the_demo_runs_another_configuration_where_one_is_named_and_always_ends_in_json(shell: Shell) -> None:
    config = shell.nights.written(sources(shell.nights.folder, 5)[0])
    assert shell.run("demo", "--config", config).splitlines()[-1].startswith('{"curation": "animals-000001"')


def test_a_configuration_that_is_none_is_refused(shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        shell.run("curate", tmp_path / "none.yaml")


def test_one_part_is_computed_again_alone_or_with_what_follows(finished: Shell) -> None:
    alone = finished.json("rerun", "animals-000001", "--stage", "decide", "--part", "1")
    assert alone == {"curation": "animals-000001", "stage": "decide", "part": 1, "parts": {"computed": 1}}
    said = finished.run("rerun", "animals-000001", "--stage", "decide", "--part", "1")
    assert "Parts downstream were not computed." in said
    whole = finished.json("rerun", "animals-000001", "--stage", "decide", "--part", "0", "--downstream")
    assert whole["parts"]["computed"] >= 1
    assert whole["curation"] == "animals-000001"
    with pytest.raises(ConfigError, match="decide has 2 parts, numbered from 0; part 7 is not there"):
        finished.run("rerun", "animals-000001", "--stage", "decide", "--part", "7")


@pytest.fixture
def page(finished: Shell, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let further work leave a page; returns what it was asked for."""
    wanted: list[Any] = []

    def method(run: Any, setup: Any, wanted_: Any = None, **named: Any) -> Any:
        wanted.append(named.get("wanted"))
        folder = finished.nights.folder / "page"
        folder.mkdir(exist_ok=True)
        (folder / "comparison.md").write_text("# [one] is better\n")
        run(st.READ_GOLD if run is None else st.TALLY, TallyConfig(), decisions=_decisions(run, setup))
        return SimpleNamespace(page=write_directory(run.store, "page", folder))

    for name in ("retrain.retrain_method", "prune.prune_method", "validate.validate_method"):
        monkeypatch.setattr(f"flows.method.afterwards.{name}", method)
    return wanted


def _decisions(run: Any, setup: Any) -> Any:
    from flows.method.curate import curate_method
    from flows.method.tables import Finished
    from infra.stages.runner import Runner

    look = Runner(run.store)
    curate_method(look, setup)
    return Finished({done.name: done for done in look.runs}).table("decisions", "decide")


def test_further_work_prints_the_page_it_leaves(finished: Shell, page: list[Any]) -> None:
    done = finished.json("validate", "animals-000001")
    pages = finished.nights.settings.home / "curations" / "animals-000001" / "validate"
    assert done == {
        "curation": "animals-000001", "job": "validate", "parts": {"computed": 0, "reused": 2}, "pages": str(pages),
    }  # fmt: skip
    said = finished.run("validate", "animals-000001")
    assert "# [one] is better" in said
    assert f"pages: {pages}" in said


def test_what_is_asked_of_a_retraining_reaches_it(finished: Shell, page: list[Any]) -> None:
    finished.run("retrain", "animals-000001")
    finished.run("retrain", "animals-000001", "--treatment", "default", "--treatment", "relabel", "--steps", "7")
    first, second = ((w.treatments, w.seeds, w.steps) for w in (page[0], page[-1]))
    assert first == (None, 3, None)
    assert second == (("default", "relabel"), 3, 7)


def test_what_is_asked_of_a_pruning_reaches_it(finished: Shell, page: list[Any]) -> None:
    finished.run("prune", "animals-000001")
    finished.run("prune", "animals-000001", "--treatment", "remove_hn", "--dataset", "nq", "--greedy")
    first, second = ((w.treatment, w.datasets, w.seeds, w.greedy) for w in (page[0], page[-1]))
    assert first == ("relabel", None, 3, False)
    assert second == ("remove_hn", ("nq",), 3, True)
    assert "Invalid value for '--treatment'" in finished.run("prune", "animals-000001", "--treatment", "none", code=2)


def test_a_recorded_curation_is_continued(shell: Shell) -> None:
    from flows.cli.console import ERR, OUT
    from flows.cli.run_commands import resume_curation

    nights = shell.nights
    open_curation(nights.workspace, nights.config(sources(nights.folder, 5)[0]))
    assert resume_curation(nights.settings, "animals-000001", OUT, ERR)["curation"] == "animals-000001"


def test_treatments_are_made_again_and_what_differs_is_shown(finished: Shell) -> None:
    asked = len(finished.nights.judge.asked)
    told = finished.run("treat", "animals-000001", "--treatment", "relabel", "--set", "treat.max_false_negatives=0")
    assert "→" in told
    assert "no judge and no encoder was asked" in told
    done = finished.json("treat", "animals-000001", "--treatment", "drop_ambiguous", "--relevant-from", "1.0")
    made = done["treatments"]["drop_ambiguous"]
    assert made["before"] is None
    assert made["now"]["relabelled"] == 0
    assert done["settings"]["relevant_from"] == 1.0
    assert len(finished.nights.judge.asked) == asked


def test_all_judges_or_one_part_are_asked_again(finished: Shell) -> None:
    before = len(finished.nights.judge.asked)
    finished.json("rerun", "animals-000001", "--ask-again")
    every = len(finished.nights.judge.asked) - before
    assert every > 0
    one = finished.json("rerun", "animals-000001", "--stage", "judge-llm", "--part", 0, "--ask-again")
    assert one["parts"] == {"computed": 1}
    assert 0 < len(finished.nights.judge.asked) - before - every < every
    assert "give --stage and --part, or --ask-again alone" in finished.run("rerun", "animals-000001", code=2)
