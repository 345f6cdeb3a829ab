"""Pruning of a finished curation, in process, with real tiny models that really train."""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flows.config.section import ConfigError
from flows.method.afterwards.prune import PruneConfig, labels_of, prune_method
from infra.storage.artifacts import read_table, write_directory
from tasks.training.prune import OTHERS
from tests.flows.animals import make_setup
from tests.flows.trained import Place

pytestmark = pytest.mark.slow  # a model is trained, tiny as it is

CONCEPTS = 24
SOURCES = ("clean", "first", "noise", "second")


def test_the_noisy_one_of_four_sources_is_named_over_three_seeds_and_dropped(noisy: Place) -> None:
    run, _ = noisy.runner()
    outcome = prune_method(run, noisy.setup, PruneConfig(treatment="default", seeds=3))
    assert {r.name: r.failed for r in run.runs if r.failed or r.blocked} == {}
    summary = json.loads(noisy.file(outcome.page, "pruning.json"))
    assert summary["chosen_by"] == "dev"
    said = summary["verdicts"]["nDCG@10"]
    assert [name for name, verdict in said.items() if verdict == "hurts"] == ["noise"], said
    assert outcome.dropped == ("noise",)
    mix = {c["dataset"]: c for c in summary["pruned_mix"]["comparisons"] if c["measure"] == "nDCG@10"}
    assert mix["datasets kept"]["low"] > 0
    assert "train-without-noise_s42" in {r.name for r in run.runs}
    assert not any("-and-" in r.name for r in run.runs)  # the mix without one dataset is trained already
    assert "## The pruned mix" in noisy.file(outcome.page, "pruning.md")
    again, executor = noisy.runner()
    assert prune_method(again, noisy.setup, PruneConfig(treatment="default", seeds=3)) == outcome
    assert executor.computed == []


def test_the_greedy_way_drops_the_worst_first_and_stops_where_nothing_is_gained(noisy: Place) -> None:
    run, _ = noisy.runner()
    outcome = prune_method(run, noisy.setup, PruneConfig(treatment="default", seeds=3, greedy=True))
    assert {r.name: r.failed for r in run.runs if r.failed or r.blocked} == {}
    assert outcome.dropped[0] == "noise"
    summary = json.loads(noisy.file(outcome.page, "pruning.json"))
    assert summary["pruned_mix"]["dropped"] == list(outcome.dropped)
    assert f"The greedy way dropped {', '.join(outcome.dropped)}." in noisy.file(outcome.page, "pruning.md")
    steps = [r.name for r in run.runs if r.name.startswith("prune-step")]
    assert len(steps) >= len(outcome.dropped) - 1
    assert len(outcome.dropped) < len(SOURCES)


def test_what_teaches_nothing_is_dropped_if_asked_for_and_one_dataset_stays(noisy: Place) -> None:
    run, _ = noisy.runner()
    nothing_shown = PruneConfig(treatment="default", seeds=3, level=1e-9, margin=0.9)
    assert prune_method(run, noisy.setup, nothing_shown).dropped == ()
    outcome = prune_method(run, noisy.setup, nothing_shown.model_copy(update={"idle": True}))
    said = json.loads(noisy.file(outcome.page, "pruning.json"))["verdicts"]["nDCG@10"]
    assert said == dict.fromkeys(SOURCES, "teaches nothing")
    assert len(outcome.dropped) == len(SOURCES) - 1


def test_several_noisy_sources_are_dropped_together(tmp_path: Path, static_model: Path) -> None:
    place = word_place(tmp_path, static_model, ("clean", "first", "noise", "noise too"))
    run, _ = place.runner()
    outcome = prune_method(run, place.setup, PruneConfig(treatment="default", seeds=2, level=0.5))
    assert {r.name: r.failed for r in run.runs if r.failed or r.blocked} == {}
    assert set(outcome.dropped) == {"noise", "noise too"}
    label = f"without-{'-and-'.join(name.replace(' ', '_') for name in outcome.dropped)}"
    assert {f"train-{label}_s42", f"train-{label}_s43", "prune-mix"} <= {r.name for r in run.runs}


