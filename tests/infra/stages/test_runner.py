"""The runner without Prefect and Ray: cutting, keying, reusing, blocking. Parts are computed in this process."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from infra.stages.found_parts import FoundParts
from infra.stages.part_keys import differences
from infra.stages.runner import Failure, PartDone, PartSpec, PartUnready, Runner, StageRun, WorkNeeded, _summarise
from infra.stages.stage import Resources, Stage
from infra.storage.artifacts import Manifest, Piece, Table, commit, materialise
from infra.storage.store import Entry, Store
from tests.flows.fakes import InProcess
from tests.infra import toy
from tests.infra.frozen import can_be_changed
from tests.infra.toy import ADD_UP, CROSS, DEAL, DOUBLE, NUMBERS, PRODUCE, TAKE, ToyConfig, pipeline


def make(tmp_path: Path, url: str, **options: object) -> tuple[Runner, InProcess]:
    store = Store.open(url)
    executor = InProcess(store, tmp_path / "scratch")
    return Runner(store, executor, **options), executor  # type: ignore[arg-type]


def test_stages_compute_once_and_are_reused_by_every_later_run(tmp_path: Path, store_url: str) -> None:
    run, executor = make(tmp_path, store_url)
    first = pipeline(run)
    assert run.read(first["total"])["n"].to_list() == [2 * sum(i * 10 + j for i in range(4) for j in range(3))]  # type: ignore[arg-type]
    assert len(executor.computed) == 6
    again, second = make(tmp_path, store_url)
    assert pipeline(again) == first
    assert second.computed == []
    assert [(r.reused, r.computed) for r in again.runs] == [(1, 0), (4, 0), (1, 0)]


def test_without_an_executor_a_finished_pipeline_is_answered_and_an_unfinished_one_names_its_stage(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "store")
    with pytest.raises(WorkNeeded, match="produce: 1 of 1 parts"):
        pipeline(Runner(Store.open(url)))
    run, _ = make(tmp_path, url)
    expected = pipeline(run)
    assert pipeline(Runner(Store.open(url))) == expected


def test_operational_settings_do_not_change_the_key_and_semantic_ones_do(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    pipeline(make(tmp_path, url)[0])
    run, executor = make(tmp_path, url)
    pipeline(run, ToyConfig(batch_size=1))
    assert executor.computed == []
    pipeline(run, ToyConfig(factor=3))
    assert executor.computed == ["double-00000", "double-00001", "double-00002", "double-00003", "add_up-00000"]


def test_a_raised_version_recomputes_the_stage_and_an_equal_result_stops_the_wave(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    pipeline(make(tmp_path, url)[0])
    run, executor = make(tmp_path, url)
    numbers = run(PRODUCE, ToyConfig())["numbers"]
    doubled = run(dataclasses.replace(DOUBLE, version=2), ToyConfig(), numbers=numbers)["doubled"]
    run(ADD_UP, ToyConfig(), doubled=doubled)
    assert executor.computed == [f"double-{n:05d}" for n in range(4)]


def test_a_failed_part_spares_its_siblings_and_blocks_the_gather(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    run, _ = make(tmp_path, url)
    outputs = pipeline(run, ToyConfig(trouble="raise"))
    assert "20 is not to my liking" in run.runs[1].failed[2]
    assert (run.runs[1].computed, run.runs[2].blocked) == (3, 1)
    assert outputs["total"].missing == {0}  # type: ignore[attr-defined]
    again, second = make(tmp_path, url)
    pipeline(again)
    assert second.computed == ["double-00002", "add_up-00000"]


def test_a_forced_part_is_a_new_attempt_that_later_runs_read(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    pipeline(make(tmp_path, url)[0])
    run, executor = make(tmp_path, url, force=frozenset({("double", 1)}))
    pipeline(run)
    assert executor.computed == ["double-00001"]  # the same bytes: nothing downstream
    assert [m.attempt for m in run.runs[1].manifests] == [0, 1, 0, 0]
    later, third = make(tmp_path, url)
    pipeline(later)
    assert third.computed == []
    assert [m.attempt for m in later.runs[1].manifests] == [0, 1, 0, 0]


def test_a_forced_part_recalls_no_vector_from_before_it_was_forced(tmp_path: Path) -> None:
    class Noting:
        """Computes nothing, and notes from when on each part recalls what is remembered."""

        def run_stage(
            self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
        ) -> Mapping[int, Manifest | Failure]:
            self.since = [spec.since for spec in specs]
            return finished

    url, executor, began = str(tmp_path / "store"), Noting(), int(time.time())
    pipeline(make(tmp_path, url)[0])
    for stage, anew in ((DOUBLE, False), (dataclasses.replace(DOUBLE, vectors=True), True)):
        run = Runner(Store.open(url), executor, force=frozenset({("double", 1)}))
        run(stage, ToyConfig(), numbers=run(PRODUCE, ToyConfig())["numbers"])
        assert [since >= began for since in executor.since] == [False, anew, False, False]


def test_a_grid_crosses_every_part_of_one_side_with_every_part_of_the_other(tmp_path: Path) -> None:
    run, executor = make(tmp_path, str(tmp_path / "store"))
    numbers = run(PRODUCE, ToyConfig())["numbers"]
    pairs = run(CROSS, ToyConfig(), left=numbers, right=numbers)["pairs"]
    assert len(executor.computed) == 1 + 16
    assert [piece.index for piece in pairs.pieces] == [i for i in range(4) for _ in range(4)]
    assert run.read(pairs.at(1))["n"].to_list() == [33 * 1000 + s for s in (3, 33, 63, 93)]


def test_a_table_off_its_schema_fails_at_the_stores_door(tmp_path: Path) -> None:
    run, _ = make(tmp_path, str(tmp_path / "store"))
    numbers = run(PRODUCE, ToyConfig())["numbers"]
    run(Stage("wrong", "tests.infra.toy:wrong", 1, "map", each=("numbers",), outputs={"doubled": toy.NUMBERS}),
        ToyConfig(), numbers=numbers)  # fmt: skip
    assert run.runs[-1].failed[0] == "table doubled: columns ['n'] expected, ['m'] came"


def test_directories_come_back_as_they_were(tmp_path: Path, store_url: str) -> None:
    run, _ = make(tmp_path, store_url)
    folder = materialise(run.store, pipeline(run)["sum"], tmp_path / "laid-out")  # type: ignore[arg-type]
    assert (folder / "folder" / "total.txt").read_text() == "384"


def test_stages_about_something_else_have_labels_of_their_own_and_share_what_is_equal(tmp_path: Path) -> None:
    run, executor = make(tmp_path, str(tmp_path / "store"))
    pipeline(run)
    executor.computed.clear()
    pipeline(dataclasses.replace(run, about="else"))
    assert executor.computed == []  # equal work has equal keys, whatever its label
    names = [done.name for done in run.runs]
    assert names[3:] == [f"{name}-else" for name in names[:3]]
    assert str(dataclasses.replace(run, about="else").call(PRODUCE, ToyConfig(), label="a").name) == "produce-else-a"


def test_wrong_inputs_are_refused_before_anything_runs(tmp_path: Path) -> None:
    run, executor = make(tmp_path, str(tmp_path / "store"))
    with pytest.raises(ValueError, match=r"inputs \['numbers'\] expected"):
        run(DOUBLE, ToyConfig())
    assert executor.computed == []


def test_what_changed_in_a_key_can_be_named() -> None:
    old = {"config": {"depth": 50, "seed": 0}, "prompt": "a"}
    new = {"config": {"depth": 100, "seed": 0}, "prompt": "b"}
    assert differences(old, new) == ["config.depth: 50 → 100", 'prompt: "a" → "b"']


def alone(tmp_path: Path, target: tuple[str, int], config: ToyConfig) -> tuple[list[str], StageRun]:
    store = Store.open(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch")
    with pytest.raises(PartDone) as done:
        pipeline(Runner(store, executor, force=frozenset({target}), only=target), config)
    return executor.computed, done.value.run


def test_one_part_alone_is_computed_and_nothing_before_or_after_it(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch")
    pipeline(Runner(store, executor), ToyConfig(trouble="raise"))
    assert len(executor.computed) == 5  # part 2 failed, and what gathers waits
    computed, run = alone(tmp_path, ("double", 2), ToyConfig())
    assert computed == ["double-00002"]
    assert (run.computed, run.unfinished) == (1, frozenset())
    computed, _ = alone(tmp_path, ("double", 2), ToyConfig())
    assert computed == ["double-00002"]  # finished, and computed again as a new attempt


def test_one_part_alone_says_what_stands_in_its_way(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch")
    with pytest.raises(PartUnready, match="double: part 0 cannot be computed alone: what it reads is not finished"):
        pipeline(Runner(store, executor, only=("double", 0)), ToyConfig())
    pipeline(Runner(store, executor), ToyConfig(trouble="raise"))
    with pytest.raises(PartUnready, match="add_up: part 0 cannot be computed alone: what it reads is not finished"):
        pipeline(Runner(store, executor, only=("add_up", 0)), ToyConfig())
    with pytest.raises(PartUnready, match="there are 4, numbered from 0"):
        pipeline(Runner(store, executor, only=("double", 9)), ToyConfig())


def test_a_stages_seconds_do_not_depend_on_the_order_in_which_its_parts_were_finished() -> None:
    """They are in the report's key: in another order the last bit differed, and a finished report was made again."""

    def part(seconds: float) -> Manifest:
        return Manifest("stage", 1, 0, "key", 0, {}, {}, {}, {"seconds": seconds})

    taken = {0: 0.1, 1: 0.2, 2: 0.3}
    orders = (taken, dict(reversed(taken.items())))
    sums = [_summarise("stage", 3, {n: part(s) for n, s in order.items()}, {}, 0, []).seconds for order in orders]
    assert sums[0] == sums[1]


