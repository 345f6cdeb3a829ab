"""Promotes a finished curation to a release that trainers read, if it is better, and rolls releases back.

`releases/<name>/HEAD-NNNNNN.json` says which curation is current, `published/<name>/` holds its files at a stable path
(docs/releases.md). Every call updates both, so a call that was killed is completed by the next one.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from flows.config.section import ConfigError
from flows.curation.workspace import Workspace
from flows.method.afterwards.gate import Gated
from flows.method.setup import Outcome
from flows.promotion.gating import released_models
from flows.promotion.nights import keep_test, night_of_test
from infra.names import NumberedId
from infra.prefect_api import events
from infra.storage.artifacts import read_table
from infra.storage.numbered_records import keep_next, padded, read_newest
from infra.storage.release_pointers import (
    ROLLED_BACK,
    Record,
    advance,
    content_of,
    heal,
    left_behind,
    lost_files,
    origin,
    passed_by,
    publish,
    read_all,
)
from infra.storage.store import Store, StoreError
from tasks.schemas import SCORES
from tasks.training.evaluate import DEV
from tasks.training.gate.checks import Check
from tasks.training.promote import Decision, PromoteConfig, decide_promotion

PROMOTED = "promoted"
Split = Literal["test", "dev"]


@dataclass(frozen=True)
class Release:
    """A release that trainers read from now on, or that they read already (`new` is false)."""

    name: str
    record: Record
    new: bool

    @property
    def number(self) -> int:
        """The release's number; the highest is current."""
        return int(self.record["number"])

    @property
    def prefix(self) -> str:
        """Where its files lie in the store."""
        return f"published/{self.name}/{padded(self.number)}"

    def as_json(self) -> dict[str, Any]:
        """Return the facts for the result's JSON and for notifications."""
        named = {key: self.record[key] for key in ("number", "curation", "treatment", "because", "of", "instances")}
        return {
            "promoted": self.record["because"] == PROMOTED,
            "new": self.new,
            **named,
            "why": self.record["why"],
            "prefix": self.prefix,
            "checks": self.record["checks"],
        }


@dataclass(frozen=True)
class Held:
    """A curation that was not promoted, and why; the current release stays."""

    name: str
    curation: str
    because: str
    checks: tuple[Check, ...] = ()
    standing: bool = False  # known from an earlier night, so it is not reported again
    current: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the facts for the result's JSON and for notifications."""
        return {
            "promoted": False,
            "new": not self.standing,
            "curation": self.curation,
            "why": self.because,
            "current": self.current,
            "checks": [check.as_dict() for check in self.checks],
        }


_Told = TypeVar("_Told", Release, Held)


