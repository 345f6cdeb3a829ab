"""The history: one record per finished night, with an alarm if the night differs from the nights before."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flows import stages as st
from flows.config.schedule import night_of
from flows.config.section import ConfigError
from flows.curation.origins import changes
from flows.curation.workspace import Workspace
from flows.method.setup import Setup
from flows.results.calibration_nights import alarms_of, observe_calibration
from flows.results.night_metrics import answer_keys, cost, judge_ids, judging, mixes, part_names
from flows.results.output_folder import Result
from flows.stage_names import is_of_held_out, tier_of
from infra.names import StageName
from infra.prefect_api import events
from infra.stages import part_keys
from infra.stages.runner import StageRun
from infra.storage.artifacts import Table, read_table
from infra.storage.numbered_records import keep_next
from infra.storage.store import Store, StoreError
from tasks import schemas
from tasks.quality.drift import CHURN, GOLD, SIMILARITY, DriftConfig, Mix, Night, find_drift
from tasks.quality.gold_answers import Answers, answers_of

EVENT = "reneg.drift"
_LOOKED_AT = 400  # the newest records that are read per name

# Letters of the states in a record. Records made earlier have the marks for right and wrong answers only.
_LETTERS = {"relevant": "r", "not_relevant": "n", "unsure": "u", "unparsed": "x"}
_STATES = {letter: state for state, letter in _LETTERS.items()}

Record = dict[str, Any]


def record_night(workspace: Workspace, setup: Setup, result: Result) -> list[str]:
    """Record a finished execution in the history; returns the messages of its drift alarms.

    An execution that found nothing to compute in a recorded night adds no record. A failed recording does not fail the
    curation, but it is an alarm too: nobody knows then whether something drifted.
    """
    config, store = setup.config, workspace.store
    try:
        earlier = read_history(store, config.name)
        record = _measure(workspace, setup, result, earlier)
        mine = [r for r in earlier if (r["curation"], r["night"]) == (record["curation"], record["night"])]
        if mine and _same(mine[-1], record):
            record = mine[-1]
        else:
            record["alarms"] = _alarms(config.drift, record, earlier)
            keep_next(store, f"history/{config.name}/{setup.curation}", record)
            _tell(workspace, record)
    except (StoreError, ConfigError) as error:
        workspace.hooks.on_message(f"the night was not recorded in the history: {error}")
        return [f"drift could not be checked: {error}"]
    return [alarm["message"] for alarm in record["alarms"]]


def read_history(store: Store, name: str | None = None) -> list[Record]:
    """Read the records of one configuration, or of all, the oldest first."""
    found: dict[str, list[str]] = {}
    for key in store.list(f"history/{name}" if name else "history"):
        if key.endswith(".json"):
            found.setdefault(key.split("/")[1], []).append(key)
    records = (store.read_json(key) for keys in found.values() for key in keys[-_LOOKED_AT:])
    return sorted((r for r in records if r is not None), key=lambda r: (str(r["name"]), str(r["at"])))


def nights_before(record: Record, earlier: Sequence[Record]) -> list[Record]:
    """Return the nights before a record, oldest first; of several runs in one night, the last."""
    last = {(r["curation"], r["night"]): r for r in earlier if r["name"] == record["name"] and r["at"] < record["at"]}
    last.pop((record["curation"], record["night"]), None)
    return sorted(last.values(), key=lambda r: str(r["at"]))


def _measure(workspace: Workspace, setup: Setup, result: Result, earlier: Sequence[Record]) -> Record:
    """Return the record of a night, without its alarms."""
    config, store, now = setup.config, workspace.store, workspace.clock()
    begun = now - timedelta(seconds=result.seconds)
    runs = {run.name: run for run in result.runs}
    record: Record = {
        "name": config.name,
        "curation": setup.curation,
        "night": night_of(config.nightly, begun),
        "at": now.isoformat(),
        **{name: result.summary.get(name) for name in ("queries", "candidates", "verdicts", "found", "ndcg10")},
        "false_negatives": {"share": None, "low": None, "high": None} | result.summary["false_negatives"],
        "people": result.summary.get("people", []),
        "parts": {"computed": result.computed, "reused": result.reused},
        "seconds": round(result.seconds, 1),
        "judges": judge_ids(setup),
        "judged": part_names(judging(result.runs)),
        "answers": answer_keys(result.runs),
        "decided": part_names([runs[st.DECIDE.name]]),
        "gold": _gold(store, runs),
        "calibration": observe_calibration(store, setup, runs),
        "computed_by": result.summary.get("computed_by", {}),
    }
    known = frozenset(part for r in earlier for part in r["judged"])
    before = nights_before(record, earlier)
    record["origin_changes"] = _origin_changes(record, before)
    record["cost"] = cost(config, result.runs, known)
    record["mix"] = _mix(store, runs[st.DECIDE.name], record, earlier)
    record["churn"] = _churn(record, before)
    return record


def _churn(record: Record, before: Sequence[Record]) -> dict[str, float]:
    """Return by tier the share of gold answers that are other than those of the night before, by the same judge."""
    if not before:
        return {}
    last, tonight = _night(before[-1]).gold, _night(record).gold
    changed = {}
    for tier, answers in tonight.items():
        old = last.get(tier)
        if old is not None and (old.judge, old.items) == (answers.judge, answers.items):
            one, two = answers_of([old, answers])
            changed[tier] = round(float((one != two).mean()), 6)
    return changed


def _origin_changes(record: Record, before: Sequence[Record]) -> list[str]:
    """Say which stages other software or another processor computed than in the night before."""
    told = changes(before[-1].get("computed_by", {}), record["computed_by"]) if before else {}
    return [f"Since the night before, {sentence}" for sentence in told.values()]


def _mix(store: Store, decide: StageRun, record: Record, earlier: Sequence[Record]) -> dict[str, Any]:
    """Count the verdicts, over all pairs and over the new ones; copied from the last night if nothing changed.

    A pair is new if no other curation had it. A curation with repaired parts is compared with the nights before again.
    """
    before = nights_before(record, earlier)
    if before and before[-1]["decided"] == record["decided"]:
        return {"every": before[-1]["mix"]["every"], "new": {}}
    others = [r for r in before if r["curation"] != record["curation"]]
    found = mixes(store, decide, others[-1]["decided"] if others else ())
    return {"every": found.every, "new": found.new}


def _gold(store: Store, runs: Mapping[str, StageRun]) -> dict[str, Any] | None:
    """Return the judges' agreement with the gold set, and their answers, in the order of the pairs.

    queries: how many of the pairs belong to each query. right: 1 or 0 for each pair. states: a letter for each pair.
    """
    run = runs.get(st.AGREE_GOLD.name)
    if run is None or not run.manifests:
        return None
    tables = {
        name: read_table(store, Table(name, run.manifests[0].tables[name]), schema)
        for name, schema in (("agreement", schemas.GOLD_AGREEMENT), ("verdicts", schemas.GOLD_VERDICTS))
    }
    tiers = {row.pop("tier"): row for row in tables["agreement"].to_dicts()}
    items, queries = "", list[int]()
    for (tier,), verdicts in tables["verdicts"].partition_by("tier", as_dict=True).items():
        ordered = verdicts.sort(schemas.GOLD.key)
        items = part_keys.digest(ordered.select(*schemas.GOLD.columns).rows())
        right = ordered["state"] == ordered["label"]
        tiers[tier]["right"] = "".join("1" if value else "0" for value in right)
        tiers[tier]["states"] = "".join(_LETTERS[state] for state in ordered["state"])
        queries = ordered.group_by("dataset", "query_id", maintain_order=True).len()["len"].to_list()
    return {"items": items, "queries": queries, "tiers": tiers}


def standing_alarms(store: Store, name: str, curation: str) -> list[str]:
    """Return the messages of the alarms in a curation's newest record."""
    mine = [record for record in read_history(store, name) if record["curation"] == curation]
    return [str(alarm["message"]) for alarm in mine[-1]["alarms"]] if mine else []


