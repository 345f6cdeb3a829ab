"""Explains why a part was computed and not reused: compares its key's ingredients with the nearest earlier part's."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows.config.section import ConfigError
from flows.curation.lookup import look_at
from flows.curation.origins import lines_of
from flows.curation.records import curation_names, failures_of, load_curation
from flows.curation.workspace import Workspace
from flows.guarantee_stages import AUDITED
from flows.stage_names import section_of
from flows.stages import AUDIT, JUDGE, READ_SCORES, SET_THRESHOLDS, SETTLE
from infra.models.resolve import ModelError
from infra.names import NumberedId, StageName, object_name
from infra.stages import part_keys
from infra.stages.found_parts import read_manifests
from infra.stages.runner import StageRun
from infra.storage.artifacts import Manifest, newest_attempts
from infra.storage.store import Store

Ingredients = Mapping[str, Any]
Maker = tuple[str, int]  # the stage, as `reneg status` names it, and the part
Makers = Mapping[tuple[str, str], Maker]

_OF_A_TIER = (AUDIT.name, SET_THRESHOLDS.name, SETTLE.name, JUDGE.name, READ_SCORES.name)
_LOOKED_AT = 5  # earlier curations of the same name, the newest first
_NAMED = 3  # parts and files named in one sentence
_LONGEST = 60  # characters of a value that are shown
_DIGEST = re.compile(r"\b([0-9a-f]{4})[0-9a-f]{8,}\b")


@dataclass(frozen=True)
class Explanation:
    """Why one part was, or will be, computed; `reasons` is empty if it was reused.

    compared_with: the curation, or the part in the store, with whose ingredients this part's were compared.
    failed: why its last attempt failed; None if it is finished or was not tried.
    computed_by: the software and the processor, or the endpoint, that computed it and that gave the answers it used.
    guarantee: of a stage of a tier with a guarantee: why its pairs were asked about, accepted or rejected.
    """

    curation: str
    stage: str
    part: int
    finished: bool
    reused_from: str | None
    compared_with: str | None
    reasons: tuple[str, ...]
    failed: str | None = None
    computed_by: tuple[str, ...] = ()
    guarantee: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """The first line of the explanation; the reasons follow it."""
        part = f"{self.stage} part {self.part} of {self.curation}"
        if self.reused_from is not None:
            return f"{part}: nothing differs; it was reused from curation {self.reused_from}"
        verb = "was computed" if self.finished else "will be computed"
        return f"{part} {verb}" + (f"; compared with {self.compared_with}:" if self.compared_with else ":")


@dataclass(frozen=True)
class _Walk:
    """What the manifests of one curation hold, by stage."""

    curation: str
    runs: Mapping[str, StageRun]

    def part(self, maker: Maker) -> Ingredients | None:
        """Return a part's ingredients; None if it is not finished."""
        run = self.runs.get(maker[0])
        return None if run is None or maker[1] in run.unfinished else run.ingredients.get(maker[1])

    def makers(self) -> Makers:
        """Map each object to the first part that made it, with the output's name in the key and with none."""
        found: dict[tuple[str, str], Maker] = {}
        for run in self.runs.values():
            for number, manifest in run.finished.items():
                for name, content in _content(manifest):
                    found.setdefault((name, content), (run.name, number))
                    found.setdefault(("", content), (run.name, number))
        return found


def explain(workspace: Workspace, curation: str, stage: str, part: int) -> Explanation:
    """Compare a part with the same part of the newest earlier curation that finished it, else with the most similar.

    Raises:
        ConfigError: no such curation, stage or part; the message lists those there are.
    """
    found = _compare(workspace, curation, stage, part)
    if found.finished:
        return found
    return replace(found, failed=failures_of(workspace.store, curation).get((stage, part)))


def _compare(workspace: Workspace, curation: str, stage: str, part: int) -> Explanation:
    walk = _Walk(curation, {run.name: run for run in _runs(workspace, curation)})
    new = _find(walk, stage, part)
    finished = walk.runs[stage].finished.get(part)
    explained = _explain(workspace, walk, (stage, part), new, finished)
    explained = replace(explained, guarantee=_guarantee(walk, stage))
    return replace(explained, computed_by=() if finished is None else lines_of(workspace.store, finished))


