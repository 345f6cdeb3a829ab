"""Releases: what is promoted, what is held and why, how one goes back, and what trainers find meanwhile."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from rich.console import Console

from flows.cli.release_commands import promote_by_hand, show_releases
from flows.cli.tables import show_release
from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation.lookup import Job
from flows.curation.records import open_curation
from flows.curation.workspace import Workspace
from flows.maintenance.purge import Wanted, purge
from flows.method.setup import Setup
from flows.promotion.gating import released_models
from flows.results.promotion import Held, Release, is_open, mend, promote, rollback
from flows.runs.execute import execute
from infra.settings import Settings
from infra.stages.runner import Runner, StageRun
from infra.storage.numbered_records import keep_next, read_newest
from infra.storage.release_pointers import ROLLED_BACK, numbers, read_all, read_latest
from infra.storage.store import Store
from tasks.training.promote import PromoteConfig
from tests.flows.animals import write_source
from tests.flows.fakes import InProcess
from tests.flows.releases import SUMMARY, Line
from tests.infra.storage.test_release_pointers import Died, Dying


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(str(tmp_path / "store"), tmp_path / "home")


def test_a_finished_curation_becomes_what_trainers_read(store_url: str, tmp_path: Path) -> None:
    line = Line(store_url, tmp_path / "home")
    done = line.night(1, "one")
    assert isinstance(done, Release) and done.new
    assert (done.number, line.read) == (1, "one")
    (record,) = read_all(Store(store_url), "nq")
    assert set(record) >= {
        "number", "curation", "treatment", "exports", "model", "report", "summary", "because", "of", "at"
    }  # fmt: skip
    assert (record["because"], record["of"], record["summary"]) == ("promoted", None, SUMMARY)


def test_a_night_without_change_promotes_nothing_and_says_what_is_current(line: Line) -> None:
    line.night(1, "one")
    again = line.night(1, "one")
    assert isinstance(again, Release) and not again.new
    assert again.number == 1
    same_content = line.night(2, "one")
    assert isinstance(same_content, Release) and not same_content.new
    assert numbers(Store(line.url), "nq") == [1]


def test_only_what_is_better_is_promoted_where_that_is_required(line: Line) -> None:
    better = PromoteConfig()
    assert isinstance(line.night(1, "one", gate=line.gate(0.0), config=better), Held)
    assert read_latest(Store(line.url), "nq") is None
    done = line.night(1, "one", gate=line.gate(0.1), config=better)
    assert isinstance(done, Release) and "better than default in nDCG@10: +0.098" in done.record["why"]
    held = line.night(2, "two", gate=line.gate(-0.1), config=better)
    assert isinstance(held, Held) and held.current == 1
    assert line.read == "one"


def test_the_one_seed_of_a_curation_promotes_nothing(line: Line) -> None:
    """Before, it did: with no effect, 16 to 29% of nights were promoted."""
    held = line.night(1, "one", gain=0.1, config=PromoteConfig())
    assert isinstance(held, Held)
    assert held.because.startswith("3 trainings of each are wanted")
    assert isinstance(line.night(1, "one", gain=0.1, config=PromoteConfig(seeds=1)), Release)


def test_a_release_keeps_the_models_of_its_seeds_and_the_next_is_compared_with_them(line: Line) -> None:
    better, store = PromoteConfig(), Store(line.url)
    line.night(1, "one", gate=line.gate(0.1), config=better)
    (record,) = read_all(store, "nq")
    assert sorted(record["models"]) == ["42", "43", "44"]
    assert sorted(released_models(store, "nq", better).models) == [42, 43, 44]
    held = line.night(2, "two", gate=line.gate(0.1, released=0.2), config=better)
    assert isinstance(held, Held)
    assert "not shown to be not worse by more than 0.02 than the release in nDCG@10: −0.1" in held.because
    done = line.night(3, "three", gate=line.gate(0.1, released=0.1), config=better)
    assert isinstance(done, Release) and done.number == 2


def test_a_release_of_an_earlier_version_has_no_models_by_seed_and_the_record_says_so(line: Line) -> None:
    line.night(1, "one")
    done = line.night(2, "two", gate=line.gate(0.1), config=PromoteConfig())
    assert isinstance(done, Release)
    (said,) = [check["said"] for check in done.record["checks"] if check["name"] == "released"]
    assert said == "not compared with the current release: release 1 keeps the models of 0 seeds, 3 are wanted"


def test_nights_are_counted_until_a_promotion_and_each_content_once(line: Line) -> None:
    better = PromoteConfig()

    def night_of(number: int, gain: float) -> float:
        done = line.night(number, f"text {number}", gate=line.gate(gain), config=better).as_json()
        return float(next(check["figure"] for check in done["checks"] if check["name"] == "night"))

    assert [night_of(1, 0.0), night_of(2, 0.0), night_of(2, 0.0), night_of(3, 0.1)] == [1, 2, 2, 3]
    assert night_of(4, 0.0) == 1
    kept = [Store(line.url).read_json(key) or {} for key in Store(line.url).list("gates/nq")]
    assert [(record["night"], record["promotions"], record["promote"]) for record in kept] == [
        (1, 0, False), (2, 0, False), (3, 0, True), (1, 1, False)
    ]  # fmt: skip


def test_what_is_current_or_rolled_back_is_not_trained_again(line: Line) -> None:
    config, store = PromoteConfig(require="none"), Store(line.url)
    assert is_open(store, "nq-000001", line.outcome("one"), config)
    line.night(1, "one")
    assert not is_open(store, "nq-000001", line.outcome("one"), config)
    assert is_open(store, "nq-000002", line.outcome("two"), config)
    line.night(2, "two")
    rollback(store, "nq")
    assert not is_open(store, "nq-000003", line.outcome("two"), config)


@pytest.mark.parametrize(
    ("split", "said"),
    [("dev", "the development queries decided, and no test queries were scored"), ("test", "on the test queries")],
)
def test_scores_of_development_queries_are_not_reported_as_those_of_test_queries(
    line: Line, split: Literal["dev", "test"], said: str
) -> None:
    """Before, with `evaluate.split: dev` the record showed the development queries a second time as test queries."""
    outcome = line.outcome("one", gain=0.1)
    outcome = replace(outcome, dev_scores=outcome.scores)
    done = promote(line.workspace, "nq-000001", outcome, PromoteConfig(seeds=1), split=split)
    assert isinstance(done, Release)
    (shown,) = [check["said"] for check in done.record["checks"] if check["name"] == "test"]
    assert shown.startswith(said)


def test_a_curation_that_shrank_or_drifted_is_held_and_the_next_good_one_is_not(line: Line) -> None:
    line.night(1, "one", instances=100)
    shrunk = line.night(2, "two", instances=79)
    assert isinstance(shrunk, Held) and "79 instances after 100" in shrunk.because
    drifted = line.night(3, "three", alarms=["agreement fell"])
    assert isinstance(drifted, Held) and "agreement fell" in drifted.because
    assert isinstance(line.night(4, "four", instances=80), Release)
    assert line.read == "four"


def test_a_rollback_gives_trainers_the_earlier_data_under_a_new_number(store_url: str, tmp_path: Path) -> None:
    line = Line(store_url, tmp_path / "home")
    for number, text in enumerate(("one", "two"), 1):
        line.night(number, text)
    back = rollback(Store(store_url), "nq")
    assert (back.number, back.record["because"], back.record["of"], line.read) == (3, ROLLED_BACK, 1, "one")
    assert back.record["curation"] == "nq-000001"


def test_a_rollback_holds_until_a_new_curation_comes(line: Line) -> None:
    line.night(1, "one")
    line.night(2, "two")
    rollback(Store(line.url), "nq")
    for _ in range(2):
        held = line.night(2, "two")
        assert isinstance(held, Held) and held.standing
        assert "release 2 had the same content and was rolled back" in held.because
        assert line.read == "one"
    same_content = line.night(3, "two")
    assert isinstance(same_content, Held) and same_content.standing
    assert isinstance(line.night(3, "three"), Release)
    assert line.read == "three"


def test_labels_that_came_late_make_the_same_curation_new(line: Line) -> None:
    line.night(1, "one")
    line.night(2, "two")
    rollback(Store(line.url), "nq")
    assert isinstance(line.night(2, "two, corrected by people"), Release)
    assert line.read == "two, corrected by people"


def test_an_older_curation_that_finishes_late_does_not_replace_a_newer_one(line: Line) -> None:
    line.night(1, "one")
    line.night(3, "three")
    held = line.night(2, "two")
    assert isinstance(held, Held) and "release 2 is of nq-000003, which is newer" in held.because
    rollback(Store(line.url), "nq")
    assert isinstance(line.night(2, "two"), Held)
    assert line.read == "one"


def test_why_a_curation_is_held_is_told_once_and_a_new_reason_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        "infra.prefect_api.events.emit", lambda event, resource, payload: told.append(f"{event} {payload['text']}")
    )
    for alarms in (["agreement fell"], ["agreement fell"], ["the mix moved"]):
        held = line.night(1, "one", alarms=alarms)
        assert isinstance(held, Held)
        assert held.standing == (len(told) == 1 and alarms == ["agreement fell"] and held.as_json()["new"] is False)
    assert [text.rpartition("drift: ")[2] for text in told] == ["agreement fell", "the mix moved"]


def test_force_promotes_what_is_held_and_the_record_says_so(line: Line) -> None:
    line.night(1, "one")
    line.night(2, "two")
    rollback(Store(line.url), "nq")
    assert isinstance(line.night(2, "two", force=True), Release)
    done = line.night(3, "three", instances=1, force=True)
    assert isinstance(done, Release)
    assert done.record["why"].startswith("by hand, although 1 instances after 100")
    again = line.night(3, "three", instances=1, force=True)
    assert isinstance(again, Release) and not again.new


def test_of_several_releases_the_newest_is_compared_and_named(line: Line) -> None:
    line.night(1, "one", instances=1000)
    line.night(2, "two", instances=100, config=PromoteConfig(require="none", min_size_ratio=0.05))
    held = line.night(3, "three", instances=79)
    assert isinstance(held, Held)
    assert "79 instances after 100" in held.because
    assert held.current == 2
    current = line.night(4, "two", instances=100)
    assert isinstance(current, Release) and not current.new
    assert (current.number, current.record["curation"]) == (2, "nq-000002")
    older = line.night(1, "one, corrected by people", instances=100)
    assert isinstance(older, Held) and (older.current, older.standing) == (2, True)


def test_going_back_twice_goes_back_two_and_never_forth(line: Line) -> None:
    for number, text in enumerate(("one", "two", "three"), 1):
        line.night(number, text)
    store = Store(line.url)
    rollback(store, "nq")
    assert line.read == "two"
    rollback(store, "nq")
    assert line.read == "one"
    with pytest.raises(ConfigError, match="there is no release before release 1"):
        rollback(store, "nq")
    rollback(store, "nq", 3)
    assert (line.read, read_all(store, "nq")[-1]["of"]) == ("three", 3)
    rollback(store, "nq", 4)  # itself a rollback, to 2
    assert (line.read, read_all(store, "nq")[-1]["of"]) == ("two", 2)


@pytest.mark.parametrize(
    ("name", "to", "said"),
    [
        ("nq", 9, "no release 9 of nq"),
        ("nq", 2, "same content as the current release"),
        ("other", None, "no release of 'other'"),
    ],
)
def test_a_rollback_to_nowhere_is_an_error(line: Line, name: str, to: int | None, said: str) -> None:
    line.night(1, "one")
    line.night(2, "two")
    with pytest.raises(ConfigError, match=said):
        rollback(Store(line.url), name, to)
    assert numbers(Store(line.url), "nq") == [1, 2]


def test_a_promoter_that_dies_before_trainers_are_told_is_completed_by_the_next_run(
    store_url: str, tmp_path: Path
) -> None:
    line = Line(store_url, tmp_path / "home")
    line.night(1, "one")
    for at in ("copy", "latest.json"):
        number = len(numbers(Store(store_url), "nq")) + 1
        with pytest.raises(Died):
            line.night(number, f"text {at}", store=Dying(store_url, at))
        assert (line.read == f"text {at}") is (at == "latest.json")  # the record is there by then
        again = line.night(number, f"text {at}")
        assert isinstance(again, Release) and not again.new
        assert line.read == f"text {at}"


def test_a_held_night_also_completes_what_a_dead_promoter_left(line: Line) -> None:
    line.night(1, "one")
    with pytest.raises(Died):
        line.night(2, "two", store=Dying(line.url, "release.json"))
    assert isinstance(line.night(3, "three", instances=1), Held)
    assert line.read == "two"


def test_a_curation_that_promotes_nothing_mends_what_readers_of_one_path_see(line: Line) -> None:
    line.night(1, "one")
    line.night(2, "two")
    store = Store(line.url)
    store.replace("published/nq/latest.json", store.read("published/nq/000001/release.json") or b"")
    mend(line.workspace, "nq")
    assert json.loads(store.read("published/nq/latest.json") or b"")["number"] == 2
    store.replace("published/nq/000002/release.json", b"{")
    mend(line.workspace, "nq")
    assert line.said == [
        f"releases of nq: store {line.url}: published/nq/000002/release.json is damaged (Expecting property name "
        "enclosed in double quotes: line 1 column 2 (char 1)); restore it from a backup, or delete it"
    ]


def test_a_release_whose_files_are_gone_cannot_be_gone_back_to(line: Line) -> None:
    line.night(1, "one")
    line.night(2, "two")
    store = Store(line.url)
    store.delete(read_all(store, "nq")[0]["exports"]["tevatron/train.jsonl"])
    with pytest.raises(ConfigError, match=r"release 1 of nq cannot be published .* tevatron/train.jsonl is gone"):
        rollback(store, "nq")
    assert [record["number"] for record in read_all(store, "nq")] == [1, 2]
    assert line.read == "two"


def test_a_release_whose_objects_are_gone_does_not_stop_the_nights(line: Line) -> None:
    line.night(1, "one")
    store = Store(line.url)
    store.delete(read_all(store, "nq")[0]["exports"]["tevatron/train.jsonl"])
    store.delete("published/nq/000001/release.json")
    store.delete("published/nq/000001/tevatron/train.jsonl")
    assert isinstance(line.night(2, "two", instances=1), Held)
    assert "cannot be published" in line.said[0]
    assert isinstance(line.night(3, "three"), Release)
    assert line.read == "three"


@pytest.mark.slow
def test_without_the_section_nothing_is_promoted(line: Line) -> None:
    settings = settings_of(line.home)
    source = write_source(line.home / "source", 6)
    assert curate(settings, source, promote=None) is None
    assert show_releases(settings, None, Console(file=io.StringIO())) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"promote": {"treatment": "relabel"}, "treatments": ["default"], "train": None}, "do not make"),
        ({"promote": {}, "train": None}, "promote.require: none"),
        ({"promote": {"measure": "nDCG@3"}}, "evaluate.measures are"),
        ({"promote": {"treatmnt": "relabel"}}, "did you mean 'treatment'"),
    ],
)
def test_a_section_that_could_never_promote_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config({"name": "nq", "source": {"path": "rows.jsonl"}, **more}, "test")


def compute(workspace: Workspace, setup: Setup, job: Job) -> tuple[Any, tuple[StageRun, ...]]:
    """Compute in this process, with engines that cost nothing."""
    runner = Runner(workspace.store, InProcess(workspace.store, workspace.settings.scratch))
    return job.method(runner, setup), tuple(runner.runs)


def curate(settings: Settings, source: Path, **changes: Any) -> Release | Held | None:
    """Curate an animals' source to its end; promotion asks for no training."""
    config = {
        "name": "animals",
        "source": {"path": str(source)},
        "encoder": {"model": "tiny:encoder"},
        "tiers": [],
        "treatments": ["default", "relabel"],
        "train": None,
        "promote": {"require": "none", "max_relevant_share": 1.0},
        **changes,
    }
    workspace = Workspace.open(settings)
    return execute(workspace, open_curation(workspace, parse_config(config, "test")), compute).promotion