def _alarms(drift: DriftConfig, record: Record, earlier: Sequence[Record]) -> list[Record]:
    """Return tonight's alarms, and earlier alarms about this curation that still hold.

    An alarm holds on, so that the promotion stays held, in these cases: all alarms if nothing was computed; alarms
    about verdicts while the verdicts are the same or cannot be compared; alarms about judges while answers of the
    night of the alarm are in the curation (`suspect`).
    """
    mine = [r for r in earlier if r["curation"] == record["curation"]]
    standing: list[Record] = mine[-1]["alarms"] if mine else []
    if standing and _same(mine[-1], record):
        record["suspect"] = mine[-1].get("suspect", [])
        return standing
    found = find_drift(drift, _night(record), _compared(record, earlier)) + alarms_of(drift, record["calibration"])
    suspect = set(mine[-1].get("suspect", ())) & set(record["answers"]) if mine else set()
    unchanged = bool(mine) and mine[-1]["decided"] == record["decided"]
    kept = dict.fromkeys((GOLD, CHURN), bool(suspect)) | dict.fromkeys(
        ("mix", "false_negatives"), unchanged or record["mix"]["new"] is None
    )
    if any(alarm.kind in (GOLD, CHURN) for alarm in found):
        suspect |= set(record["answers"]).difference(*(r.get("answers", ()) for r in nights_before(record, earlier)))
    record["suspect"] = sorted(suspect)
    kept["calibration"] = False  # it is compared anew every night
    told = {(alarm.kind, alarm.tier) for alarm in found}
    still = (alarm for alarm in standing if kept[alarm["kind"]] and (alarm["kind"], alarm["tier"]) not in told)
    return [*(alarm.as_json() for alarm in found), *still]