class Counted(Store):
    """A store that notes each key that is listed or read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.seen: list[str] = []

    def entries(self, prefix: str) -> dict[str, Entry]:
        self.seen.append(prefix)
        return super().entries(prefix)

    def read(self, key: str, *, last: int | None = None) -> bytes | None:
        self.seen.append(key)
        return super().read(key, last=last)

    @property
    def listings(self) -> list[str]:
        """The folders of parts that were listed."""
        return [key for key in self.seen if key.startswith("parts/") and key.count("/") == 1]


def walked(tmp_path: Path, config: ToyConfig | None = None) -> FoundParts:
    """Compute the pipeline and return what the walk over it found."""
    run, _ = make(tmp_path, str(tmp_path / "store"))
    pipeline(run, config or ToyConfig())
    return run.found


def again(tmp_path: Path, found: FoundParts, config: ToyConfig | None = None, **options: object) -> Runner:
    """Walk the pipeline a second time, over a store that notes what is asked of it."""
    store = Counted(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch")
    run = Runner(store, executor, found=found.for_another_walk(), **options)  # type: ignore[arg-type]
    with contextlib.suppress(PartDone):
        pipeline(run, config or ToyConfig())
    return run


def asked_for(run: Runner) -> list[str]:
    assert isinstance(run.store, Counted)
    return [key for key in run.store.seen if key.startswith("parts/")]


def test_a_second_walk_over_the_same_parts_reads_nothing_from_the_store(tmp_path: Path) -> None:
    found = walked(tmp_path)
    run = again(tmp_path, found)
    assert asked_for(run) == []
    assert [(r.name, r.reused, r.computed) for r in run.runs] == [("produce", 1, 0), ("double", 4, 0), ("add_up", 1, 0)]
    assert {m.key: dataclasses.replace(m, ingredients={}) for r in run.runs for m in r.manifests} == {
        key: manifest for stage in found.manifests.values() for key, manifest in stage.items()
    }
    assert [m.ingredients for r in run.runs for m in r.manifests] == [
        i for r in run.runs for i in r.ingredients.values()
    ]


def test_a_stage_whose_ingredients_changed_is_looked_up_though_it_is_known(tmp_path: Path) -> None:
    run = again(tmp_path, walked(tmp_path), ToyConfig(factor=2))
    assert asked_for(run)[0] == "parts/double"
    assert [(r.name, r.reused, r.computed) for r in run.runs] == [("produce", 1, 0), ("double", 0, 4), ("add_up", 0, 1)]


def test_a_stage_that_was_not_finished_is_looked_up_again(tmp_path: Path) -> None:
    run = again(tmp_path, walked(tmp_path, ToyConfig(trouble="raise")))
    assert "parts/produce" not in asked_for(run)
    assert asked_for(run)[0] == "parts/double"
    assert [(r.name, r.reused, r.computed) for r in run.runs] == [("produce", 1, 0), ("double", 3, 1), ("add_up", 0, 1)]


def test_a_part_that_is_forced_is_computed_again_though_its_stage_is_known(tmp_path: Path) -> None:
    run = again(tmp_path, walked(tmp_path), force=frozenset({("double", 1)}))
    assert [key for key in asked_for(run) if key.count("/") == 1] == ["parts/double"]
    assert [m.attempt for m in run.runs[1].manifests] == [0, 1, 0, 0]


def test_one_part_alone_is_computed_again_though_its_stage_is_known(tmp_path: Path) -> None:
    target = ("double", 1)
    run = again(tmp_path, walked(tmp_path), force=frozenset({target}), only=target)
    assert [(r.name, r.computed) for r in run.runs] == [("produce", 0), ("double", 1)]
    run = again(tmp_path, walked(tmp_path), only=("add_up", 0))
    assert "parts/double" not in asked_for(run)
    assert "parts/add_up" in asked_for(run)


def test_a_known_stage_keeps_the_attempt_it_was_found_with(tmp_path: Path) -> None:
    walked(tmp_path)
    run, _ = make(tmp_path, str(tmp_path / "store"), force=frozenset({("double", 1)}))
    pipeline(run)
    second = again(tmp_path, run.found)
    assert asked_for(second) == []
    assert [m.attempt for m in second.runs[1].manifests] == [0, 1, 0, 0]


def test_a_second_walk_reads_the_manifests_of_an_unfinished_stage_that_the_first_did_not_find(tmp_path: Path) -> None:
    run = again(tmp_path, walked(tmp_path, ToyConfig(trouble="raise")))
    assert isinstance(run.store, Counted)
    assert run.store.listings == ["parts/double", "parts/add_up"]
    assert [key for key in asked_for(run) if key not in run.store.listings] == []  # no manifest is read twice


def test_a_stage_under_several_labels_is_listed_once(tmp_path: Path) -> None:
    store = Counted(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch")
    run = Runner(store, executor)
    numbers = run(PRODUCE, ToyConfig())["numbers"]
    for label in ("a", "b", "c"):
        run(DOUBLE, ToyConfig(), label=label, numbers=numbers)
    run(DOUBLE, ToyConfig(factor=2), label="d", numbers=numbers)
    assert store.listings == ["parts/produce", "parts/double"]
    assert [(r.computed, r.reused) for r in run.runs[1:]] == [(4, 0), (0, 4), (0, 4), (4, 0)]


def test_a_stage_of_500_parts_is_listed_once_and_every_manifest_is_read_once(tmp_path: Path) -> None:
    store = Counted(str(tmp_path / "store"))
    piece = Runner(store).keep_table("numbers", pl.DataFrame({"n": [1]}), toy.NUMBERS)
    pieces = tuple(Piece(n, f"objects/aa/{n:064x}.parquet", 1) for n in range(500))
    run = Runner(store, Written(store, piece.pieces[0]))
    run(DOUBLE, ToyConfig(), numbers=Table("numbers", pieces))
    assert (run.runs[0].computed, store.listings) == (500, ["parts/double"])
    store.seen.clear()
    look = Runner(store)
    look(DOUBLE, ToyConfig(), numbers=Table("numbers", pieces))
    assert (look.runs[0].reused, store.listings) == (500, ["parts/double"])
    assert len(set(asked_for(look))) == len(asked_for(look)) == 501


@dataclasses.dataclass
class Written:
    """An executor that writes a manifest for each part, as if it had been computed."""

    store: Store
    piece: Piece

    def run_stage(self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]) -> dict[int, Manifest]:
        return {spec.number: commit(self.store, self._manifest(spec)) for spec in specs}

    def _manifest(self, spec: PartSpec) -> Manifest:
        tables = {"doubled": (dataclasses.replace(self.piece, index=spec.index),)}
        stats = {"seconds": 0.5, "rows_in": 1, "rows_out": 1, "rows": {"doubled": 1}}
        stage = spec.stage
        return Manifest(stage.name, 1, spec.number, spec.key, spec.attempt, spec.ingredients, tables, {}, stats)


def test_what_parts_scatter_is_read_by_the_part_of_each_index_in_the_order_of_the_makers(
    tmp_path: Path, store_url: str
) -> None:
    run, _ = make(tmp_path, store_url)
    dealt = run(DEAL, ToyConfig(), numbers=run(PRODUCE, ToyConfig())["numbers"])["dealt"]
    assert (dealt.indexes, len(dealt.pieces), len({piece.object for piece in dealt.pieces})) == ({0, 1, 2}, 12, 4)
    taken = run(TAKE, ToyConfig(), dealt=dealt)["taken"]
    assert [run.read(taken.at(index))["n"].to_list() for index in range(3)] == [
        [0, 10, 20, 30], [1, 11, 21, 31], [2, 12, 22, 32],
    ]  # fmt: skip
    again, executor = make(tmp_path, store_url)
    again(TAKE, ToyConfig(), dealt=again(DEAL, ToyConfig(), numbers=again(PRODUCE, ToyConfig())["numbers"])["dealt"])
    assert executor.computed == []


def test_every_reader_waits_while_one_of_those_that_scatter_has_failed(tmp_path: Path, store_url: str) -> None:
    run, _ = make(tmp_path, store_url)
    numbers = run(PRODUCE, ToyConfig())["numbers"]
    dealt = run(DEAL, ToyConfig(trouble="raise"), numbers=numbers)["dealt"]
    assert (dealt.partial, dealt.missing, len(dealt.pieces)) == (True, frozenset(), 9)
    assert run(TAKE, ToyConfig(), dealt=dealt)["taken"].missing == {0, 1, 2}
    assert (run.runs[-1].parts, run.runs[-1].blocked, run.runs[-2].failed.keys()) == (3, 3, {2})


def test_only_the_readers_of_a_slice_that_changed_are_computed_again(tmp_path: Path, store_url: str) -> None:
    """The bundle of the maker is another one; what it holds for the others is the same."""
    run, executor = make(tmp_path, store_url)
    tables = [run.keep_table("numbers", pl.DataFrame({"n": ns}), NUMBERS) for ns in ([1, 2, 3], [1, 2, 13])]
    dealt = [run(DEAL, ToyConfig(), numbers=table)["dealt"] for table in tables]
    assert dealt[0].pieces[0].object != dealt[1].pieces[0].object
    run(TAKE, ToyConfig(), dealt=dealt[0])
    before = len(executor.computed)
    run(TAKE, ToyConfig(), dealt=dealt[1])
    assert executor.computed[before:] == ["take-00002"]


def test_a_stages_name_has_its_label_and_its_parts_are_numbered(tmp_path: Path) -> None:
    run, executor = make(tmp_path, str(tmp_path / "store"))
    numbers = run(PRODUCE, ToyConfig(), label="gold-llm")["numbers"]
    assert executor.computed == ["produce-gold-llm-00000"]
    assert run.runs[0].name == "produce-gold-llm"
    assert numbers.indexes == {0, 1, 2, 3}
    run(PRODUCE, ToyConfig(), label="another")
    assert len(executor.computed) == 1  # a label tells runs apart; it is not in the key


class Asked:
    """An executor that keeps what it was asked for, and computes nothing."""

    def __init__(self) -> None:
        self.specs: list[PartSpec] = []

    def run_stage(self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]) -> dict[int, Failure]:
        self.specs += specs
        return {spec.number: Failure("not computed") for spec in specs}


@pytest.mark.parametrize(
    ("given", "cpus"),
    [({}, 1.0), ({"produce": Resources(2.0)}, 2.0), ({"produce-a": Resources(3.0), "produce": Resources(2.0)}, 3.0)],
)
def test_resources_are_the_labelled_stages_or_the_stages_or_the_tables(
    tmp_path: Path, given: dict[str, Resources], cpus: float
) -> None:
    asked = Asked()
    Runner(Store.open(str(tmp_path / "store")), asked, resources=given)(PRODUCE, ToyConfig(), label="a")
    assert [spec.stage.resources.num_cpus for spec in asked.specs] == [cpus]


def test_further_ingredients_and_the_engine_are_in_the_key(tmp_path: Path) -> None:
    asked = Asked()
    run = Runner(Store.open(str(tmp_path / "store")), asked)
    run(PRODUCE, ToyConfig())
    run(PRODUCE, ToyConfig(), key={"prompt": "abc"})
    run(PRODUCE, ToyConfig(), engine=ToyConfig(factor=2, batch_size=9))
    plain, prompted, with_engine = asked.specs
    assert dict(plain.ingredients) == {"stage": "produce", "version": 1, "config": {"factor": 1}, "inputs": {}}
    assert prompted.ingredients == {**plain.ingredients, "prompt": "abc"}
    assert with_engine.ingredients == {**plain.ingredients, "engine": {"factor": 2}}
    assert len({spec.key for spec in asked.specs}) == 3
    assert (plain.stage_name, plain.config["batch_size"]) == ("produce", 8)


def test_late_inputs_are_read_but_are_not_in_the_key(tmp_path: Path) -> None:
    asked = Asked()
    run, _ = make(tmp_path, str(tmp_path / "store"))
    numbers = run(PRODUCE, ToyConfig())["numbers"]
    stage = Stage("s", "m:f", 1, "map", each=("a",), every=("b",), late=("c",))
    Runner(run.store, asked)(stage, ToyConfig(), a=numbers, b=numbers, c=numbers)
    assert [spec.index for spec in asked.specs] == [0, 1, 2, 3]
    second = asked.specs[1]
    assert {name: len(table.pieces) for name, table in second.inputs.items()} == {"a": 1, "b": 4, "c": 4}  # type: ignore[union-attr]
    assert sorted(second.ingredients["inputs"]) == ["a", "b"]


@pytest.mark.parametrize("role", ["each", "every", "late"])
def test_a_part_waits_for_what_is_missing_of_its_inputs(tmp_path: Path, role: str) -> None:
    asked = Asked()
    pieces = tuple(Piece(index, f"objects/aa/{index}", 1) for index in (0, 2))
    table = Table("numbers", pieces, frozenset({1}))
    whole = Table("numbers", pieces)
    stage = Stage("s", "m:f", 1, "map", each=("a",), **({} if role == "each" else {role: ("b",)}))  # type: ignore[arg-type]
    inputs = {"a": table} if role == "each" else {"a": whole, "b": table}
    run = Runner(Store.open(str(tmp_path / "store")), asked)
    run(stage, ToyConfig(), **inputs)
    assert [(spec.number, spec.index) for spec in asked.specs] == ([(0, 0), (2, 2)] if role == "each" else [])
    assert (run.runs[0].parts, run.runs[0].blocked) == ((3, 1) if role == "each" else (2, 2))


def test_a_run_says_what_was_computed_reused_failed_and_blocked(tmp_path: Path) -> None:
    told: list[StageRun] = []
    run, _ = make(tmp_path, str(tmp_path / "store"), on_stage=told.append)
    pipeline(run, ToyConfig(trouble="raise"))
    pipeline(run, ToyConfig(trouble="raise"))
    assert told == run.runs
    lines = [found.line().rpartition(",")[0] for found in told]
    assert lines == [
        "produce: 1 computed, 0 reused; 12 rows",
        "double: 3 computed, 0 reused, 1 failed; 9 rows",
        "add_up: 0 computed, 0 reused, 1 blocked; 0 rows",
        "produce: 0 computed, 1 reused; 12 rows",
        "double: 0 computed, 3 reused, 1 failed; 9 rows",
        "add_up: 0 computed, 0 reused, 1 blocked; 0 rows",
    ]
    assert [found.parts for found in told[:3]] == [1, 4, 1]
    assert [found.unfinished for found in told[:3]] == [frozenset(), {2}, frozenset()]
    assert sorted(told[1].finished) == [0, 1, 3]
    assert [manifest.part for manifest in told[1].finished.values()] == [0, 1, 3]


def test_the_seconds_of_work_are_shown_with_one_digit() -> None:
    run = StageRun("double", 1, 0, 1, {}, 0, frozenset(), 3, 12.345)
    assert run.line() == "double: 1 computed, 0 reused; 3 rows, 12.3 s of work"


def test_a_part_whose_number_is_one_too_high_is_not_there(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    executor = InProcess(store, tmp_path / "scratch")
    pipeline(Runner(store, executor), ToyConfig())
    with pytest.raises(PartUnready, match="there are 4, numbered from 0"):
        pipeline(Runner(store, executor, only=("double", 4)), ToyConfig())


def test_a_table_of_the_runners_own_is_the_same_piece_at_every_index(tmp_path: Path) -> None:
    run, _ = make(tmp_path, str(tmp_path / "store"))
    frame = pl.DataFrame({"n": [1, 2]})
    table = run.keep_table("numbers", frame, toy.NUMBERS, frozenset({3, 1}))
    assert [(piece.index, piece.rows) for piece in table.pieces] == [(1, 2), (3, 2)]
    assert run.keep_table("numbers", frame, toy.NUMBERS).indexes == {0}
    assert run.read(table)["n"].to_list() == [1, 2, 1, 2]


def test_a_runner_without_an_executor_says_how_many_parts_are_not_computed(tmp_path: Path) -> None:
    run, _ = make(tmp_path, str(tmp_path / "store"))
    pipeline(run, ToyConfig(trouble="raise"))
    looking = Runner(run.store)
    with pytest.raises(WorkNeeded, match="double: 1 of 4 parts are not computed yet") as raised:
        pipeline(looking)
    assert (raised.value.run.reused, raised.value.run.unfinished) == (3, {2})
    assert [found.name for found in looking.runs] == ["produce"]


def test_what_the_parts_of_a_stage_read_is_summed_up_and_the_highest_peak_is_kept(tmp_path: Path) -> None:
    run, _ = make(tmp_path, str(tmp_path / "store"))
    pipeline(run)
    double = run.runs[1]
    read = [m.stats["read_bytes"] for m in double.manifests]
    assert (double.read_bytes, len(read), min(read) > 0) == (sum(read), 4, True)
    assert double.peak_gib == max(m.stats["peak_gib"] for m in double.manifests) > 0
    assert (StageRun("old", 1, 1, 0, {}, 0, frozenset(), 3, 1.0).read_bytes, run.runs[0].read_bytes) == (0, 0)


def test_a_part_and_what_became_of_its_stage_cannot_be_changed() -> None:
    run = StageRun("double", 1, 0, 1, {}, 0, frozenset(), 3, 12.345)
    values = [PartSpec(DOUBLE, "double-00000", 0, 0, "key", 0, {}, {}, {}), Failure("why"), run]
    assert [value for value in values if can_be_changed(value)] == []


def test_the_manifest_of_a_stage_of_one_part_is_found_and_nothing_is_computed(tmp_path: Path) -> None:
    run, executor = make(tmp_path, str(tmp_path / "store"))
    assert run.find(PRODUCE, ToyConfig()) is None
    assert (executor.computed, run.runs) == ([], [])
    run(PRODUCE, ToyConfig())
    found = run.find(PRODUCE, ToyConfig())
    assert found is not None
    assert found.key == run.runs[0].manifests[0].key
    assert run.find(PRODUCE, ToyConfig(factor=9)) is None


WHO: ContextVar[str] = ContextVar("who", default="nobody")


@dataclass
class Meeting:
    """An executor whose stages wait for each other, and note in whose context they were called."""

    there: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=30))
    seen: list[str] = field(default_factory=list)

    def run_stage(self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]) -> dict[int, Failure]:
        self.seen.append(WHO.get())
        if name == "produce-broken":
            raise OSError("the cluster is gone")
        self.there.wait()
        return {spec.number: Failure(f"{name}: not computed") for spec in specs}


def test_stages_that_read_nothing_of_each_other_run_side_by_side_and_are_noted_in_their_order(tmp_path: Path) -> None:
    meeting = Meeting()
    run = Runner(Store.open(str(tmp_path / "store")), meeting)
    token = WHO.set("flow run")
    made = run.together([run.call(PRODUCE, ToyConfig(factor=n), label=name) for n, name in ((1, "b"), (2, "a"))])
    WHO.reset(token)
    assert meeting.seen == ["flow run", "flow run"]
    assert [(done.name, done.failed) for done in run.runs] == [
        (f"produce-{name}", {0: f"produce-{name}: not computed"}) for name in "ba"
    ]
    assert [sorted(outputs) for outputs in made] == [["numbers"], ["numbers"]]


def test_an_error_of_one_of_several_stages_is_raised_without_waiting_for_the_others(tmp_path: Path) -> None:
    meeting = Meeting()
    run = Runner(Store.open(str(tmp_path / "store")), meeting)
    begun = time.monotonic()
    with pytest.raises(OSError, match="the cluster is gone"):
        run.together([run.call(PRODUCE, ToyConfig(factor=n), label=name) for n, name in ((1, "broken"), (2, "a"))])
    assert time.monotonic() - begun < 20
    meeting.there.abort()


def test_one_part_alone_is_computed_alone_though_its_stage_runs_beside_others(tmp_path: Path) -> None:
    asked = Asked()
    run = Runner(Store.open(str(tmp_path / "store")), asked, only=("produce-a", 0))
    with pytest.raises(PartDone):
        run.together([run.call(PRODUCE, ToyConfig(factor=n), label=name) for n, name in ((1, "b"), (2, "a"))])
    assert [spec.config["factor"] for spec in asked.specs] == [2]
