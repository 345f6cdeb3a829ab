"""Train and score one cell of `benchmarks.planted`: a collection, a test fold, a seed, a treatment.

A cell is kept as a file with the nDCG@10 of each test query, so that a run that was stopped goes on. Several processes
may run the same cells: each takes those that no other has locked. All cells of one recipe have the same number of
steps, rows per step and negatives per row.
"""

import fcntl
import gc
import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.planted_base import remembered_tokens
from benchmarks.planted_data import Collection, Planted
from benchmarks.planted_treatments import TREATMENTS, Evidence, Made
from tasks.training.evaluate import EvaluateConfig, evaluate
from tasks.training.train import SUMMARY_FILE, train
from tasks.training.train_config import TrainConfig

MEASURE = "nDCG@10"
FACTS = ("rows", "steps", "rows_with_fewer_negatives", "rows_without_negatives")
UNTRAINED = "untrained"  # the model before any training, as a treatment


@dataclass(frozen=True)
class Cell:
    """What is trained and scored.

    share: of the training queries. negatives, steps, temperature: 0 is the recipe's. other: a second fold that is left
    out of the training and scored too, among its own passages.
    """

    collection: str
    treatment: str
    fold: int
    seed: int
    share: float = 1.0
    negatives: int = 0
    model: str = "static"
    steps: int = 0
    temperature: float = 0.0
    other: int = -1

    @property
    def file(self) -> str:
        """The name of the cell's file below the folder of cells."""
        more = f"-share{self.share:g}" if self.share != 1 else ""
        more += f"-neg{self.negatives}" if self.negatives else ""
        more += f"-steps{self.steps}" if self.steps else ""
        more += f"-temperature{self.temperature:g}" if self.temperature else ""
        more += f"-without{self.other}" if self.other >= 0 else ""
        return f"{self.model}-{self.collection}-{self.treatment}{more}-f{self.fold}-s{self.seed}.json"


@dataclass(frozen=True)
class Bench:
    """What all cells of a collection and model share. recipe: settings of `TrainConfig`. base: the model's folder."""

    collection: Collection
    planted: Planted
    evidence: Evidence
    base: Path
    recipe: Mapping[str, Any]
    tokens: dict[str, Any] = field(default_factory=dict)  # of the texts, as the static model reads them

    def run(self, cell: Cell, splits: Sequence[str] = ("test",)) -> dict[str, Any]:
        """Train on the rows of a treatment, and score the queries of the splits; nothing is kept but the scores."""
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="reneg-planted-") as name, remembered_tokens(self.tokens):
            out = Path(name) / "model"
            out.mkdir()
            facts: dict[str, Any] = {}
            if cell.treatment == UNTRAINED:
                shutil.rmtree(out)
                out = self.base
            else:
                facts = self._train(cell, out)
            trained = time.perf_counter()
            values = {query: value for split in splits for query, value in self._score(cell, out, split).items()}
        seconds = {"train": round(trained - began, 2), "evaluate": round(time.perf_counter() - trained, 2)}
        return {**asdict(cell), "scores": {one: round(value, 6) for one, value in values.items()}, **facts, **seconds}

    def _score(self, cell: Cell, model: Path, split: str) -> dict[str, float]:
        config = EvaluateConfig(
            model_name=cell.treatment,
            seed=cell.seed,
            measures=(MEASURE,),
            max_seq_length=int(self.recipe.get("max_seq_length", 256)),
            ignore_same_id=False,
        )
        made = evaluate(config, **self.collection.part(split), model=model)
        scores = made["scores"] if split == "test" else made["dev_scores"]
        return dict(scores.sort("query_id").select("query_id", "value").iter_rows())

    def _train(self, cell: Cell, out: Path) -> dict[str, Any]:
        rows = TREATMENTS[cell.treatment](Made(self.collection, self.planted, self.evidence, cell.seed))
        settings = {**self.recipe, **rows.settings, "seed": cell.seed}
        own = {"num_negatives": cell.negatives, "steps": cell.steps, "temperature": cell.temperature}
        settings |= {name: value for name, value in own.items() if value}
        train(
            TrainConfig(**settings),
            instances=rows.instances.filter(pl.col("query_id").is_in(self._used(cell))),
            queries=self.collection.queries,
            passages=self.collection.passages,
            known=rows.known,
            out=out,
            base=self.base,
        )
        summary = json.loads((out / SUMMARY_FILE).read_text())
        return {name: summary[name] for name in FACTS}

    def _used(self, cell: Cell) -> list[str]:
        """Return the training queries of a cell: the same for each treatment; a smaller share is part of a larger."""
        queries = self.collection.queries.filter(pl.col("split") == "train")["query_id"].sort().to_list()
        order = np.random.default_rng([cell.fold, cell.seed, 3]).permutation(len(queries))
        return [queries[place] for place in order[: round(cell.share * len(queries))]]


def run_cells(benches: Mapping[str, Bench], cells: Sequence[Cell], folder: Path) -> None:
    """Run the cells that have no file yet and that no other process runs, and tell of each what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    gc.freeze()  # torch collects garbage in each training, which would look at the tables too
    for place, cell in enumerate(cells):
        path, began, used = folder / cell.file, time.perf_counter(), time.process_time()
        with _locked(path) as is_ours:
            if not is_ours or path.exists():
                continue
            bench = benches[cell.collection]
            left_out = {cell.fold: "test"} | ({cell.other: "dev"} if cell.other >= 0 else {})
            one = replace(bench, collection=bench.collection.with_splits(left_out))
            write(path, one.run(cell, list(left_out.values())))
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        print(f"{cell.file}: {wall:.1f} s, {cpu:.1f} s of CPU, {place + 1} of {len(cells)}", flush=True)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a cell while it is run; yields whether it is ours. The system frees the lock of a process that ends."""
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole: another process never sees a part of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content) + "\n", encoding="utf-8")
    part.rename(path)


def read_cells(folder: Path, cells: Iterable[Cell]) -> pl.DataFrame:
    """Read finished cells: a row for each query, with the fields of `Cell`, query_id and value."""
    rows = []
    for cell in cells:
        path = folder / cell.file
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            rows += [(*astuple(cell), *one) for one in found["scores"].items()]
    types = {str: pl.String, float: pl.Float64, int: pl.Int64}
    schema = {one.name: types[one.type] for one in fields(Cell)} | {"query_id": pl.String, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def with_facts(treatments: Iterable[Mapping[str, Any]], folder: Path, cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Add to each treatment how many rows it trained on, and how many had fewer negatives or none: means over cells."""
    read: dict[str, list[dict[str, Any]]] = {}
    for cell in set(cells):
        if (folder / cell.file).exists():
            read.setdefault(cell.treatment, []).append(json.loads((folder / cell.file).read_text(encoding="utf-8")))
    return [
        {**row, **{fact: round(float(np.mean([one[fact] for one in read[row["name"]]])), 1) for fact in FACTS}}
        for row in treatments
    ]
