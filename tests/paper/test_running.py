"""The paper's defects in running: loop, client, costs, batches, command line (PAPER section 7, points 12 to 16).

Each test runs one check twice: on our code, where it passes, and on the re-typed defect, where it must fail.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import openai
import pytest

import infra.engines.openai_endpoint
from flows.cli.console import Treatment
from flows.config.prices import load_prices
from flows.config.section import ConfigError
from tests.conftest import ROOT
from tests.infra.misbehaving import MisbehavingServer, answer_by_hash
from tests.paper import defects_running as defects
from tests.paper import ours_running as ours
from tests.paper.proof import must_fail


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.engines.openai_endpoint, "_FIRST_DELAY", 0.01)


# ---- 7.12 the loop ----

JudgeAll = Callable[[Mapping[str, tuple[str, str]], str, str, str, Path], dict[str, str]]
TEXTS = {"q1": ("What is bread?", "Bread is dough."), "q2": ("What is milk?", "Milk is white."), "q3": ("Tea?", "Tea.")}


@pytest.fixture
def judge_all(tmp_path: Path) -> Iterator[JudgeAll]:
    with ours.own_prompts(tmp_path / "prompts") as save:

        def run(texts: Mapping[str, tuple[str, str]], model: str, words: str, url: str, folder: Path) -> dict[str, str]:
            save(words)
            return ours.judge_all(texts, model, url, folder)

        yield run


def opinion(body: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """Yes; the other thing from another judge, for another question, or of another text."""
    content = body["messages"][-1]["content"]
    no = (body["model"] == "judge-2") ^ ("Strictly:" in content) ^ ("changed" in content)
    return ("No", {"No": -0.01, "Yes": -5.0}) if no else ("Yes", {"Yes": -0.01, "No": -5.0})


def check_7_12_exception(run: JudgeAll, folder: Path) -> None:
    texts = {**TEXTS, "q2": ("What is milk? [[bad_request]]", "Milk is white.")}
    with MisbehavingServer(reply=opinion) as server:
        states = run(texts, "judge-1", "Say:", server.url, folder)
    assert (states["q1"], states["q3"]) == ("relevant", "relevant")
    assert states.get("q2", "unparsed") == "unparsed"


def test_paper_7_12_one_failed_request_does_not_stop_the_run(judge_all: JudgeAll, tmp_path: Path) -> None:
    check_7_12_exception(judge_all, tmp_path / "ours")
    must_fail(check_7_12_exception, defects.judge_all, tmp_path / "theirs", by=(openai.BadRequestError,))


def same_again(run: JudgeAll, url: str, folder: Path) -> dict[str, str]:
    return run(TEXTS, "judge-1", "Say:", url, folder)


def check_7_12_resume(run: JudgeAll, folder: Path, changed: str) -> None:
    """What is asked again with one thing changed is asked of the endpoint; what was asked before never is."""
    texts = {**TEXTS, "q1": ("What is bread?", "Bread is a changed thing.")} if changed == "text" else TEXTS
    model, words = "judge-2" if changed == "model" else "judge-1", "Strictly:" if changed == "prompt" else "Say:"
    with MisbehavingServer(reply=opinion) as server:
        assert set(same_again(run, server.url, folder).values()) == {"relevant"}
        before = server.counts["answered"]
        assert before == 3
        states = run(texts, model, words, server.url, folder)
        assert states["q1"] == "not_relevant"
        assert states["q2"] == ("relevant" if changed == "text" else "not_relevant")
        asked = server.counts["answered"] - before
        assert asked == (1 if changed == "text" else 3)
        assert set(same_again(run, server.url, folder).values()) == {"relevant"}
        assert server.counts["answered"] == before + asked


@pytest.mark.parametrize("changed", ["model", "prompt", "text"])
def test_paper_7_12_a_resumed_run_never_mixes_judges_prompts_or_texts(
    judge_all: JudgeAll, tmp_path: Path, changed: str
) -> None:
    check_7_12_resume(judge_all, tmp_path / "ours", changed)
    must_fail(check_7_12_resume, defects.judge_all, tmp_path / "theirs", changed)


class Watching(MisbehavingServer):
    """Knows the most chats it worked on at a time."""

    inside = most = 0
    counting = threading.Lock()

    def chat(self, body: Mapping[str, Any]) -> tuple[str, int, Any]:
        with self.counting:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.2)
        with self.counting:
            self.inside -= 1
        return super().chat(body)


def check_7_12_together(run: JudgeAll, folder: Path) -> None:
    with Watching(reply=opinion) as server:
        same_again(run, server.url, folder)
        assert server.most > 1


def test_paper_7_12_requests_are_under_way_together(judge_all: JudgeAll, tmp_path: Path) -> None:
    check_7_12_together(judge_all, tmp_path / "ours")
    must_fail(check_7_12_together, defects.judge_all, tmp_path / "theirs")


# ---- 7.13 the client ----

RespondAll = Callable[[str, Sequence[str]], list[str]]
# Trouble: how ours ends, and what ends the re-typed client; None where an assertion fails.
ENDS: dict[str, tuple[str, type[Exception] | None]] = {
    "hang*1": ("answered", openai.APITimeoutError),
    "reset*1": ("answered", openai.APIConnectionError),
    "429*1": ("answered", IndexError),
    "bad_json*1": ("answered", ValueError),
    "content_filter": ("refused", openai.BadRequestError),
    "500*60": ("unavailable: status 500", None),
}


def check_7_13(respond_all: RespondAll, kind: str, end: str) -> None:
    with MisbehavingServer(hang=3.0, retry_after={}) as server:
        outcomes = respond_all(server.url, ["first", f"[[{kind}]]", "last"])
        assert outcomes == ["answered", end, "answered"]
        assert sum(server.counts.values()) < 20


@pytest.mark.parametrize("kind", ENDS)
def test_paper_7_13_trouble_is_tried_again_a_few_times_or_named_and_harms_no_other(kind: str) -> None:
    end, their_end = ENDS[kind]
    check_7_13(ours.respond_all, kind, end)
    with pytest.raises(their_end or AssertionError):
        check_7_13(defects.respond_all, kind, end)


def test_paper_7_13_the_re_typed_client_survives_what_the_original_did() -> None:
    check_7_13(ours.respond_all, "500*2", "answered")
    check_7_13(defects.respond_all, "500*2", "answered")


# ---- 7.14 the cost ----

Cost = Callable[[str, str, Sequence[str], int], tuple[int, int, float]]
MINI = "gpt-4o-mini-2024-07-18"
CONTENTS = [f"Is passage {number} relevant? " + "word " * number for number in range(20)]


def check_7_14(cost: Cost, model: str) -> None:
    """Against what the server says it used: one token written per answer, an eighth of the characters cached."""
    with MisbehavingServer() as server:
        read, written, money = cost(server.url, model, CONTENTS, 2048)
    tokens = sum(len(content) // 4 + 1 for content in CONTENTS)
    cached = sum(len(content) // 8 for content in CONTENTS)
    assert (read, written) == (tokens, 20)
    expected = ((tokens - cached) * 0.15 + cached * 0.075 + 20 * 0.60) / 1e6 if model == MINI else 0.0
    assert money == pytest.approx(expected)


def test_paper_7_14_money_is_what_was_used_times_its_price_and_not_the_longest_answer() -> None:
    check_7_14(ours.cost, MINI)
    must_fail(check_7_14, defects.cost, MINI)


def test_paper_7_14_a_model_without_a_price_is_metered_all_the_same() -> None:
    check_7_14(ours.cost, "my-own-model")
    must_fail(check_7_14, defects.cost, "my-own-model", by=(AttributeError,))


def test_paper_7_14_a_budget_of_money_without_a_price_is_refused_beforehand() -> None:
    config = ours.endpoint_config("http://127.0.0.1:9/v1", "my-own-model", {}, budget={"money": 5.0})
    with pytest.raises(ConfigError, match=r"no price for my-own-model in .*prices\.yaml"):
        load_prices(config).of_stages(config)


# ---- 7.15 batches ----

RunBatches = Callable[[str, Sequence[str], int], dict[str, str]]
NINE = [f"passage {number}" for number in range(9)]


def check_7_15(run_batches: RunBatches, fate: str) -> None:
    with MisbehavingServer(fates=[fate]) as server:
        answers = run_batches(server.url, NINE, 9)
    assert answers == {content: answer_by_hash({"messages": [{"content": content}]})[0] for content in NINE}


def download(url: str, contents: Sequence[str], per_job: int) -> dict[str, str]:
    return defects.run_batches(url, contents, per_job, download=True)


def test_paper_7_15_the_answers_of_a_job_are_fetched() -> None:
    check_7_15(ours.run_batches, "completed")
    must_fail(check_7_15, defects.run_batches, "completed")
    check_7_15(download, "completed")  # what is missing below is not the download


@pytest.mark.parametrize("fate", ["expired", "cancelled"])
def test_paper_7_15_every_end_of_a_job_is_known_and_what_it_left_open_is_sent_again(fate: str) -> None:
    check_7_15(ours.run_batches, fate)
    for defect in (defects.run_batches, download):
        with MisbehavingServer(fates=[fate]) as server, pytest.raises(defects.StillPolling, match=fate):
            defect(server.url, NINE, 9)


@pytest.mark.parametrize("fate", ["missing", "no_output"])
def test_paper_7_15_rows_that_went_missing_are_noticed_and_sent_again(fate: str) -> None:
    check_7_15(ours.run_batches, fate)
    must_fail(check_7_15, download, fate)


class Crowded(MisbehavingServer):
    """Knows the most jobs that were open at a time."""

    most = 0

    def add_batch(self, fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        made = super().add_batch(fields)
        open_ = [
            batch for batch in self.batches.values() if batch["status"] in ("validating", "in_progress", "finalizing")
        ]
        self.most = max(self.most, len(open_))
        return made


def check_7_15_together(run_batches: RunBatches) -> None:
    with Crowded() as server:
        run_batches(server.url, NINE, 3)
        assert len(server.batches) == 3
        assert server.most > 1


def test_paper_7_15_jobs_do_not_wait_for_each_other() -> None:
    check_7_15_together(ours.run_batches)
    must_fail(check_7_15_together, defects.run_batches)


# ---- 7.16 the command line ----

RunLine = Callable[[Sequence[str]], None]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[type, str]:
    """An empty home and store, and values of arguments that name nothing there is."""
    for name in ("HOME", "STORE", "CACHE"):
        monkeypatch.setenv(f"RENEG_{name}", str(tmp_path / name.lower()))
    for name in ("PREFECT_API_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return {int: "0", float: "0", Treatment: "relabel", str: "nothing", Path: "nothing.yaml"}


def check_7_16(run: RunLine, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command ends by itself: well, or with a code and a message."""
    code: Any = 0
    try:
        run(arguments)
    except SystemExit as end:
        code = end.code or 0
    except Exception as error:
        raise AssertionError(f"{arguments}: {type(error).__name__}: {error}") from error
    shown = capsys.readouterr()
    assert code in (0, 1, 2)
    assert (shown.out + shown.err).strip()
    assert "Traceback" not in shown.out + shown.err
    assert "unexpected" not in shown.err


