"""Vectors by an endpoint, asked of a real server on loopback that misbehaves on purpose."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest

import infra.engines.openai_endpoint
from infra.engines.answers import EndpointError
from infra.engines.embeddings.endpoint import Embedded, OpenAIEmbeddings
from infra.engines.kinds import build_engine
from infra.engines.specs import OpenAIEmbeddingsSpec
from tests.conftest import free_port
from tests.infra.misbehaving import SECRET, MisbehavingServer, as_json, vector_of

Make = Callable[..., OpenAIEmbeddings]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setattr(infra.engines.openai_endpoint, "_FIRST_DELAY", 0.01)


@pytest.fixture
def engine_of() -> Iterator[Make]:
    engines = []

    def make(server: MisbehavingServer | str, **changes: Any) -> OpenAIEmbeddings:
        url = server if isinstance(server, str) else server.url
        settings = {"model": "embed-1", "base_url": url, "timeout": 20.0, "batch_size": 4, "max_retries": 2, **changes}
        engines.append(build_engine(OpenAIEmbeddingsSpec(**settings)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def _unit(text: str, width: int = 8) -> np.ndarray[Any, Any]:
    vector = np.array(vector_of(text, width))
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _check(came: Embedded, texts: list[str]) -> None:
    assert list(came.found) == list(range(len(texts)))
    assert came.vectors.dtype == pl.Array(pl.Float32, 8)
    assert np.array_equal(came.vectors.to_numpy(), np.stack([_unit(text) for text in texts]))
    assert (came.refused, came.error) == ({}, None)


@pytest.mark.parametrize("encoding_format", ["base64", "float"])
def test_texts_go_out_in_batches_and_come_back_as_unit_vectors_in_order(engine_of: Make, encoding_format: str) -> None:
    texts = [f"text number {number}" for number in range(11)]
    with MisbehavingServer(key=SECRET) as server:
        came = engine_of(server, encoding_format=encoding_format).embed(texts, "passage")
    _check(came, texts)
    assert sorted(len(call.body["input"]) for call in server.calls) == [3, 4, 4]
    assert {call.path for call in server.calls} == {"/v1/embeddings"}
    assert {call.body["encoding_format"] for call in server.calls} == {encoding_format}
    assert all("dimensions" not in call.body for call in server.calls)
    assert (came.calls, came.prompt_tokens) == (3, sum(len(text) // 4 + 1 for text in texts))
    assert came.model == "embed-1-dated"


def test_prompts_stand_before_the_text_which_alone_is_cut(engine_of: Make) -> None:
    with MisbehavingServer() as server:
        engine = engine_of(server, query_prompt="query: ", max_chars=16, dimensions=5)
        assert engine.embed(["x" * 99], "query").vectors.dtype == pl.Array(pl.Float32, 5)
        engine.embed(["y" * 99], "passage")
    assert [call.body["input"] for call in server.calls] == [["query: " + "x" * 16], ["y" * 16]]
    assert {call.body["dimensions"] for call in server.calls} == {5}


def test_what_may_pass_is_tried_again_and_no_text_is_paid_twice(engine_of: Make) -> None:
    kinds = ("429", "500", "reset", "bad_json", "no_choices")
    texts = [f"text {number} [[{kind}*2]]" for number in range(2) for kind in kinds]
    with MisbehavingServer() as server:
        engine = engine_of(server, batch_size=1)
        _check(engine.embed(texts, "passage"), texts)
        assert set(server.embedded.values()) == {1}
    assert engine.counts == {"retry_429": 4, "retry_500": 4, "retry_connection": 4, "retry_body": 8}


def test_a_text_that_is_too_long_is_found_in_its_batch_and_sent_shorter(engine_of: Make) -> None:
    texts = ["short one", "word " * 200, "short two", "short three"]
    with MisbehavingServer(longest=300) as server:
        engine = engine_of(server)
        came = engine.embed(texts, "passage")
        again = engine_of(server, batch_size=1).embed(texts, "passage")
    assert list(came.found) == [0, 1, 2, 3]
    assert came.vectors.equals(again.vectors)  # whatever texts it was sent with
    assert engine.counts["shortened"] == 1
    assert max(map(len, server.embedded)) <= 300


def test_what_stays_too_long_says_which_setting(engine_of: Make) -> None:
    with MisbehavingServer(longest=40) as server:
        came = engine_of(server, passage_prompt="p" * 41).embed(["text", "other"], "passage")
    assert list(came.found) == []
    assert "lower the encoder's `max_chars`, or its prompt" in came.refused[0]


def test_a_refused_text_gets_its_reason_and_harms_no_other(engine_of: Make) -> None:
    texts = [f"text {number}" for number in range(10)]
    texts[6] = "[[content_filter]]"
    with MisbehavingServer() as server:
        came = engine_of(server).embed(texts, "passage")
    assert list(came.found) == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert came.refused == {6: "refused: The response was filtered"}
    assert set(server.embedded.values()) == {1}


def _raw(change: Callable[[list[dict[str, Any]], list[str]], None], **more: Any) -> Callable[[Mapping[str, Any]], Any]:
    """Answer with right vectors that were changed."""

    def answer(body: Mapping[str, Any]) -> tuple[int, str, bytes]:
        data = [{"index": place, "embedding": vector_of(text, 8)} for place, text in enumerate(body["input"])]
        change(data, body["input"])
        return as_json({"object": "list", "data": data, "model": "m", **more})

    return answer


def test_a_vector_that_is_no_direction_is_asked_for_once_more_and_then_told(engine_of: Make) -> None:
    def spoil(data: list[dict[str, Any]], texts: list[str]) -> None:
        for item, text in zip(data, texts, strict=True):
            if text == "bad" or (text == "shy" and len(texts) > 1):
                item["embedding"] = [float("nan")] * 8

    with MisbehavingServer(raw=_raw(spoil)) as server:
        came = engine_of(server).embed(["good", "bad", "shy"], "passage")
    assert list(came.found) == [0, 2]
    assert came.refused == {1: "the endpoint's vector holds numbers that are not finite, or zeros alone"}
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data, _: data.pop(), "4 vectors with the `index` 0 to 3 expected, got 3 .*`batch_size: 1`"),
        (lambda data, _: data[0].update(index=1), r"got 4 \(1, 1, 2, 3\).*`batch_size: 1`"),
        (lambda data, _: data[0]["embedding"].pop(), "vectors of one length expected, 7, 8 came.*`dimensions`"),
    ],
    ids=["missing", "out of order", "of another length"],
)
def test_vectors_that_cannot_be_told_apart_are_an_error(engine_of: Make, change: Any, told: str) -> None:
    with MisbehavingServer(raw=_raw(change)) as server:
        came = engine_of(server).embed(["a", "b", "c", "d"], "passage")
    assert list(came.found) == []
    with pytest.raises((ConnectionError, EndpointError), match=told):
        raise came.error or AssertionError


def test_another_dimension_or_model_than_before_ends_it_and_what_came_is_kept(engine_of: Make) -> None:
    with MisbehavingServer() as server:
        engine = engine_of(server)
        first = engine.embed(["a", "b"], "passage")
        server.dimension = 5
        came = engine.embed(["c"], "passage")
        assert "8 numbers in each vector expected, 5 came" in str(came.error)
        with pytest.raises(EndpointError, match="8 numbers"):
            engine.embed(["d"], "passage")
    assert list(first.found) == [0, 1]
    models = iter(["one", "two"])
    with MisbehavingServer(raw=lambda body: as_json({"model": next(models), "data": [
            {"index": 0, "embedding": [1.0]}]})) as server:  # fmt: skip
        came = engine_of(server, batch_size=1, concurrency=1).embed(["a", "b"], "passage")
    assert list(came.found) == [0]
    assert "answered as 'one' before, and as 'two' now" in str(came.error)
    assert "`revision`" in str(came.error)


def test_dimensions_that_the_endpoint_ignores_are_told(engine_of: Make) -> None:
    with MisbehavingServer(raw=_raw(lambda data, _: None)) as server:
        came = engine_of(server, dimensions=4).embed(["a"], "query")
    assert "4 numbers in each vector expected, 8 came" in str(came.error)


def test_a_refused_key_is_asked_once_and_never_shown(engine_of: Make) -> None:
    with MisbehavingServer(key="sk-another-key-0123") as server:
        came = engine_of(server).embed([f"text {number}" for number in range(40)], "passage")
        assert len(server.calls) == 1
    assert isinstance(came.error, EndpointError)
    assert "check the key in the variable OPENAI_API_KEY" in str(came.error)
    assert SECRET not in str(came.error)


def test_equal_faults_of_every_text_end_it_soon(engine_of: Make) -> None:
    error = as_json({"error": {"message": "something is odd"}}, 400)
    with MisbehavingServer(raw=lambda _: error) as server:
        came = engine_of(server, batch_size=64).embed([f"text {number}" for number in range(640)], "passage")
        assert len(server.calls) < 20
    assert "something is odd" in str(came.error)


def test_an_endpoint_that_is_not_there_is_told(engine_of: Make) -> None:
    came = engine_of(f"http://127.0.0.1:{free_port()}/v1").embed(["a"] * 9, "passage")
    assert isinstance(came.error, ConnectionError)
    assert "no response to 3 tries" in str(came.error)


def test_an_outage_in_between_keeps_what_came(engine_of: Make) -> None:
    with MisbehavingServer() as server:
        came = engine_of(server, batch_size=1, concurrency=1).embed(["a", "b", "[[503]]", "c"], "passage")
    assert list(came.found) == [0, 1]
    assert isinstance(came.error, ConnectionError)
    assert "run again later" in str(came.error)
    assert came.prompt_tokens == 2


def test_without_usage_tokens_are_estimated_and_counted(engine_of: Make) -> None:
    with MisbehavingServer(raw=_raw(lambda data, _: None)) as server:
        engine = engine_of(server)
        assert engine.embed(["x" * 400], "passage").prompt_tokens == 100
    assert engine.counts["no_usage"] == 1


def test_azure_is_asked_by_deployment_and_version(engine_of: Make) -> None:
    with MisbehavingServer() as server:
        engine_of(server.root, api_version="2024-10-21").embed(["a"], "query")
    (call,) = server.calls
    assert call.path == "/openai/deployments/embed-1/embeddings"
    assert call.query == {"api-version": ["2024-10-21"]}
    assert call.headers["api-key"] == SECRET


def test_plain_http_to_another_machine_and_a_missing_key_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unencrypted"):
        OpenAIEmbeddings(OpenAIEmbeddingsSpec(model="m", base_url="http://gpu.example/v1"))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="OPENAI_API_KEY should hold the endpoint's key"):
        OpenAIEmbeddings(OpenAIEmbeddingsSpec(model="m"))


def test_no_texts_ask_nothing_and_a_wrong_role_is_refused(engine_of: Make) -> None:
    with MisbehavingServer() as server:
        engine = engine_of(server)
        assert engine.embed([], "query").vectors.is_empty()
        with pytest.raises(ValueError, match="role"):
            engine.embed(["a"], "document")  # type: ignore[arg-type]
        assert server.calls == []
        assert json.dumps(dict(engine.counts)) == "{}"
