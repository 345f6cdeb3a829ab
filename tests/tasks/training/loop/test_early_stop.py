"""Early stop: when a training ends, which weights it keeps, and that a kill changes nothing of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from infra.stages.checkpoints import Checkpoints
from infra.storage.store import Store
from tasks.training.loop.early_stop import EarlyStop
from tasks.training.rotation import Rotation
from tasks.training.train_config import TrainConfig
from tasks.training.trainer import Curve, fit
from tasks.training.training_rows import training_rows
from tests.tasks.training.tables import build_static_model, eight_instances, passages_table, queries_table


def run(scores: list[float], *, every: int = 1, patience: int = 2, steps: int = 10) -> tuple[EarlyStop, Any, int]:
    """Take steps that each add one to a weight; the scores come in turn. Returns the step at which it stopped, too."""
    model: Any = nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    left = iter(scores)
    early = EarlyStop(model, lambda _: next(left), every, patience)
    control = SimpleNamespace(should_training_stop=False)
    step = 0
    while step < steps and not control.should_training_stop:
        step += 1
        with torch.no_grad():
            model.weight += 1
        state = SimpleNamespace(global_step=step, max_steps=steps, is_world_process_zero=True)
        early.on_step_end(None, state, control)
    return early, model, step


def test_it_stops_when_so_many_scores_in_a_row_are_no_better_and_keeps_the_best_weights() -> None:
    early, model, stopped = run([0.1, 0.5, 0.4, 0.5, 0.9])
    assert stopped == 4
    assert early.best == (2, 0.5)  # of equal scores the first
    early.take_best()
    assert float(model.weight) == 2.0


def test_a_better_score_starts_the_patience_anew_and_the_last_step_is_scored_too() -> None:
    early, _, stopped = run([0.1, 0.0, 0.2, 0.1, 0.3], every=2, steps=9)
    assert stopped == 9
    assert early.scores == [(2, 0.1), (4, 0.0), (6, 0.2), (8, 0.1), (9, 0.3)]


def test_scores_and_best_weights_go_through_a_checkpoint(tmp_path: Path) -> None:
    early, model, _ = run([0.1, 0.5, 0.4], steps=3)
    early.save(tmp_path)
    again = EarlyStop(model, lambda _: 0.0, 1, 2)
    again.load(tmp_path)
    again.take_best()
    assert (again.scores, float(model.weight)) == (early.scores, 2.0)
    nothing = EarlyStop(model, lambda _: 0.0, 1, 2)
    nothing.save(tmp_path / "unused")
    nothing.load(tmp_path / "nowhere")
    assert nothing.scores == []


class Stepped:
    """A development set whose scores come in turn; it notes whether dropout was off, and may stop the process."""

    def __init__(self, scores: list[float], killed_at: int | None = None) -> None:
        self.scores, self.killed_at, self.count = scores, killed_at, 0

    def score(self, model: Any) -> float:
        self.count += 1
        if self.count == self.killed_at:
            raise KeyboardInterrupt
        model.encode(["what about cats"])
        return self.scores[self.count - 1]


def train_with(dev: Any, base: Path, out: Path, store: str) -> Curve:
    early = {"every": 2, "patience": 2}
    config = TrainConfig.model_validate(
        {"model": str(base), "steps": 20, "batch_size": 4, "learning_rate": 0.1, "threads": 1, "early_stop": early}
        | {"checkpoint_steps": 3}
    )
    rows = training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages_table())
    return fit(config, rows, Rotation(rows.rows, config), out, Checkpoints(store, "train/0f-000"), dev)


def test_a_stopped_training_has_the_weights_of_its_best_step_also_after_a_kill(tmp_path: Path) -> None:
    base = build_static_model(tmp_path / "base")
    scores = [0.1, 0.2, 0.9, 0.3, 0.8, 1.0]
    Store.open(str(tmp_path / "store"))
    Store.open(str(tmp_path / "other"))
    curve = train_with(Stepped(scores), base, tmp_path / "whole", str(tmp_path / "store"))
    assert curve.scores == [(2, 0.1), (4, 0.2), (6, 0.9), (8, 0.3), (10, 0.8)]
    assert len(curve.losses) == 10
    with pytest.raises(KeyboardInterrupt):
        train_with(Stepped(scores, killed_at=5), base, tmp_path / "killed", str(tmp_path / "other"))
    resumed = train_with(Stepped(scores[4:]), base, tmp_path / "resumed", str(tmp_path / "other"))  # from step 9
    assert resumed == curve
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed"))
    assert first == second
