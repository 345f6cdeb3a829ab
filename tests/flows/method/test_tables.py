"""The tables that the stages of the method hand on: joined, held back, and read from a finished curation."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.config.section import ConfigError
from flows.method import tables
from flows.method.tables import Finished, Generations, empty_table, group_parts, read_source, union, wait_for
from infra.stages.runner import Failure, Runner, StageRun
from infra.storage.artifacts import Directory, Manifest, Piece, Table, write_directory
from infra.storage.store import Store
from tasks import schemas
from tasks.data.ingest_config import IngestConfig
from tests.flows.animals import run_method, write_source
from tests.flows.fakes import InProcess
from tests.tasks.data.containers.written import parquet
from tests.tasks.data.inputs import row_of, write_lines


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


READ = IngestConfig(dataset="d", query_parts=2, passage_parts=2)


class Reading:
    """Reads a source into a store of its own; files of any size are read apart, if they hold `least` bytes together."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, least: int = 1) -> None:
        self.folder, self.store = folder, Store.open(str(folder / "store"))
        monkeypatch.setattr(tables, "LEAST_FILE", 1)
        monkeypatch.setattr(tables, "LEAST_APART", least)

    def source(self, *names: str) -> Directory:
        for name in names:
            rows = (row_of(f"{name}{number}", f"d{number}", f"{name}{number} d9") for number in range(3))
            write_lines(self.folder / "source" / f"{name}.jsonl", *rows)
        return write_directory(self.store, "source", self.folder / "source")

    def read(self, source: Directory, *, apart: bool = True) -> tuple[Any, list[str], list[str]]:
        """Return what ingest made, the stages that ran, and the parts that were computed."""
        executor = InProcess(self.store, self.folder / "scratch")
        run = Runner(self.store, executor)
        made = read_source(run, READ, source, None, apart=apart)
        assert read_source(Runner(self.store), READ, source, None, apart=apart) == made
        return made, [f"{done.name} {done.parts}" for done in run.runs], executor.computed


def test_files_of_a_large_source_are_read_by_parts_of_their_own_and_ingest_makes_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (Reading(tmp_path / name, monkeypatch) for name in ("one", "other"))
    whole, stages, _ = one.read(one.source("a", "b"), apart=False)
    assert stages == ["ingest 1"]
    made, stages, computed = other.read(other.source("a", "b"))
    assert stages == ["read_source 2", "ingest 1"]
    assert computed == ["read_source-00000", "read_source-00001", "ingest-00000"]
    assert made == whole
    assert one.store.list("parts/ingest") == other.store.list("parts/ingest")  # one key


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(tmp_path, monkeypatch)
    first, *_ = reading.read(reading.source("b", "c"))
    assert reading.read(reading.source())[1:] == (["read_source 2", "ingest 1"], [])
    grown, stages, computed = reading.read(reading.source("a"))
    assert stages == ["read_source 3", "ingest 1"]
    assert computed == ["read_source-00000", "ingest-00000"]
    assert grown.queries.rows == first.queries.rows + 3


def test_an_ingest_that_read_all_files_itself_stays_finished_and_nothing_is_read_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(tmp_path, monkeypatch)
    source = reading.source("a", "b")
    made, *_ = reading.read(source, apart=False)
    assert reading.read(source) == (made, ["ingest 1"], [])


def test_small_sources_and_small_and_huge_files_are_left_to_ingest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(tmp_path, monkeypatch, least=10**6)
    assert reading.read(reading.source("a", "b"))[1] == ["ingest 1"]
    reading = Reading(tmp_path, monkeypatch)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "source").iterdir()}
    assert len(set(sizes.values())) == 1
    write_lines(tmp_path / "source" / "c.jsonl", row_of("c", "d1"))
    monkeypatch.setattr(tables, "LEAST_FILE", sizes["a.jsonl"])
    assert reading.read(reading.source())[1] == ["read_source 2", "ingest 1"]
    monkeypatch.setattr(tables, "LEAST_FILE", 1)
    monkeypatch.setattr(tables, "MOST_FILE", sizes["a.jsonl"] - 1)  # files of lines are cut, whatever their size
    write_lines(tmp_path / "source" / "d.csv", "query,positive", *(f"{'x' * number},y" for number in range(1, 99)))
    (tmp_path / "source" / "e.parquet").write_bytes(parquet([row_of("e", "d1")]))
    assert reading.read(reading.source())[1] == ["read_source 3", "ingest 1"]


def test_a_large_file_of_lines_is_cut_into_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (Reading(tmp_path / name, monkeypatch) for name in ("one", "other"))
    whole, *_ = one.read(one.source("a"), apart=False)
    source = other.source("a")
    monkeypatch.setattr(tables, "RANGE_BYTES", (tmp_path / "one" / "source" / "a.jsonl").stat().st_size // 2 + 1)
    made, stages, _ = other.read(source)
    assert stages == ["read_source 2", "ingest 1"]
    assert made == whole
    (tmp_path / "other" / "source" / "b.csv").write_text(f"query,positive\n{'x' * 999},y\n")
    assert other.read(other.source())[1:] == (["read_source 3", "ingest 1"], ["read_source-00002", "ingest-00000"])


def test_ingest_reads_all_files_itself_where_a_part_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FailsOnce(InProcess):
        def run_stage(self, name: str, specs: Any, finished: Any) -> Any:
            found = dict(super().run_stage(name, specs, finished))
            return found | ({1: Failure("the worker died")} if name == "read_source" else {})

    reading = Reading(tmp_path, monkeypatch)
    source = reading.source("a", "b")
    notes: list[str] = []
    run = Runner(reading.store, FailsOnce(reading.store, tmp_path / "scratch"), on_note=notes.append)
    made = read_source(run, READ, source, None)
    assert [(done.name, done.failed, done.blocked) for done in run.runs] == [("read_source", {}, 0), ("ingest", {}, 0)]
    assert made.queries.rows == 6
    assert notes == ["read_source: some of its parts are not finished (the worker died); ingest reads all files itself"]
    assert reading.read(source) == (made, ["ingest 1"], [])
