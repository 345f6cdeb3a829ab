"""An instruction reranker under sentence-transformers gives the P that a forward pass by hand gives."""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from infra.engines.kinds import build_engine
from infra.engines.rerankers.causal import CausalReranker
from infra.engines.specs import TEMPLATES, CrossEncoderSpec
from infra.models.random_models import build_tiny_reranker
from tests.infra.engines.rerankers.asked import ENDLESS, INSTRUCTION, LONG, LONGEST, PAIRS, ByHand

QWEN3 = TEMPLATES["qwen3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranker")
    build_tiny_reranker(folder)
    return folder


def engine(folder: Path, **changes: Any) -> Any:
    given = {"model": str(folder), "digest": "c", "max_seq_length": LONGEST, "template": "qwen3", **changes}
    return build_engine(CrossEncoderSpec.model_validate(given))


def test_scores_are_those_of_a_forward_pass_by_hand_and_differ(folder: Path) -> None:
    ours = engine(folder, batch_size=5)
    asked = [*PAIRS, LONG]
    scores = ours.score(asked, [INSTRUCTION] * len(asked))
    assert scores == pytest.approx(ByHand(folder).score(asked), abs=1e-5)
    assert stdev(scores) >= 0.2
    assert ours.score(PAIRS) == pytest.approx(ByHand(folder).score(PAIRS, QWEN3.instruction), abs=1e-5)
    assert ours.score([]) == []


def test_without_instruction_or_suffix_the_score_is_another(folder: Path) -> None:
    whole = engine(folder).score(PAIRS, [INSTRUCTION] * len(PAIRS))
    for left_out in ("instruction", "suffix"):
        template = QWEN3.model_copy(update={"instruction": "", **({"suffix": ""} if left_out == "suffix" else {})})
        instructions = [INSTRUCTION] * len(PAIRS) if left_out == "suffix" else []
        without = engine(folder, template=template).score(PAIRS, instructions)
        changes = [abs(one - other) for one, other in zip(whole, without, strict=True)]
        assert mean(changes) > 0.1
        assert sum(change > 0.05 for change in changes) > len(PAIRS) / 2


def test_the_order_and_size_of_batches_change_nothing_that_counts(folder: Path) -> None:
    ours, single = engine(folder), engine(folder, batch_size=1)
    assert ours.score(PAIRS[::-1])[::-1] == pytest.approx(single.score(PAIRS), abs=1e-5)
    assert ours.score(PAIRS) == ours.score(PAIRS)


def test_a_pair_that_leaves_no_room_for_its_passage_has_no_score(folder: Path) -> None:
    first, second = engine(folder).score([ENDLESS, PAIRS[0]])
    assert first != first  # noqa: PLR0124 - NaN
    assert 0 <= second <= 1


def test_in_bfloat16_scores_are_no_multiples_of_an_eighth(folder: Path) -> None:
    spec = CrossEncoderSpec(model=str(folder), digest="c", dtype="bfloat16", max_seq_length=LONGEST)
    found = CausalReranker(spec, QWEN3).log_odds(PAIRS)
    assert len(set(found)) == len(PAIRS)
    assert not any(value is not None and (value * 8).is_integer() for value in found)