def _guarantee(walk: _Walk, stage: str) -> tuple[str, ...]:
    """Say what the thresholds of a guarantee did with the pairs of a tier; nothing where there are none yet."""
    name = StageName.parse(stage)
    chosen = walk.runs.get(str(StageName(SET_THRESHOLDS.name, name.label.removesuffix(AUDITED))))
    if chosen is None or chosen.unfinished or name.stage not in _OF_A_TIER:
        return ()
    facts = chosen.finished[0].stats["facts"]
    accept, reject = facts["accept"], facts["reject"]
    return (
        f"audit sample: {facts['audited']:,} of {facts['questions']:,} questions, drawn at random from all scores",
        f"accepted as relevant: {facts['accepted']:,}" + ("" if accept is None else f", with scores from {accept:.4g}"),
        f"rejected: {facts['rejected']:,}" + ("" if reject is None else f", with scores below {reject:.4g}"),
        f"asked about, because no threshold decides: {facts['passed_on']:,}",
    )


def _explain(
    workspace: Workspace, walk: _Walk, maker: Maker, new: Ingredients, finished: Manifest | None
) -> Explanation:
    curation, (stage, part) = walk.curation, maker
    about = (curation, stage, part, finished is not None)
    if finished is not None and finished.attempt:
        again = f"`reneg rerun` computed it again (attempt {finished.attempt + 1})"
        return Explanation(*about, None, None, (again,))
    earlier = list(_earlier(workspace, curation))
    for before in earlier:
        if _holds(before, stage, new):
            return Explanation(*about, before.curation, before.curation, ())
    for before in earlier:
        old = before.part((stage, part))
        if old is not None:
            return Explanation(
                *about, None, before.curation, _Comparison(workspace.store, walk, before).reasons(new, old)
            )
    nearest = _nearest(workspace.store, new, part, walk)
    if nearest is None:
        return Explanation(
            *about, None, None, (f"nothing like it was computed before: no other {new['stage']} in the store",)
        )
    reasons = _Comparison(workspace.store, walk, None).reasons(new, nearest.ingredients)
    return Explanation(*about, None, f"part {nearest.part} of {new['stage']} as an earlier run left it", reasons)


def _find(walk: _Walk, stage: str, part: int) -> Ingredients:
    run = walk.runs.get(stage)
    if run is None:
        last = list(walk.runs.values())[-1]
        hint = f"; the stages after {last.name} are known once it is finished" if last.unfinished else ""
        raise ConfigError(f"no stage {stage!r} so far in {walk.curation}; known: {', '.join(walk.runs)}{hint}")
    if part not in run.ingredients:
        raise ConfigError(f"{stage} has {run.parts} parts, numbered from 0; part {part} is not there")
    return run.ingredients[part]


def _earlier(workspace: Workspace, curation: str) -> Iterator[_Walk]:
    """Yield the earlier curations of the same name, the newest first, without those that cannot be read."""
    names = curation_names(workspace.store, NumberedId.parse(curation).name)
    for name in names[: names.index(curation)][: -_LOOKED_AT - 1 : -1]:
        try:
            yield _Walk(name, {run.name: run for run in _runs(workspace, name)})
        except (ConfigError, ModelError):  # recorded by another version, or its model is gone
            continue


def _runs(workspace: Workspace, curation: str) -> tuple[StageRun, ...]:
    return look_at(workspace, load_curation(workspace.store, curation))[1]


def _holds(walk: _Walk, stage: str, wanted: Ingredients) -> bool:
    run = walk.runs.get(stage)
    return run is not None and any(run.ingredients[number] == wanted for number in run.finished)


def _nearest(store: Store, new: Ingredients, part: int, walk: _Walk) -> Manifest | None:
    """Return the finished part of the stage that shares most ingredients; this curation's own parts are left out."""
    own = {part_keys.digest(made) for run in walk.runs.values() for made in run.ingredients.values()}
    others = [(key, attempt) for key, attempt in newest_attempts(store, new["stage"]).items() if key not in own]
    return min(
        read_manifests(store, new["stage"], others),
        key=lambda m: (len(part_keys.differences(dict(m.ingredients), dict(new))), m.part != part, m.key),
        default=None,
    )


