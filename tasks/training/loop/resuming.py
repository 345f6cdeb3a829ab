"""Keep the state of a training while it goes on, and find it again after a kill.

A checkpoint holds the weights (safetensors), the optimiser, the learning rate's schedule, the states of the random
number generators, and the position with the losses so far (JSON). All but the weights and the JSON are files of torch,
which are read with `weights_only`: they hold tensors and plain values, and run no code.
"""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.util import get_rank, get_world_size
from transformers import TrainerCallback

from tasks.protocols import Checkpoints

WEIGHTS = "weights.safetensors"
_log = logging.getLogger(__name__)


class Keeping(TrainerCallback):  # type: ignore[misc]  # the library has no types
    """Hands each checkpoint that the trainer writes to where checkpoints are kept, and deletes it on this disk."""

    def __init__(self, checkpoints: Checkpoints, further: Callable[[Path], None]) -> None:
        """Keep both. further: adds files of its own to the folder of a checkpoint."""
        self._checkpoints, self._further = checkpoints, further

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:  # noqa: ANN401
        """Keep what this worker has written."""
        folder, started = Path(args.output_dir) / f"checkpoint-{state.global_step}", time.monotonic()
        self._further(folder)
        self._checkpoints.put(state.global_step, folder, get_rank(), get_world_size())
        shutil.rmtree(folder)
        if state.is_world_process_zero:
            _log.info("checkpoint of step %d kept, in %.1f s", state.global_step, time.monotonic() - started)


def find_checkpoint(checkpoints: Checkpoints | None, scratch: Path) -> Path | None:
    """Return a folder with this worker's share of the newest whole checkpoint; None where there is none.

    Raises:
        RuntimeError: the workers found different ones, so another attempt at the same training still writes.
    """
    if checkpoints is None:
        return None
    folder = scratch / "resumed"
    step = checkpoints.fetch(folder, get_rank(), get_world_size())
    if get_world_size() > 1:
        found = torch.tensor([-1 if step is None else step, 1 if step is None else -step])
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        if found[0] != -found[1]:
            raise RuntimeError("the workers found checkpoints of different steps; run the training again")
    return None if step is None else folder
