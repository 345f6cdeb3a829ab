"""Which earlier ingest a curation's parts follow: growth, deletion, the way back, and putting parts together."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.config.curation import CurationConfig
from flows.curation.explain import _Comparison, _Walk, explain
from flows.curation.prepare import keep_partition, prepare
from flows.curation.records import draft_curation, load_curation, open_curation
from flows.inputs import partition
from flows.inputs.partition import Decision, recorded
from flows.maintenance.purge import Wanted, purge
from flows.method.curate import describe, encode, find_candidates, ingest
from flows.method.losses import refuse_losses
from flows.method.setup import TooManyRejected
from infra.stages.runner import Runner, StageRun
from infra.storage.numbered_records import numbers
from tasks.texts import hash_text
from tests.flows.fakes import InProcess
from tests.flows.nightly import Nights

IN_PARTS = ("queries", "positives", "given", "irrelevant", "teacher", "extras", "passages")
BY_QUERIES = ("encode_queries", "adopt", "describe_queries")
BY_PASSAGES = ("encode_passages", "describe_passages")


def write(folder: Path, queries: Iterable[int]) -> Path:
    folder.mkdir(parents=True)
    rows = [
        {"query": f"who is number {n:04}", "pos": [f"Number {n:04} is the one."], "neg": [f"A tale of {n:04} begins."]}
        for n in sorted(queries)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@dataclass(frozen=True)
class Done:
    """What the first steps of the method did for a curation: ingest, and some stages that are cut like its tables."""

    curation: str
    run: Runner
    computed: list[str]


def settings_of(nights: Nights, source: Path, **more: Any) -> CurationConfig:
    settings: CurationConfig = nights.config(source, ingest={"query_parts": 3, "passage_parts": 2, **more})
    return settings


def curate(nights: Nights, source: Path, *, further: bool = False, **more: Any) -> Done:
    """Begin a curation as `execute` does, and run the real stages; with `further` also those after ingest."""
    workspace = nights.workspace
    curation = open_curation(workspace, settings_of(nights, source, **more))
    keep_partition(workspace, curation)
    executor = InProcess(workspace.store, nights.settings.scratch)
    run, setup = Runner(workspace.store, executor), prepare(workspace, curation)
    data = ingest(run, setup)
    refuse_losses(run, setup)
    if further:
        pool = find_candidates(run, setup, data, encode(run, data, setup.encoder))
        describe(run, data, pool)
    return Done(curation.id, run, executor.computed)


def runs(result: Done) -> dict[str, StageRun]:
    return {run.name: run for run in result.run.runs}


def pieces(result: Done, name: str) -> dict[int, str]:
    (ingested,) = runs(result)["ingest"].manifests
    return {piece.index: piece.object for piece in ingested.tables[name]}


def generations(result: Done) -> tuple[list[int], list[int]]:
    facts = runs(result)["ingest"].manifests[0].stats["facts"]
    return facts["query_generations"], facts["passage_generations"]


def keys(result: Done, stage: str) -> dict[int, str]:
    return {number: manifest.key for number, manifest in runs(result)[stage].finished.items()}


def decisions(nights: Nights, curation: str) -> int:
    return len(numbers(nights.workspace.store, f"curations/{curation}/partition"))


def test_growth_by_one_percent_adds_parts_and_leaves_all_others_bytes_and_keys(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    first = curate(nights, write(tmp_path / "monday", range(0, 200, 2)), further=True)
    second = curate(nights, write(tmp_path / "tuesday", [*range(0, 200, 2), 77]), further=True)
    assert generations(first) == ([3], [2])
    assert generations(second) == ([3, 1], [2, 1])
    for name in IN_PARTS:
        old, new = pieces(first, name), pieces(second, name)
        assert {number: new[number] for number in old} == old
        assert len(new) == len(old) + 1
    for stage in (*BY_QUERIES, *BY_PASSAGES):
        old, new = keys(first, stage), keys(second, stage)
        assert {number: new[number] for number in old} == old, stage
        assert len(new) == len(old) + 1, stage
    added = {f"{stage}-00003" for stage in BY_QUERIES} | {f"{stage}-00002" for stage in BY_PASSAGES}
    assert set(second.computed) == {"ingest-00000", *added}


def test_a_deleted_row_changes_its_own_parts_alone(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    first = curate(nights, write(tmp_path / "monday", range(40)))
    second = curate(nights, write(tmp_path / "tuesday", range(1, 40)))
    assert generations(second) == generations(first) == ([3], [2])
    for name, most in (("queries", 1), ("positives", 1), ("given", 1), ("passages", 2)):
        old, new = pieces(first, name), pieces(second, name)
        assert old.keys() == new.keys()
        assert 1 <= sum(new[number] != old[number] for number in old) <= most


def test_rows_that_were_away_for_a_night_return_to_their_parts(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    first = curate(nights, write(tmp_path / "monday", range(30)))
    curate(nights, write(tmp_path / "tuesday", range(10, 30)))
    third = curate(nights, write(tmp_path / "wednesday", range(31)))
    assert generations(third) == ([3, 1], [2, 1])
    old, new = pieces(first, "queries"), pieces(third, "queries")
    assert {number: new[number] for number in old} == old


def test_an_ingest_that_lost_too_much_is_not_followed(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    curate(nights, write(tmp_path / "monday", range(30)))
    curate(nights, write(tmp_path / "tuesday", range(32)))
    broken = write(tmp_path / "wednesday", range(20))
    (broken / "rows.jsonl").write_text((broken / "rows.jsonl").read_text() + "{broken\n" * 13)
    with pytest.raises(TooManyRejected):
        curate(nights, broken)
    assert generations(curate(nights, write(tmp_path / "thursday", range(33)))) == ([3, 1, 1], [2, 1, 1])


def test_the_same_source_and_an_earlier_one_are_found_as_they_were(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    monday, tuesday = write(tmp_path / "monday", range(30)), write(tmp_path / "tuesday", range(32))
    curate(nights, monday)
    grown = curate(nights, tuesday)
    assert curate(nights, tuesday).computed == []
    assert decisions(nights, grown.curation) == 1
    back = curate(nights, monday)
    assert (back.curation, generations(back)) == ("animals-000003", ([3], [2]))
    assert back.computed == []
    further = curate(nights, write(tmp_path / "wednesday", range(33)))
    assert generations(further) == ([3, 1], [2, 1])


def test_other_settings_read_the_same_source_from_the_same_places(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    curate(nights, write(tmp_path / "monday", range(30)))
    tuesday = write(tmp_path / "tuesday", range(32))
    curate(nights, tuesday)
    other = curate(nights, tuesday, max_chars=100)
    assert generations(other) == ([3, 1], [2, 1])


def test_a_plan_finds_the_keys_of_the_run_and_records_nothing(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    curate(nights, write(tmp_path / "monday", range(30)))
    tuesday = write(tmp_path / "tuesday", range(32))
    workspace = nights.workspace
    config = settings_of(nights, tuesday)
    records = workspace.store.list("curations")
    planned = prepare(workspace, draft_curation(workspace, config)).before
    assert workspace.store.list("curations") == records
    assert planned is not None
    done = curate(nights, tuesday)
    assert prepare(workspace, load_curation(workspace.store, done.curation)).before == planned
    assert prepare(workspace, draft_curation(workspace, config)).before == planned


def test_many_generations_are_put_together_and_the_oldest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "_MOST_GENERATIONS", 2)
    nights = Nights(tmp_path / "nights")
    done = [curate(nights, write(tmp_path / f"night-{n}", range(30 + n))) for n in range(4)]
    assert [generations(each)[0] for each in done] == [[3], [3, 1], [3, 1, 1], [3, 1]]
    old, new = pieces(done[0], "queries"), pieces(done[3], "queries")
    assert {number: new[number] for number in old} == old
    assert "partition: animals-000003 has parts of 3 generations; all but the oldest are put together" in nights.said
    assert generations(curate(nights, write(tmp_path / "night-4", range(34))))[0] == [3, 1, 1]


def test_where_much_came_later_the_next_changed_source_is_cut_anew(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    curate(nights, write(tmp_path / "monday", range(20)))
    assert generations(curate(nights, write(tmp_path / "tuesday", range(30)))) == ([3, 1], [2, 1])
    assert generations(curate(nights, write(tmp_path / "wednesday", range(31)))) == ([3], [2])
    assert any("33% of the rows of animals-000002 came after its oldest parts" in said for said in nights.said)


def test_a_source_is_cut_anew_on_demand_and_stays_so(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    curate(nights, write(tmp_path / "monday", range(30)))
    tuesday = write(tmp_path / "tuesday", range(32))
    grown = curate(nights, tuesday)
    workspace = nights.workspace
    for _ in range(2):
        keep_partition(workspace, load_curation(workspace.store, grown.curation), anew=True)
    assert decisions(nights, grown.curation) == 2
    again = curate(nights, tuesday)
    assert (again.curation, generations(again)) == (grown.curation, ([3], [2]))
    assert generations(curate(nights, write(tmp_path / "wednesday", range(33)))) == ([3, 1], [2, 1])


def test_two_processes_that_decide_at_once_agree(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    curate(nights, write(tmp_path / "monday", range(30)))
    workspace = nights.workspace
    opened = open_curation(workspace, settings_of(nights, write(tmp_path / "tuesday", range(32))))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: keep_partition(workspace, opened), range(8)))
    assert decisions(nights, opened.id) == 1


def test_if_the_earlier_places_are_lost_the_source_is_cut_anew_and_a_note_says_so(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    first = curate(nights, write(tmp_path / "monday", range(30)))
    workspace = nights.workspace
    opened = open_curation(workspace, settings_of(nights, write(tmp_path / "tuesday", range(32))))
    keep_partition(workspace, opened)
    workspace.store.delete(pieces(first, "query_places")[0])
    second = curate(nights, tmp_path / "tuesday")
    assert (second.curation, generations(second)) == (opened.id, ([3], [2]))
    assert any("the store does not hold any more where the earlier texts were" in said for said in nights.said)


def test_without_a_finished_ingest_the_places_before_it_are_taken(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    curate(nights, write(tmp_path / "monday", range(30)))
    grown = curate(nights, write(tmp_path / "tuesday", range(32)))
    store = nights.workspace.store
    for key in store.list("parts/ingest"):
        store.delete(key)
    third = curate(nights, write(tmp_path / "wednesday", range(33)))
    assert generations(third) == ([3, 1], [2, 1])
    decided = (recorded(store, id_) for id_ in (grown.curation, third.curation))
    assert len({json.dumps(each.as_json()) for each in decided if each is not None}) == 1


def test_a_curation_of_an_earlier_version_is_followed_by_a_partition_of_its_own(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    first = curate(nights, write(tmp_path / "monday", range(30)))
    store = nights.workspace.store
    store.delete(f"curations/{first.curation}/partition-000001.json")
    second = curate(nights, write(tmp_path / "tuesday", range(32)))
    assert generations(second) == ([3], [2])
    assert any("no earlier ingest that says where its texts are" in said for said in nights.said)


def test_a_decision_is_read_as_it_was_written(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    curate(nights, write(tmp_path / "monday", range(30)))
    grown = curate(nights, write(tmp_path / "tuesday", range(32)))
    decision = recorded(nights.workspace.store, grown.curation)
    assert decision is not None
    assert decision.before == decision.first
    assert Decision.of(json.loads(json.dumps(decision.as_json()))) == decision
    assert recorded(nights.workspace.store, "animals-000009") is None


def test_a_purged_text_leaves_the_places_too_and_the_other_texts_stay_in_their_parts(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    first = curate(nights, write(tmp_path / "monday", range(30)))
    curate(nights, write(tmp_path / "tuesday", range(32)))
    old = pieces(first, "queries")
    wanted = Wanted(hash=hash_text("who is number 0003"))
    assert [purge(nights.settings, wanted, yes=yes).places for yes in (False, True, True)] == [1, 1, 0]
    decision = recorded(nights.workspace.store, "animals-000002")
    assert decision is not None
    assert decision.before is not None
    assert decision.before.query_places.rows == 29
    third = curate(nights, write(tmp_path / "wednesday", [0, 1, 2, *range(4, 33)]))
    assert generations(third) == ([3, 1], [2, 1])
    assert sum(pieces(third, "queries")[number] != old[number] for number in old) == 1


def test_what_changed_is_explained_by_the_source_or_by_the_parts_that_are_kept(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "nights")
    curate(nights, write(tmp_path / "monday", range(30)))
    grown = curate(nights, write(tmp_path / "tuesday", range(32)))
    assert explain(nights.workspace, grown.curation, "ingest", 0).reasons == ("its input `source` changed: rows.jsonl",)
    (new,) = runs(grown)["ingest"].ingredients.values()
    anew = {**new, "inputs": {"source": new["inputs"]["source"]}}
    said = _Comparison(nights.workspace.store, _Walk(grown.curation, {}), None).reasons(anew, new)
    assert said == ("its texts keep the parts of another ingest, or of none",)
