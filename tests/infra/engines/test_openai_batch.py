"""The engine of a batch interface: jobs that fail, expire or get lost, and nothing paid twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

import infra.engines.openai_batch
import infra.engines.openai_endpoint
from infra.engines.answers import Answer, EndpointError
from infra.engines.openai_batch import OpenAIBatchEngine
from infra.engines.specs import OpenAIBatchSpec
from tests.conftest import ROOT
from tests.infra.misbehaving import SCHEMA, SECRET, Asked, MisbehavingServer, answer_by_hash


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setattr(infra.engines.openai_endpoint, "_FIRST_DELAY", 0.01)


def batch_spec(url: str, **changes: Any) -> OpenAIBatchSpec:
    return OpenAIBatchSpec(**{"model": "judge-1", "base_url": url, "timeout": 60.0, "poll_seconds": 0.01, **changes})


@pytest.fixture
def engine_of() -> Iterator[Callable[..., OpenAIBatchEngine]]:
    engines = []

    def make(server: MisbehavingServer, **changes: Any) -> OpenAIBatchEngine:
        engines.append(OpenAIBatchEngine(batch_spec(server.url, **changes)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def ask(engine: OpenAIBatchEngine, *contents: str) -> list[Answer]:
    return list(engine.answer([Asked(content) for content in contents]))


def numbered(number: int) -> list[str]:
    return [f"passage {i}" for i in range(number)]


def check(contents: list[str], answers: list[Answer]) -> None:
    """Each answer belongs to its request."""
    for content, answer in zip(contents, answers, strict=True):
        text, logprobs = answer_by_hash({"messages": [{"content": content}]})
        assert (answer.text, answer.logprobs, answer.finish_reason) == (text, logprobs, "stop")


# ---- what is sent, and a job that goes well ----


def test_requests_go_out_in_files_of_the_size_allowed_and_come_back_in_order(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    contents = numbered(25)
    with MisbehavingServer() as server:
        engine = engine_of(server, requests_per_batch=10)
        answers = ask(engine, *contents)
        inputs = [server.files[batch["input_file_id"]].splitlines() for batch in server.batches.values()]
    check(contents, answers)
    assert sorted(map(len, inputs)) == [5, 10, 10]
    line = next(json.loads(line) for lines in inputs for line in lines if "passage 7" in line)
    assert (line["custom_id"], line["method"], line["url"]) == ("id of passage 7", "POST", "/v1/chat/completions")
    assert line["body"]["top_logprobs"] == 5
    assert engine.counts == {"submitted": 3}


def test_a_file_does_not_grow_beyond_the_bytes_that_vendors_take(
    engine_of: Callable[..., OpenAIBatchEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.engines.openai_batch, "_MOST_BYTES", 700)
    with MisbehavingServer() as server:
        check(numbered(5), ask(engine_of(server), *numbered(5)))
        sizes = [len(server.files[batch["input_file_id"]]) for batch in server.batches.values()]
    assert len(sizes) > 1
    assert max(sizes) <= 700


def test_the_same_request_twice_is_one_line_and_both_get_its_answer(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    contents = ["a", "b", "a"]
    with MisbehavingServer() as server:
        check(contents, ask(engine_of(server), *contents))
        assert server.paid == {"a": 1, "b": 1}


def test_a_schema_and_a_limit_go_with_each_request(engine_of: Callable[..., OpenAIBatchEngine]) -> None:
    with MisbehavingServer() as server:
        (answer,) = engine_of(server).answer([Asked("form", 64, 0, SCHEMA)])
        (body,) = [json.loads(line)["body"] for line in server.files["file-0"].splitlines()]
    assert json.loads(answer.text)["verdict"] in ("yes", "no")
    assert (body["max_completion_tokens"], body["response_format"]["type"]) == (64, "json_schema")


def test_no_requests_make_no_job(engine_of: Callable[..., OpenAIBatchEngine]) -> None:
    with MisbehavingServer() as server:
        assert ask(engine_of(server)) == []
        assert server.calls == []


def test_no_more_jobs_run_at_a_time_than_the_spec_allows(engine_of: Callable[..., OpenAIBatchEngine]) -> None:
    with MisbehavingServer() as server:
        check(numbered(12), ask(engine_of(server, requests_per_batch=2, parallel=2), *numbered(12)))
        events = [(call.method, call.path) for call in server.calls]
    running = most = 0
    for method, path in events:
        running += (method, path) == ("POST", "/v1/batches")
        most = max(most, running)
        running -= path.endswith("/content")
    assert most == 2


# ---- every end a job can have ----


@pytest.mark.parametrize(
    ("fate", "counts"),
    [
        ("expired", {"submitted": 2, "resubmit_batch_expired": 4}),
        ("cancelled", {"submitted": 2, "missing_row": 4}),
        ("missing", {"submitted": 2, "missing_row": 3}),
        ("no_output", {"submitted": 2, "missing_row": 8}),
        ("doubled", {"submitted": 1, "doubled_row": 8}),
        ("unknown", {"submitted": 1, "unknown_row": 2}),
        ("unreadable", {"submitted": 1, "unreadable_row": 1}),
        ("no_room", {"submitted": 2, "no_room": 1}),
    ],
)
def test_what_a_job_leaves_open_is_asked_again_and_nothing_else_is(
    engine_of: Callable[..., OpenAIBatchEngine], fate: str, counts: dict[str, int]
) -> None:
    contents = numbered(8)
    with MisbehavingServer(fates=[fate]) as server:
        engine = engine_of(server)
        check(contents, ask(engine, *contents))
        again = {"missing": 3, "no_output": 8}.get(fate, 0)
        assert sum(server.paid.values()) == 8 + again
    assert engine.counts == counts


def test_a_failed_job_answers_with_the_vendors_reason_and_harms_no_other_job(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    with MisbehavingServer(fates=["failed"]) as server:
        engine = engine_of(server, requests_per_batch=2, parallel=1)
        answers = ask(engine, *numbered(4))
    reasons = [answer.finish_reason for answer in answers]
    assert reasons == ["error: batch failed: told to fail: failed"] * 2 + ["stop"] * 2
    assert engine.counts == {"submitted": 2, "failed_batch": 1}


def test_requests_whose_jobs_always_expire_are_given_up_after_max_rounds(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    with MisbehavingServer({"expired": 1.0}) as server:
        engine = engine_of(server, max_rounds=3)
        answers = ask(engine, *numbered(9))
        assert sum(server.paid.values()) == 4 + 2 + 1
    assert sum(answer.finish_reason == "stop" for answer in answers) == 7
    assert {a.finish_reason for a in answers} == {"stop", "error: batch_expired"}
    assert engine.counts["given_up"] == 2


def test_a_vendor_without_room_is_waited_for_as_long_as_jobs_of_ours_end(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    with MisbehavingServer(fates=["completed", "no_room", "no_room", "completed", "no_room"]) as server:
        engine = engine_of(server, requests_per_batch=2, max_rounds=1)
        check(numbered(6), ask(engine, *numbered(6)))
    assert engine.counts == {"submitted": 6, "no_room": 3}


# ---- single rows ----


@pytest.mark.parametrize(
    ("kind", "expected", "counted"),
    [
        ("truncated", "length", {}),
        ("refusal", "refused", {}),
        ("content_filter", "refused", {"refused": 1}),
        ("too_long", "too_long", {"too_long": 1}),
        ("bad_request", "error: status 400: something is odd about this one", {"failed_400": 1}),
        ("unsupported", "error: status 400: Unsupported parameter: 'seed'", {"failed_400": 1}),
    ],
)
def test_a_row_that_cannot_be_answered_says_why_and_is_not_asked_again(
    engine_of: Callable[..., OpenAIBatchEngine], kind: str, expected: str, counted: dict[str, int]
) -> None:
    with MisbehavingServer() as server:
        engine = engine_of(server)
        answers = ask(engine, "first", f"[[{kind}]]", "last")
        assert [answer.finish_reason for answer in answers] == ["stop", expected, "stop"]
        assert len(server.batches) == 1
    assert engine.counts == {"submitted": 1, **counted}


@pytest.mark.parametrize("kind", ["429", "500", "503", "hang", "reset", "bad_json", "empty", "no_choices"])
def test_a_row_that_may_pass_is_asked_again_in_the_next_job(
    engine_of: Callable[..., OpenAIBatchEngine], kind: str
) -> None:
    with MisbehavingServer() as server:
        answers = ask(engine_of(server), "fine", f"passes [[{kind}*1]]", f"lasts [[{kind}]]")
        assert [answer.finish_reason for answer in answers[:2]] == ["stop", "stop"]
        assert answers[2].finish_reason.startswith("error: ")
        assert len(server.batches) == 3
        assert max(server.paid.values()) == 1


def test_a_job_in_which_every_row_is_refused_for_the_same_cause_is_raised(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    with MisbehavingServer() as server, pytest.raises(EndpointError, match=r"429.*exceeded your current quota"):
        ask(engine_of(server), "[[quota]] a", "[[quota]] b")
    with MisbehavingServer() as server, pytest.raises(EndpointError, match=r"403.*not for you"):
        ask(engine_of(server), *(f"[[forbidden]] {number}" for number in range(8)))


@pytest.mark.parametrize("kind", ["forbidden", "unsupported", "bad_request"])
def test_rows_that_are_refused_while_others_are_answered_are_no_fault_of_every_request_when_asked_again(
    engine_of: Callable[..., OpenAIBatchEngine], kind: str
) -> None:
    odd = [f"[[{kind}]] {number}" for number in range(12)]
    with MisbehavingServer() as server:
        engine = engine_of(server)
        assert ask(engine, *odd, "fine", "more")[-1].finish_reason == "stop"
        assert {answer.finish_reason[:15] for answer in ask(engine, *odd)} <= {"error: status 4"}


@pytest.mark.parametrize("kind", ["quota", "forbidden", "bad_request"])
def test_what_an_earlier_job_was_refused_is_asked_again_by_the_next_call(
    engine_of: Callable[..., OpenAIBatchEngine], kind: str
) -> None:
    contents = numbered(10)
    with MisbehavingServer({kind: 1.0}) as server:
        for jobs in (1, 2):
            with pytest.raises(EndpointError):
                ask(engine_of(server), *contents)
            assert len(server.batches) == jobs
        server.troubles = {}
        check(contents, ask(engine_of(server), *contents))
        assert len(server.batches) == 3
        assert max(server.paid.values()) == 1


def test_a_job_in_which_every_row_has_the_same_unknown_fault_is_raised_with_its_words(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    with MisbehavingServer() as server:
        with pytest.raises(EndpointError, match=r"status 400: something is odd about this one \(model 'judge-1'\)"):
            ask(engine_of(server), *(f"[[bad_request]] {number}" for number in range(8)))
        assert len(server.batches) == 1
        few = ask(engine_of(server), "[[bad_request]] a", "[[bad_request]] b")
        assert {answer.finish_reason for answer in few} == {"error: status 400: something is odd about this one"}
        mixed = ask(engine_of(server), *(f"[[bad_request]] {number}" for number in range(20)), "fine")
        assert mixed[-1].finish_reason == "stop"


def test_five_hundred_requests_under_every_trouble_are_each_answered_once(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    rows = {"500": 0.03, "429": 0.03, "reset": 0.03, "bad_json": 0.02, "truncated": 0.04, "content_filter": 0.03}
    jobs = ["expired", "doubled", "cancelled", "unknown", "no_room", "unreadable", "missing", "expired", "lost_create"]
    contents = numbered(500)
    with MisbehavingServer(rows, seed=5, fates=jobs) as server:
        answers = ask(engine_of(server, requests_per_batch=40, max_rounds=12), *contents)
    reasons = [answer.finish_reason for answer in answers]
    twice = sum(count > 1 for count in server.paid.values())
    # What the vendor ran and then lost is run again, and may be cut short or refused both times.
    assert server.counts["content_filter"] - twice <= reasons.count("refused") <= server.counts["content_filter"]
    assert server.counts["truncated"] - twice <= reasons.count("length") <= server.counts["truncated"]
    assert set(reasons) == {"stop", "length", "refused"}
    assert reasons.count("stop") == 500 - reasons.count("refused") - reasons.count("length")
    assert 0 < twice <= 40 / 3 + 1  # only what the vendor ran and then lost: a third of the job called `missing`
    assert max(server.paid.values()) == 2
    whole = [
        (content, answer) for content, answer in zip(contents, answers, strict=True) if answer.finish_reason == "stop"
    ]
    check([content for content, _ in whole], [answer for _, answer in whole])


# ---- the endpoint as a whole ----


def test_the_key_is_checked_before_anything_is_submitted_and_not_shown(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    with MisbehavingServer(key="another key") as server, pytest.raises(EndpointError, match=r"401.*\[key\]") as caught:
        ask(engine_of(server), "x")
    assert SECRET not in str(caught.value)


def test_a_server_that_is_gone_is_a_connection_error(engine_of: Callable[..., OpenAIBatchEngine]) -> None:
    with MisbehavingServer() as server:
        engine = engine_of(server, max_retries=1)
    with pytest.raises(ConnectionError, match="listing the batches"):
        ask(engine, "x")


def test_azure_batches_name_its_own_path_and_deployment() -> None:
    with MisbehavingServer(key=SECRET) as server:
        engine = OpenAIBatchEngine(batch_spec(server.root, api_version="2024-10-21"))
        check(["x"], ask(engine, "x"))
        engine.close()
        line = json.loads(server.files["file-0"])
    assert (line["url"], line["body"]["model"]) == ("/chat/completions", "judge-1")
    paths = {call.path for call in server.calls}
    assert {"/openai/files", "/openai/batches", "/openai/batches/batch-0000"} <= paths
    assert all(call.query["api-version"] == ["2024-10-21"] for call in server.calls)


# ---- nothing is paid twice ----


def test_a_job_whose_creation_went_unanswered_is_found_and_not_created_again(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    with MisbehavingServer(fates=["lost_create"]) as server:
        engine = engine_of(server)
        check(numbered(4), ask(engine, *numbered(4)))
        assert len(server.batches) == 1
    assert engine.counts["attached"] == 1


KILLED = """
import sys
from infra.engines.specs import OpenAIBatchSpec
from infra.engines.openai_batch import OpenAIBatchEngine
from tests.infra.misbehaving import Asked

