"""Train one model with several workers, each with its share of every batch.

The workers compare their queries with the passages of all of them (`tasks.training.losses.batch`), and torch averages
their gradients. So a step is that of one worker with the whole batch, up to rounding and dropout.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sentence_transformers.util import get_rank

from tasks.protocols import Checkpoints, Workers
from tasks.training.loop.dev_set import DevSet
from tasks.training.rotation import Rotation
from tasks.training.train_config import TrainConfig
from tasks.training.trainer import Curve, fit
from tasks.training.training_rows import Rows

_CURVE = "curve.json"


@dataclass(frozen=True)
class Share:
    """What each worker does. The first one keeps the trained model as the checkpoint of a single worker, the last.

    how: trains one kind of model; called as `fit`.
    """

    config: TrainConfig
    rows: Rows
    checkpoints: Checkpoints
    dev: DevSet | None
    how: Callable[..., Curve] = fit

    def __call__(self) -> None:
        """Train, in a process that torch has connected with the others."""
        with TemporaryDirectory(prefix="reneg-") as scratch:
            out = Path(scratch)
            rotation = Rotation(self.rows.rows, self.config)
            curve = self.how(self.config, self.rows, rotation, out, self.checkpoints, self.dev)
            if get_rank() == 0:
                (out / _CURVE).write_text(json.dumps(asdict(curve)))
                self.checkpoints.put(self.config.steps + 1, out)


def fit_together(share: Share, workers: Workers, out: Path) -> Curve:
    """Train with `config.workers` workers and write the model below `out`.

    A model that the workers of a killed attempt had kept is taken as it is.

    Raises:
        RuntimeError: the workers ended and none has kept a model.
    """
    if share.checkpoints.fetch(out) is None:
        workers.run(share, share.config.workers)
        if share.checkpoints.fetch(out) is None:
            raise RuntimeError("train: the workers ended, and the model of the first one is not in the store")
    file = out / _CURVE
    made = json.loads(file.read_text())
    file.unlink()
    return Curve(made["losses"], [(step, score) for step, score in made["scores"]])
