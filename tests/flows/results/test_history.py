"""Gold, drift and history over simulated nights with a growing source."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.release_commands import show_history
from flows.config.section import ConfigError
from flows.curation.explain import explain
from flows.curation.lookup import look, look_at
from flows.curation.prepare import prepare
from flows.curation.records import draft_curation, load_curation, open_curation
from flows.planning.plan import plan_tiers
from flows.results.history import read_history
from flows.runs.execute import execute, rerun_job
from infra.storage.numbered_records import keep_next
from infra.storage.store import Store, StoreError
from tests.flows.animals import tier
from tests.flows.fakes import OverlapLLM
from tests.flows.nightly import ENDPOINT, Contrary, Nights, fill, sources, write_gold

FAR = {"tiers": [{**tier(), "engine": ENDPOINT}]}


def gold_of(nights: Nights) -> dict[str, object]:
    return {"gold": {"path": str(write_gold(nights.folder / "gold.jsonl"))}}


def asked_gold(nights: Nights) -> list[str]:
    return [content for content in nights.judge.asked if "creature" in content]


def test_a_pinned_judge_is_asked_about_the_gold_set_once_and_a_night_without_change_costs_nothing(
    tmp_path: Path,
) -> None:
    nights = Nights(tmp_path)
    monday, tuesday = sources(tmp_path, 6, 9)
    gold = gold_of(nights)
    nights.curate(monday, **gold)
    asked = len(asked_gold(nights))
    assert asked >= 40
    nights.sleep()
    assert nights.curate(monday, **gold).computed == 0
    nights.sleep()
    nights.curate(tuesday, **gold)
    assert len(asked_gold(nights)) == asked
    assert not [stage for stage in nights.computed if "gold" in stage]
    rows = read_history(nights.workspace.store, "animals")
    assert [row["night"] for row in rows] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert len({row["gold"]["tiers"]["llm"]["right"] for row in rows}) == 1
    assert [row["cost"]["gold_calls"] for row in rows] == [asked, 0, 0]


def test_an_endpoint_is_really_asked_again_every_night_and_the_data_is_not_judged_again(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 6)
    gold = gold_of(nights)
    nights.curate(source, **FAR, **gold)
    first = len(asked_gold(nights))
    nights.curate(source, **FAR, **gold)  # the same night
    assert (len(nights.executors), len(asked_gold(nights))) == (1, first)
    nights.sleep()
    nights.curate(source, **FAR, **gold)
    assert len(asked_gold(nights)) == 2 * first
    assert nights.computed == {"judge-gold-llm", "decide-gold", "agree_gold"}
    assert look_at(nights.workspace, load_curation(nights.workspace.store, "animals-000001"))[0] is not None
    nights.sleep()  # looking on another night asks nothing
    assert look_at(nights.workspace, load_curation(nights.workspace.store, "animals-000001"))[0] is not None


def test_a_model_exchanged_behind_its_name_raises_an_alarm_everywhere_and_an_unchanged_one_none(
    tmp_path: Path,
) -> None:
    nights = Nights(tmp_path)
    first, second, third, fourth = sources(tmp_path, 5, 7, 9, 11)
    gold = gold_of(nights)
    for source in (first, second, third):
        result = nights.curate(source, **FAR, **gold)
        assert result.summary["alarms"] == []
        nights.sleep()
    assert "No drift was found tonight" in (result.folder / "report.html").read_text()
    nights.judge = Contrary()
    result = nights.curate(fourth, **FAR, **gold)
    messages = [alarm for alarm in result.summary["alarms"] if alarm.startswith("gold set, llm")]
    assert ["right tonight" in message for message in messages].count(True) == 1
    assert ["other than usual tonight" in message for message in messages].count(True) == 1
    assert any("drift: gold set, llm" in said for said in nights.said)
    assert "right tonight" in (result.folder / "report.html").read_text()
    rows = read_history(nights.workspace.store)
    assert [bool(row["alarms"]) for row in rows] == [False, False, False, True]
    assert {alarm["kind"] for alarm in rows[-1]["alarms"]} >= {"gold"}
    assert nights.curate(fourth, **FAR, **gold).summary["alarms"] == result.summary["alarms"]  # told again
    assert len(read_history(nights.workspace.store)) == 4


def test_an_alarm_holds_on_the_next_night_that_finds_nothing_to_do(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 5)
    curation = nights.curate(source).curation
    (record,) = read_history(nights.workspace.store)
    alarm = {"kind": "mix", "tier": "llm", "message": "the mix moved", "advice": "look"}
    keep_next(nights.workspace.store, f"history/{record['name']}/{curation}", record | {"alarms": [alarm]})
    nights.sleep()
    assert nights.curate(source).summary["alarms"] == ["the mix moved"]


def test_an_alarm_about_verdicts_holds_though_the_gold_set_is_judged_anew_and_ends_with_them(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    source, grown = sources(tmp_path, 5, 8)
    gold = gold_of(nights)
    curation = nights.curate(source, **FAR, **gold).curation
    (record,) = read_history(nights.workspace.store)
    alarms = [{"kind": kind, "tier": "llm", "message": kind, "advice": "look"} for kind in ("mix", "gold")]
    keep_next(nights.workspace.store, f"history/{record['name']}/{curation}", record | {"alarms": alarms})
    nights.sleep()
    result = nights.curate(source, **FAR, **gold)
    assert result.computed > 0
    assert result.summary["alarms"] == ["mix"]  # the gold set was asked again, and is as it was
    nights.sleep()
    assert nights.curate(grown, **FAR, **gold).summary["alarms"] == []


def test_an_alarm_about_verdicts_is_raised_again_where_a_part_was_repaired(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    settings = {**FAR, "drift": {"min_pairs": 8, "alpha": 0.2}}
    for source in sources(tmp_path, 4, 8, 11):
        last = source
        if source.name == "source-2":
            nights.judge = Contrary()
        result = nights.curate(source, **settings)
        nights.sleep()
    kinds = {alarm["kind"] for alarm in read_history(nights.workspace.store)[-1]["alarms"]}
    assert "mix" in kinds
    workspace = nights.workspace
    curation = open_curation(workspace, nights.config(last, **settings))
    repaired = execute(
        workspace, curation, nights.compute, rerun_job(workspace, curation, ("decide", 0), downstream=True)
    )
    before, after = read_history(workspace.store)[-2:]
    assert (before["curation"], after["curation"]) == (result.curation, repaired.curation)
    assert before["decided"] != after["decided"]
    assert {alarm["kind"] for alarm in after["alarms"]} == kinds
    assert len(repaired.summary["alarms"]) == len(set(repaired.summary["alarms"]))


def test_what_was_judged_in_a_night_of_drift_stays_held_though_the_judge_recovers(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    gold = {**gold_of(nights), "drift": {"min_accuracy_change": 0.5}}  # the way back is no alarm of its own
    first, second, third, fourth = sources(tmp_path, 5, 7, 9, 11)
    for source in (first, second):
        nights.curate(source, **FAR, **gold)
        nights.sleep()
    usual, nights.judge = nights.judge, Contrary()
    drifted = [alarm for alarm in nights.curate(third, **FAR, **gold).summary["alarms"] if alarm.startswith("gold")]
    assert drifted
    nights.sleep()
    nights.judge = usual
    asked = len(asked_gold(nights))
    again = nights.curate(third, **FAR, **gold)
    assert len(asked_gold(nights)) > asked
    assert set(drifted) <= set(again.summary["alarms"])
    nights.sleep()
    assert not set(drifted) & set(nights.curate(fourth, **FAR, **gold).summary["alarms"])


def test_a_night_that_could_not_be_recorded_is_not_taken_for_one_without_drift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 5)

    def full(*_: object) -> int:
        raise StoreError("the disk is full")

    monkeypatch.setattr("flows.results.history.keep_next", full)
    assert nights.curate(source).summary["alarms"] == ["drift could not be checked: the disk is full"]


def test_every_name_keeps_its_newest_nights_however_many_others_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path / "store"))
    monkeypatch.setattr("flows.results.history._LOOKED_AT", 2)
    for name, nights in (("animals", 1), ("zoo", 3)):
        for number in range(nights):
            keep_next(store, f"history/{name}/{name}-000001", {"name": name, "at": str(number)})
    assert [(r["name"], r["at"]) for r in read_history(store)] == [("animals", "0"), ("zoo", "1"), ("zoo", "2")]


def test_new_pairs_are_counted_once_and_costs_in_the_night_they_arose(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    monday, tuesday = sources(tmp_path, 6, 10)
    nights.curate(monday)
    nights.sleep()
    nights.curate(monday)
    nights.sleep()
    nights.curate(tuesday)
    rows = read_history(nights.workspace.store)
    new = [sum((row["mix"]["new"].get("cascade") or {"states": {}})["states"].values()) for row in rows]
    assert new[1] == 0
    assert new[0] == rows[0]["candidates"]
    assert new[2] == rows[2]["candidates"] - rows[0]["candidates"] > 0
    for row in rows:
        assert sum(row["mix"]["every"]["cascade"].values()) == row["candidates"]
        assert set(row["mix"]["every"]) == {"similarity", "llm", "cascade"}
    calls = [row["cost"]["calls"] for row in rows]
    assert sum(calls) == len(nights.judge.asked)
    assert calls[1] == 0
    assert rows[0]["cost"]["money"] == 0
    assert rows[0]["false_negatives"]["low"] <= rows[0]["false_negatives"]["share"]


def test_the_history_is_a_table_and_survives_a_purge_of_what_it_was_counted_from(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    monday, tuesday = sources(tmp_path, 6, 8)
    gold = gold_of(nights)
    nights.curate(monday, **gold)
    store = nights.workspace.store
    partition = [key for key in store.list("curations") if "/partition-" in key]  # the next night is cut anew
    assert partition
    for key in (*store.list("parts/decide"), *partition):
        store.delete(key)
    nights.sleep()
    nights.curate(tuesday, **gold)
    assert read_history(store)[-1]["mix"]["new"] is None
    out = Console(file=io.StringIO(), width=220)
    rows = show_history(store, "animals", out)
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    assert [row["curation"] for row in rows] == ["animals-000001", "animals-000002"]
    assert "2026-03-02" in printed
    assert "1.00" in printed or "0.9" in printed
    assert show_history(store, "other", out) == []
    json.dumps(rows)


def test_people_and_gold_stand_in_the_history_side_by_side(tmp_path: Path) -> None:
    from flows.curation.labels import import_labels

    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 8)
    gold = gold_of(nights)
    nights.curate(source, **gold)
    curation = load_curation(nights.workspace.store, "animals-000001")
    import_labels(nights.workspace, curation, fill(nights.sheet(curation.id), ["relevant", "not_relevant"] * 6), "ann")
    nights.curate(source, **gold)
    rows = read_history(nights.workspace.store)
    assert [bool(row["people"]) for row in rows] == [False, True]
    assert rows[1]["gold"] == rows[0]["gold"]
    assert "People decided 12" in (nights.settings.home / "curations/animals-000001/report.html").read_text()


def test_a_part_of_the_gold_set_is_explained_like_any_other(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 5)
    gold = gold_of(nights)
    nights.curate(source, **FAR, **gold)
    nights.sleep()
    nights.judge = OverlapLLM()
    nights.curate(source, **FAR, **gold)
    found = explain(nights.workspace, "animals-000001", "judge-gold-llm", 0)
    assert any("2026-03-01" in reason and "2026-03-02" in reason for reason in found.reasons)


@pytest.mark.parametrize(("changes", "often"), [({}, "once"), (FAR, "every night")])
def test_the_plan_says_what_the_gold_set_costs(tmp_path: Path, changes: dict[str, object], often: str) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 5)
    gold = gold_of(nights)
    nights.curate(source, **changes, **gold)
    workspace = nights.workspace
    setup = prepare(workspace, draft_curation(workspace, nights.config(source, **changes, **gold)))
    outcome, runs = look(workspace.store, setup)
    assert outcome is not None
    (plan,) = plan_tiers(workspace, setup, runs).tiers
    assert any("gold: not counted above, 40 pairs" in note and often in note for note in plan.notes)


def test_a_gold_set_that_cannot_be_used_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    (source,) = sources(tmp_path, 5)
    with pytest.raises(ConfigError, match="cannot be read"):
        nights.curate(source, gold={"path": str(tmp_path / "nowhere.jsonl")})
    path = tmp_path / "bad.jsonl"
    path.write_text('{"query": "q"}\n')
    with pytest.raises(ConfigError, match=r"no usable row \(unknown_label"):
        nights.curate(source, gold={"path": str(path)})
    assert nights.executors == []
    gold = gold_of(nights)
    nights.curate(source, **gold)
    (tmp_path / "gold.jsonl").unlink()  # the copy in the store serves
    assert nights.curate(source, **gold).computed == 0
