"""Texts and vectors by query part: nobody reads another's, growth leaves older fetches, readers of a failure wait."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flows.method.curate import curate_method
from flows.method.fetching import fetch_labelled, fetch_passages, fetch_texts
from flows.method.tables import Generations, Ingested, Vectors, empty_table
from infra.stages.part_spec import PartSpec
from infra.stages.runner import Failure, Runner
from infra.storage.artifacts import Manifest, Table, write_table
from infra.storage.store import Store
from tasks import schemas
from tasks.texts import hash_text, part_of
from tests.flows.animals import make_setup, write_source
from tests.flows.fakes import InProcess

FETCHES = ("fetch_texts", "fetch_vectors")


class Watched(InProcess):
    """Keeps the parts that were asked for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.specs: dict[str, list[PartSpec]] = {}
        self.failing = ""

    def run_stage(
        self, name: str, specs: Sequence[PartSpec], finished: Mapping[int, Manifest]
    ) -> Mapping[int, Manifest | Failure]:
        self.specs.setdefault(name, []).extend(specs)
        there = [spec for spec in specs if spec.name != self.failing]
        failed = {spec.number: Failure("on purpose") for spec in specs if spec.name == self.failing}
        return {**super().run_stage(name, there, finished), **failed}


def distinct_bytes(store: Store, specs: Sequence[PartSpec]) -> int:
    """What the inputs of a stage's parts hold, each byte once; folders are copied to a machine once and left out."""
    tables = [artifact for spec in specs for artifact in spec.inputs.values() if isinstance(artifact, Table)]
    pieces = {(piece.object, piece.start): piece for table in tables for piece in table.pieces}
    return sum(piece.length or store.size(piece.object) or 0 for piece in pieces.values())


def test_no_part_of_the_method_reads_what_belongs_to_others(tmp_path: Path) -> None:
    """Eight query parts and six of passages: each stage reads each byte of its inputs at most three times."""
    store = Store.open(str(tmp_path / "store"))
    executor = Watched(store, tmp_path / "scratch")
    run = Runner(store, executor)
    ingest = {"query_parts": 8, "passage_parts": 6, "known_split": "known"}
    curate_method(run, make_setup(store, write_source(tmp_path / "source"), ingest=ingest))
    assert {done.name: done.failed for done in run.runs if done.failed} == {}
    for done in run.runs:
        given = distinct_bytes(store, executor.specs[done.name])
        if done.name not in ("ingest", "search"):
            assert done.read_bytes <= 3 * given, done.name
    for name in ("mine", "judge_similarity", "judge-llm"):
        specs = executor.specs[name]
        assert len(specs) > 4
        for spec in specs:
            tables = {of: spec.inputs[of] for of in (*spec.stage.each, *spec.stage.late_each)}
            assert {piece.index for table in tables.values() for piece in table.pieces} == {spec.index}  # type: ignore[union-attr]
    assert {spec.config["threads"] for spec in executor.specs["search"]} == {2}  # the CPUs that it is granted
    texts = executor.specs["judge-llm"][0].inputs["passages"]
    assert isinstance(texts, Table) and 0 < texts.rows < 48


