"""Pruning: whether a model is better without one of its datasets."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from tasks.schemas import INSTANCES, PRUNING, SCORES
from tasks.training.prune import (
    OTHERS,
    PAGE_FILE,
    SUMMARY_FILE,
    LeaveOutConfig,
    PruneConfig,
    gain_without,
    judge_datasets,
    leave_out,
    prune,
)
from tests.tasks.settings import REQUIRED, settings_of

GAINS = {"good": -0.2, "bad|one": 0.2, "idle": 0.0}  # of leaving it out
MODELS = {name: f"without {name}" for name in GAINS}


def instances() -> pl.DataFrame:
    rows = [(name, f"q{i}", ["p"], ["n"], "relabel", "h") for name in GAINS for i in range(3)]
    return pl.DataFrame(rows, schema=INSTANCES.columns, orient="row")


def scores() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for q in range(30):
        base = rng.uniform(0.4, 0.6)
        for seed in (1, 2, 3):
            for model, gain in {"relabel": 0.0, **{MODELS[n]: g for n, g in GAINS.items()}}.items():
                value = base + gain + rng.normal(0, 0.03)
                rows.append((model, "good", "nDCG@10", f"q{q}", value, seed))
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row")


def test_only_the_rows_of_the_dataset_left_out_are_missing() -> None:
    mix = leave_out(LeaveOutConfig(dataset="bad|one"), instances=instances())["mix"]
    assert mix["dataset"].unique().sort().to_list() == ["good", "idle"]
    assert mix.height == 6


def test_each_dataset_hurts_helps_or_nothing_is_shown(tmp_path: Path) -> None:
    config = PruneConfig(complete="relabel", models=MODELS)
    table = prune(config, instances=instances(), scores=scores(), reported=scores(), out=tmp_path)["pruning"]
    assert dict(table.schema) == PRUNING.columns
    assert dict(table.filter(held_out="all").select("left_out", "verdict").iter_rows()) == {
        "good": "helps",
        "bad|one": "hurts",
        "idle": "not shown",
    }
    row = table.row(by_predicate=(pl.col("left_out") == "bad|one") & (pl.col("held_out") == "all"), named=True)
    assert row["difference"] == pytest.approx(0.2, abs=0.02)
    assert row["difference"] == pytest.approx(row["without"] - row["complete"])
    assert row["low"] < row["difference"] < row["high"]
    assert (row["queries"], row["seeds"], row["instances"]) == (30, 3, 3)
    assert (table["p_adjusted"] >= table["p_value"]).all()


def test_the_page_warns_of_choosing_by_what_is_reported(tmp_path: Path) -> None:
    prune(
        PruneConfig(complete="relabel", models=MODELS),
        instances=instances(),
        scores=scores(),
        reported=scores(),
        out=tmp_path,
    )
    summary = json.loads((tmp_path / SUMMARY_FILE).read_text())
    assert summary["verdicts"]["nDCG@10"] == {"good": "helps", "bad|one": "hurts", "idle": "not shown"}
    assert "3 datasets were tried" in summary["remark"]
    page = (tmp_path / PAGE_FILE).read_text()
    assert "reported on others" in page
    assert r"| bad\|one | all | nDCG@10 | 30 | +0." in page


def test_development_queries_choose_and_the_test_queries_are_shown_beside_them(tmp_path: Path) -> None:
    """Before, the verdicts were of the test queries, which the page warned of."""
    config = PruneConfig(complete="relabel", models=MODELS, chosen_by="dev")
    other = scores().with_columns(value=pl.lit(0.5))
    table = prune(config, instances=instances(), scores=scores(), reported=other, out=tmp_path)["pruning"]
    assert table.filter(held_out="all", left_out="bad|one")["verdict"].to_list() == ["hurts"]
    summary = json.loads((tmp_path / SUMMARY_FILE).read_text())
    assert (summary["chosen_by"], summary["test"]["bad|one"][0]["difference"]) == ("dev", 0.0)
    page = (tmp_path / PAGE_FILE).read_text()
    assert "The verdicts are of the development queries" in page
    assert "## The same on the test queries" in page


def test_scores_of_development_queries_are_not_shown_as_those_of_test_queries(tmp_path: Path) -> None:
    config = PruneConfig(complete="relabel", models=MODELS, chosen_by="dev", reports_test=False)
    prune(config, instances=instances(), scores=scores(), reported=scores(), out=tmp_path)
    page, summary = (tmp_path / PAGE_FILE).read_text(), json.loads((tmp_path / SUMMARY_FILE).read_text())
    assert "The verdicts are of the development queries. No test queries were scored" in page
    assert "## The same on the test queries" not in page
    assert summary["test"] == {}


def scores_by_dataset(gains: dict[tuple[str, str], float], queries: dict[str, int]) -> pl.DataFrame:
    """Scores of three seeds. gains: of leaving out the first dataset, on the queries of the second.

    Scores on the queries of `noise` vary more, as chance ranks what they call relevant.
    """
    rng = np.random.default_rng(1)
    models = {"relabel": "", **{f"without {name}": name for name in queries}}
    spread = {name: 0.3 if name == "noise" else 0.03 for name in queries}
    rows = [
        (
            model,
            dataset,
            "nDCG@10",
            f"q{q}",
            0.5 + gains.get((name, dataset), 0.0) + rng.normal(0, spread[dataset]),
            seed,
        )
        for dataset, count in queries.items()
        for q in range(count)
        for seed in (1, 2, 3)
        for model, name in models.items()
    ]
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row")


def judged(
    gains: dict[tuple[str, str], float], queries: dict[str, int], out: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Return what is said of each dataset, and what all queries say, which decided before."""
    config = PruneConfig(complete="relabel", models={name: f"without {name}" for name in queries}, chosen_by="dev")
    found = scores_by_dataset(gains, queries)
    table = prune(config, instances=instances(), scores=found, reported=found, out=out)["pruning"]
    before = dict(table.filter(held_out="all").select("left_out", "verdict").iter_rows())
    return json.loads((out / SUMMARY_FILE).read_text())["verdicts"]["nDCG@10"], before