@dataclass
class _Comparison:
    """Turns the differences between two parts' ingredients into sentences.

    before: the earlier curation; None if the part is compared with the most similar one in the store.
    """

    store: Store
    walk: _Walk
    before: _Walk | None

    def reasons(self, new: Ingredients, old: Ingredients) -> tuple[str, ...]:
        """Return a sentence per difference; for inputs with the part that made them and why it changed."""
        return (*_settings(new, old), *self._inputs(new, old, follow=True))

    def _inputs(self, new: Ingredients, old: Ingredients, *, follow: bool) -> list[str]:
        makers = self.walk.makers()
        sentences = []
        for name, content in new["inputs"].items():
            had = old["inputs"].get(name, [])
            if content == had:
                continue
            made_by = {makers.get((name, item)) or makers.get(("", item)) for item in set(content) - set(had)}
            parts = sorted(maker for maker in made_by if maker)
            sentences.append(f"its input `{name}` changed{self._because(content, had, parts, follow)}")
        return sentences

    def _because(self, content: Sequence[str], had: Sequence[str], made_by: Sequence[Maker], follow: bool) -> str:
        gone = set(had) - set(content)
        files = sorted({item.partition("=")[0] for item in set(content) ^ set(had) if "=" in item})
        if made_by:
            named = _some([f"part {part} of {stage}" for stage, part in made_by])
            return f", because {named} changed: {self._upstream(made_by[0])}" if follow else f" ({named})"
        if files:
            return f": {_some(files)}"
        if set(content) - set(had):
            return ""
        return f": {len(gone)} of its {len(had)} pieces are gone" if gone else ": its pieces are in another order"

    def _upstream(self, maker: Maker) -> str:
        """Say why the part that made an input changed, without following its own inputs further."""
        new = self.walk.runs[maker[0]].ingredients[maker[1]]
        old = self.before.part(maker) if self.before else None
        if old is None:
            nearest = _nearest(self.store, new, maker[1], self.walk)
            old = nearest.ingredients if nearest else None
        if old is None:
            return "it did not exist before"
        why = [*_settings(new, old), *self._inputs(new, old, follow=False)]
        return "; ".join(why) or "the same work gave another result"


def _settings(new: Ingredients, old: Ingredients) -> list[str]:
    """Return a sentence per difference, without the inputs."""
    before, after = ({name: made[name] for name in made if name != "inputs"} for made in (old, new))
    lines = part_keys.differences(before, after)
    paths = [line.partition(": ")[0] for line in lines]
    asked_otherwise = any(path.startswith(("engine", "prompts", "definitions")) for path in paths)
    return [
        _sentence(str(new["stage"]), path, line.partition(": ")[2])
        for path, line in zip(paths, lines, strict=True)
        if not (path in ("config.judge", "config.engine") and asked_otherwise)  # their names hold digests of the same
    ]


def _sentence(stage: str, path: str, change: str) -> str:
    """Put one difference into words.

    >>> _sentence("judge", "prompts.yes_no", '"a1b2c3d4e5f60718" → "c3d4e5f607182930"')
    'the prompt yes_no changed: a1b2… → c3d4…'
    >>> _sentence("judge", "config.passage_chars", "900 → 100")
    'judge.passage_chars: 900 → 100'
    >>> _sentence("judge", "engine.software.vllm", '"0.31.0" → "0.32.0"')
    'software.vllm: 0.31.0 → 0.32.0'
    """
    old, _, new = change.partition(" → ")
    change = f"{_short(old)} → {_short(new)}"
    head, _, rest = path.partition(".")
    words = {
        "version": "the stage's code version changed",
        "encoder": "the encoder's weights, settings or software changed",
        "base": "the model that training starts from changed",
    }
    if head == "prompts" and rest:
        return f"the prompt {rest} changed: {change}"
    if path.startswith(("engine.software", "software")):
        return f"{path.removeprefix('engine.')}: {change}".replace('"', "")
    if path == "engine.digest":
        return f"the model's weights changed: {change}"
    if head == "config":
        return f"{section_of(stage)}.{rest}: {change}"
    if stage == "harvest" and path not in words:
        return f"the library {path} has another version: {change}"
    return f"{words.get(path, path)}: {change}"


def _short(value: str) -> str:
    """Show a JSON value in few characters, digests by their first four.

    >>> _short('"gte:0123456789abcdef"'), _short("null")
    ('"gte:0123…"', 'none')
    """
    if value == "null":
        return "none"
    shortened = _DIGEST.sub(r"\1…", value)
    whole_digest = _DIGEST.fullmatch(value.strip('"'))
    shown = json.loads(shortened) if whole_digest else shortened
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _content(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield everything that a part made: the output's name, and what keys contain of it."""
    for output, pieces in manifest.tables.items():
        yield from ((output, piece.content) for piece in pieces)
    for output, files in manifest.directories.items():
        yield from ((output, f"{name}={object_name(key)}") for name, key in files.items())
