"""The classes that are passed as a request or an answer have everything that the protocol asks for."""

import dataclasses
from typing import Any

import pytest

from tasks import protocols
from tasks.judging.asker import Kept
from tasks.judging.calls import Call
from tasks.judging.cross_encoder import AsLLM, Scored


@pytest.mark.parametrize(
    ("made", "protocol"), [(Call, protocols.Request), (Kept, protocols.Answer), (Scored, protocols.Answer)]
)
def test_a_dataclass_has_a_field_for_each_property_of_its_protocol(made: Any, protocol: type) -> None:
    wanted = {name for name in vars(protocol) if not name.startswith("_")}
    assert wanted <= {field.name for field in dataclasses.fields(made)}


def test_the_judge_of_a_cross_encoder_answers_like_an_llm() -> None:
    assert {name for name in vars(protocols.LLM) if not name.startswith("_")} <= set(vars(AsLLM))