def test_a_noisy_source_is_named_though_most_queries_are_its_own(tmp_path: Path) -> None:
    """Before, all queries decided: its own, whose labels are noise, hid what it does to the others."""
    gains = {("noise", "a"): 0.05, ("noise", "b"): 0.05, ("a", "a"): -0.2, ("b", "b"): -0.2}
    said, before = judged(gains, {"a": 40, "b": 40, "noise": 1000}, tmp_path)
    assert said == {"a": "helps", "b": "helps", "noise": "hurts"}
    assert before["noise"] == "not shown"
    table = (tmp_path / PAGE_FILE).read_text().replace(" ", "")
    assert "|noise|nDCG@10|hurts|" in table


def test_a_source_whose_own_wrong_queries_praise_it_is_no_help_to_all(tmp_path: Path) -> None:
    """Before, its own queries outweighed the others, and it was said to help."""
    gains = {("wrong", "a"): 0.06, ("wrong", "b"): 0.06, ("wrong", "wrong"): -0.3, ("a", "a"): -0.2}
    said, before = judged(gains, {"a": 60, "b": 60, "wrong": 60}, tmp_path)
    assert said["wrong"] == "hurts others, helps itself"
    assert before["wrong"] == "helps"


def test_a_small_source_that_helps_its_own_queries_is_not_said_to_hurt(tmp_path: Path) -> None:
    """Before, the others' gain from more steps of their own was taken for its harm."""
    gains = {("small", "a"): 0.05, ("small", "b"): 0.05, ("small", "small"): -0.3}
    said, before = judged(gains, {"a": 200, "b": 200, "small": 10}, tmp_path)
    assert said["small"] == "hurts others, helps itself"
    assert before["small"] == "hurts"
    assert "is not dropped" in (tmp_path / PAGE_FILE).read_text()


def test_noise_that_does_no_harm_is_named_where_its_own_queries_lose_nothing_without_it(tmp_path: Path) -> None:
    """Before, it was `not shown`, as was every dataset of which nothing is known."""
    gains = {("a", "a"): -0.2, ("b", "b"): -0.2}
    said, _ = judged(gains, {"a": 60, "b": 60, "idle": 60}, tmp_path)
    assert said == {"a": "helps", "b": "helps", "idle": "teaches nothing"}
    assert "teaches nothing if neither they nor the others' lose 0.05" in (tmp_path / PAGE_FILE).read_text()
    few, _ = judged(gains, {"a": 60, "b": 60, "idle": 2}, tmp_path)  # too few to exclude a loss
    assert few["idle"] == "not shown"
    without = {("a", "a"): -0.2, ("b", "b"): -0.2, ("idle", "a"): -0.02, ("idle", "b"): -0.02}
    helps, _ = judged(without, {"a": 60, "b": 60, "idle": 60}, tmp_path)
    assert helps["idle"] == "helps"