def _compared(record: Record, earlier: Sequence[Record]) -> list[Night]:
    """Return what tonight is compared with: the gold set of every night, the new pairs of each other curation once."""
    before = nights_before(record, earlier)
    counted = {
        r["curation"]: i for i, r in enumerate(before) if any(m["states"] for m in (r["mix"]["new"] or {}).values())
    }
    counted.pop(record["curation"], None)
    nights = [_night(r) for r in before]
    return [
        night if counted.get(r["curation"]) == i else replace(night, mix={})
        for i, (r, night) in enumerate(zip(before, nights, strict=True))
    ]


def _night(record: Record) -> Night:
    """Read the facts that are compared from a record."""
    judges, gold, new = record["judges"], record["gold"] or {"items": "", "tiers": {}}, record["mix"]["new"] or {}
    answers = {
        tier: Answers(
            judges.get(tier, ""),
            gold["items"],
            tuple(mark == "1" for mark in row["right"]),
            tuple(_STATES[letter] for letter in row.get("states", "")),
            tuple(gold.get("queries", ())),
        )
        for tier, row in gold["tiers"].items()
        if row.get("right")
    }
    verdicts = {tier: Mix(judges.get(tier, ""), row["states"], row["effect"]) for tier, row in new.items()}
    return Night(answers, verdicts, _origins(record))


def _origins(record: Record) -> dict[str, frozenset[str]]:
    """Return what computed the answers of each tier; for similarity, what computed the embeddings.

    What judged held-out queries is left out.
    """
    found: dict[str, frozenset[str]] = {}
    for stage, made in record.get("computed_by", {}).items():
        if is_of_held_out(stage):
            continue
        name = StageName.parse(stage).stage
        if name in (st.JUDGE.name, st.ENCODE_PASSAGES.name, st.ENCODE_QUERIES.name):
            tier = tier_of(stage) if name == st.JUDGE.name else SIMILARITY
            found[tier] = found.get(tier, frozenset()) | frozenset(made["by"])
    return found


def _same(old: Record, new: Record) -> bool:
    return new["parts"]["computed"] == 0 and all(old[name] == new[name] for name in ("decided", "gold", "people"))


def _tell(workspace: Workspace, record: Record) -> None:
    """Report what computed the night where it changed, and each alarm; send the alarms as one event for Prefect."""
    for change in record["origin_changes"]:
        workspace.hooks.on_message(change)
    for alarm in record["alarms"]:
        workspace.hooks.on_message(f"drift: {alarm['message']}. {alarm['advice']}")
    if record["alarms"]:
        text = f"{record['curation']} drifts: {'; '.join(str(alarm['message']) for alarm in record['alarms'])}"
        payload = {"text": text, "curation": record["curation"], "night": record["night"], "alarms": record["alarms"]}
        events.emit(EVENT, events.resource(record["name"]), payload)