engine = OpenAIBatchEngine(OpenAIBatchSpec.model_validate_json(sys.argv[1]))
engine.answer([Asked(f"passage {number}") for number in range(30)])
"""


def test_an_engine_killed_in_the_middle_leaves_jobs_that_the_next_one_takes_up(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    with MisbehavingServer(fates=["expired", "completed", "completed"]) as server:
        server.held = True
        spec = batch_spec(server.url, requests_per_batch=10).model_dump_json()
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, "-c", KILLED, spec], env=variables, cwd=ROOT)
        try:
            deadline = time.monotonic() + 120
            while len(server.batches) < 3 and time.monotonic() < deadline:
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        server.held = False
        engine = engine_of(server, requests_per_batch=10)
        check(numbered(30), ask(engine, *numbered(30)))
        assert len(server.batches) == 4  # three before the kill, and one for what expired
        assert max(server.paid.values()) == 1
        assert engine.counts["attached"] == 3


def test_what_has_all_been_answered_before_is_fetched_and_not_asked_again_in_any_order(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    contents = numbered(9)
    with MisbehavingServer(fates=["expired", "missing"]) as server:
        check(contents, ask(engine_of(server), *contents))
        before, paid = len(server.batches), sum(server.paid.values())
        second = engine_of(server)
        check(contents[::-1], ask(second, *contents[::-1]))
        assert (len(server.batches), sum(server.paid.values())) == (before, paid)
    assert second.counts["attached"] == before
    assert "submitted" not in second.counts


@pytest.mark.parametrize("fate", ["failed", "no_output"])
def test_a_job_that_holds_no_answers_does_not_stand_in_the_way_of_a_new_one(
    engine_of: Callable[..., OpenAIBatchEngine], fate: str
) -> None:
    with MisbehavingServer(fates=[fate]) as server:
        ask(engine_of(server, max_rounds=1), "x")
        check(["x"], ask(engine_of(server, max_rounds=1), "x"))
        assert len(server.batches) == 2


def test_a_file_that_the_vendor_deleted_since_is_asked_for_again(engine_of: Callable[..., OpenAIBatchEngine]) -> None:
    with MisbehavingServer() as server:
        check(["x"], ask(engine_of(server), "x"))
        del server.files[server.batches["batch-0000"]["output_file_id"]]
        check(["x"], ask(engine_of(server, max_rounds=1), "x"))
        assert len(server.batches) == 2


def test_jobs_are_found_on_every_page_of_the_list_and_those_of_others_are_left_alone(
    engine_of: Callable[..., OpenAIBatchEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.engines.openai_batch, "_PAGE", 2)
    with MisbehavingServer() as server:
        check(["x"], ask(engine_of(server), "x"))
        for metadata in (None, {"team": "another"}, {"reneg": "another digest"}, None, None):
            fields = {"input_file_id": "file-0", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            server.add_batch({**fields, "metadata": metadata})
        before = len(server.calls)
        check(["x"], ask(engine_of(server), "x"))
        assert sum(call.path == "/v1/batches" for call in server.calls[before:]) == 3
        assert len(server.batches) == 6


class Holding(MisbehavingServer):
    """Lets the first job go on until it is told otherwise."""

    released = False

    def look_at(self, name: str) -> dict[str, Any]:
        self.held = name == "batch-0000" and not self.released
        return super().look_at(name)


def test_a_vendor_without_room_is_not_asked_again_while_another_job_of_ours_runs(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    with Holding(fates=["completed", "no_room"]) as server:
        engine = engine_of(server, requests_per_batch=2, parallel=2)
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.extend(ask(engine, *numbered(4))))
        thread.start()
        deadline = time.monotonic() + 60
        while not engine.counts["no_room"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        looks = len(server.calls)
        while len(server.calls) < looks + 20:  # of the first job
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(server.batches) == 2
        server.released = True
        thread.join(60)
    check(numbered(4), answers)
    assert engine.counts == {"submitted": 3, "no_room": 1}


class Losing(MisbehavingServer):
    """Answers no creation of a job, and creates none."""

    def add_batch(self, fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        return "lost_create", {}


def test_a_job_that_cannot_be_created_is_tried_max_retries_times_more(
    engine_of: Callable[..., OpenAIBatchEngine],
) -> None:
    with Losing() as server, pytest.raises(ConnectionError, match="creating a batch: connection"):
        ask(engine_of(server, max_retries=2), "x")
    assert sum((call.method, call.path) == ("POST", "/v1/batches") for call in server.calls) == 3
