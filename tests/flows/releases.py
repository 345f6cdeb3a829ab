"""Finished curations of one dataset, promoted one after another."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flows.curation.workspace import Hooks, Workspace
from flows.method.afterwards.gate import Gated
from flows.method.setup import Outcome
from flows.results.promotion import Held, Release, promote
from infra.settings import Settings
from infra.storage.artifacts import Directory, Piece, Table, write_table
from infra.storage.release_pointers import read_latest
from infra.storage.store import Store
from tasks.schemas import SCORES
from tasks.training.promote import PromoteConfig

SUMMARY = {
    "candidates": 100,
    "found": 6,
    "verdicts": {"unparsed": 0, "relevant": 6},
    "false_negatives": {"share": 0.06, "low": 0.02, "high": 0.12},
}


@dataclass
class Line:
    """One dataset's nights in one store."""

    url: str
    home: Path
    said: list[str] = field(default_factory=list)

    @property
    def workspace(self) -> Workspace:
        settings = Settings(self.home, self.url, self.home / "cache", prefect_api_url=None, ray_address=None)
        return Workspace(settings, Store.open(self.url), Hooks(on_message=self.said.append))

    def night(
        self, number: int, text: str, *, store: Store | None = None, alarms: Sequence[str] = (), **more: Any
    ) -> Release | Held:
        """Finish curation `number`, whose training set is `text`, and try to promote it."""
        workspace = replace(self.workspace, store=store or self.workspace.store)
        config = more.pop("config", None) or PromoteConfig(require="none")
        force, gate = bool(more.pop("force", False)), more.pop("gate", None)
        outcome = self.outcome(text, **more)
        return promote(workspace, f"nq-{number:06d}", outcome, config, alarms, force=force, gate=gate)

    def outcome(self, text: str, *, instances: int = 100, gain: float | None = None) -> Outcome:
        store = Store(self.url)
        nothing = Table("nothing")
        page = {"summary.json": store.put_object(json.dumps(SUMMARY).encode(), "")}
        exports = {"tevatron/train.jsonl": store.put_object(text.encode(), "")}
        scores = Table("scores")
        if gain is not None:
            scores = Table("scores", (write_table(store, "scores", frame_of(gain), SCORES, 0),))
        return Outcome(
            Directory("page", page),
            Directory("sheet"),
            {"relabel": Directory("export", exports)},
            {"relabel": Table("instances", (Piece(0, "objects/x", instances),))},
            nothing,
            nothing,
            scores,
        )

    @property
    def read(self) -> str:
        """What a trainer reads now."""
        store = Store(self.url)
        latest = read_latest(store, "nq")
        assert latest is not None
        return (store.read(f"{latest['prefix']}/tevatron/train.jsonl") or b"").decode()

    def gate(self, gain: float, *, seeds: int = 3, released: float | None = None) -> Gated:
        """Scores of several seeds, as the gate's job makes them. released: the release's gain over the default."""
        store = Store(self.url)
        systems = {"default": 0.0, "relabel": gain} | ({} if released is None else {"released": released})
        scores = frame_of_systems(systems, seeds)
        made = Table("scores", (write_table(store, "scores", scores, SCORES, 0),))
        models = {
            seed: Directory("model", {"model.safetensors": store.put_object(f"{gain} {seed}".encode(), "")})
            for seed in range(42, 42 + seeds)
        }
        return Gated(made, Table("dev_scores"), models)


def frame_of_systems(gains: Mapping[str, float], seeds: int) -> pl.DataFrame:
    """Scores of some systems, each better than the first by its gain; seeds are nearly equal."""
    rng = np.random.default_rng(0)
    rows = [
        (model, "nq", "nDCG@10", f"q{number}", 0.5 + gain + float(noise), 42 + seed)
        for model, gain in gains.items()
        for seed in range(seeds)
        for number, noise in enumerate(rng.normal(0, 0.01, 50))
    ]
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row").sort(SCORES.key)


def frame_of(gain: float) -> pl.DataFrame:
    noise = np.random.default_rng(0).normal(0, 0.01, 50)
    rows = [
        (model, "nq", "nDCG@10", f"q{number}", 0.5 + (model == "relabel") * (gain + float(noise[number])), 1)
        for model in ("default", "relabel")
        for number in range(50)
    ]
    return pl.DataFrame(rows, schema=SCORES.columns, orient="row").sort(SCORES.key)