def test_the_greedy_way_goes_by_the_gain_of_the_others_and_drops_none_that_helps_itself(tmp_path: Path) -> None:
    queries = {"a": 60, "b": 60, "c": 60}
    gains = {("c", "a"): 0.1, ("c", "b"): 0.1, ("b", "a"): 0.2, ("b", "b"): -0.3}
    config = PruneConfig(complete="relabel", models={name: f"without {name}" for name in queries})
    found = scores_by_dataset(gains, queries)
    table = prune(config, instances=instances(), scores=found, reported=found, out=tmp_path)["pruning"]
    assert gain_without(table, "nDCG@10", "c", 0.05) == pytest.approx(0.1, abs=0.02)
    assert gain_without(table, "nDCG@10", "b", 0.05) is None
    assert gain_without(table, "nDCG@10", "d", 0.05) is None
    assert set(judge_datasets(table, 0.05, 0.05)) == {"nDCG@10"}
    step = config.model_copy(update={"already_out": ("b",)})
    later = prune(step, instances=instances(), scores=found, reported=found, out=tmp_path)["pruning"]
    assert set(later["held_out"]) == {"all", OTHERS, "a", "c"}
    assert later.filter(left_out="c", held_out=OTHERS)["queries"].to_list() == [60]


def test_the_pruned_mix_is_shown_on_the_test_queries_of_all_and_of_what_is_kept(tmp_path: Path) -> None:
    queries = {"a": 30, "b": 30, "c": 30}
    config = PruneConfig(
        complete="relabel",
        models={name: f"without {name}" for name in queries},
        chosen_by="dev",
        pruned="without c",
        dropped=("c",),
    )
    dev, test = scores_by_dataset({}, queries), scores_by_dataset({("c", "a"): 0.2, ("c", "b"): 0.2}, queries)
    prune(config, instances=instances(), scores=dev, reported=test, out=tmp_path)
    mix = json.loads((tmp_path / SUMMARY_FILE).read_text())["pruned_mix"]
    assert mix["dropped"] == ["c"]
    of = {row["dataset"]: (row["queries"], round(row["difference"], 1)) for row in mix["comparisons"]}
    assert of == {"all": (90, 0.1), "datasets kept": (60, 0.2), "a": (30, 0.2), "b": (30, 0.2), "c": (30, 0.0)}
    page = (tmp_path / PAGE_FILE).read_text()
    assert "The pruned mix leaves out c. The model of this mix" in page
    assert "looks better than it is" not in page
    prune(
        config.model_copy(update={"chosen_by": "test", "greedy": True}),
        instances=instances(),
        scores=test,
        reported=test,
        out=tmp_path,
    )
    page = (tmp_path / PAGE_FILE).read_text()
    assert "The greedy way dropped c." in page
    assert "the mix looks better than it is" in page


def test_many_datasets_that_do_nothing_are_rarely_blamed(tmp_path: Path) -> None:
    """Without the correction one of twenty would be."""
    rng = np.random.default_rng(3)
    names = [f"d{i}" for i in range(20)]
    blamed = 0
    for _ in range(10):
        rows = [
            (model, "t", "nDCG@10", f"q{q}", rng.normal(0.5, 0.1), seed)
            for model in ("relabel", *names)
            for q in range(20)
            for seed in (1, 2, 3)
        ]
        config = PruneConfig(complete="relabel", models={name: name for name in names})
        found = pl.DataFrame(rows, schema=SCORES.columns, orient="row")
        table = prune(config, instances=instances(), scores=found, reported=found, out=tmp_path)["pruning"]
        blamed += table.filter(held_out="all")["verdict"].ne("not shown").any()
    assert blamed <= 2


def test_one_held_out_query_shows_nothing(tmp_path: Path) -> None:
    config = PruneConfig(complete="relabel", models=MODELS)
    one = scores().filter(query_id="q0")
    table = prune(config, instances=instances(), scores=one, reported=one, out=tmp_path)["pruning"]
    assert table["p_adjusted"].null_count() == table.height
    assert set(table["verdict"]) == {"not shown"}


def test_one_dataset_of_several_may_be_tried_alone_and_none_may_not() -> None:
    assert PruneConfig(complete="relabel", models={"only": "x"}).models == {"only": "x"}
    with pytest.raises(ValidationError, match="at least 1 item"):
        PruneConfig(complete="relabel", models={})


def test_defaults_and_limits_decide_stage_keys_and_stay_as_they_are() -> None:
    assert settings_of(LeaveOutConfig) == {"dataset": REQUIRED}
    assert settings_of(PruneConfig) == {
        "complete": REQUIRED,
        "models": (REQUIRED, "len>=1"),
        "level": (0.05, ">0", "<1"),
        "margin": (0.05, ">0", "<1"),
        "chosen_by": "test",
        "reports_test": True,
        "title": "Pruning",
        "training": {},
        "already_out": (),
        "pruned": "",
        "dropped": (),
        "greedy": False,
    }
