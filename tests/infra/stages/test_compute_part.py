"""One part in one process: inputs are read, the function is called, outputs are written, the manifest is the last."""

import dataclasses
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel

from infra.ledger.ledger import Ledger
from infra.provenance import Origin, here
from infra.stages import compute_part as module
from infra.stages import origins
from infra.stages.checkpoints import Checkpoints
from infra.stages.compute_part import EngineNeeded, NoEngine, compute_part, load_function, rates
from infra.stages.part_spec import contents_of
from infra.stages.runner import PartSpec
from infra.stages.stage import Stage
from infra.storage.artifacts import (
    Artifact,
    Manifest,
    Piece,
    Table,
    materialise,
    newest_attempts,
    read_manifest,
    read_table,
    write_directory,
    write_table,
)
from infra.storage.artifacts import Directory as Folder
from infra.storage.store import Store, StoreError
from tasks.schemas import Schema

NUMBERS = Schema({"n": pl.Int64}, key=("n",))
_HERE = "tests.infra.stages.test_compute_part"


class Config(BaseModel):
    factor: int = 2


class Lent:
    """An engine as a part is lent one: it counts what it does, how long the part waited for it, and what it is."""

    def __init__(self, waited: float = 0.0, origin: Origin | None = None, **facts: float) -> None:
        self.waited, self.origin, self.facts = waited, origin, facts

    def score(self, pairs: Sequence[Any]) -> Sequence[float]:
        return [0.5 for _ in pairs]


def multiply(config: Config, *, numbers: pl.DataFrame, more: pl.DataFrame | None = None) -> dict[str, Any]:
    return {"numbers": numbers.select(pl.col("n") * config.factor), "facts": {"rejected": 1}}


def see_columns(config: Config, *, numbers: pl.DataFrame) -> dict[str, Any]:
    return {"numbers": numbers.select("n"), "facts": {"columns": numbers.columns, "sum": numbers["m"].sum()}}


def split(config: Config, *, numbers: pl.DataFrame) -> dict[str, list[pl.DataFrame]]:
    return {"numbers": [numbers.slice(0, 1), numbers.slice(1)]}


def split_with_gaps(config: Config, *, numbers: pl.DataFrame) -> dict[str, list[pl.DataFrame]]:
    """Part 1 alone has rows; the others are one and the same empty frame."""
    empty = numbers.clear()
    return {"numbers": [empty, numbers, empty, empty]}


def split_lazily(config: Config, *, numbers: pl.DataFrame) -> dict[str, Iterator[pl.DataFrame]]:
    """Make frames of one row each; 13 cannot be made. No frame may be alive when the next one is asked for."""

    def frames() -> Iterator[pl.DataFrame]:
        for start in range(numbers.height):
            time.sleep(0.01)
            assert numbers["n"][start] != 13, "unlucky"
            frame = numbers.slice(start, 1)
            made = weakref.ref(frame)
            yield frame
            del frame
            assert made() is None, f"frame {start} is still held"

    return {"numbers": frames()}


def scatter(config: Config, *, numbers: pl.DataFrame) -> dict[str, Iterator[tuple[int, pl.DataFrame]]]:
    """Send each number to the part of its last digit; a number of 13 is refused."""
    assert 13 not in numbers["n"]
    digits = sorted({n % 10 for n in numbers["n"]})
    return {"numbers": ((digit, numbers.filter(pl.col("n") % 10 == digit)) for digit in digits)}


def number(config: Config, *, numbers: pl.DataFrame) -> dict[str, Any]:
    """Add the number of its part to each number."""
    return {"numbers": numbers.select(pl.col("n") + 100 * pl.col("part"))}


def count_files(config: Config, *, source: Path, out: Path) -> dict[str, pl.DataFrame]:
    (out / "deep").mkdir()
    (out / "deep" / "names.txt").write_text(" ".join(sorted(path.name for path in source.iterdir())))
    return {"numbers": pl.DataFrame({"n": [len(list(source.iterdir()))]})}


def remember(config: Config, *, numbers: pl.DataFrame, engine: Any, ledger: Ledger) -> dict[str, Any]:
    subject = "ab" * 16
    known = ledger.recall("judge", {str(n): subject for n in numbers["n"]})
    missing = [str(n) for n in numbers["n"] if str(n) not in known]
    if missing:
        engine.score(missing)
    ledger.remember("judge", [(entry, [subject], "0.5") for entry in missing])
    return {"numbers": numbers, "facts": {"calls": len(missing)}}


