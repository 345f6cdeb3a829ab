"""Log how far a training is: loss, steps per second and the time that is left."""

import logging
import time
from typing import Any

from transformers import TrainerCallback

_SECONDS = 10.0  # between two lines
_log = logging.getLogger(__name__)


class Progress(TrainerCallback):  # type: ignore[misc]  # the library has no types
    """Logs a line at the first step, then one at most every ten seconds, and one at the end; only the first worker."""

    def __init__(self) -> None:
        """Nothing is logged yet."""
        self._logged = 0.0
        self._started, self._first, self._loss = 0.0, 0, float("nan")

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:  # noqa: ANN401
        """Start the clock; a resumed training counts from the step that it resumes from."""
        self._started, self._first = time.monotonic(), state.global_step
        if state.is_world_process_zero and state.global_step:
            _log.info("training resumes at step %d of %d", state.global_step, state.max_steps)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ANN401
        """Take the loss of the step, and log a line where it is due."""
        if "loss" not in (logs or {}):
            return
        self._loss = float(logs["loss"])
        if state.is_world_process_zero and time.monotonic() - self._logged >= _SECONDS:
            self._logged = time.monotonic()
            _log.info("%s", self._line(state))

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:  # noqa: ANN401
        """Log the last line."""
        if state.is_world_process_zero and state.global_step > self._first:
            _log.info("%s", self._line(state))

    def _line(self, state: Any) -> str:  # noqa: ANN401
        seconds = time.monotonic() - self._started
        rate = (state.global_step - self._first) / seconds if seconds > 0 else 0.0
        return progress_line(state.global_step, state.max_steps, self._loss, rate)


def progress_line(step: int, steps: int, loss: float, rate: float) -> str:
    """Say how far a training is. rate: steps per second.

    >>> progress_line(150, 600, 0.51234, 2.5)
    'step 150 of 600 (25%), loss 0.5123, 2.50 steps/s, 3 min 00 s left'
    """
    left = f", {_duration((steps - step) / rate)} left" if rate > 0 and step < steps else ""
    return f"step {step} of {steps} ({100 * step // steps}%), loss {loss:.4f}, {rate:.2f} steps/s{left}"


def _duration(seconds: float) -> str:
    """Say how long something takes.

    >>> _duration(59.6), _duration(3700)
    ('1 min 00 s', '1 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"  # noqa: PLR2004
