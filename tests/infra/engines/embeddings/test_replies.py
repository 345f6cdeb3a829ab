"""What an endpoint's responses to a request for vectors mean."""

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from infra.engines.embeddings.replies import Page, advise, read_page, request_of, shortened
from infra.engines.openai_requests import Reply, Trouble
from infra.engines.specs import OpenAIEmbeddingsSpec


def _reply(data: Any, status: int = 200, **more: Any) -> Reply:
    return Reply(status, json.dumps({"object": "list", "data": data, **more}))


def _item(index: Any, vector: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": vector}


def _packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _error(status: int, message: str, **more: str) -> Reply:
    return Reply(status, json.dumps({"error": {"message": message, **more}}))


def _told(reply: Reply, count: int = 1, dimension: int | None = None) -> Trouble:
    found = read_page(reply, count, dimension)
    assert isinstance(found, Trouble)
    return found


def test_only_what_is_set_is_sent() -> None:
    spec = OpenAIEmbeddingsSpec(model="m", encoding_format="float", extra_body={"truncate_prompt_tokens": 512})
    assert request_of(spec, ["a", "b"]) == {
        "model": "m",
        "input": ["a", "b"],
        "encoding_format": "float",
        "truncate_prompt_tokens": 512,
    }


def test_vectors_come_in_the_order_of_their_index_in_either_encoding() -> None:
    said = [_item(1, [3.0, 4]), _item(0, _packed(0.1, -2.0))]
    page = read_page(_reply(said, model="m-1", usage={"prompt_tokens": 7, "total_tokens": 9}), 2, None)
    assert isinstance(page, Page)
    assert page.vectors.tolist() == [[np.float32(0.1), -2.0], [3.0, 4.0]]
    assert (page.tokens, page.model, page.unusable) == (7, "m-1", [])
    floats = read_page(_reply([_item(0, [float(np.float32(0.1)), -2.0])]), 1, 2)
    assert isinstance(floats, Page)
    assert (floats.vectors[0] == page.vectors[0]).all()


def test_the_only_vector_of_one_text_needs_no_index() -> None:
    page = read_page(_reply([{"embedding": [3.0, 4.0]}]), 1, None)
    assert isinstance(page, Page)
    assert page.vectors.tolist() == [[3.0, 4.0]]
    assert "got 2 (None, None)" in str(_told(_reply([{"embedding": [1.0]}] * 2), 2))
    assert "got 1 (1)" in str(_told(_reply([_item(1, [1.0])])))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([_item(0, [1.0])], "2 vectors with the `index` 0 to 1 expected, got 1 (0)"),
        ([_item(0, [1.0]), _item(0, [1.0])], "got 2 (0, 0)"),
        ([_item(0, [1.0]), _item(None, [1.0])], "got 2 (0, None)"),
        ([_item(0, [1.0]), _item(1, [None])], "a list of numbers or in base64"),
        ([_item(0, [1.0]), _item(1, [[1.0]])], "a list of numbers or in base64"),
        ([_item(0, [1.0]), _item(1, "AAAA")], "whole float32 numbers expected in base64, 3 bytes"),
        ([_item(0, [1.0]), _item(1, "§")], "only ASCII"),
        ([_item(0, [1.0]), {"index": 1}], "embedding"),
        ("vectors", "a list of vectors expected in `data`"),
        ([], "got none"),
    ],
)
def test_a_vector_that_is_missing_twice_or_none_is_told_and_asked_for_again(data: Any, words: str) -> None:
    found = _told(_reply(data), 2)
    assert words in str(found)
    assert found.passing


def test_a_wrong_number_of_dimensions_is_a_fault_of_every_request() -> None:
    found = _told(_reply([_item(0, [1.0, 2.0])]), 1, 3)
    assert found.fatal
    assert str(found) == "dimensions: 3 numbers in each vector expected, 2 came"
    mixed = _told(_reply([_item(0, [1.0, 2.0]), _item(1, [1.0])]), 2)
    assert str(mixed) == "dimensions: vectors of one length expected, 1, 2 came"
    assert _told(_reply([_item(0, [])])).fatal