def read_twice(config: Config, *, numbers: Iterable[pl.DataFrame]) -> dict[str, Any]:
    """Read a stream to its end, and its beginning again."""
    heights = [frame.height for frame in numbers]
    return {"numbers": next(iter(numbers)), "facts": {"heights": heights}}


def train_slowly(config: Config, *, numbers: pl.DataFrame, checkpoints: Checkpoints, workers: Any) -> dict[str, Any]:
    """Stop at the first step; go on from it the next time."""
    with TemporaryDirectory() as folder:
        step = checkpoints.fetch(Path(folder))
        if step is None:
            (Path(folder) / "state").write_text("at the first step")
            checkpoints.put(1, Path(folder))
            raise OSError("the machine stopped")
        return {"numbers": numbers, "facts": {"step": step, "workers": workers}}


MULTIPLY = Stage("multiply", f"{_HERE}:multiply", 3, "map", each=("numbers",), outputs={"numbers": NUMBERS})
ALL_COLUMNS = Stage(
    "see_columns", f"{_HERE}:see_columns", 1, "single", every=("numbers",), outputs={"numbers": NUMBERS}
)
SPLIT = Stage(
    "split", f"{_HERE}:split", 1, "single", each=("numbers",), outputs={"numbers": NUMBERS}, splits=("numbers",)
)
SPLIT_WITH_GAPS = dataclasses.replace(SPLIT, name="split_with_gaps", function=f"{_HERE}:split_with_gaps")
SCATTER = Stage(
    "scatter", f"{_HERE}:scatter", 1, "map", each=("numbers",), outputs={"numbers": NUMBERS}, scatters=("numbers",)
)
NUMBER = Stage(
    "number", f"{_HERE}:number", 1, "gather", every=("numbers",), numbered=("numbers",), outputs={"numbers": NUMBERS}
)
SPLIT_LAZILY = dataclasses.replace(SPLIT, name="split_lazily", function=f"{_HERE}:split_lazily")
COUNT = Stage(
    "count_files", f"{_HERE}:count_files", 1, "single", every=("source",), outputs={"numbers": NUMBERS},
    directories=("report",),
)  # fmt: skip
REMEMBER = Stage(
    "remember", f"{_HERE}:remember", 1, "map", each=("numbers",), outputs={"numbers": NUMBERS}, engine="judge",
    ledger=True,
)  # fmt: skip


