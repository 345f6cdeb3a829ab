"""What of a curation is finished, told from the manifests alone."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from flows.config.section import ConfigError
from flows.curation.lookup import CURATE, Job, look, look_at, training_set
from flows.curation.prepare import prepare
from flows.curation.records import Curation, load_curation, open_curation
from flows.method.setup import WaitingForLabels
from infra.storage.artifacts import read_table
from tests.flows.nightly import Nights, sources


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """An installation in which animals-000001 is finished."""
    nights = Nights(tmp_path_factory.mktemp("nights"))
    nights.curate(sources(nights.folder, 6)[0])
    return nights


def recorded(nights: Nights) -> Curation:
    return load_curation(nights.workspace.store, "animals-000001")


def test_a_curation_that_was_never_run_ends_at_its_first_stage(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    workspace = nights.workspace
    curation = open_curation(workspace, nights.config(sources(tmp_path, 6)[0]))
    outcome, runs = look_at(workspace, curation)
    assert outcome is None
    assert [(run.name, run.parts, run.unfinished) for run in runs] == [("ingest", 1, frozenset({0}))]
    assert workspace.store.list("parts") == []


def test_a_finished_curation_is_answered_without_computing(nights: Nights) -> None:
    before = nights.workspace.store.list("")
    outcome, runs = look_at(nights.workspace, recorded(nights))
    assert outcome is not None
    assert list(outcome.exports) == ["default", "relabel"]
    assert {run.name: run.computed for run in runs if run.computed} == {}
    assert runs[-1].name == "report"
    assert nights.workspace.store.list("") == before


def test_other_work_on_it_is_looked_up_by_its_own_method(nights: Nights) -> None:
    workspace = nights.workspace
    setup = prepare(workspace, recorded(nights))
    done, runs = look(workspace.store, setup, Job("count", lambda run, setup: len(setup.tiers)))
    assert (done, runs) == (1, ())


def test_people_who_are_waited_for_are_told_only_where_that_is_asked(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 8)
    with pytest.raises(WaitingForLabels):
        nights.curate(source, sample={"size": 12, "wait_for": 0.5})
    workspace = nights.workspace
    setup = prepare(workspace, recorded(nights))
    outcome, runs = look(workspace.store, setup)
    assert outcome is None
    assert "sample" in {run.name for run in runs}
    assert not runs[-1].unfinished
    with pytest.raises(WaitingForLabels, match="waits for people: 0 of"):
        look(workspace.store, setup, CURATE, wait=True)


def test_a_training_set_is_the_instances_of_its_treatment_with_their_texts(nights: Nights) -> None:
    workspace = nights.workspace
    outcome, _ = look_at(workspace, recorded(nights))
    config, tables = training_set(workspace, recorded(nights), "relabel", ("trec",))
    assert config.formats == ("trec",)
    assert set(tables) == {"instances", "queries", "passages", "candidates"}
    instances, passages = (pl.concat(tables[name]) for name in ("instances", "passages"))
    assert set(instances["treatment"]) == {"relabel"}
    assert instances.equals(read_table(workspace.store, outcome.instances["relabel"]))
    named = pl.concat([instances.select(doc_id=side).explode("doc_id") for side in ("positives", "negatives")])
    assert set(named["doc_id"]) <= set(passages["doc_id"])


def test_a_training_set_that_there_is_none_of_is_refused(nights: Nights) -> None:
    workspace, curation = nights.workspace, recorded(nights)
    with pytest.raises(ConfigError, match="animals-000001 made default, relabel, not 'remove'"):
        training_set(workspace, curation, "remove", ("trec",))
    other = curation.config.model_copy(update={"mine": curation.config.mine.model_copy(update={"range_max": 9})})
    with pytest.raises(ConfigError, match="animals-000001 is unfinished now: an earlier version of Reneg"):
        training_set(workspace, replace(curation, config=other), "relabel", ("trec",))
