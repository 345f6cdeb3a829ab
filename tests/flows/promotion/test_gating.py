"""Which models the gate compares: those of the current release, where they are there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.curation.lookup import CURATE
from flows.method.setup import Outcome
from flows.promotion.gating import compares_models, gate_job, released_models
from infra.storage.artifacts import Directory, Piece, Table
from infra.storage.release_pointers import advance
from infra.storage.store import Store
from tasks.training.promote import PromoteConfig

NOTHING = Table("nothing")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def release(store: Store, seeds: int, **more: Any) -> dict[str, str]:
    """Make a release that keeps the models of some seeds; returns the files of the last one."""
    files = {seed: {"model.safetensors": store.put_object(f"{seed}".encode(), "")} for seed in range(42, 42 + seeds)}
    record = {"exports": {}, "because": "promoted", "models": {str(s): f for s, f in files.items()}, **more}
    advance(store, "nq", lambda known: record)
    return files[41 + seeds] if seeds else {}


def test_the_models_of_the_current_release_are_found_by_seed(store: Store) -> None:
    release(store, 5)
    release(store, 3)
    found = released_models(store, "nq", PromoteConfig())
    assert (sorted(found.models), found.missing) == ([42, 43, 44], "")
    assert released_models(store, "other", PromoteConfig()).models == {}


def test_a_release_with_too_few_models_is_not_compared_and_the_reason_says_so(store: Store) -> None:
    """Releases of an earlier version keep no models by seed."""
    advance(store, "nq", lambda known: {"exports": {}, "because": "promoted", "model": {"a": "objects/b"}})
    said = "release 1 keeps the models of 0 seeds, 3 are wanted"
    assert released_models(store, "nq", PromoteConfig()).missing == said
    assert released_models(store, "nq", PromoteConfig(against_release="none")).models == {}


def test_models_whose_files_are_gone_are_not_compared(store: Store) -> None:
    files = release(store, 3)
    store.delete(files["model.safetensors"])
    found = released_models(store, "nq", PromoteConfig())
    assert found.models == {}
    assert found.missing.startswith("files of the models of release 1 are gone")


def test_the_job_trains_with_the_wanted_seeds_and_ends_with_the_night(store: Store) -> None:
    release(store, 3)
    config = PromoteConfig(treatment="remove_hn", against="base", seeds=3)
    job = gate_job(store, "nq", config, replace(CURATE, until=17.0))
    wanted = job.method.keywords["wanted"]  # type: ignore[attr-defined]
    assert (wanted.treatment, wanted.against, wanted.seeds, sorted(wanted.released)) == (
        "remove_hn", "base", 3, [42, 43, 44]
    )  # fmt: skip
    assert (job.name, job.until) == ("gate", 17.0)
    assert "Retry" in job.again


def test_models_are_compared_only_where_some_are_scored_and_a_comparison_is_wanted() -> None:
    outcome = Outcome(Directory("page"), Directory("sheet"), {}, {}, NOTHING, NOTHING)
    scored = replace(outcome, dev_scores=Table("dev_scores", (Piece(0, "objects/x", 5),)))
    assert compares_models(PromoteConfig(), scored)
    assert not compares_models(PromoteConfig(), outcome)
    assert not compares_models(PromoteConfig(require="none"), scored)
    assert not compares_models(None, scored)