@dataclass
class World:
    """Tables as ingest makes them, by hand: queries `q<n>` whose candidates and positives are named."""

    run: Runner
    passages: Sequence[Sequence[str]]  # ids, by generation
    counts: tuple[int, ...]  # passage parts, by generation
    asked: Mapping[int, Mapping[str, str]]  # by query part: query → ids of its candidates, the first its positive
    generations: tuple[int, ...] = (2,)
    tables: dict[str, Table] = field(default_factory=dict)

    def put(self, name: str, schema: schemas.Schema, parts: Mapping[int, Sequence[tuple[Any, ...]]]) -> Table:
        frames = {n: pl.DataFrame(rows, schema=schema.columns, orient="row") for n, rows in parts.items()}
        return Table(name, tuple(write_table(self.run.store, name, f, schema, n) for n, f in sorted(frames.items())))

    @property
    def data(self) -> Ingested:
        parts: dict[int, list[tuple[Any, ...]]] = {n: [] for n in range(sum(self.counts))}
        first = 0
        for ids, count in zip(self.passages, self.counts, strict=True):
            for doc in ids:
                row = ("d", doc, "", f"text {doc}", hash_text(doc))
                parts[first + part_of(hash_text(doc), count)].append(row)
            first += count
        positives = {
            part: [("d", query, docs[0], hash_text(docs[0]), "s", "g", "label") for query, docs in queries.items()]
            for part, queries in self.asked.items()
        }
        queries = {
            part: [("d", query, query, hash_text(query), "train") for query in queries]
            for part, queries in self.asked.items()
        }
        made = {
            "queries": self.put("queries", schemas.QUERIES, queries),
            "positives": self.put("positives", schemas.POSITIVES, positives),
            "passages": self.put("passages", schemas.PASSAGES, parts),
            "irrelevant": empty_table(self.run, "irrelevant", schemas.IRRELEVANT, frozenset(self.asked)),
        }
        other = {name: Table(name) for name in Ingested.__annotations__ if name not in (*made, "generations")}
        return Ingested(**made, **other, generations=Generations(self.generations, self.counts))

    @property
    def vectors(self) -> Vectors:
        pieces = []
        for piece in self.data.passages.pieces:
            texts = self.run.read(Table("passages", (piece,)))["text_hash"]
            vectors = np.array([[int(text[:4], 16), 1] for text in texts], dtype=np.float32).reshape(-1, 2)
            frame = pl.DataFrame({"text_hash": texts, "vector": vectors})
            pieces.append(write_table(self.run.store, "embeddings", frame, schemas.EMBEDDINGS, piece.index))
        return Vectors(queries=Table("embeddings"), passages=Table("embeddings", tuple(pieces)))

    @property
    def candidates(self) -> Table:
        rows = {
            part: [
                ("d", query, doc, hash_text(doc), hash_text(query), "ph", "dense", 1, 0.5)
                for query, docs in queries.items()
                for doc in docs[1:]
            ]
            for part, queries in self.asked.items()
        }
        return self.put("candidates", schemas.CANDIDATES, rows)


def make(tmp_path: Path) -> tuple[Runner, Watched]:
    store = Store.open(str(tmp_path / "store"))
    executor = Watched(store, tmp_path / "scratch")
    return Runner(store, executor), executor


def ids(run: Runner, table: Table) -> dict[int, list[str]]:
    return {index: sorted(run.read(table.at(index))["doc_id"]) for index in sorted(table.indexes)}


def test_each_query_part_gets_the_passages_and_vectors_of_its_candidates_and_positives(tmp_path: Path) -> None:
    run, _ = make(tmp_path)
    world = World(run, ["abcdefgh"], (3,), {0: {"q1": "abc"}, 1: {"q2": "ad", "q3": "ea"}})
    made = fetch_passages(run, world.data, world.vectors, world.candidates)
    assert ids(run, made.texts) == {0: ["a", "b", "c"], 1: ["a", "d", "e"]}
    first = run.read(made.vectors.at(0))
    assert set(first["text_hash"]) == {hash_text(doc) for doc in "abc"}
    assert all(vector[0] == int(text[:4], 16) for text, vector in first.iter_rows())
    labelled = fetch_labelled(run, world.data, world.vectors)
    assert set(run.read(labelled.at(1))["text_hash"]) == {hash_text(doc) for doc in "ae"}
    texts = fetch_texts(run, world.data, world.candidates, world.data.positives, "asked")
    assert ids(run, texts) == ids(run, made.texts)
    assert run.runs[-1].name == "fetch_texts-asked"


