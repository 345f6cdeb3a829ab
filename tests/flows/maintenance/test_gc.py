"""`reneg gc` on small curations with fake engines: who stays, who goes, and that what stays is whole."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.__main__ import app
from flows.config.load import parse_config
from flows.config.section import ConfigError
from flows.curation.lookup import Job, look_at
from flows.curation.prepare import fetch_models, prepare
from flows.curation.records import curation_names, keep_config, load_curation, open_curation
from flows.curation.workspace import Workspace
from flows.maintenance.gc import Wanted, collect, collection_page, encoders_of
from flows.maintenance.purge import Wanted as PurgeWanted
from flows.maintenance.purge import purge
from flows.method.afterwards.retrain import RetrainConfig, retrain_method
from flows.method.setup import Setup, TooManyRejected
from flows.runs.execute import execute
from infra.cluster.weights import ensure, is_published, publish_for
from infra.ledger.vectors import stats_of_vectors
from infra.models.resolve import MANIFEST
from infra.settings import Settings
from infra.stages.runner import Failure, Runner, StageRun
from infra.storage.release_pointers import advance, publish
from infra.storage.store import Store, StoreError
from tests.flows.animals import write_source
from tests.flows.fakes import InProcess
from tests.flows.method.test_losses import write_rows

DAY = 86400.0


def settings_of(tmp_path: Path) -> Settings:
    cache = Path(os.environ["RENEG_TEST_CACHE"])
    return Settings(tmp_path / "home", str(tmp_path / "store"), cache, None, None)


def compute(workspace: Workspace, setup: Setup, job: Job) -> tuple[Any, tuple[StageRun, ...]]:
    """Compute in this process, with engines that cost nothing."""
    runner = Runner(workspace.store, InProcess(workspace.store, workspace.settings.scratch))
    return job.method(runner, setup), tuple(runner.runs)


class StopsAt(InProcess):
    """Fails every part of one stage, and computes what does not depend on it."""

    stage = ""

    def run_stage(self, name: str, specs: Any, finished: Any) -> Any:
        if name == self.stage:
            return {**finished, **{s.number: Failure("injected") for s in specs if s.number not in finished}}
        return super().run_stage(name, specs, finished)


def config_of(tmp_path: Path, queries: int, **more: Any) -> Any:
    source = tmp_path / f"source-{queries}"
    if not source.exists():
        write_source(source, queries)
    return parse_config(
        {
            "name": "animals",
            "source": {"path": str(source)},
            "encoder": {"model": "tiny:encoder"},
            "tiers": [],
            "treatments": ["default", "relabel"],
            "train": None,
            **more,
        },
        "test",
    )


def night(tmp_path: Path, queries: int, stop_at: str = "", **more: Any) -> str:
    settings = settings_of(tmp_path)
    workspace = Workspace.open(settings)
    curation = open_curation(workspace, config_of(tmp_path, queries, **more))
    if stop_at:
        executor = StopsAt(workspace.store, settings.scratch)
        executor.stage = stop_at
        runner = Runner(workspace.store, executor)
        Job().method(runner, fetch_models(workspace, prepare(workspace, curation)))
        return curation.id
    execute(workspace, curation, compute)
    return curation.id


def age(tmp_path: Path, days: float, folder: str = "store") -> None:
    """Make every file so many days older."""
    for path in (tmp_path / folder).rglob("*"):
        if path.is_file():
            stat = path.stat()
            os.utime(path, (stat.st_atime, stat.st_mtime - days * DAY))


def run(tmp_path: Path, *, yes: bool = True, **wanted: Any) -> dict[str, Any]:
    return collect(settings_of(tmp_path), Wanted(**wanted), yes=yes)


def look(tmp_path: Path, curation: str) -> Any:
    workspace = Workspace.open(settings_of(tmp_path))
    return look_at(workspace, load_curation(workspace.store, curation))[0]


def is_whole(tmp_path: Path, curation: str) -> bool:
    """Tell whether everything a curation reaches can be read."""
    outcome = look(tmp_path, curation)
    store = Store(settings_of(tmp_path).store)
    tables = [outcome.queries, outcome.passages, *outcome.instances.values()]
    keys = [p.object for table in tables for p in table.pieces]
    keys += [k for d in (outcome.page, outcome.sheet, *outcome.exports.values()) for k in d.files.values()]
    return all(store.get_object(key) for key in keys)


def files(tmp_path: Path) -> dict[str, bytes]:
    root = tmp_path / "store"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_newest_curations_stay_whole_and_older_ones_go_with_all_that_was_theirs_alone(tmp_path: Path) -> None:
    first, second = night(tmp_path, 8), night(tmp_path, 12)
    before = files(tmp_path)
    age(tmp_path, 40)
    said = run(tmp_path, yes=False, curations=1)
    assert (said["curations"], said["kept"]) == ([first], {second: "among the newest"})
    assert said["parts"] > 5 and said["objects"] > 5 and said["bytes"] > 1000
    assert files(tmp_path) == before  # a dry run
    done = run(tmp_path, curations=1)
    assert {k: done[k] for k in ("parts", "objects", "bytes")} == {k: said[k] for k in ("parts", "objects", "bytes")}
    assert is_whole(tmp_path, second)
    workspace = Workspace.open(settings_of(tmp_path))
    assert curation_names(workspace.store) == [second]
    with pytest.raises(ConfigError, match="no curation"):
        load_curation(workspace.store, first)
    trash = [name for name in files(tmp_path) if name.startswith("trash/")]
    assert len(trash) == done["parts"] + done["objects"] + len(
        [k for k in before if k.startswith(f"curations/{first}/")]
    )
    assert run(tmp_path, curations=1)["deleted"] == 0  # within the grace
    age(tmp_path, 2, "store/trash")
    assert run(tmp_path, curations=1)["deleted"] == len(trash)
    assert [name for name in files(tmp_path) if name.startswith("trash/")] == []
    assert is_whole(tmp_path, second)


def test_weights_that_nodes_fetched_go_with_the_last_curation_whose_engines_they_are(tmp_path: Path) -> None:
    night(tmp_path, 8)
    workspace = Workspace.open(settings_of(tmp_path))
    setup = fetch_models(workspace, prepare(workspace, load_curation(workspace.store, "animals-000001")))
    far = setup.encoder.model_copy(update={"digest": "far"})  # named, and nothing of it is finished
    assert encoders_of(replace(setup, encoders={"far": far})) > encoders_of(replace(setup, encoder=far))
    (digest,) = publish_for(workspace.store, [setup.encoder], workspace.settings.cache)
    age(tmp_path, 40)
    run(tmp_path, curations=1)
    assert is_published(workspace.store, digest)
    known = encoders_with_vectors(workspace.store)
    assert len(known) == 1
    night(tmp_path, 12, encoder={"model": f"path:{copy_of(Path(setup.encoder.model), tmp_path / 'other')}"})
    age(tmp_path, 40)
    run(tmp_path, curations=1)
    assert not is_published(workspace.store, digest)
    assert encoders_with_vectors(workspace.store) != known  # those of the other encoder alone
    assert len(encoders_with_vectors(workspace.store)) == 1
    spec = setup.encoder.model_copy(update={"model": "/nowhere"})  # a node that is at it reads it from the trash
    assert ensure(workspace.store, spec, tmp_path / "node").model.startswith(str(tmp_path / "node"))


def encoders_with_vectors(store: Store) -> set[str]:
    return {name.partition("-")[0] for name in stats_of_vectors(store)}


def copy_of(model: Path, folder: Path) -> Path:
    """Another model: the same, but for a byte."""
    shutil.copytree(model, folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    (folder / MANIFEST).unlink(missing_ok=True)
    return folder


def test_what_stays_is_what_a_store_that_never_had_the_older_ones_holds(tmp_path: Path) -> None:
    night(tmp_path, 8)
    for record in (tmp_path / "store").glob("curations/*/partition-*"):
        record.unlink()  # the second night would keep the parts of the first
    night(tmp_path, 12)
    age(tmp_path, 40)
    run(tmp_path, curations=1, grace=0)
    alone = tmp_path / "alone"
    (alone / "source-12").parent.mkdir()
    (tmp_path / "source-12").rename(alone / "source-12")
    night(alone, 12)
    kinds = ("objects/", "models/")
    kept = {name for name in files(tmp_path) if name.startswith(kinds)}
    expected = {name for name in files(alone) if name.startswith(kinds)}
    pages = {k.rsplit("/", 1)[-1] for k in look(alone, "animals-000001").page.files.values()}
    differing = {name for name in kept ^ expected if name.rsplit("/", 1)[-1].split(".")[0] not in pages}
    # The reports name their source's folder and the costs' seconds differ; nothing else does.
    assert len(differing) <= 8, sorted(differing)
    parts = [len([n for n in files(where) if n.startswith("parts/")]) for where in (tmp_path, alone)]
    assert parts[0] == parts[1]


def test_numbers_of_removed_curations_are_not_given_again(tmp_path: Path) -> None:
    for queries in (4, 8, 12):
        night(tmp_path, queries)
    age(tmp_path, 40)
    assert run(tmp_path, curations=1, grace=0)["curations"] == ["animals-000001", "animals-000002"]
    assert night(tmp_path, 4) == "animals-000004"
    run(tmp_path, drop=frozenset({"animals-000004"}))  # the newest goes, to the trash
    assert night(tmp_path, 4) == "animals-000005"
    age(tmp_path, 40)
    run(tmp_path, drop=frozenset({"animals-000005"}), grace=0)  # for good
    assert night(tmp_path, 4) == "animals-000006"


def test_young_and_unfinished_curations_stay_and_an_unfinished_one_can_be_let_go(tmp_path: Path) -> None:
    unfinished = night(tmp_path, 4, stop_at="decide")
    old, young = night(tmp_path, 8), night(tmp_path, 12)
    parts = len([name for name in files(tmp_path) if name.startswith("parts/")])
    said = run(tmp_path, yes=False, curations=1)
    assert said["kept"] == {unfinished: "unfinished", old: "at work within 30 days", young: "among the newest"}
    age(tmp_path, 40)
    done = run(tmp_path, curations=2)
    assert done["kept"] == {unfinished: "unfinished", old: "among the newest", young: "among the newest"}
    assert len([name for name in files(tmp_path) if name.startswith("parts/")]) == parts  # beyond the failure as well
    workspace = Workspace.open(settings_of(tmp_path))
    executor = InProcess(workspace.store, tmp_path / "scratch")
    resumed = Runner(workspace.store, executor)
    Job().method(resumed, fetch_models(workspace, prepare(workspace, load_curation(workspace.store, unfinished))))
    assert executor.computed[0].startswith("decide") and not {n for n in executor.computed if "encode" in n}
    age(tmp_path, 40)
    assert run(tmp_path, curations=2, drop=frozenset({unfinished}))["curations"] == [unfinished]
    assert curation_names(Workspace.open(settings_of(tmp_path)).store) == [old, young]
    with pytest.raises(ConfigError, match="--drop nobody-000001: no such curation"):
        run(tmp_path, drop=frozenset({"nobody-000001"}))


def test_an_unfinished_curation_goes_after_its_own_time_and_its_name_says_who_removed_it(tmp_path: Path) -> None:
    unfinished, young = night(tmp_path, 4, stop_at="decide"), night(tmp_path, 12)
    age(tmp_path, 80)
    assert run(tmp_path, curations=1)["kept"] == {unfinished: "unfinished", young: "among the newest"}
    age(tmp_path, 20)
    done = run(tmp_path, curations=1)
    assert (done["curations"], done["why"]) == (
        [unfinished], {unfinished: "unfinished, last at work 100 days ago"}
    )  # fmt: skip
    assert is_whole(tmp_path, young)
    page = collection_page(done).splitlines()
    assert page[0].startswith("removed: 1 curations, 0 releases, ")
    assert f"- {unfinished}: unfinished, last at work 100 days ago" in page
    with pytest.raises(
        ConfigError, match=f"no curation '{unfinished}' in .*; gc removed it .see `retention`.; known: "
    ):
        load_curation(Store(settings_of(tmp_path).store), unfinished)


def test_how_long_unfinished_curations_stay_is_a_setting_of_the_newest_configuration(tmp_path: Path) -> None:
    unfinished, _ = night(tmp_path, 4, stop_at="decide"), night(tmp_path, 12)
    config = config_of(tmp_path, 4, retention={"unfinished_days": 31, "curations": 1})
    keep_config(Store(settings_of(tmp_path).store), config)
    age(tmp_path, 40)
    assert run(tmp_path, yes=False)["curations"] == [unfinished]


def test_gc_makes_latest_json_follow_the_records_and_sweeps_the_cache(tmp_path: Path) -> None:
    store = Store.open(settings_of(tmp_path).store)
    for text in ("one", "two"):
        exports = {"train.jsonl": store.put_object(text.encode(), ".jsonl")}
        advance(store, "animals", lambda known, e=exports: {"curation": "animals-000001", "exports": e, "of": None})
        publish(store, "animals")
    store.replace("published/animals/latest.json", store.read("published/animals/000001/release.json") or b"")
    home = Settings(tmp_path / "home", store.url, tmp_path / "cache", None, None)
    (home.scratch / ".dead.1").mkdir(parents=True)
    os.utime(home.scratch / ".dead.1", (1, 1))
    assert collect(home, Wanted(), yes=False)["leftovers"] == 0
    assert json.loads(store.read("published/animals/latest.json") or b"")["number"] == 1
    assert collect(home, Wanted(), yes=True)["leftovers"] == 1
    assert json.loads(store.read("published/animals/latest.json") or b"")["number"] == 2


def release(store: Store, number: int, curation: str, exports: dict[str, str], of: int | None = None) -> None:
    record = {"number": number, "curation": curation, "exports": exports, "of": of, "model": None}
    assert store.create(f"releases/animals/HEAD-{number:06d}.json", json.dumps(record).encode())


def test_the_newest_releases_stay_with_their_curations_and_what_a_kept_one_went_back_to(tmp_path: Path) -> None:
    nights = [night(tmp_path, queries) for queries in (3, 5, 7, 9, 11)]
    store = Store(settings_of(tmp_path).store)
    objects = [store.put_object(f"export {n}".encode(), ".jsonl") for n in range(5)]
    for number, (curation, key) in enumerate(zip(nights[:3], objects, strict=False), 1):
        release(store, number, curation, {"train.jsonl": key})
    release(store, 4, nights[0], {"train.jsonl": objects[0]}, of=1)
    age(tmp_path, 40)
    done = run(tmp_path, curations=1, releases=2)
    assert done["releases"] == ["releases/animals/HEAD-000002.json"]
    assert done["kept"] == {
        nights[0]: "of a kept release", nights[2]: "of a kept release", nights[4]: "among the newest"
    }  # fmt: skip
    assert [store.exists(key) for key in objects] == [True, False, True, False, False]
    assert all(is_whole(tmp_path, id_) for id_ in done["kept"])
    release(store, 5, nights[1], {"train.jsonl": objects[1]})  # promoted while it was collected
    assert run(tmp_path, curations=1, releases=2)["kept"][nights[1]] == "of a kept release"
    assert store.exists(objects[1])
    assert is_whole(tmp_path, nights[1])


def test_retention_comes_from_the_deployed_configuration_and_the_command_line_overrides_it(tmp_path: Path) -> None:
    nights = [night(tmp_path, queries) for queries in (4, 8, 12)]
    store = Store(settings_of(tmp_path).store)
    store.create("configs/animals/000001.json", b'{"retention": {"curations": 1}}')
    store.create("configs/animals/000002.json", b'{"name": "animals", "retention": {"curations": 2, "days": 3}}')
    age(tmp_path, 5)
    assert run(tmp_path, yes=False)["curations"] == nights[:1]
    assert run(tmp_path, yes=False, curations=1)["curations"] == nights[:2]
    assert run(tmp_path, yes=False, curations=1, days=6)["curations"] == []
    store.create("configs/animals/000003.json", b'{"retention": {"curations": 0}}')
    with pytest.raises(ConfigError, match="retention of animals"):
        run(tmp_path)


@pytest.mark.parametrize("damage", [b'{"cut', b'{"config": {"name": "animals"}, "source": null}', b"[]", b"{}"])
def test_a_kept_curation_that_cannot_be_followed_stops_everything(tmp_path: Path, damage: bytes) -> None:
    unfinished = night(tmp_path, 4, stop_at="decide")
    night(tmp_path, 8)
    night(tmp_path, 12)
    age(tmp_path, 40)
    record = tmp_path / "store" / "curations" / unfinished / "curation.json"
    record.write_bytes(damage)
    os.utime(record, (time.time() - 40 * DAY,) * 2)
    before = files(tmp_path)
    with pytest.raises((ConfigError, StoreError), match=f"{unfinished}.*(--drop|is damaged)"):
        run(tmp_path, curations=1)
    assert files(tmp_path) == before
    assert run(tmp_path, curations=1, drop=frozenset({unfinished}))["curations"][0] == unfinished


def test_a_curation_that_stopped_as_too_much_was_left_out_is_kept_with_its_ingest(tmp_path: Path) -> None:
    write_rows(tmp_path / "source-99", good=6, bad=4)
    with pytest.raises(TooManyRejected):
        night(tmp_path, 99)
    age(tmp_path, 40)
    before = {name for name in files(tmp_path) if name.startswith(("parts/", "objects/"))}
    assert run(tmp_path)["kept"] == {"animals-000001": "among the newest"}
    assert {name for name in files(tmp_path) if name.startswith(("parts/", "objects/"))} == before


def test_a_finished_curation_of_an_earlier_version_keeps_the_parts_that_its_result_lists(tmp_path: Path) -> None:
    first, second = night(tmp_path, 8), night(tmp_path, 12)
    age(tmp_path, 40)
    record = tmp_path / "store" / "curations" / first / "curation.json"
    written = json.loads(record.read_text())
    record.write_text(json.dumps({**written, "config": {"name": "animals", "retired_section": 1}}))
    os.utime(record, (0, 0))
    before = {name for name in files(tmp_path) if name.startswith(("parts/", "objects/"))}
    assert run(tmp_path, curations=2)["kept"] == {first: "among the newest", second: "among the newest"}
    assert {name for name in files(tmp_path) if name.startswith(("parts/", "objects/"))} == before


@pytest.mark.slow
def test_work_on_a_kept_curation_stays(tmp_path: Path) -> None:
    curation = night(tmp_path, 12, train={"steps": 1, "batch_size": 2, "max_seq_length": 16})
    settings = settings_of(tmp_path)
    workspace = Workspace.open(settings)
    setup = fetch_models(workspace, prepare(workspace, load_curation(workspace.store, curation)))

    def retrain() -> list[str]:
        executor = InProcess(workspace.store, settings.scratch)
        retrain_method(
            Runner(workspace.store, executor), setup, RetrainConfig(treatments=("relabel", "default"), seeds=1)
        )
        return executor.computed

    assert [name for name in retrain() if name.startswith("compare")]
    age(tmp_path, 40)
    assert run(tmp_path, curations=1)["parts"] == 0
    assert retrain() == []


def test_a_purge_finds_what_lies_in_the_trash(tmp_path: Path) -> None:
    night(tmp_path, 8)
    night(tmp_path, 12, ingest={"dataset": "other"})
    age(tmp_path, 40)
    run(tmp_path, curations=1)
    assert [name for name in files(tmp_path) if name.startswith("trash/")]
    text = tmp_path / "text"
    text.write_text("The otter lives near the forest, where the otter hunts and sleeps in spring number 0.")
    purge(settings_of(tmp_path), PurgeWanted(text), yes=True)
    assert [name for name, data in files(tmp_path).items() if b"The otter lives near the forest" in data] == []
    assert [name for name in files(tmp_path) if name.startswith("trash/")] == []


def test_the_command_says_what_would_go_and_takes_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = night(tmp_path, 8), night(tmp_path, 12)
    age(tmp_path, 40)
    (tmp_path / "store" / "objects" / ".left.tmp").write_bytes(b"half")
    os.utime(tmp_path / "store" / "objects" / ".left.tmp", (0, 0))
    settings = settings_of(tmp_path)
    for name, value in (("STORE", settings.store), ("HOME", settings.home), ("CACHE", settings.cache)):
        monkeypatch.setenv(f"RENEG_{name}", str(value))
    invoke: Callable[..., Any] = CliRunner().invoke
    said = invoke(app, ["gc", "--keep-curations", "1", "--json"])
    assert "Nothing was removed. Give --yes" in said.stdout
    assert json.loads(said.stdout.splitlines()[-1])["curations"] == [first]
    done = invoke(app, ["gc", "--keep-curations", "1", "--days", "1", "--keep-releases", "2", "--grace", "12", "--yes"])
    assert "begins 12 hours from now" in done.stdout
    assert not (tmp_path / "store" / "objects" / ".left.tmp").exists()