@dataclass(frozen=True)
class Candidate:
    """The training set of a finished curation, as a release would publish it.

    scores: of the queries that decide: those for development, or else the test queries. reported: of the test queries,
    where others decide. split: of the queries that decide. models: of the treatment, by seed, for later comparisons.
    """

    name: str
    curation: str
    config: PromoteConfig
    exports: Mapping[str, str]
    instances: int
    summary: Mapping[str, Any]
    report: Mapping[str, str]
    model: Mapping[str, str] | None
    scores: Any = field(repr=False)
    reported: Any = field(default=None, repr=False)
    split: Split = "test"
    models: Mapping[int, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        store: Store,
        curation: str,
        outcome: Outcome,
        config: PromoteConfig,
        split: Split = "test",
        *,
        gate: Gated | None = None,
    ) -> "Candidate":
        """Collect the contents of a release of one treatment. split: of the outcome's scores. gate: of several seeds.

        Raises:
            ConfigError: the curation did not make that treatment.
        """
        chosen = config.treatment
        if chosen not in outcome.exports:
            raise ConfigError(f"{curation} made {', '.join(outcome.exports)}, not {chosen!r}; see `treatments`")
        model = outcome.models.get(chosen)
        made = outcome if gate is None else gate
        scores, dev_scores = (read_table(store, table, SCORES) for table in (made.scores, made.dev_scores))
        return cls(
            name=NumberedId.parse(curation).name,
            curation=curation,
            config=config,
            exports=dict(outcome.exports[chosen].files),
            instances=outcome.instances[chosen].rows,
            summary=json.loads(store.get_object(outcome.page.files["summary.json"])),
            report=dict(outcome.page.files),
            model=None if model is None else dict(model.files),
            scores=dev_scores if dev_scores.height else scores,
            reported=scores if dev_scores.height and split != DEV else None,
            split=DEV if dev_scores.height else split,
            models={} if gate is None else {seed: dict(each.files) for seed, each in gate.models.items()},
        )

    def decide(self, store: Store, known: Sequence[Record], alarms: Sequence[str]) -> Decision:
        """Compare this candidate with the requirements and with the current release; the gate's test is kept."""
        content, promotions = content_of({"exports": self.exports}), count_promotions(known)
        night = night_of_test(store, self.name, content, promotions)
        decision = decide_promotion(
            self.config,
            scores=self.scores,
            summary=self.summary,
            instances=self.instances,
            previous=int(known[-1]["instances"]) if known else None,
            alarms=alarms,
            reported=self.reported,
            decided_by=self.split,
            night=night,
            missing=released_models(store, self.name, self.config).missing,
        )
        if any(check.queries is not None and check.passed is not None for check in decision.checks):
            checks = [check.as_dict() for check in decision.checks]
            about = {"curation": self.curation, "at": _now(), "treatment": self.config.treatment}
            said = {"promote": decision.promote, "because": decision.because, "checks": checks}
            test = {"content": content, "promotions": promotions, "night": night}
            keep_test(store, self.name, {**test, **about, **said})
        return decision

    def record(self, decision: Decision, forced: bool) -> Record:
        """Return the record of the release, without its number, which `advance` adds."""
        return {
            "curation": self.curation,
            "treatment": self.config.treatment,
            "exports": self.exports,
            "model": self.model,
            "models": {str(seed): files for seed, files in self.models.items()},
            "publish_model": self.config.publish_model,
            "report": self.report,
            "summary": self.summary,
            "instances": self.instances,
            "because": PROMOTED,
            "why": f"by hand, although {decision.because}" if forced else decision.because,
            "checks": [check.as_dict() for check in decision.checks],
            "of": None,
            "at": _now(),
        }


def promote(  # noqa: PLR0913 - the last have defaults
    workspace: Workspace,
    curation: str,
    outcome: Outcome,
    config: PromoteConfig,
    alarms: Sequence[str] = (),
    *,
    force: bool = False,
    split: Split = "test",
    gate: Gated | None = None,
) -> Release | Held:
    """Promote a finished curation if it is better, and publish the current release at the stable path.

    Running it again changes nothing. A current release stays current. A training set that was rolled back, or that is
    older than the newest release, is held until there is a newer curation or a person forces it.

    Args:
        workspace: of the store.
        curation: its id.
        outcome: its results.
        config: what is promoted, and the requirements.
        alarms: the alarms of the night's drift checks.
        force: promote whatever the checks say.
        split: of the outcome's scores (`evaluate.split`).
        gate: the scores of several seeds; without it, those of the curation count, which has trained one.

    Raises:
        ConfigError: the treatment to promote was not made.
    """
    store = workspace.store
    candidate = Candidate.of(store, curation, outcome, config, split, gate=gate)
    held: list[Held] = []

    def make(known: list[Record]) -> Record | None:
        held[:] = _standing(candidate, known, force)
        if held:
            return None
        decision = candidate.decide(store, known, alarms)
        if not decision.promote and not force:
            number = int(known[-1]["number"]) if known else None
            held.append(Held(candidate.name, candidate.curation, decision.because, decision.checks, current=number))
            return None
        return candidate.record(decision, forced=not decision.promote)

    record = advance(store, candidate.name, make)
    if record is not None:
        publish(store, candidate.name)
        return _tell("reneg.promoted", Release(candidate.name, record, new=True))
    _repair(workspace, candidate.name)
    if not held[0].because:
        return Release(candidate.name, read_all(store, candidate.name)[-1], new=False)
    return held[0] if held[0].standing else _tell_once(store, held[0])


def is_open(store: Store, curation: str, outcome: Outcome, config: PromoteConfig) -> bool:
    """Tell whether checks decide on a curation: it is not current already, nor rolled back, nor older than a release.

    Raises:
        ConfigError: the treatment to promote was not made.
    """
    candidate = Candidate.of(store, curation, outcome, config)
    return not _standing(candidate, read_all(store, candidate.name), force=False)


def count_promotions(known: Sequence[Record]) -> int:
    """Return how many releases were promoted; a rollback is none."""
    return sum(record["because"] == PROMOTED for record in known)