def test_growth_is_fetched_apart_and_leaves_the_older_parts_with_their_keys(tmp_path: Path) -> None:
    run, executor = make(tmp_path)
    before = World(run, ["abcdefgh"], (3,), {0: {"q1": "abc"}, 1: {"q2": "ad", "q3": "ea"}})
    fetch_passages(run, before.data, before.vectors, before.candidates)
    keys = {spec.name: spec.key for specs in executor.specs.values() for spec in specs}
    computed = len(executor.computed)
    grown = replace(
        before,
        passages=["abcdefgh", "xyz"],
        counts=(3, 1),
        generations=(2, 1),
        asked={**before.asked, 2: {"q4": "xya"}},
    )
    made = fetch_passages(run, grown.data, grown.vectors, grown.candidates)
    assert ids(run, made.texts) == {0: ["a", "b", "c"], 1: ["a", "d", "e"], 2: ["a", "x", "y"]}
    assert {name.rpartition("-")[0] for name in executor.computed[computed:]} == {
        "want_training-pool-g1", "fetch_texts-pool-g1", "fetch_vectors-pool-g1",
    }  # fmt: skip
    again = {spec.name: spec.key for specs in executor.specs.values() for spec in specs}
    assert {name: again[name] for name in keys} == keys
    # Only corpus parts that may hold something wanted are read.
    asked = {part_of(hash_text(doc), 3) for doc in "axy"} | {3}
    assert {spec.index for spec in executor.specs["fetch_texts-pool-g1"]} == asked


def test_an_older_query_part_finds_what_came_later_and_the_others_are_not_asked(tmp_path: Path) -> None:
    """As after mining anew: the new passage is among the nearest of an old query."""
    run, executor = make(tmp_path)
    before = World(run, ["abcdefgh"], (3,), {0: {"q1": "abc"}, 1: {"q2": "ad"}})
    fetch_passages(run, before.data, before.vectors, before.candidates)
    mined = replace(before, passages=["abcdefgh", "xyz"], counts=(3, 1), asked={0: {"q1": "abc"}, 1: {"q2": "adx"}})
    made = fetch_passages(run, mined.data, mined.vectors, mined.candidates)
    assert ids(run, made.texts) == {0: ["a", "b", "c"], 1: ["a", "d", "x"]}
    assert set(run.read(made.vectors.at(1))["text_hash"]) == {hash_text(doc) for doc in "adx"}
    assert [spec.index for spec in executor.specs["want_training-pool-from-g1"]] == [1]
    assert [spec.index for spec in executor.specs["fetch_texts-pool-from-g1"]] == [3]


def test_positives_are_fetched_for_queries_without_candidates_too(tmp_path: Path) -> None:
    """A training set holds such queries, with the negatives of their batch alone."""
    run, _ = make(tmp_path)
    world = World(run, ["abc"], (2,), {0: {"q1": "a", "q3": "bc"}, 1: {"q2": "b"}})
    made = fetch_passages(run, world.data, world.vectors, world.candidates)
    assert ids(run, made.texts) == {0: ["a", "b", "c"], 1: ["b"]}


def test_a_pool_without_queries_is_fetched_as_nothing_and_read_as_empty_tables(tmp_path: Path) -> None:
    run, executor = make(tmp_path)
    world = World(run, ["abc"], (2,), {0: {}, 1: {}})
    made = fetch_passages(run, world.data, world.vectors, world.candidates)
    assert [name for name in executor.computed if name.startswith(FETCHES)] == []
    assert run.read(made.texts.at(0)).schema == pl.Schema(schemas.PASSAGES.columns)
    assert run.read(made.vectors.at(1)).columns == ["text_hash", "vector"]
    assert not made.texts.incomplete


@pytest.mark.parametrize("stage", ["want_training-pool-00000", "fetch_texts-pool-00001", "fetch_vectors-pool-00001"])
def test_the_readers_of_a_failed_fetch_wait_and_those_of_another_generation_do_not(tmp_path: Path, stage: str) -> None:
    run, executor = make(tmp_path)
    executor.failing = stage
    world = World(run, ["abcdefgh", "xyz"], (3, 1), {0: {"q1": "abcdefgh"}, 1: {"q2": "ad"}, 2: {"q4": "xyz"}}, (2, 1))
    made = fetch_passages(run, world.data, world.vectors, world.candidates)
    lacking = made.vectors if stage.startswith("fetch_vectors") else made.texts
    assert [lacking.lacks(index) for index in range(3)] == [True, True, False]
    assert ids(run, made.texts.at(2)) == {2: ["x", "y", "z"]}
