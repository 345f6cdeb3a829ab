"""Two workers train as one with the whole batch, and a kill between any two steps changes nothing."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import start_processes

from infra.stages.checkpoints import Checkpoints
from infra.storage.store import Store
from tasks.training.rotation import Rotation
from tasks.training.together import Share, fit_together
from tasks.training.train_config import TrainConfig
from tasks.training.trainer import fit
from tasks.training.training_rows import training_rows
from tests.tasks.training.tables import build_tiny_model, eight_instances, passages_table, queries_table


def without_dropout(base: Path) -> Path:
    """Dropout draws for each worker apart, so that losses can be compared only without it."""
    file = base / "config.json"
    settings = json.loads(file.read_text()) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    file.write_text(json.dumps(settings))
    return base


def share_of(base: Path, store: str, part: str = "train/0f-000", **settings: Any) -> Share:
    wanted = {"steps": 6, "batch_size": 8, "num_negatives": 2, "learning_rate": 3e-3, "threads": 1, "workers": 2}
    config = TrainConfig.model_validate({"model": str(base), **wanted, **settings})
    rows = training_rows(config, instances=eight_instances(), queries=queries_table(), passages=passages_table())
    return Share(config, rows, Checkpoints(store, part), None)


def one_worker(share: Share, out: Path) -> list[float]:
    config = share.config.model_copy(update={"workers": 1})
    return fit(config, share.rows, Rotation(share.rows.rows, config), out).losses


def _join(rank: int, work: Callable[[], None], count: int, folder: str) -> None:
    import os

    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {name: str(number) for name, number in here.items()}
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=count)
    work()
    torch.distributed.destroy_process_group()


class Processes:
    """Workers as processes that meet in a folder. What they import is imported once, by the server that forks them."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.runs = folder, 0

    def run(self, work: Callable[[], None], count: int) -> None:
        self.runs += 1
        multiprocessing.set_forkserver_preload([__name__])
        start_processes(_join, (work, count, str(self._folder)), nprocs=count, start_method="forkserver")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"objective": "cached_infonce", "mini_batch_size": 3}], ids=["infonce", "cached_infonce"]
)
def test_two_workers_have_the_losses_of_one_with_the_whole_batch(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    store = Store.open(str(tmp_path / "store"))
    share = share_of(without_dropout(build_tiny_model(tmp_path)), store.url, checkpoint_steps=4, **settings)
    workers = Processes(tmp_path)
    curve = fit_together(share, workers, tmp_path / "out")
    assert curve.losses == pytest.approx(one_worker(share, tmp_path / "one"), abs=1e-4)
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "curve.json").exists()
    again = fit_together(share, workers, tmp_path / "again")  # the model is kept until the part is finished
    assert (again, workers.runs) == (curve, 1)


def test_workers_that_keep_no_model_are_an_error(tmp_path: Path) -> None:
    class Idle:
        def run(self, work: Callable[[], None], count: int) -> None:
            pass

    store = Store.open(str(tmp_path / "store"))
    with pytest.raises(RuntimeError, match="the model of the first one is not in the store"):
        fit_together(share_of(tmp_path, store.url), Idle(), tmp_path / "out")


def test_a_share_of_one_is_a_whole_training(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    base = without_dropout(build_tiny_model(tmp_path))
    share = share_of(base, store.url, steps=2, workers=1)

    class Here:
        def run(self, work: Callable[[], None], count: int) -> None:
            work()

    assert fit_together(share, Here(), tmp_path / "out").losses == one_worker(share, tmp_path / "one")