TRAIN = Stage(
    "train_slowly", f"{_HERE}:train_slowly", 1, "single", every=("numbers",), outputs={"numbers": NUMBERS}, trains=True
)
READ_TWICE = Stage(
    "read_twice", f"{_HERE}:read_twice", 1, "single", every=("numbers",), outputs={"numbers": NUMBERS},
    streams=("numbers",),
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def spec_of(stage: Stage, inputs: Mapping[str, Artifact], index: int = 0, attempt: int = 0) -> PartSpec:
    ingredients = {"stage": stage.name}
    return PartSpec(stage, f"{stage.name}-00007", index, 7, "key", attempt, ingredients, {"factor": 3}, inputs)


def numbers(store: Store, *pieces: Sequence[int]) -> Table:
    frames = [pl.DataFrame({"n": list(piece)}, schema={"n": pl.Int64}) for piece in pieces]
    return Table("numbers", tuple(module.write_table(store, "numbers", f, NUMBERS, i) for i, f in enumerate(frames)))


def compute(store: Store, tmp_path: Path, spec: PartSpec, engine: object | None = None) -> Manifest:
    return compute_part(store.url, spec, tmp_path / "cache", engine)


def test_a_training_goes_on_from_its_checkpoint_which_is_deleted_when_the_part_is_finished(
    store: Store, tmp_path: Path
) -> None:
    spec = spec_of(TRAIN, {"numbers": numbers(store, [1])})
    with pytest.raises(OSError, match="the machine stopped"):
        compute(store, tmp_path, spec)
    assert {"/".join(key.split("/")[:3]) for key in store.list("checkpoints")} == {"checkpoints/train_slowly/key-000"}
    with pytest.raises(OSError, match="the machine stopped"):  # another attempt has checkpoints of its own
        compute(store, tmp_path, dataclasses.replace(spec, attempt=1))
    manifest = compute_part(store.url, spec, tmp_path / "cache", workers="two")
    assert manifest.stats["facts"] == {"step": 1, "workers": "two"}
    assert {key.split("/")[2] for key in store.list("checkpoints")} == {"key-001"}


def test_a_part_is_computed_with_its_configuration_and_its_manifest_says_all_of_it(
    store: Store, tmp_path: Path
) -> None:
    inputs = {"numbers": numbers(store, [1, 2], [3]), "more": numbers(store, [9])}
    stage = dataclasses.replace(MULTIPLY, every=("more",))
    manifest = compute(store, tmp_path, spec_of(stage, inputs, index=4, attempt=2))
    assert (manifest.stage, manifest.version, manifest.part, manifest.key, manifest.attempt) == (
        "multiply", 3, 7, "key", 2,
    )  # fmt: skip
    assert manifest.ingredients == {"stage": "multiply"}
    assert [piece.index for piece in manifest.tables["numbers"]] == [4]
    assert read_table(store, Table("numbers", manifest.tables["numbers"]))["n"].to_list() == [3, 6, 9]
    assert manifest.stats["rows_in"] == 4
    assert (manifest.stats["rows_out"], manifest.stats["rows"]) == (3, {"numbers": 3})
    assert manifest.stats["facts"] == {"rejected": 1}
    assert "node" not in manifest.stats
    assert read_manifest(store, "multiply", "key", 2) == manifest


def test_a_part_says_what_it_read_of_its_inputs_and_how_much_memory_its_process_took(
    store: Store, tmp_path: Path
) -> None:
    table = numbers(store, [1, 2], [3])
    manifest = compute(store, tmp_path, spec_of(MULTIPLY, {"numbers": table}))
    sizes = [store.size(piece.object) or 0 for piece in table.pieces]
    assert (manifest.stats["read_bytes"], manifest.stats["read_objects"]) == (sum(sizes), 2)
    assert 0.01 < manifest.stats["peak_gib"] < 64
    remembered = [compute(store, tmp_path, spec_of(REMEMBER, {"numbers": table}, attempt=n), Lent()) for n in (0, 1)]
    assert [made.stats["read_bytes"] for made in remembered] == [sum(sizes)] * 2  # the ledger's own reads do not count


def test_a_function_sees_only_the_columns_that_its_stage_names(store: Store, tmp_path: Path) -> None:
    schema = Schema({"n": pl.Int64, "m": pl.Int64, "text": pl.String}, key=("n",))
    frames = [pl.DataFrame({"n": [n], "m": [n * 10], "text": ["x"]}) for n in range(2)]
    pieces = tuple(module.write_table(store, "numbers", frame, schema, n) for n, frame in enumerate(frames))
    stage = dataclasses.replace(ALL_COLUMNS, columns={"numbers": ("m", "n")})
    inputs = {"numbers": Table("numbers", pieces)}
    seen = compute(store, tmp_path, spec_of(stage, inputs)).stats["facts"]
    assert seen == {"columns": ["m", "n"], "sum": 10}
    seen = compute(store, tmp_path, spec_of(ALL_COLUMNS, inputs, attempt=1)).stats["facts"]
    assert seen == {"columns": ["n", "m", "text"], "sum": 10}
    numbered = dataclasses.replace(stage, numbered=("numbers",))
    seen = compute(store, tmp_path, spec_of(numbered, inputs, attempt=2)).stats["facts"]
    assert seen == {"columns": ["m", "n", "part"], "sum": 10}
    absent = dataclasses.replace(stage, columns={"numbers": ("absent",)})
    with pytest.raises(StoreError, match=r"table numbers: objects/.* lacks a column"):
        compute(store, tmp_path, spec_of(absent, inputs, attempt=3))
    empty = Table("numbers", schema=schema)
    seen = compute(store, tmp_path, spec_of(stage, {"numbers": empty}, attempt=4)).stats["facts"]
    assert seen == {"columns": ["m", "n"], "sum": 0}


def test_a_stream_is_read_piece_by_piece_each_time_anew_and_all_of_that_counts_as_read(
    store: Store, tmp_path: Path
) -> None:
    table = numbers(store, [1, 2], [3])
    manifest = compute(store, tmp_path, spec_of(READ_TWICE, {"numbers": table}))
    sizes = [store.size(piece.object) or 0 for piece in table.pieces]
    assert manifest.stats["facts"] == {"heights": [2, 1]}
    assert read_table(store, Table("numbers", manifest.tables["numbers"]))["n"].to_list() == [1, 2]
    assert (manifest.stats["rows_in"], manifest.stats["read_bytes"]) == (3, sum(sizes) + sizes[0])


def test_a_part_that_reads_a_group_of_parts_sees_their_own_numbers(store: Store, tmp_path: Path) -> None:
    grouped = numbers(store, [1], [2], [3]).grouped([range(1), range(1, 3)])
    assert grouped.indexes == {0, 1}
    frame = read_table(store, grouped.at(1), numbered=True)
    assert frame.rows() == [(2, 1), (3, 2)]
    lost = dataclasses.replace(numbers(store, [1]), missing=frozenset({2})).grouped([range(1), range(1, 3)])
    assert (lost.lacks(0), lost.lacks(1)) == (False, True)
    stage = dataclasses.replace(MULTIPLY, numbered=("numbers",))
    assert contents_of(stage, {"numbers": grouped.at(1)})["numbers.part"] == ["1", "2"]


def test_frames_of_a_generator_are_written_one_by_one_and_dropped(store: Store, tmp_path: Path) -> None:
    manifest = compute(store, tmp_path, spec_of(SPLIT_LAZILY, {"numbers": numbers(store, [1, 2, 3])}))
    pieces = manifest.tables["numbers"]
    assert [(piece.index, piece.rows) for piece in pieces] == [(0, 1), (1, 1), (2, 1)]
    assert read_table(store, Table("numbers", pieces))["n"].to_list() == [1, 2, 3]
    assert manifest.stats["seconds"] >= 0.03  # the time in which frames are made is work


def test_an_empty_frame_that_comes_for_many_parts_is_written_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[int]()

    def counted(*given: Any) -> Piece:
        written.append(given[2].height)
        return write_table(*given)

    inputs = {"numbers": numbers(store, [1, 2])}
    monkeypatch.setattr(module, "write_table", counted)
    pieces = compute(store, tmp_path, spec_of(SPLIT_WITH_GAPS, inputs)).tables["numbers"]
    assert written == [0, 2]
    assert [(piece.index, piece.rows) for piece in pieces] == [(0, 0), (1, 2), (2, 0), (3, 0)]
    assert len({piece.object for piece in pieces}) == 2
    assert read_table(store, Table("numbers", pieces).at(2)).is_empty()


def test_what_a_part_scatters_lies_in_one_object_and_keeps_the_indexes_that_it_names(
    store: Store, tmp_path: Path
) -> None:
    inputs = {"numbers": numbers(store, [21, 5, 11])}
    pieces = compute(store, tmp_path, spec_of(SCATTER, inputs, index=4)).tables["numbers"]
    assert [(piece.index, piece.rows) for piece in pieces] == [(1, 2), (5, 1)]
    assert len({piece.object for piece in pieces}) == 1
    assert read_table(store, Table("numbers", pieces).at(1))["n"].to_list() == [21, 11]
    nothing = compute(store, tmp_path, spec_of(SCATTER, {"numbers": numbers(store, [])}, attempt=1))
    assert (nothing.tables["numbers"], nothing.stats["rows"]) == ((), {"numbers": 0})


def test_a_gather_sees_which_part_each_row_of_a_numbered_input_came_from(store: Store, tmp_path: Path) -> None:
    made = compute(store, tmp_path, spec_of(NUMBER, {"numbers": numbers(store, [1, 2], [], [3])}))
    assert read_table(store, Table("numbers", made.tables["numbers"]))["n"].to_list() == [1, 2, 203]


def test_a_generator_that_fails_midway_leaves_no_manifest(store: Store, tmp_path: Path) -> None:
    inputs = {"numbers": numbers(store, [1, 13, 3])}
    with pytest.raises(AssertionError, match="unlucky"):
        compute(store, tmp_path, spec_of(SPLIT_LAZILY, inputs))
    assert newest_attempts(store, "split_lazily") == {}


def test_a_split_table_is_one_piece_for_each_later_part(store: Store, tmp_path: Path) -> None:
    manifest = compute(store, tmp_path, spec_of(SPLIT, {"numbers": numbers(store, [1, 2, 3])}, index=9))
    assert [(piece.index, piece.rows) for piece in manifest.tables["numbers"]] == [(0, 1), (1, 2)]
    assert (manifest.stats["rows_out"], manifest.stats["rows"]) == (3, {"numbers": 3})


def test_directories_come_as_folders_and_go_as_folders(store: Store, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "source" / name).write_text(name)
    source = write_directory(store, "source", tmp_path / "source")
    manifest = compute(store, tmp_path, spec_of(COUNT, {"source": source}))
    report = materialise(store, Folder("report", manifest.directories["report"]), tmp_path / "out")
    assert (report / "deep" / "names.txt").read_text() == "a.jsonl b.jsonl"
    assert manifest.stats["rows_in"] == 0


def test_whoever_loses_the_race_for_a_part_returns_the_winners_manifest(store: Store, tmp_path: Path) -> None:
    first = compute(store, tmp_path, spec_of(MULTIPLY, {"numbers": numbers(store, [1])}))
    second = compute(store, tmp_path, spec_of(MULTIPLY, {"numbers": numbers(store, [2])}))
    assert second == first


def test_outputs_other_than_the_stages_are_refused_and_nothing_is_committed(store: Store, tmp_path: Path) -> None:
    stage = dataclasses.replace(MULTIPLY, outputs={"numbers": NUMBERS, "rejects": NUMBERS})
    told = r"multiply-00007: outputs \['numbers', 'rejects'\] expected, \['numbers'\] came"
    with pytest.raises(ValueError, match=told):
        compute(store, tmp_path, spec_of(stage, {"numbers": numbers(store, [1])}))
    assert store.list("parts") == []


def test_without_an_engine_a_part_is_computed_only_where_every_row_is_remembered(store: Store, tmp_path: Path) -> None:
    table = numbers(store, [1, 2])
    with pytest.raises(EngineNeeded, match="2 rows are not in the ledger"):
        compute(store, tmp_path, spec_of(REMEMBER, {"numbers": table}))
    first = compute(store, tmp_path, spec_of(REMEMBER, {"numbers": table}), Lent())
    again = compute(store, tmp_path, spec_of(REMEMBER, {"numbers": table}, attempt=1))
    assert (first.attempt, again.attempt) == (0, 1)
    assert first.tables == again.tables


def test_no_engine_gives_up_on_answers_and_on_scores() -> None:
    with pytest.raises(EngineNeeded, match="3 rows"):
        NoEngine().answer(["a", "b", "c"])
    with pytest.raises(EngineNeeded, match="1 rows"):
        NoEngine().score(["a"])
    with pytest.raises(EngineNeeded, match="no vectors of 2 texts"):
        NoEngine().embed(["a", "b"], "query")
    with pytest.raises(EngineNeeded, match="vectors of 2 texts"):
        NoEngine().find(pl.DataFrame({"text_hash": ["a", "b"]}), "query")


def test_the_engines_facts_are_kept_with_their_rates_and_waiting_for_it_is_no_work(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 160.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times, 160.0))
    engine = Lent(45.5, prompt_tokens=100, cached_tokens=25, output_tokens=20, engine_seconds=2.0)
    manifest = compute(store, tmp_path, spec_of(REMEMBER, {"numbers": numbers(store, [1])}), engine)
    assert manifest.stats["seconds"] == 14.5
    assert manifest.stats["facts"] == {
        "calls": 1, "prompt_tokens": 100, "cached_tokens": 25, "output_tokens": 20, "engine_seconds": 2.0,
        "prefix_hit_rate": 0.25, "tokens_per_second": 60.0,
    }  # fmt: skip