def _tell_once(store: Store, held: Held) -> Held:
    """Report why a curation was held, unless the same reason was reported before."""
    prefix = f"curations/{held.curation}/held"
    if (read_newest(store, prefix) or {}).get("because") == held.because:
        return replace(held, standing=True)
    told = _tell("reneg.held", held)
    keep_next(store, prefix, {"because": held.because, "at": _now()})
    return told


def _standing(candidate: Candidate, known: Sequence[Record], force: bool) -> list[Held]:
    """Return why a candidate is held without any check; empty if the checks decide.

    It is current already (the reason is then empty), it was rolled back, or it is older than a release.
    """
    if not known:
        return []
    current, content = known[-1], content_of(candidate.record(Decision(True, "", ()), forced=False))
    number = int(current["number"])

    def hold(because: str) -> list[Held]:
        return [Held(candidate.name, candidate.curation, because, standing=True, current=number)]

    if content_of(current) == content and current["treatment"] == candidate.config.treatment:
        return hold("")
    if force:
        return []
    left = left_behind(known).get(content)
    if left is not None:
        return hold(f"release {left} had the same content and was rolled back; `--force` promotes it anyway")
    last = max(known, key=lambda record: _order(record["curation"]))
    if _order(candidate.curation) < _order(last["curation"]):
        return hold(f"release {last['number']} is of {last['curation']}, which is newer")
    return []


def rollback(store: Store, name: str, to: int | None = None) -> Release:
    """Make an earlier release current again, under a new number; by default the last one with other content.

    Raises:
        ConfigError: there is no such release, it is current already, or its files are gone.
    """

    def make(known: list[Record]) -> Record:
        target = _target(known, name, to)
        if lost := lost_files(store, target):
            raise ConfigError(
                f"release {target['number']} of {name} cannot be published any more: {', '.join(lost)} is gone, for "
                "example after `reneg purge`; name another release with --to"
            )
        kept = {key: value for key, value in target.items() if key != "number"}
        kept["left"] = passed_by(known, target)
        why = f"back to release {target['number']} ({target['curation']})"
        return {**kept, "because": ROLLED_BACK, "why": why, "of": target["number"], "at": _now()}

    record = advance(store, name, make)
    publish(store, name)
    return _tell("reneg.rolled-back", Release(name, record or {}, new=True))


def _target(known: Sequence[Record], name: str, to: int | None) -> Record:
    """Return the release to go back to; for a rollback, the release whose content it has."""
    if not known:
        raise ConfigError(f"no release of {name!r}; `reneg releases` lists what there is")
    current = origin(known, known[-1])
    if to is not None:
        named = next((record for record in known if record["number"] == to), None)
        if named is None:
            raise ConfigError(f"no release {to} of {name}; there are {', '.join(str(r['number']) for r in known)}")
        if content_of(named) == content_of(current):
            raise ConfigError(f"release {to} of {name} has the same content as the current release")
        return origin(known, named)
    earlier = [r for r in known if r["number"] < current["number"] and content_of(r) != content_of(current)]
    if not earlier:
        raise ConfigError(f"there is no release before release {current['number']} of {name} to go back to")
    return origin(known, earlier[-1])


def mend(workspace: Workspace, name: str) -> None:
    """Make `latest.json` and `current` follow the newest complete release; a damaged record is reported, not raised."""
    try:
        heal(workspace.store, name)
    except StoreError as error:
        workspace.hooks.on_message(f"releases of {name}: {error}")


def _repair(workspace: Workspace, name: str) -> None:
    """Publish the current release again, in case an earlier call was killed; a lost file is reported, not raised."""
    try:
        publish(workspace.store, name)
    except StoreError as error:
        workspace.hooks.on_message(f"the current release of {name} cannot be published: {error}")


def _tell(event: str, done: _Told) -> _Told:
    """Send an event to Prefect's automations, if there is a server; returns its argument."""
    said = done.as_json()
    if isinstance(done, Release):
        text = f"{done.name}: release {done.number} ({said['curation']}) {said['because']}: {said['why']}"
    else:
        text = f"{done.name}: {done.curation} was not promoted: {done.because}"
    events.emit(event, events.resource(done.name), {"text": text, **said})
    return done


def _order(curation: str) -> int:
    return NumberedId.parse(curation).number


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
