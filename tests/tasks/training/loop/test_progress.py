"""What a training says of its progress."""

import logging
from types import SimpleNamespace

import pytest

from tasks.training.loop import progress as module
from tasks.training.loop.progress import Progress, progress_line


def state(step: int, *, first: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=100, is_world_process_zero=first)


def test_loss_rate_and_time_left_are_told_at_most_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    told = Progress()
    with caplog.at_level(logging.INFO, module.__name__):
        told.on_train_begin(None, state(40), None)
        for step in range(41, 101):
            now[0] += 0.5
            told.on_log(None, state(step), None, {"loss": 1 / step})
        told.on_log(None, state(100), None, {"train_runtime": 30.0})
        told.on_train_end(None, state(100), None)
    assert [record.getMessage() for record in caplog.records] == [
        "training resumes at step 40 of 100",
        "step 41 of 100 (41%), loss 0.0244, 2.00 steps/s, 30 s left",
        "step 61 of 100 (61%), loss 0.0164, 2.00 steps/s, 20 s left",
        "step 81 of 100 (81%), loss 0.0123, 2.00 steps/s, 10 s left",
        "step 100 of 100 (100%), loss 0.0100, 2.00 steps/s",
    ]


def test_only_the_first_worker_tells(caplog: pytest.LogCaptureFixture) -> None:
    told = Progress()
    with caplog.at_level(logging.INFO, module.__name__):
        told.on_train_begin(None, state(5, first=False), None)
        told.on_log(None, state(6, first=False), None, {"loss": 1.0})
        told.on_train_end(None, state(6, first=False), None)
    assert not caplog.records


def test_hours_and_minutes_are_told_in_words() -> None:
    assert progress_line(1, 10_001, 2.0, 0.5).endswith("5 h 33 min left")
    assert progress_line(1, 101, 2.0, 0.0) == "step 1 of 101 (0%), loss 2.0000, 0.00 steps/s"
