"""Computing one part again: what is refused, and with which advice."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.release_commands import promote_by_hand
from flows.config.section import ConfigError
from flows.curation.records import load_curation
from flows.results.promotion import Held
from flows.runs.execute import rerun_job
from infra.storage.release_pointers import newest
from tests.flows.nightly import Nights, sources
from tests.flows.trained import TRAIN
from tests.tasks.training.tables import build_tiny_model


def test_a_part_that_is_not_the_curations_is_refused_with_what_does_it(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 5)
    workspace, curation = nights.workspace, load_curation(nights.workspace.store, nights.curate(source).curation)
    job = rerun_job(workspace, curation, ("judge-llm", 0), downstream=False)
    assert (job.only, job.force) == (("judge-llm", 0), frozenset({("judge-llm", 0)}))
    assert rerun_job(workspace, curation, ("judge-llm", 0), downstream=True).only is None
    with pytest.raises(ConfigError, match=r"judge-llm has \d+ parts, numbered from 0; part 99 is not there"):
        rerun_job(workspace, curation, ("judge-llm", 99), downstream=False)
    with pytest.raises(ConfigError, match=r"finished and has no stage 'train-relabel_s43'.*Retry of its flow run"):
        rerun_job(workspace, curation, ("train-relabel_s43", 0), downstream=True)


@pytest.mark.slow
def test_a_night_that_may_promote_trains_three_seeds_and_scores_the_released_models(tmp_path: Path) -> None:
    """Before, one seed decided, and tonight's baseline stood for the release."""
    (base := tmp_path / "base").mkdir()
    nights = Nights(tmp_path)
    changes = {
        "encoder": {"model": str(build_tiny_model(base))},
        "train": TRAIN,
        "promote": {"min_queries": 2, "max_relevant_share": 1.0, "hold_on_drift": False},
    }
    first, second = sources(tmp_path, 8, 12)
    held = nights.curate(first, **changes).promotion
    trained = {f"{stage}-{t}_s{n}" for stage in ("train", "evaluate") for t in ("default", "relabel") for n in (43, 44)}
    assert trained <= nights.computed
    assert isinstance(held, Held)
    checks = {check.name: check for check in held.checks}
    assert (checks["seeds"].passed, checks["seeds"].figure) == (True, 3.0)
    page = (nights.settings.home / "curations" / held.curation / "report.html").read_text()
    assert page.index('id="promotion"') < page.index('id="nights"')
    again = promote_by_hand(nights.settings, held.curation, None, Console(file=io.StringIO()))
    assert again["checks"] == [check.as_dict() for check in held.checks]
    promote_by_hand(nights.settings, held.curation, None, Console(file=io.StringIO()), force=True)
    assert sorted((newest(nights.workspace.store, "animals") or {})["models"]) == ["42", "43", "44"]
    nights.sleep()
    compared = nights.curate(second, **changes).promotion
    assert compared is not None
    assert {f"evaluate-released_s{seed}" for seed in (42, 43, 44)} <= nights.computed
    assert "released" in [check["name"] for check in compared.as_json()["checks"]]
    executors = len(nights.executors)
    nights.curate(second, **changes)
    assert len(nights.executors) == executors  # a night without change trains nothing


@pytest.mark.slow
def test_without_a_comparison_no_further_seed_is_trained(tmp_path: Path) -> None:
    (base := tmp_path / "base").mkdir()
    nights, (source,) = Nights(tmp_path), sources(tmp_path, 8)
    nights.curate(
        source,
        encoder={"model": str(build_tiny_model(base))},
        train=TRAIN,
        promote={"require": "none", "max_relevant_share": 1.0},
    )
    assert not [name for name in nights.computed if name.endswith("_s43")]