def test_the_node_is_named_where_there_is_one(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "where", lambda: "10.0.0.1 (node abc)")
    manifest = compute(store, tmp_path, spec_of(MULTIPLY, {"numbers": numbers(store, [1])}))
    assert manifest.stats["node"] == "10.0.0.1 (node abc)"


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, {}),
        ({"prompt_tokens": 0, "engine_seconds": 2.0}, {}),
        ({"prompt_tokens": 10}, {"prefix_hit_rate": 0.0}),
        ({"prompt_tokens": 3, "cached_tokens": 1}, {"prefix_hit_rate": 0.3333}),
        ({"prompt_tokens": 10, "engine_seconds": 4.0}, {"prefix_hit_rate": 0.0, "tokens_per_second": 2.5}),
        ({"queries": 7, "engine_seconds": 3.0}, {"queries_per_second": 2.333}),
        ({"queries": 7}, {}),
    ],
)
def test_rates_are_derived_from_what_was_counted(facts: Mapping[str, Any], found: Mapping[str, float]) -> None:
    assert rates(facts) == found


def test_a_stages_function_is_found_by_module_and_name() -> None:
    assert load_function("infra.stages.compute_part:rates") is rates


OLD = Origin({"vllm": "0.31.0"}, {"device": "cpu", "name": "AMD EPYC"})
NEW = Origin({"vllm": "0.32.0"}, {"device": "cuda", "gpu": "NVIDIA H200"})