def test_each_dataset_is_left_out_once_whatever_its_name(curated: Place) -> None:
    run, _ = curated.runner()
    outcome = prune_method(run, curated.setup, PruneConfig(seeds=2))
    assert {r.name: r.failed for r in run.runs if r.failed or r.blocked} == {}
    labels = labels_of(sorted(f"{name}" for name in set(read_table(curated.store, outcome.pruning)["left_out"])))
    assert len(set(labels.values())) == 3
    assert {f"train-without-{label}_s43" for label in labels.values()} <= {r.name for r in run.runs}
    table = read_table(curated.store, outcome.pruning)
    assert set(table["verdict"]) <= {"hurts", "helps", "not shown"}
    assert set(table["seeds"]) == {2}
    assert set(table["held_out"]) == {"all", OTHERS, *table["left_out"]}
    without = next(r for r in run.runs if r.name == f"leave_out-{labels[table['left_out'][0]]}")
    mixes = pl.concat(
        pl.read_parquet(io.BytesIO(curated.store.get_object(p.object)))
        for m in without.manifests
        for p in m.tables["mix"]
    )
    assert set(mixes["dataset"]) == set(table["left_out"]) - {table["left_out"][0]}
    assert "reported on others" in curated.file(outcome.page, "pruning.md")
    again, executor = curated.runner()
    prune_method(again, curated.setup, PruneConfig(seeds=2))
    assert executor.computed == []


def test_a_dataset_that_is_not_in_the_mix_cannot_be_left_out(curated: Place) -> None:
    run, executor = curated.runner()
    with pytest.raises(ConfigError, match="no 'nq' in the mix, which holds"):
        prune_method(run, curated.setup, PruneConfig(datasets=("nq",)))
    assert executor.computed == []


def test_one_dataset_alone_cannot_be_pruned(tmp_path: Path, tiny_model: Path) -> None:
    alone = Place(tmp_path / "alone", tiny_model, ("fever",)).curate()
    with pytest.raises(ConfigError, match="at least two datasets in the training mix, it holds only"):
        prune_method(run := alone.runner()[0], alone.setup, PruneConfig())
    assert run.runs == []


def test_datasets_named_like_paths_or_in_other_scripts_have_labels_of_their_own() -> None:
    labels = labels_of(["a/b", "a b", "../../etc", "東京", "x" * 200, "x" * 201])
    assert len(set(labels.values())) == 6
    for label in labels.values():
        assert set(label) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
        assert len(label) < 60
    assert labels_of(["fever", "a/b"])["fever"] == "fever"


def word_place(folder: Path, model: Path, sources: tuple[str, ...]) -> Place:
    """Curate sources whose queries and passages name the same concepts by other words; noisy ones name others."""
    (folder / "words").mkdir(parents=True)
    numbers = np.random.default_rng(1)
    lines = []
    for source in sources:
        asked = [numbers.choice(CONCEPTS, 3, replace=False) for _ in range(80)]
        told = [numbers.choice(CONCEPTS, 3, replace=False) for _ in asked] if source.startswith("noise") else asked
        for number, (of_query, of_passage) in enumerate(zip(asked, told, strict=True)):
            lines.append(json.dumps(_row(source, number, of_query.tolist(), of_passage.tolist())) + "\n")
    (folder / "words" / "rows.jsonl").write_text("".join(lines))
    place = Place(folder / "place", model)
    settings: Mapping[str, Any] = {
        "ingest": {"holdout": 0.25, "dev": 0.25},
        "tiers": [],
        "treatments": ["default"],
        "train_on": ["default"],
        "train": {"steps": 60, "batch_size": 32, "num_negatives": 0, "learning_rate": 0.05, "threads": 1},
    }
    setup = make_setup(place.store, folder / "words", **settings)
    base = write_directory(place.store, "model", model)
    place.setup = replace(setup, base_model=base, base_model_path=str(model))
    return place.curate()


def _row(source: str, number: int, of_query: list[int], of_passage: list[int]) -> dict[str, Any]:
    name, text = f"{source}-{number}", " ".join(f"told{one}" for one in of_passage)
    return {
        "query_id": name,
        "query": " ".join(f"asked{one}" for one in of_query),
        "positive_passages": [{"docid": name, "title": "", "text": f"{text} {source} {number}"}],
        "negative_passages": [{"docid": f"{name}-n", "title": "", "text": f"nothing {source} {number}"}],
        "subset": source,
    }


@pytest.fixture(scope="module")
def static_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random vector for each word of queries and of passages."""
    from tests.tasks.training.tables import build_static_model

    words = tuple(f"{kind}{one}" for kind in ("asked", "told") for one in range(CONCEPTS))
    return build_static_model(tmp_path_factory.mktemp("static") / "model", words)


@pytest.fixture(scope="module")
def noisy(static_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return word_place(tmp_path_factory.mktemp("noisy"), static_model, SOURCES)
