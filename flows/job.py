"""What is done with a curation: the whole method or a further one, some parts anew, or one part alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flows.method import Setup, curate_method
from infra.stages.runner import Runner


@dataclass(frozen=True)
class Job:
    """One piece of work on one curation.

    name: what people call it, in the names of flow runs.
    method: walks the stages; what it returns is the outcome.
    force: (stage with its label, part) to compute again although they are finished.
    only: the one part to compute; nothing upstream or downstream of it is touched.
    until: seconds since the epoch, after which nothing new is begun; None for no end.
    again: how people do it once more where it is no curation: the command with its options, or the flow run's Retry.
    """

    name: str = "curate"
    method: Callable[[Runner, Setup], Any] = curate_method
    force: frozenset[tuple[str, int]] = frozenset()
    only: tuple[str, int] | None = None
    until: float | None = None
    again: str = ""