def test_vectors_without_a_direction_are_named() -> None:
    said = Reply(200, '{"data": [{"index": 0, "embedding": [NaN, 1]}, {"index": 1, "embedding": [1e300, 1]}, '
                      '{"index": 2, "embedding": [0, 0]}, {"index": 3, "embedding": [0, 1]}]}')  # fmt: skip
    page = read_page(said, 4, None)
    assert isinstance(page, Page)
    assert page.unusable == [0, 1, 2]


@pytest.mark.parametrize(
    "reply",
    [
        _error(
            400, "This model's maximum context length is 512 tokens. However, you requested 600 tokens in the input"
        ),
        _error(413, "`inputs` must have less than 512 tokens. Given: 600"),
        _error(422, "batch size 64 > maximum allowed batch size 32"),
        _error(500, "input is too large to process. increase the physical batch size"),
        _error(400, "Input id 0 has 9000 tokens, exceeding max 8192 tokens."),
        _error(400, "Invalid 'input': maximum request size is 300000 tokens per request."),
        _error(400, "Invalid 'input': see the reference", code="array_above_max_length"),
        _error(400, "Invalid 'input'.", code="max_tokens_per_request"),
        _error(429, "Request too large for m on tokens per min (TPM): Limit 30000, Requested 50000."),
    ],
)
def test_what_is_too_much_is_told_from_other_faults(reply: Reply) -> None:
    found = _told(reply)
    assert (found.kind, found.passing, found.fatal) == ("too_long", False, False)


@pytest.mark.parametrize(
    ("reply", "kind", "passing", "fatal"),
    [
        (_error(429, "Rate limit reached on tokens per min: Limit 40000, Requested 500"), "429", True, False),
        (_error(500, "the server had an error"), "500", True, False),
        (_error(401, "Incorrect API key"), "401", False, True),
        (_error(400, "This model does not support specifying dimensions."), "dimensions", False, True),
        (_error(400, "Model does not support matryoshka representation"), "dimensions", False, True),
        (_error(422, "unknown field encoding_format"), "encoding_format", False, True),
        (_error(400, "odd"), "400", False, False),
    ],
)
def test_other_faults_stay_what_they_are(reply: Reply, kind: str, passing: bool, fatal: bool) -> None:
    found = _told(reply)
    assert (found.kind, found.passing, found.fatal) == (kind, passing, fatal)


def test_a_limit_of_dimensions_is_no_limit_of_a_text_where_dimensions_are_asked_for() -> None:
    reply = _error(400, "dimensions 4096 exceeds the maximum output length of 1024")
    found = read_page(reply, 1, 4096, sized=True)
    assert isinstance(found, Trouble)
    assert (found.kind, found.fatal) == ("dimensions", True)
    assert _told(reply).kind == "too_long"
    long = read_page(_error(400, "exceeding max 8192 tokens."), 1, 4096, sized=True)
    assert isinstance(long, Trouble)
    assert long.kind == "too_long"


def test_a_text_is_shortened_in_proportion_within_bounds() -> None:
    assert len(shortened("a" * 1000, "limit 100, got 100000")) == 100
    assert len(shortened("a" * 1000, "limit 512, got 513")) == 900
    assert shortened("a", "too long") == ""


def test_a_number_in_a_name_or_a_small_one_is_no_limit() -> None:
    for words in ("text-embedding-ada-002: 600 tokens are too long", "m2024 of 2024-05-13: too long", "input 12 of 13"):
        assert len(shortened("a" * 1000, words)) == 500
    assert len(shortened("a" * 1000, "text-embedding-ada-002 has a 512-token limit, you sent 640")) == 760


def test_each_fault_of_every_request_names_the_setting() -> None:
    assert "`dimensions`" in advise("dimensions", "", "K")
    assert "`encoding_format: float`" in advise("encoding_format", "", "K")
    assert "`revision`" in advise("model", "", "K")
    assert "`batch_size: 1`" in advise("body", "no index", "K")
    assert "that of a page" in advise("body", "text/html came", "K")
    assert "variable K" in advise("401", "", "K")
    assert "quota" in advise("400", "odd", "K")