@pytest.mark.parametrize("name", ours.commands())
def test_paper_7_16_every_command_takes_every_argument_it_names(
    name: str, elsewhere: Mapping[type, str], capsys: pytest.CaptureFixture[str]
) -> None:
    check_7_16(ours.command_line, [name, "--help"], capsys)
    check_7_16(ours.command_line, ours.arguments_of(name, elsewhere), capsys)


def test_paper_7_16_the_re_typed_command_line_is_caught(
    elsewhere: Mapping[type, str], capsys: pytest.CaptureFixture[str]
) -> None:
    check_7_16(ours.command_line, ["plan", "nothing.yaml"], capsys)
    check_7_16(defects.command_line, ["--help"], capsys)  # that much worked
    must_fail(check_7_16, defects.command_line, ["batch", "--dataset", "nq"], capsys)
    must_fail(check_7_16, defects.command_line, ["again", "--dataset", "nq"], capsys)


@pytest.mark.parametrize(
    ("arguments", "function"),
    [
        (["curate", "{config}", "--json"], "run_commands.run_curation"),
        (["demo", "--config", "{config}"], "run_commands.run_curation"),
        (["plan", "{config}", "--json"], "inspect_commands.show_plan"),
        (["list", "--json"], "inspect_commands.show_list"),
        (["status", "mine-000001", "--json"], "inspect_commands.show_status"),
        (["rerun", "mine-000001", "--stage", "judge", "--part", "3"], "run_commands.rerun_part"),
        (
            ["export", "mine-000001", "--format", "beir", "--treatment", "remove", "--out", "there"],
            "release_commands.export_to",
        ),
    ],
)
def test_paper_7_16_what_a_command_passes_on_is_what_its_function_takes(
    arguments: Sequence[str], function: str, elsewhere: Mapping[type, str], capsys: pytest.CaptureFixture[str]
) -> None:
    module, _, name = function.partition(".")
    commands = import_module(f"flows.cli.{module}")
    config = str(ROOT / "flows" / "config" / "rlhn.yaml")
    double = mock.create_autospec(getattr(commands, name), return_value={"done": True})
    with mock.patch.object(commands, name, double), pytest.raises(SystemExit) as end:
        ours.command_line([argument.format(config=config) for argument in arguments])
    assert (end.value.code or 0, capsys.readouterr().err) == (0, "")
    double.assert_called_once()
