"""Treatments made again from stored verdicts: what is counted, and what is refused."""

from pathlib import Path

import pytest

from flows.config.section import ConfigError
from flows.runs.treat_again import Counts, treat_again
from infra.stages.runner import Runner
from infra.storage.store import Store
from tests.flows.animals import make_setup, run_method, write_source
from tests.flows.fakes import InProcess


def test_a_dropped_query_and_a_relabelled_pair_are_counted_beside_what_was_made_before(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    decide = {"relevant_from": 0.97, "not_relevant_below": 0.5}
    run_method(tmp_path, source, decide=decide)
    store = Store.open(str(tmp_path / "store"))
    setup = make_setup(store, source, decide=decide)
    changed = make_setup(
        store, source, decide=decide, treatments=["remove", "drop_ambiguous"], train_on=["remove"],
        treat={"relevant_from": 1.0},
    )  # fmt: skip
    executor = InProcess(store, tmp_path / "scratch")
    made = treat_again(Runner(store), Runner(store, executor), setup, changed)
    assert {name.rsplit("-", 1)[0] for name in executor.computed} == {
        "treat-remove", "treat-drop_ambiguous", "export-remove", "export-drop_ambiguous",
        "render-remove", "render-drop_ambiguous",
    }  # fmt: skip
    assert executor.llm.asked == []
    removed = made["remove"].before
    assert removed is not None
    assert removed.instances + removed.dropped == 9
    assert removed.dropped > 0
    assert made["remove"].now == Counts(instances=9, dropped=0, relabelled=0, removed=0, without_negatives=0)
    assert made["drop_ambiguous"].before is None
    assert made["drop_ambiguous"].now.removed > 0


def test_an_unfinished_curation_is_refused(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    setup = make_setup(store, write_source(tmp_path / "source"))
    run = Runner(store, InProcess(store, tmp_path / "scratch"))
    with pytest.raises(ConfigError, match="is unfinished"):
        treat_again(Runner(store), run, setup, setup)