def settings_of(tmp_path: Path) -> Settings:
    cache = Path(os.environ["RENEG_TEST_CACHE"])
    return Settings(tmp_path / "home", str(tmp_path / "store"), cache, None, None)


@pytest.mark.slow
def test_a_purged_text_leaves_the_published_releases_and_the_next_curation_is_promoted_without_it(
    tmp_path: Path,
) -> None:
    settings = settings_of(tmp_path)
    source = write_source(tmp_path / "source", 6)
    curate(settings, source)
    published = tmp_path / "store" / "published" / "animals"
    text = next(line for line in (source / "corpus.jsonl").read_text().splitlines() if '"otter-river"' in line)
    purged = json.loads(text)["text"]
    assert purged in (published / "current" / "tevatron" / "train.jsonl").read_text()
    assert purge(settings, Wanted(doc="animals/otter-river"), yes=False).published == ("published/animals/000001",)
    assert (published / "current").exists()
    purge(settings, Wanted(doc="animals/otter-river"), yes=True)
    (left,) = [path for path in published.rglob("*") if path.is_file()]
    assert (left.name, json.loads(left.read_text())) == ("release.json", {"number": 1, "withdrawn": True})
    for path in (source / "corpus.jsonl", source / "qrels" / "train.tsv"):
        kept = [line for line in path.read_text().splitlines() if "otter-river" not in line]
        path.write_text("".join(f"{line}\n" for line in kept))
    done = curate(settings, source)
    assert isinstance(done, Release) and done.number == 2
    assert purged not in (published / "current" / "tevatron" / "train.jsonl").read_text()


