"""An engine that is built at once, for tests of what surrounds engines; importing this module adds its kind.

A worker imports it when it receives a `ToySpec`, so the kind is known there too.
"""

from collections.abc import Sequence
from typing import Literal

from infra.engines.kinds import KINDS, EngineKind
from infra.engines.specs import EndpointSpec


class ToySpec(EndpointSpec):
    """Settings of the toy engine."""

    kind: Literal["toy"] = "toy"


class ToyEngine:
    """Encodes every text as its length."""

    def __init__(self, spec: ToySpec) -> None:
        self.spec = spec

    def encode(self, texts: Sequence[str], role: str) -> list[int]:
        return [len(text) for text in texts]

    def close(self) -> None: ...


KINDS["toy"] = EngineKind(ToySpec, "tests.infra.toy_engine:ToyEngine", does="encode", tokens="none")
