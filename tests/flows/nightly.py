"""Simulated nights: a growing source, a clock that is set, everything computed in this process."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from flows.config.load import parse_config
from flows.curation.lookup import Job
from flows.curation.records import open_curation
from flows.curation.workspace import Hooks, Workspace
from flows.method.setup import Setup
from flows.results.output_folder import Result
from flows.runs.execute import execute
from flows.runs.failures import failure_of
from infra.settings import Settings
from infra.stages.found_parts import FoundParts
from infra.stages.runner import PartDone, Runner, StageRun
from infra.storage.store import Store
from tests.flows.animals import tier, write_source
from tests.flows.fakes import FakeAnswer, InProcess, OverlapLLM

FIRST = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)
ENDPOINT = {"kind": "openai", "model": "judge-2026-01-01", "base_url": "http://127.0.0.1:9/v1"}


class Contrary(OverlapLLM):
    """A judge whose model was exchanged behind its name: it says the opposite."""

    def answer_to(self, content: str) -> FakeAnswer:
        usual = super().answer_to(content)
        return FakeAnswer(usual.text, {"Yes": usual.logprobs.get("No", -1), "No": usual.logprobs.get("Yes", -1)})


@dataclass
class Nights:
    """One installation, night after night."""

    folder: Path
    judge: OverlapLLM = field(default_factory=OverlapLLM)
    night: int = 0
    said: list[str] = field(default_factory=list)
    executors: list[InProcess] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        home, store = self.folder / "home", str(self.folder / "store")
        return Settings(home, store, self.folder / "cache", prefect_api_url=None, ray_address=None)

    @property
    def workspace(self) -> Workspace:
        store = Store.open(self.settings.store)
        hooks = Hooks(on_message=self.said.append)
        return Workspace(self.settings, store, hooks, lambda: FIRST + timedelta(days=self.night))

    def compute(self, workspace: Workspace, setup: Setup, job: Job) -> tuple[Any, tuple[StageRun, ...]]:
        executor = InProcess(workspace.store, self.settings.scratch, {"judge-2026-01-01": self.judge})
        executor.llm = executor._engines["judge"] = self.judge  # type: ignore[assignment]
        self.executors.append(executor)
        found = FoundParts() if job.found is None else job.found.for_another_walk()
        run = Runner(workspace.store, executor, job.force, job.only, job.since, found=found, on_note=self.said.append)
        outcome = None
        try:
            outcome = job.method(run, setup)
        except PartDone:
            pass
        finally:
            failed = [(r.name, number, reason) for r in run.runs for number, reason in sorted(r.failed.items())]
            if failed:
                raise failure_of(setup.curation, failed)
        return outcome, tuple(run.runs)

    def asked(self, source: Path, **changes: Any) -> dict[str, Any]:
        """Give the settings as a configuration file holds them."""
        model = self.folder / "model"
        if not model.exists():
            model.mkdir(parents=True)
            (model / "config.json").write_text("{}")
            (model / "model.safetensors").write_bytes(b"weights")
        return {
            "name": "animals",
            "source": {"path": str(source)},
            "encoder": {"model": str(model)},
            "ingest": {"query_parts": 2, "passage_parts": 2, "known_split": "known"},
            "mine": {"range_max": 6, "num_negatives": 3},
            "similarity": {
                "relevant_from": 0.8,
                "not_relevant_below": 0.15,
            },  # it counts, as settings that name these say
            "tiers": [{**tier(), "engine": {"model": str(model)}}],
            "decide": {"relevant_from": 0.97, "not_relevant_below": 0.5},
            "complete": {"max_unparsed": 0.5},
            "treatments": ["default", "relabel"],
            "sample": {"size": 12},
            "train": None,
            **changes,
        }

    def config(self, source: Path, **changes: Any) -> Any:
        return parse_config(self.asked(source, **changes), "test")

    def written(self, source: Path, **changes: Any) -> Path:
        """Write a configuration file."""
        path = self.folder / "animals.yaml"
        path.write_text(yaml.safe_dump(self.asked(source, **changes)))
        return path

    def curate(self, source: Path, **changes: Any) -> Result:
        workspace = self.workspace
        return execute(workspace, open_curation(workspace, self.config(source, **changes)), self.compute)

    def sleep(self) -> None:
        self.night += 1

    @property
    def computed(self) -> set[str]:
        """Stages of which the last execution computed any part."""
        return {name.rsplit("-", 1)[0] for name in self.executors[-1].computed}

    def sheet(self, curation: str) -> Path:
        return self.settings.home / "curations" / curation / "sample" / "sheet.csv"


def sources(folder: Path, *queries: int) -> list[Path]:
    """One source per night, each with more queries than the one before."""
    return [write_source(folder / f"source-{n}", count) for n, count in enumerate(queries)]


def fill(sheet: Path, labels: Mapping[tuple[str, str], str] | Sequence[str], into: Path | None = None) -> Path:
    """Fill a sheet in: by (query_id, doc_id), or row by row."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        if isinstance(labels, Mapping):
            row["label"] = labels.get((row["query_id"], row["doc_id"]), "")
        else:
            row["label"] = labels[number] if number < len(labels) else ""
    into = into or sheet
    with into.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows(rows)
    return into


def write_gold(path: Path, items: int = 40) -> Path:
    """Gold pairs that the fake judge, which counts shared words, gets right; every second one is relevant."""
    rows = []
    for n in range(items):
        known = f"The creature{n} lives in the valley{n}, where it hunts and sleeps."
        same = f"In the valley{n} the creature{n} lives, where it hunts and sleeps."
        other = f"Prices of commodity{n} rose again after markets closed yesterday evening."
        rows.append(
            {
                "query": f"where does the creature{n} live",
                "positives": [known],
                "passage": same if n % 2 else other,
                "label": "relevant" if n % 2 else "not_relevant",
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