@pytest.mark.slow
def test_two_nights_and_a_way_back_from_source_to_trainers_by_the_commands(tmp_path: Path) -> None:
    settings, out = settings_of(tmp_path), Console(file=io.StringIO(), width=300)

    def night(queries: int) -> str:
        source = tmp_path / f"source-{queries}"
        if not source.exists():
            write_source(source, queries)
        done = curate(settings, source)
        assert done is not None
        said = show_release(done, out)
        return f"{type(done).__name__} {said['new']} {said['curation']}"

    published = Path(settings.store) / "published" / "animals"
    assert night(6) == "Release True animals-000001"
    assert night(6) == "Release False animals-000001"
    assert night(12) == "Release True animals-000002"
    first, second = (
        len((published / n / "tevatron" / "train.jsonl").read_text().splitlines()) for n in ("000001", "000002")
    )
    assert 0 < first < second
    show_release(rollback(Store(settings.store), "animals"), out)
    assert len((published / "current" / "tevatron" / "train.jsonl").read_text().splitlines()) == first
    assert night(12) == "Held False animals-000002"
    assert not promote_by_hand(settings, "animals-000002", None, out)["promoted"]
    history, store = "history/animals/animals-000002", Store(settings.store)
    record = read_newest(store, history)
    keep_next(store, history, record | {"alarms": [{"kind": "mix", "message": "the mix moved"}]})
    by_hand = promote_by_hand(settings, "animals-000002", "default", out)  # the same checks as at night
    assert (by_hand["promoted"], by_hand["why"]) == (False, "drift: the mix moved")
    assert promote_by_hand(settings, "animals-000002", None, out, force=True)["number"] == 4
    rows = show_releases(settings, None, out)
    assert [(row["number"], row["curation"][-1], row["because"]) for row in rows] == [
        (1, "1", "promoted"), (2, "2", "promoted"), (3, "1", "rolled back"), (4, "2", "promoted")
    ]  # fmt: skip
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert "release 1 of animals promoted: animals-000001, published/animals/000001" in said
    assert "not promoted: animals-000002; release 3 stays" in said
    assert "rolled back to 1" in said
