"""What parts did, counted for Prometheus: Ray exports the numbers of its processes on each node's metrics port.

The driver counts, when a part has ended: of a worker that is killed the numbers of the last ten seconds are lost, while
a driver's arrive when it ends. So the driver's node exports them. Ray puts `ray_` before each name. Without the
packages of `ray[default]` on that node nothing is exported, and counting costs nothing. Nothing here fails a part.
"""

import contextlib
import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]  # bounds of the histogram's buckets
_TOKENS = {"prompt": "prompt_tokens", "cached": "cached_tokens", "output": "output_tokens"}
_LEDGER = {"asked": "calls", "recalled": "recalled"}
Ended = Literal["computed", "failed", "killed"]


@dataclass(frozen=True)
class _Instruments:
    parts: Any
    seconds: Any
    rows: Any
    calls: Any
    tokens: Any
    ledger: Any
    unparsed: Any


def count_part(stage: str, ended: Ended, stats: Mapping[str, Any] | None = None) -> None:
    """Count one attempt at a part; outside Ray, nothing.

    Args:
        stage: with its label: `judge-llm`.
        ended: computed; failed by its own error; or killed (its worker died, or it ran past its deadline).
        stats: as in the part's manifest, if it was computed.
    """
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    with contextlib.suppress(Exception):
        _count(_instruments(), stage, ended, stats or {})


def _count(to: _Instruments, stage: str, ended: Ended, stats: Mapping[str, Any]) -> None:
    here = {"stage": stage}
    to.parts.inc(1, here | {"ended": ended})
    if "seconds" in stats:
        to.seconds.observe(stats["seconds"], here)
    for direction in ("in", "out"):
        _add(to.rows, stats.get(f"rows_{direction}"), here | {"direction": direction})
    facts = stats.get("facts", {})
    _add(to.calls, facts.get("calls"), here)
    for kind, name in _TOKENS.items():
        _add(to.tokens, facts.get(name), here | {"kind": kind})
    for how, name in _LEDGER.items():
        _add(to.ledger, facts.get(name), here | {"how": how})
    _add(to.unparsed, facts.get("unparsed"), here)


def _add(counter: Any, value: float | None, tags: dict[str, str]) -> None:  # noqa: ANN401 - Ray's
    if value:  # Ray refuses to add nothing
        counter.inc(value, tags)


@functools.cache
def _instruments() -> _Instruments:
    from ray.util.metrics import Counter, Histogram

    def counter(name: str, description: str, *tags: str) -> Any:  # noqa: ANN401 - Ray's
        return Counter(f"reneg_{name}", description, ("stage", *tags))

    return _Instruments(
        parts=counter("parts_total", "Attempts at parts, by how they ended.", "ended"),
        seconds=Histogram("reneg_part_seconds", "Working time of computed parts.", _SECONDS, ("stage",)),
        rows=counter("rows_total", "Rows read and written by computed parts.", "direction"),
        calls=counter("engine_calls_total", "Calls put to engines by computed parts."),
        tokens=counter("tokens_total", "Tokens of those calls; cached ones are also prompt tokens.", "kind"),
        ledger=counter("ledger_rows_total", "Answers remembered, and answers asked for.", "how"),
        unparsed=counter("unparsed_total", "Rows whose answer could not be read."),
    )
