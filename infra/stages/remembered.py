"""What a part is lent of answers and vectors that are remembered, and how many of them it used."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from infra.ledger.ledger import Ledger
from infra.ledger.vectors import Vectors
from infra.stages import part_keys
from infra.stages.part_spec import PartSpec
from infra.storage.store import Store


class Remembered:
    """The ledger and the vectors of one part, as far as its stage takes them."""

    def __init__(self, store: Store, spec: PartSpec, made_by: str) -> None:
        """Prepare; nothing is read. made_by: digest of what computes the part, empty without an engine.

        What is from before `spec.since` is not recalled. For vectors that is when a `rerun` of the part began, so that
        a retry of it pays for no text twice.
        """
        self._ledger = Ledger(store, made_by, spec.since) if spec.stage.ledger else None
        encoder = part_keys.digest(spec.ingredients.get("engine"))
        version, since = spec.stage.version, spec.since
        self._vectors = Vectors(store, encoder, version, made_by, since) if spec.stage.vectors else None

    def lend(self, stack: ExitStack) -> dict[str, Any]:
        """Return the keywords for the stage's function; leaving `stack` waits until everything is durable."""
        lent: dict[str, Any] = {}
        if self._ledger is not None:
            lent["ledger"] = stack.enter_context(self._ledger)
        if self._vectors is not None:
            lent["vectors"] = stack.enter_context(self._vectors)
        return lent

    def stats(self, facts: Mapping[str, Any], made_by: str) -> dict[str, dict[str, int]]:
        """Return for the manifest how many `answers` or `vectors` the part used, by the origin of each.

        made_by: the origin of those that the part itself computed, whose number is in its facts.
        """
        found: dict[str, dict[str, int]] = {}
        if self._ledger is not None:
            found["answers"] = _sorted(self._ledger.recalled + Counter({made_by: int(facts.get("calls", 0))}))
        if self._vectors is not None:
            found["vectors"] = _sorted(self._vectors.recalled + Counter({made_by: int(facts.get("encoded", 0))}))
        return found


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
