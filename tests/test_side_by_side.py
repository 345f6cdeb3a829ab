"""How the tests are ordered and grouped, so that several processes can run them side by side."""

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from _pytest.assertion import rewrite
from xdist.remote import Producer

from tests import conftest
from tests.compiling import compile_tests, compiled
from tests.conftest import ROOT, free_port, groups_of, order_of

TESTS = ROOT / "tests"


def test_a_files_fast_tests_are_one_group_and_its_slow_ones_another() -> None:
    ledger, store = "tests/infra/ledger/test_ledger.py", "tests/infra/storage/test_store.py"
    groups = groups_of([f"{ledger}::a", f"{ledger}::b[x::y]", f"{store}::c", f"{ledger}::d", f"{store}::e"])
    assert list(groups.values()) == [f"1 {ledger}", f"1 {ledger}", f"2 {store}", f"3 {ledger}", f"4 {store}"]


def test_the_tests_of_a_folder_that_shares_servers_stay_together() -> None:
    method = "tests/flows/method"
    tests = [f"{method}/test_curate.py::a", f"{method}/test_tables.py::b", "tests/test_house.py::c"]
    assert list(groups_of(tests).values()) == [f"1 {method}", f"1 {method}", "2 tests/test_house.py"]


def test_fast_tests_come_first_and_the_longest_last_in_their_order() -> None:
    ledger = TESTS / "infra" / "ledger" / "test_ledger.py"
    system = [TESTS / "system" / f"test_{name}.py" for name in ("other", "secrets", "chaos", "operations")]
    tests = [*((path, True) for path in system), (ledger, True), (system[1], False), (ledger, False)]
    tests.sort(key=lambda test: order_of(test[0], is_slow=test[1]))
    assert [(path.stem.removeprefix("test_"), slow) for path, slow in tests] == [
        ("secrets", False), ("ledger", False),
        ("ledger", True), ("other", True), ("operations", True), ("chaos", True), ("secrets", True),
    ]  # fmt: skip
    assert all((TESTS / f"{name}.py").exists() for name in conftest.LONGEST)


class Process:
    """A test process as the scheduler sees it; keeps which tests it was sent."""

    shutting_down = False

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.sent: list[int] = []

    def send_runtest_some(self, tests: Sequence[int]) -> None:
        self.sent += tests

    def shutdown(self) -> None:
        self.shutting_down = True


def test_one_process_takes_the_longest_from_the_start_and_the_others_the_fast_ones() -> None:
    names = ("test_a", "test_b", "test_c", "system/test_chaos", "system/test_secrets")
    tests = [f"tests/{name}.py::test_it" for name in names]
    config = SimpleNamespace(option=SimpleNamespace(), getvalue=lambda name: ["popen"] * 2)
    scheduler = conftest.pytest_xdist_make_scheduler(config, Producer("test", enabled=False))  # type: ignore[arg-type]
    first, second = Process("gw0"), Process("gw1")
    for process in (first, second):
        scheduler.add_node(process)
        scheduler.add_node_collection(process, tests)
    scheduler.schedule()
    for process, test in ((second, 0), (first, 3), (second, 1), (second, 2)):
        scheduler.mark_test_complete(process, test)
    assert (first.sent[0], second.sent[0]) == (3, 0)
    assert sorted(first.sent + second.sent) == [0, 1, 2, 3, 4]
    assert first.sent == [3, 4]


def test_two_processes_never_draw_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for worker in ("gw0", "gw1", "gw2"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        random.seed(0)
        drawn.append({free_port() for _ in range(20)})
    assert not drawn[0] & drawn[1] | drawn[0] & drawn[2] | drawn[1] & drawn[2]


def test_a_file_is_compiled_once_as_pytest_does_it_and_again_when_it_changes(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    path, other = tmp_path / "test_one.py", tmp_path / "test_other.py"
    for file in (path, other):
        file.write_text("def test_it():\n    found = 3\n    assert found == 4\n")
    assert compile_tests([path, other], pytestconfig) == [path, other]
    assert compile_tests([path, other], pytestconfig) == []
    code = rewrite._read_pyc(path, compiled(path))
    assert code is not None
    names: dict[str, object] = {}
    exec(code, names)
    with pytest.raises(AssertionError, match="assert 3 == 4"):
        names["test_it"]()  # type: ignore[operator]
    path.write_text("def test_it():\n    found = 3\n    assert found == 5\n")
    assert compile_tests([path, other], pytestconfig) == [path]