def test_a_part_without_an_engine_records_the_packages_and_the_processor_of_its_process(
    store: Store, tmp_path: Path
) -> None:
    manifest = compute(store, tmp_path, spec_of(MULTIPLY, {"numbers": numbers(store, [1])}))
    assert manifest.origin == here().digest
    assert "answers" not in manifest.stats
    origin = origins.read(store, manifest.origin)
    assert origin is not None
    assert set(origin.software) == {"polars", "numpy"}
    named = dataclasses.replace(MULTIPLY, libraries=("faiss", "pyarrow"))
    other = compute(store, tmp_path, spec_of(named, {"numbers": numbers(store, [1])}, attempt=1))
    assert set(origins.read(store, other.origin).software) == {"faiss", "pyarrow"}  # type: ignore[union-attr]


def test_a_part_records_what_its_engine_runs_on_and_whose_answers_it_used(store: Store, tmp_path: Path) -> None:
    first = compute(store, tmp_path, spec_of(REMEMBER, {"numbers": numbers(store, [1, 2])}), Lent(origin=OLD))
    assert (first.origin, first.answers) == (OLD.digest, {OLD.digest: 2})
    with Ledger(store) as ledger:  # as a process did that recorded no origins
        ledger.remember("judge", [("7", ["ab" * 16], "0.5")])
    grown = spec_of(REMEMBER, {"numbers": numbers(store, [1, 2, 3, 7])}, attempt=1)
    second = compute(store, tmp_path, grown, Lent(origin=NEW))
    assert (second.origin, second.answers) == (NEW.digest, {"": 1, OLD.digest: 2, NEW.digest: 1})
    recalled = compute(store, tmp_path, dataclasses.replace(grown, attempt=2))
    assert recalled.answers == {"": 1, OLD.digest: 2, NEW.digest: 1}
    assert recalled.origin == here().digest  # no engine was needed
    assert [origins.read(store, origin) for origin in (first.origin, second.origin)] == [OLD, NEW]


