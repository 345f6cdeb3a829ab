"""Says what computed the parts of a curation, and what gave the answers that its judges used."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flows import stages as st
from infra.names import StageName
from infra.provenance import UNRECORDED
from infra.stages import origins
from infra.stages.runner import StageRun
from infra.storage.artifacts import Manifest
from infra.storage.store import Store

ANSWERS, VECTORS, PARTS = "answers", "vectors", "parts"
# By stage with its label: `unit` (`answers` of a judge, `vectors` of an encoder, else `parts`), and `by`: how many by
# each origin, in a line.
ComputedBy = dict[str, dict[str, Any]]

# Stages whose numbers depend on more than tables: they run an engine, or a library that chooses its kernels.
_NUMERIC = {stage.name for stage in st.STAGES if stage.engine is not None or stage.libraries}
_DIGEST, _FINGERPRINT = "digest", "fingerprint"


def computed_by(store: Store, runs: Sequence[StageRun]) -> ComputedBy:
    """Count parts or answers by origin, for each stage that runs an engine, trains, evaluates or searches."""
    lines = _Lines(store)
    found: ComputedBy = {}
    for run in runs:
        if StageName.parse(run.name).stage in _NUMERIC and run.manifests:
            unit, counted = _count(run.manifests)
            by = Counter[str]()
            for name, count in counted.items():
                by[lines.of(*name)] += count
            found[run.name] = {"unit": unit, "by": dict(sorted(by.items()))}
    return found


def lines_of(store: Store, manifest: Manifest) -> tuple[str, ...]:
    """Say in a line each what computed one part, and what gave the answers that it used."""
    lines = _Lines(store)
    unit, counted = _count([manifest])
    told = [f"computed by {lines.of(_DIGEST, manifest.origin)}"]
    if unit != PARTS:
        told += [f"{count:,} {unit} by {lines.of(*name)}" for name, count in sorted(counted.items())]
    return tuple(told)


def mixtures(computed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each stage that more than one origin computed."""
    found = []
    for stage, made in computed.items():
        if len(made["by"]) > 1:
            found.append(f"{stage}: " + "; ".join(f"{n:,} {made['unit']} by {line}" for line, n in made["by"].items()))
    return found


def changes(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return a sentence for each stage that other origins computed before than now, by stage."""
    found = {}
    for stage in before.keys() & now.keys():
        old, new = set(before[stage]["by"]), set(now[stage]["by"])
        if old != new:
            found[stage] = f"{stage} was computed by {_some(old)}; now by {_some(new)}"
    return dict(sorted(found.items()))


def _some(lines: Iterable[str]) -> str:
    return " and ".join(f"[{line}]" for line in sorted(lines))


def _count(manifests: Sequence[Manifest]) -> tuple[str, Counter[tuple[str, str]]]:
    """Count a judge's answers, an encoder's vectors, else parts. An endpoint's answers are counted by its own name."""
    if any("vectors" in manifest.stats for manifest in manifests) and (vectors := _vectors(manifests)):
        return VECTORS, vectors
    counted = Counter[tuple[str, str]]()
    for manifest in manifests:
        named = manifest.stats.get("facts", {}).get("fingerprints")
        made = [(_FINGERPRINT, named)] if named else [(_DIGEST, _answers(manifest))]
        for kind, counts in made:
            counted.update({(kind, name): count for name, count in counts.items() if count})
    if counted:
        return ANSWERS, counted
    return PARTS, Counter((_DIGEST, manifest.origin) for manifest in manifests)


def _vectors(manifests: Sequence[Manifest]) -> Counter[tuple[str, str]]:
    """Count vectors by their origins; those of a part that was made before they were remembered have the part's."""
    counted = Counter[tuple[str, str]]()
    for manifest in manifests:
        rows = int(manifest.stats.get("rows_out", 0))
        for name, count in manifest.stats.get("vectors", {manifest.origin: rows}).items():
            counted[_DIGEST, name] += int(count)
    return +counted


def _answers(manifest: Manifest) -> Mapping[str, int]:
    """Count the answers that a part used by their origins; a part that was made earlier did not record them."""
    if "answers" in manifest.stats:
        return manifest.answers
    return {"": int(manifest.stats.get("rows", {}).get("calls", 0))}


class _Lines:
    """Describes origins in a line each; reads each of them once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str], str] = {}

    def of(self, kind: str, name: str) -> str:
        if (kind, name) not in self._known:
            self._known[kind, name] = self._describe(kind, name)
        return self._known[kind, name]

    def _describe(self, kind: str, name: str) -> str:
        if kind == _FINGERPRINT:
            return f"an endpoint that called itself {name}" if name else "an endpoint that gave no name"
        origin = origins.read(self._store, name)
        return UNRECORDED if origin is None else origin.line
