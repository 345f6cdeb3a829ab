"""People's labels inside the method: which parts they touch, and which they leave as they were."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from flows.method.curate import curate_method
from flows.method.human_labels import find_labelled, still_wanted, without
from flows.stages import REPORT
from infra.stages.runner import Runner
from infra.storage.artifacts import read_table
from infra.storage.store import Store
from tasks.quality.labels import settle
from tasks.schemas import HUMAN
from tests.flows.animals import make_setup, write_source
from tests.flows.fakes import InProcess


def test_a_label_recomputes_the_part_of_its_query_and_no_other(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    setup = make_setup(store, write_source(tmp_path / "source"), ingest={"query_parts": 4, "known_split": "known"})
    run = Runner(store, InProcess(store, tmp_path / "scratch"))
    curate_method(run, setup)
    mined = next(done for done in run.runs if done.name == "mine")
    pieces = [piece for manifest in mined.manifests for piece in manifest.tables["candidates"]]
    piece = max(pieces, key=lambda p: p.rows)
    pair = pl.read_parquet(store.read(piece.object) or b"").row(0, named=True)
    labels = pl.DataFrame(
        [(pair["query_hash"], pair["text_hash"], "ann", "relevant", "2026", "", "")], schema=HUMAN.columns, orient="row"
    )
    executor = InProcess(store, tmp_path / "scratch")
    run = Runner(store, executor)
    curate_method(run, replace(setup, labels=settle(labels)))
    assert {r.name: r.failed for r in run.runs if r.failed} == {}
    applied = [name for name in executor.computed if name.startswith(("apply_labels", "treat-relabel", "decide"))]
    assert len([name for name in applied if name.startswith("apply_labels")]) == 1
    assert len([name for name in applied if name.startswith("treat-relabel")]) <= 1
    decided = next(done for done in run.runs if done.name == "apply_labels").manifests[0].tables["decisions"][0]
    states = pl.read_parquet(store.read(decided.object) or b"").filter(pl.col("judge") == "human:1")
    assert states.select("query_id", "doc_id", "state").rows() == [(pair["query_id"], pair["doc_id"], "relevant")]


def test_every_labelled_candidate_is_found_whatever_part_it_is_in(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    setup = make_setup(store, write_source(tmp_path / "source"), ingest={"query_parts": 4, "known_split": "known"})
    run = Runner(store, InProcess(store, tmp_path / "scratch"))
    curate_method(run, setup)
    mined = next(done for done in run.runs if done.name == "mine")
    number_of = {m.key: n for n, m in mined.finished.items()}
    from infra.storage.artifacts import Table

    pieces = tuple(replace(piece, index=number_of[m.key]) for m in mined.manifests for piece in m.tables["candidates"])
    candidates = Table("candidates", tuple(sorted(pieces, key=lambda p: p.index)))
    every = read_table(store, candidates)
    rows = [(q, t, "ann", "unsure", "2026", "", "") for q, t in every.select("query_hash", "text_hash").unique().rows()]
    labels = settle(pl.DataFrame(rows, schema=HUMAN.columns, orient="row"))
    found = find_labelled(run, replace(setup, labels=labels), candidates, (range(4),))
    assert sum(piece.rows for piece in found.pieces) == every.height
    assert find_labelled(run, setup, candidates, (range(4),)).pieces == ()


def test_nothing_is_wanted_where_nothing_waits_or_was_drawn(tmp_path: Path) -> None:
    from infra.storage.artifacts import Table

    store = Store.open(str(tmp_path / "store"))
    source = write_source(tmp_path / "source")
    run = Runner(store)
    setup = make_setup(store, source, sample={"wait_for": 1.0})
    assert still_wanted(run, setup, Table("samples"), Table("labelled")) is None
    assert still_wanted(run, make_setup(store, source), Table("samples"), Table("labelled")) is None


def test_an_input_that_there_is_none_of_leaves_the_stage_as_it_was() -> None:
    assert "people" in REPORT.every
    assert without(REPORT, "people").every == tuple(name for name in REPORT.every if name != "people")
