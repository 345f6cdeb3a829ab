"""Ray's calls answered in this process, for tests of what surrounds them: actors are objects, results are at hand.

`RayInProcess().install(monkeypatch)` puts them in the place of Ray's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError


@dataclass(eq=False)
class Reference:
    """A result, or the error that a call raised; `late` ones are never there in time."""

    value: Any = None
    error: Exception | None = None
    late: bool = False

    def __await__(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value
        yield


class Call:
    """A method of an actor, called as `method.remote(…)`."""

    def __init__(self, actor: "Actor", method: str) -> None:
        self._actor, self._method = actor, method

    def remote(self, *args: Any, **kwargs: Any) -> Reference:
        return self._actor.answer(self._method, args, kwargs)


class Actor:
    """An object behind `handle.method.remote(…)`; `troubles` are raised first, one for each call."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        self.troubles: list[Exception] = []
        self.is_late = False
        self.calls: list[str] = []

    def answer(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Reference:
        self.calls.append(method)
        if self.troubles:
            return Reference(error=self.troubles.pop(0))
        if self.is_late:
            return Reference(late=True)
        try:
            return Reference(getattr(self.thing, method)(*args, **kwargs))
        except Exception as error:  # as Ray: it is raised where the result is asked for
            return Reference(error=error)

    def __getattr__(self, method: str) -> Call:
        return Call(self, method)


class _Class:
    """A class or function as `ray.remote` gives it back."""

    def __init__(self, ours: "RayInProcess", thing: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._ours, self._thing, self._options = ours, thing, dict(options)

    def options(self, **options: Any) -> "_Class":
        return _Class(self._ours, self._thing, {**self._options, **options})

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        self._ours.options.append(self._options)
        if not isinstance(self._thing, type):
            return Reference(self._thing(*args, **kwargs))
        name = self._options.get("name")
        if name in self._ours.named:
            return self._ours.named[name]
        actor = Actor(self._thing(*args, **kwargs))
        self._ours.actors.append(actor)
        if name is not None:
            self._ours.named[name] = actor
        return actor


@dataclass
class RayInProcess:
    """What was started, with which options, and what was killed or cancelled."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    named: dict[str, Actor] = field(default_factory=dict)
    options: list[dict[str, Any]] = field(default_factory=list)
    killed: list[Actor] = field(default_factory=list)
    cancelled: list[Reference] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "RayInProcess":
        for name in ("remote", "get", "wait", "kill", "cancel"):
            monkeypatch.setattr(ray, name, getattr(self, name))
        monkeypatch.setattr(ray, "nodes", lambda: self.nodes)
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        return self

    def remote(self, *things: Any, **options: Any) -> Any:
        if things:
            return _Class(self, things[0], {})
        return lambda thing: _Class(self, thing, options)

    def get(self, reference: Reference, timeout: float | None = None) -> Any:
        if reference.error is not None:
            raise reference.error
        if reference.late:
            raise GetTimeoutError("not within its time")
        return reference.value

    def wait(
        self, references: Sequence[Reference], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[Reference], list[Reference]]:
        return [r for r in references if not r.late], [r for r in references if r.late]

    def kill(self, actor: Actor, no_restart: bool = True) -> None:
        self.killed.append(actor)

    def cancel(self, reference: Reference, force: bool = False) -> None:
        self.cancelled.append(reference)


def node(id_: str = "a" * 8, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    """Describe a node as `ray.nodes()` does: `node(CPU=4.0, GPU=1.0)`."""
    return {"NodeID": id_, "NodeManagerAddress": "127.0.0.1", "Alive": alive, "Resources": resources}