def test_an_origin_is_durable_before_the_first_answer_that_names_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    create = Store.create

    def refuse_manifests(self: Store, key: str, data: bytes) -> bool:
        if key.startswith("parts/"):
            raise StoreError("killed here")
        written.append(key.partition("/")[0])
        return create(self, key, data)

    spec = spec_of(REMEMBER, {"numbers": numbers(store, [1, 2])})
    with monkeypatch.context() as patch:
        patch.setattr(Store, "create", refuse_manifests)
        with pytest.raises(StoreError, match="killed here"):
            compute(store, tmp_path, spec, Lent(origin=OLD))
    assert [kind for kind in written if kind != "objects"] == ["origins", "ledger"]
    again = compute(store, tmp_path, spec)  # nothing is asked again, and the answers know what gave them
    assert again.answers == {OLD.digest: 2}


def test_a_manifest_from_before_origins_is_read(store: Store, tmp_path: Path) -> None:
    manifest = compute(store, tmp_path, spec_of(REMEMBER, {"numbers": numbers(store, [1])}), Lent())
    stats = {name: value for name, value in manifest.stats.items() if name not in ("origin", "answers")}
    older = Manifest.from_json(dataclasses.replace(manifest, stats=stats).to_json())
    assert (older.origin, older.answers) == ("", {})
