"""Tiers whose verdicts come from a file, in the whole method: nobody is asked, and nothing is guessed."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.load import load_config, parse_config
from flows.config.section import ConfigError
from flows.curation.explain import explain
from flows.curation.lookup import look_at
from flows.curation.prepare import Intake, prepare
from flows.curation.records import load_curation
from flows.curation.stored_config import refuse_other_places
from flows.maintenance.gc import Wanted, collect
from flows.method.setup import CurationFailed
from flows.planning.plan import plan_tiers
from infra.storage.artifacts import Table, read_table
from tasks import schemas
from tests.flows.animals import ANIMALS, PLACES, tier, write_source
from tests.flows.nightly import Nights, write_gold


def write_scores(path: Path, *, without: tuple[str, ...] = (), shift: float = 0.0) -> Path:
    """Two judges on every pair of the animals: `p`, a probability, and `g`, a grade from 0 to 3."""
    rows = [
        (f"q{n}", f"{other}-{place}", min(1.0, (0.9 if other == animal else 0.1) + shift), 3 if other == animal else 0)
        for n, animal in enumerate(ANIMALS)
        for other in ANIMALS
        for place in PLACES
        if f"{other}-{place}" not in without
    ]
    lines = ["query_id\tdoc_id\tp\tg", *("\t".join(map(str, row)) for row in rows)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def of_file(name: str, path: Path, column: str, scale: str = "probability", **escalate: Any) -> dict[str, Any]:
    engine = {"kind": "scores", "path": str(path), "columns": {"score": column}, "scale": scale}
    return {**tier(name, **escalate), "engine": engine}


def verdicts_of(nights: Nights, curation: str, stage: str, output: str = "verdicts") -> pl.DataFrame:
    _, runs = look_at(nights.workspace, load_curation(nights.workspace.store, curation))
    (run,) = [run for run in runs if run.name == stage]
    pieces = sum((manifest.tables[output] for manifest in run.manifests), ())
    return read_table(nights.workspace.store, Table(output, pieces), schemas.VERDICTS)


def test_two_judges_from_one_file_make_a_cascade_and_no_engine_is_asked(tmp_path: Path) -> None:
    nights, source = Nights(tmp_path), write_source(tmp_path / "source")
    path = write_scores(tmp_path / "scores.tsv")
    tiers = [of_file("weak", path, "p"), of_file("strong", path, "g", "grade", max_share=0.5)]
    done = nights.curate(source, tiers=tiers)
    assert nights.judge.asked == []
    (said,) = [line for line in done.summary["conclusions"] if "language model" in line]
    assert said == "The verdicts on 54 candidates (100%) were read from files, and no language model was asked."
    weak = verdicts_of(nights, done.curation, "read_scores-weak")
    strong = verdicts_of(nights, done.curation, "read_scores-strong")
    assert (weak.height, set(weak["judge"])) == (54, {"file:p:probability"})
    assert (strong.height, set(strong["judge"])) == (27, {"file:g:grade>=2/3"})
    assert set(strong["grade"]) == {0.0, 3.0}
    assert nights.curate(source, tiers=tiers).computed == 0
    assert not [line for line in nights.said if line.startswith("tier")]


def test_another_file_is_read_anew_by_the_same_curation_and_explain_says_so(tmp_path: Path) -> None:
    nights, source = Nights(tmp_path), write_source(tmp_path / "source")
    first = nights.curate(source, tiers=[of_file("llm", write_scores(tmp_path / "a.tsv"), "p")])
    moved = nights.curate(source, tiers=[of_file("llm", write_scores(tmp_path / "b.tsv"), "p")])
    assert (moved.curation, moved.computed) == (first.curation, 0)
    other = nights.curate(source, tiers=[of_file("llm", write_scores(tmp_path / "c.tsv", shift=0.05), "p")])
    assert other.curation == first.curation
    assert "read_scores-llm" in nights.computed
    assert "judge_similarity" not in nights.computed
    reasons = explain(nights.workspace, other.curation, "read_scores-llm", 0).reasons
    cut_anew = "part 0 of split_scores-llm changed: its input `source` changed: scores.parquet"
    assert reasons == (f"its input `rows` changed, because {cut_anew}",)


def test_growth_cuts_the_files_for_the_new_queries_alone_and_counts_what_no_query_is_named_by(tmp_path: Path) -> None:
    nights, path = Nights(tmp_path), write_scores(tmp_path / "scores.tsv")
    tiers = [of_file("weak", path, "p"), of_file("strong", path, "g", "grade")]
    names = [f"split_scores-{name}" for name in ("weak", "strong")]

    def cut(queries: int) -> tuple[dict[str, tuple[int, int]], list[str]]:
        done = nights.curate(write_source(tmp_path / f"source-{queries}", queries=queries), tiers=tiers)
        told, nights.said = list(nights.said), []
        runs = {run.name: (run.computed, run.reused) for run in done.runs if run.name.startswith("split_scores")}
        return runs, [line for line in told if "queries that the data does not hold" in line]

    runs, told = cut(8)
    assert runs == dict.fromkeys(names, (1, 0))
    assert [line.split(" of ")[0] for line in told] == [f"tier {name}: 192" for name in ("weak", "strong")]
    runs, told = cut(11)
    assert runs == dict.fromkeys(names, (0, 1)) | {f"{name}-g1": (1, 0) for name in names}
    assert [line.split(" of ")[0] for line in told] == [f"tier {name}: 48" for name in ("weak", "strong")]


def test_pairs_that_the_file_lacks_are_unparsed_and_the_next_tier_is_asked_about_them(tmp_path: Path) -> None:
    nights, source = Nights(tmp_path), write_source(tmp_path / "source")
    lacking = tuple(f"{animal}-forest" for animal in ANIMALS)
    path = write_scores(tmp_path / "scores.tsv", without=lacking)
    with pytest.raises(
        CurationFailed, match=r"are missing in the file of .*file:p:probability: add them to the file, or"
    ):
        nights.curate(source, tiers=[of_file("weak", path, "p")], complete={})
    (told,) = [line for line in nights.said if line.startswith("tier weak")]
    lacks = int(told.split("lacks ")[1].split()[0])
    assert told.startswith(
        f"tier weak: its file lacks {lacks} of 54 pairs, which stay unparsed (dataset animals, query q"
    )
    tiers = [
        of_file("weak", path, "p"),
        {**tier(lower=None, upper=None, states=["unsure"]), "engine": nights.asked(source)["tiers"][0]["engine"]},
    ]
    done = nights.curate(source, tiers=tiers)
    assert verdicts_of(nights, done.curation, "judge-llm").height == lacks > 0
    assert set(verdicts_of(nights, done.curation, "judge-llm")["doc_id"]) <= set(lacking)


def test_a_plan_says_that_nothing_is_asked_and_a_budget_in_money_needs_no_price(tmp_path: Path) -> None:
    nights, source = Nights(tmp_path), write_source(tmp_path / "source")
    path = write_scores(tmp_path / "scores.tsv")
    done = nights.curate(source, tiers=[of_file("weak", path, "p")], budget={"money": 1.0})
    setup = prepare(nights.workspace, load_curation(nights.workspace.store, done.curation))
    runs = look_at(nights.workspace, load_curation(nights.workspace.store, done.curation))[1]
    (planned,) = plan_tiers(nights.workspace, setup, runs).tiers
    assert (planned.basis, planned.pairs, planned.calls, planned.money) == ("finished", 54, 0, 0.0)
    (estimated,) = plan_tiers(nights.workspace, setup, ()).tiers
    assert (estimated.calls, estimated.notes[0]) == (
        0, "verdicts from a file (file:p:probability); pairs that it lacks stay unparsed"
    )  # fmt: skip


def test_gc_keeps_the_file_and_the_gold_set_is_judged_without_it(tmp_path: Path) -> None:
    nights, source = Nights(tmp_path), write_source(tmp_path / "source")
    path = write_scores(tmp_path / "scores.tsv")
    tiers = [of_file("weak", path, "p"), nights.asked(source)["tiers"][0]]
    gold = {"path": str(write_gold(tmp_path / "gold.jsonl"))}
    done = nights.curate(source, tiers=tiers, gold=gold)
    assert "gold: no verdicts of weak: a file with verdicts holds none of the gold set's pairs" in nights.said
    stages = {run.name for run in done.runs}
    assert {"read_scores-weak", "judge-llm", "judge-gold-llm"} <= stages
    assert not stages & {"judge-gold-weak", "read_scores-gold-weak"}
    (files,) = Intake.of(nights.workspace.store, done.curation).scores.values()
    found = collect(nights.settings, Wanted(grace=0), yes=True)
    assert found["objects"] == 0
    assert all(nights.workspace.store.exists(key) for key in files.values())


def test_settings_that_do_nothing_without_a_judge_that_is_asked_are_refused() -> None:
    def parse(engine: dict[str, Any], **judge: Any) -> None:
        said = {"kind": "scores", "path": "a.tsv", **engine}
        parse_config({"name": "a", "source": {"path": "x"}, "tiers": [{"engine": said, "judge": judge}]}, "test")

    parse({"scale": "grade"}, relevant_grade=3, relevant_from=0.7)
    with pytest.raises(ConfigError, match=r"judge\.passage_chars has no effect where verdicts come from a file"):
        parse({}, passage_chars=100)
    with pytest.raises(ConfigError, match=r"relevant_grade=2 must not exceed engine\.max_grade=1"):
        parse({"scale": "grade", "max_grade": 1})


def test_a_path_is_taken_from_the_folder_of_its_configuration_and_a_worker_asks_whether_it_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights, source = Nights(tmp_path), write_source(tmp_path / "source")
    config = load_config(nights.written(source, tiers=[of_file("weak", Path("scores.tsv"), "p")]))
    engine: Any = config.tiers[0].engine
    assert engine.path == str(tmp_path / "scores.tsv")
    monkeypatch.setenv("RENEG_ALLOWED_SOURCES", str(source))
    remote = nights.settings.__class__(**{**nights.settings.__dict__, "store": "s3://bucket/store"})
    with pytest.raises(ConfigError, match=r"tier weak: engine\.path: a configuration from the store may not read"):
        refuse_other_places(config.model_copy(update={"prices": {}}), remote)


def test_a_file_plays_the_oracle_of_a_guarantee_and_the_gold_set_is_judged_without_it(tmp_path: Path) -> None:
    nights, source = Nights(tmp_path), write_source(tmp_path / "source")
    path = write_scores(tmp_path / "scores.tsv")
    target = {"recall": 0.5, "precision": 0.5, "of": "strong", "confidence": 0.8}
    strong = {**of_file("strong", path, "g", "grade"), "escalate": {"target": target}}
    gold = {"path": str(write_gold(tmp_path / "gold.jsonl"))}
    changes = {"tiers": [nights.asked(source)["tiers"][0], strong], "gold": gold, "decide": {}}
    done = nights.curate(source, **changes)
    stages = {run.name for run in done.runs}
    assert {"audit-strong", "settle-strong", "read_scores-strong", "judge-gold-llm"} <= stages
    assert any(name.startswith("read_scores-strong") and name != "read_scores-strong" for name in stages)
    assert nights.curate(source, **changes).computed == 0
    setup = prepare(nights.workspace, load_curation(nights.workspace.store, done.curation))
    planned = plan_tiers(nights.workspace, setup, done.runs).tiers
    assert [tier.calls for tier in planned if tier.tier == "strong"] == [0]
