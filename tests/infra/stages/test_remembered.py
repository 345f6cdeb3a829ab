"""A part is lent what its stage takes, and its manifest tells how much of it was used."""

import dataclasses
from contextlib import ExitStack
from pathlib import Path

import polars as pl
import pytest

from infra.ledger.ledger import Ledger
from infra.ledger.vectors import Vectors
from infra.stages import part_keys
from infra.stages.remembered import Remembered
from infra.stages.runner import PartSpec
from infra.stages.stage import Stage
from infra.storage.store import Store

ENGINE = {"digest": "tiny"}
HASHES = ["ab" * 16, "cd" * 16]
ROWS = pl.DataFrame(
    {"text_hash": HASHES, "vector": [[1.0], [2.0]]}, schema_overrides={"vector": pl.Array(pl.Float32, 1)}
)


def spec_of(attempt: int = 0, **stage: bool) -> PartSpec:
    made = Stage("encode", "m:f", 3, "map", **stage)  # type: ignore[arg-type]
    return PartSpec(made, "encode-00000", 0, 0, "key", attempt, {"engine": ENGINE}, {}, {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def test_a_stage_is_lent_what_it_takes(store: Store) -> None:
    with ExitStack() as stack:
        assert Remembered(store, spec_of(), "o").lend(stack) == {}
        lent = Remembered(store, spec_of(ledger=True, vectors=True), "o").lend(stack)
        assert isinstance(lent["ledger"], Ledger)
        assert isinstance(lent["vectors"], Vectors)
    assert Remembered(store, spec_of(), "o").stats({"calls": 3}, "o") == {}


def test_vectors_are_those_of_the_engine_and_the_stages_version_and_both_origins_are_told(store: Store) -> None:
    with ExitStack() as stack:
        Remembered(store, spec_of(vectors=True), "old").lend(stack)["vectors"].remember("passage", ROWS)
    assert store.list("vectors")[0].startswith(f"vectors/{part_keys.digest(ENGINE)}-passage-3/")
    remembered = Remembered(store, spec_of(vectors=True), "new")
    with ExitStack() as stack:
        found = remembered.lend(stack)["vectors"].recall("passage", ROWS["text_hash"])
    assert found.equals(ROWS)
    assert remembered.stats({"encoded": 5}, "new") == {"vectors": {"new": 5, "old": 2}}


def test_a_part_that_is_computed_again_recalls_what_it_remembered_in_an_earlier_try_and_nothing_older(
    store: Store,
) -> None:
    with ExitStack() as stack:
        lent = Remembered(store, spec_of(ledger=True, vectors=True), "old").lend(stack)
        lent["vectors"].remember("passage", ROWS)
        lent["ledger"].remember("judge", [("entry", [HASHES[0]], "Yes")])
    again = dataclasses.replace(spec_of(ledger=True, vectors=True), attempt=1, since=1000)
    with ExitStack() as stack:
        lent = Remembered(store, again, "new").lend(stack)
        assert lent["vectors"].recall("passage", ROWS["text_hash"]) is None
        assert lent["ledger"].recall("judge", {"entry": HASHES[0]}) == {}
        lent["vectors"].remember("passage", ROWS.head(1))
    retried = Remembered(store, again, "new")
    with ExitStack() as stack:
        found = retried.lend(stack)["vectors"].recall("passage", ROWS["text_hash"])
    assert found.equals(ROWS.head(1))
    assert retried.stats({"encoded": 1}, "new")["vectors"] == {"new": 2}
