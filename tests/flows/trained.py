"""A curation with a tiny model that is really trained, and the work that follows it."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from flows.method.curate import curate_method
from flows.method.setup import Setup
from infra.stages.runner import Runner
from infra.storage.artifacts import Directory, write_directory
from infra.storage.store import Store
from tests.flows.animals import DATASETS, make_setup, write_rows
from tests.flows.fakes import InProcess

TRAIN = {"steps": 2, "batch_size": 4, "num_negatives": 2, "threads": 1}


class Place:
    """A store with a source in it, and what is run on it."""

    def __init__(self, tmp_path: Path, model: Path, datasets: tuple[str, ...] = DATASETS, **changes: Any) -> None:
        self.store = Store.open(str(tmp_path / "store"))
        self.scratch = tmp_path / "scratch"
        settings: Mapping[str, Any] = {"ingest": {"holdout": 0.3}, "train": TRAIN, **changes}
        setup = make_setup(self.store, write_rows(tmp_path / "source", datasets), **settings)
        base = None if settings["train"] is None else write_directory(self.store, "model", model)
        self.setup: Setup = replace(setup, base_model=base, base_model_path=str(model))

    def runner(self) -> tuple[Runner, InProcess]:
        executor = InProcess(self.store, self.scratch)
        return Runner(self.store, executor), executor

    def curate(self) -> "Place":
        run, _ = self.runner()
        curate_method(run, self.setup)
        assert {r.name: r.failed for r in run.runs if r.failed} == {}
        return self

    def file(self, directory: Directory, name: str) -> str:
        return self.store.get_object(directory.files[name]).decode()


def keep_labels(store: Store, human: pl.DataFrame) -> None:
    """Keep labels of people in the store, as an import of a sheet does."""
    buffer = io.BytesIO()
    human.write_parquet(buffer)
    store.create(f"labels/{hashlib.sha256(buffer.getvalue()).hexdigest()}.parquet", buffer.getvalue())
