"""A training that is killed goes on from its newest checkpoint, and ends with the weights of an undisturbed one."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.stages.checkpoints import Checkpoints
from infra.storage.store import Store
from tasks.training.loop.resuming import WEIGHTS, find_checkpoint
from tasks.training.rotation import Place, Rotation
from tasks.training.train_config import TrainConfig
from tasks.training.trainer import Curve, fit
from tasks.training.training_rows import training_rows
from tests.tasks.training.tables import build_tiny_model, eight_instances, passages_table, queries_table

ROOT = Path(__file__).parents[4]
STEPS, EVERY, ROWS = 16, 4, 4
PART = "train/5f3c-000"


class Told(Rotation):
    """Prints the number of each batch before it is read."""

    def place(self, number: int) -> Place:
        if number % ROWS == 0:
            sys.stdout.write(f"batch {number // ROWS}\n")
            sys.stdout.flush()
        return super().place(number)


def train_in_this_process(base: str, out: Path, store: str = "") -> Curve:
    config = TrainConfig(
        model=base, steps=STEPS, batch_size=ROWS, num_negatives=2, learning_rate=3e-3, threads=1, checkpoint_steps=EVERY
    )
    rows = training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages_table())
    return fit(config, rows, Told(rows.rows, config), out, Checkpoints(store, PART) if store else None)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def train_until(batch: int | None, base: Path, out: Path, store: str, module: str = __name__) -> list[int]:
    """Train in a process of its own, which is killed as it reads a batch; returns the batches that it read.

    module: the one that trains if it is run.
    """
    command = [sys.executable, "-m", module, str(base), str(out), store]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    read = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("batch "):
                read.append(int(line.split()[1]))
                if read[-1] == batch:
                    process.send_signal(signal.SIGKILL)
                    break
        process.wait()
    assert process.returncode == (0 if batch is None else -signal.SIGKILL)
    return read


@pytest.mark.slow
def test_a_training_that_was_killed_twice_has_the_files_of_an_undisturbed_one(tmp_path: Path, store_url: str) -> None:
    """The model has dropout, so that the state of the random numbers counts as well."""
    base = build_tiny_model(tmp_path)
    Store.open(store_url)
    undisturbed = train_in_this_process(str(base), tmp_path / "undisturbed")
    assert len(undisturbed.losses) == STEPS
    first = train_until(6, base, tmp_path / "first", store_url)
    second = train_until(11, base, tmp_path / "second", store_url)
    last = train_until(None, base, tmp_path / "last", store_url)
    assert (first[0], second[0], last[0]) == (0, EVERY, 2 * EVERY)
    assert not (tmp_path / "second").exists()
    assert digests(tmp_path / "last") == digests(tmp_path / "undisturbed")
    assert (
        train_in_this_process(str(base), tmp_path / "again", store_url) == undisturbed
    )  # the losses before a kill too


def test_a_checkpoint_holds_no_pickled_object_and_weights_that_safetensors_reads(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers.trainer_pt_utils import safe_globals

    base = build_tiny_model(tmp_path)
    store = Store.open(str(tmp_path / "store"))
    train_in_this_process(str(base), tmp_path / "out", store.url)
    assert not [path for path in (tmp_path / "out").rglob("*") if "checkpoint" in path.name]
    found = find_checkpoint(Checkpoints(store.url, PART), tmp_path / "scratch")
    assert found is not None
    names = {"optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json", WEIGHTS}
    assert {path.name for path in found.iterdir()} == names
    assert load_file(found / WEIGHTS)
    with safe_globals():
        for path in (*found.glob("*.pt"), *found.glob("*.pth")):
            torch.load(path, weights_only=True)


def test_without_a_place_for_checkpoints_none_is_looked_for(tmp_path: Path) -> None:
    assert find_checkpoint(None, tmp_path) is None


if __name__ == "__main__":
    train_in_this_process(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
