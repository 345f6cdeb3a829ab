"""Stop a training when its score on the development queries no longer rises, and go back to the best weights."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import get_rank, get_world_size
from torch import Tensor
from transformers import TrainerCallback

from tasks.training.loop.adapters import load_weights, weights_of

BEST, HISTORY = "best.safetensors", "early_stop.json"
_log = logging.getLogger(__name__)


class EarlyStop(TrainerCallback):  # type: ignore[misc]  # the library has no types
    """Scores the model every so many steps, and ends the training where the best score is too long ago.

    scores: step and score, as far as the training is; it is in its checkpoints. The first worker scores, for all.
    """

    def __init__(
        self, model: SentenceTransformer, score: Callable[[SentenceTransformer], float], every: int, patience: int
    ) -> None:
        """Prepare. score: the higher the better. patience: scores in a row that may be no better than the best."""
        self._model, self._score, self._every, self._patience = model, score, every, patience
        self.scores: list[tuple[int, float]] = []
        self._best: dict[str, Tensor] = {}

    @property
    def best(self) -> tuple[int, float]:
        """Step and score of the best weights; of equal scores the first."""
        return max(self.scores, key=lambda scored: (scored[1], -scored[0]))

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
        """Score where it is time, and stop where enough scores were no better."""
        last = state.global_step >= state.max_steps
        if state.global_step % self._every and not last:
            return
        self.scores.append((state.global_step, self._of_first_worker()))
        best_step, best = self.best
        if best_step == state.global_step:
            self._best = {name: value.detach().cpu().clone() for name, value in weights_of(self._model).items()}
        since = sum(step > best_step for step, _ in self.scores)
        if state.is_world_process_zero:
            _log.info("step %d: %.4f on dev, best %.4f at step %d", *self.scores[-1], best, best_step)
        if since >= self._patience and not last:
            control.should_training_stop = True
            if state.is_world_process_zero:
                _log.info("stopped early at step %d: %d scores on dev were no better", state.global_step, since)

    def take_best(self) -> None:
        """Give the model its best weights."""
        load_weights(self._model, self._best)

    def save(self, folder: Path) -> None:
        """Write the scores and the best weights to the folder of a checkpoint; the first worker's are those of all."""
        if get_rank() == 0 and self.scores:
            (folder / HISTORY).write_text(json.dumps(self.scores))
            save_file({name: value.contiguous() for name, value in self._best.items()}, folder / BEST)

    def load(self, folder: Path) -> None:
        """Take up the scores and the best weights of a checkpoint."""
        if (folder / HISTORY).exists():
            self.scores = [(int(step), float(score)) for step, score in json.loads((folder / HISTORY).read_text())]
            self._best = load_file(folder / BEST)

    def _of_first_worker(self) -> float:
        """Score on the first worker, and tell the others, so that all stop at the same step."""
        score = torch.zeros(1, dtype=torch.float64)
        if get_rank() == 0:
            was_training = self._model.training
            score[0] = self._score(self._model)
            self._model.train(was_training)
        if get_world_size() > 1:
            torch.distributed.broadcast(score, 0)
        return float(score[0])
