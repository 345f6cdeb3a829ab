"""The tables that the stages of the method hand on: joined, held back, and read from a finished curation."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.section import ConfigError
from flows.method.tables import Finished, Generations, empty_table, group_parts, union, wait_for
from infra.stages.runner import Runner, StageRun
from infra.storage.artifacts import Manifest, Piece, Table
from infra.storage.store import Store
from tasks import schemas
from tests.flows.animals import run_method, write_source


def piece(index: int, name: str) -> Piece:
    return Piece(index, f"objects/{name}", 1)


def stage_run(name: str, *tables: dict[str, Any]) -> StageRun:
    manifests = tuple(
        Manifest(name, 1, n, f"key{n}", 0, ingredients={}, tables=made, directories={}, stats={})
        for n, made in enumerate(tables)
    )
    return StageRun(name, len(tables), 0, len(tables), {}, 0, frozenset(), 0, 0.0, manifests)


def test_a_union_holds_the_pieces_in_the_order_of_their_parts_and_misses_what_any_misses() -> None:
    mined = Table("candidates", (piece(0, "a"), piece(2, "b")), frozenset({1}))
    given = Table("candidates", (piece(1, "c"),), frozenset({3}))
    assert union("candidates", mined, given) == Table(
        "candidates", (piece(0, "a"), piece(1, "c"), piece(2, "b")), frozenset({1, 3})
    )
    assert union("candidates") == Table("candidates")


def test_a_table_behind_a_closed_gate_is_missing_whole_and_behind_an_open_one_as_it_was() -> None:
    table = Table("decisions", (piece(0, "a"), piece(1, "b")), frozenset({2}))
    closed = wait_for(Table("completeness", (), frozenset({0})), table)
    assert closed == Table("decisions", table.pieces, frozenset({0, 1, 2}))
    assert wait_for(Table("completeness", (piece(0, "c"),)), table) is table


def test_generations_are_those_that_ingest_says_and_their_parts_run_on() -> None:
    queries, passages = Table("queries", (piece(0, "a"),), frozenset({1})), Table("passages", (piece(0, "b"),))
    said = Generations.of({"query_generations": [3, 1], "passage_generations": [2, 4, 1]}, queries, passages)
    assert said.query_parts == (range(3), range(3, 4))
    assert said.passage_parts == (range(2), range(2, 6), range(6, 7))
    assert Generations.of({}, queries, passages) == Generations((2,), (1,))


def test_groups_keep_to_generations_and_share_their_rows_evenly() -> None:
    sizes = [1_000] * 5 + [10, 10]
    table = Table("queries", tuple(Piece(n, f"objects/{n}", rows) for n, rows in enumerate(sizes)))
    generations = (range(5), range(5, 6), range(6, 6), range(6, 7))
    assert group_parts(table, generations, 4_000) == (range(3), range(3, 5), range(5, 6), range(6, 7))
    assert group_parts(table, generations, 100) == tuple(range(n, n + 1) for n in range(7))
    assert group_parts(table, (range(7),), 10_000) == (range(7),)
    assert group_parts(Table("queries"), (range(2),), 10) == (range(2),)


def test_an_empty_table_has_a_piece_for_each_part(tmp_path: Path) -> None:
    run = Runner(Store.open(str(tmp_path / "store")))
    one = empty_table(run, "candidates", schemas.CANDIDATES)
    assert [(p.index, p.rows) for p in one.pieces] == [(0, 0)]
    several = empty_table(run, "candidates", schemas.CANDIDATES, frozenset({0, 3}))
    assert [(p.index, p.object) for p in several.pieces] == [(n, one.pieces[0].object) for n in (0, 3)]
    assert run.read(several).columns == list(schemas.CANDIDATES.columns)


def test_a_finished_curations_table_is_joined_over_its_stages() -> None:
    runs = {
        "adopt": stage_run("adopt", {"candidates": (piece(1, "given"),)}),
        "mine": stage_run("mine", {"candidates": (piece(2, "late"),)}, {"candidates": (piece(0, "early"),)}),
    }
    finished = Finished(runs)
    assert finished.table("candidates", "adopt", "mine") == Table(
        "candidates", (piece(0, "early"), piece(1, "given"), piece(2, "late"))
    )
    assert finished.mined_by == ["adopt", "mine"]
    assert Finished({"mine": runs["mine"]}).mined_by == ["mine"]


def test_a_stage_that_is_not_finished_is_named() -> None:
    with pytest.raises(ConfigError, match=r"has not finished agree, treat-relabel, or .*; run it to its end first"):
        Finished({}).table("edits", "agree", "treat-relabel")


def test_the_tables_of_a_real_run_are_read_back_whole(tmp_path: Path) -> None:
    outcome, run, _ = run_method(tmp_path, write_source(tmp_path / "source", queries=4))
    finished = Finished({done.name: done for done in run.runs})
    decided = run.read(finished.table("decisions", "decide"))
    assert decided.height == next(done.rows for done in run.runs if done.name == "decide")
    assert run.read(finished.table("queries", "ingest")).equals(run.read(outcome.queries))
    assert decided.select(pl.col("state").is_in(["relevant", "not_relevant", "unsure", "unparsed"]).all()).item()
