"""An instruction reranker under the real vLLM gives the P of a forward pass by hand, and of sentence-transformers.

As a program (`python -m tests.infra.engines.rerankers.test_under_vllm MODEL`) this file asks vLLM, in a process of its
own, and prints the scores as JSON.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace
from typing import Any

import pytest

from infra.engines.kinds import KINDS, build_engine, environment
from infra.engines.rerankers.pair_tokens import PairTokens
from infra.engines.rerankers.under_vllm import VLLMReranker
from infra.engines.specs import TEMPLATES, CrossEncoderSpec, VLLMRerankerSpec
from infra.models.random_models import build_tiny_reranker
from tests.conftest import ROOT
from tests.infra.engines.rerankers.asked import ENDLESS, INSTRUCTION, LONG, LONGEST, PAIRS, ByHand

QWEN3 = TEMPLATES["qwen3"]
NO_SUFFIX = QWEN3.model_copy(update={"suffix": ""})
NO_INSTRUCTION = QWEN3.model_copy(update={"instruction": ""})
ASKED = [*PAIRS, LONG, ENDLESS]


def spec_of(folder: Path) -> VLLMRerankerSpec:
    """A length that leaves the same room for a prompt as under sentence-transformers: one token is generated."""
    return VLLMRerankerSpec(
        model=str(folder), digest="d", dtype="float32", max_model_len=LONGEST + 1, cpu_kvcache_gib=0.1, threads=1
    )


def main(folder: Path) -> None:
    engine = build_engine(spec_of(folder))
    found = {"whole": engine.score(ASKED, [INSTRUCTION] * len(ASKED)), "again": engine.score(ASKED[:3])}
    found["again"] += engine.score(ASKED[:3])
    for name, template in (("suffix", NO_SUFFIX), ("instruction", NO_INSTRUCTION)):
        engine._tokens = PairTokens(folder, template, LONGEST)
        found[name] = engine.score(PAIRS, [INSTRUCTION] * len(PAIRS) if name == "suffix" else [])
    engine.close()
    sys.stdout.write(json.dumps(found) + "\n")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_engines_give_one_p_that_needs_instruction_and_suffix(tmp_path: Path) -> None:
    build_tiny_reranker(tmp_path)
    variables = {**os.environ, **environment(spec_of(tmp_path)), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.infra.engines.rerankers.test_under_vllm", str(tmp_path)]
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])

    by_hand = ByHand(tmp_path)
    *whole, endless = found["whole"]
    assert whole == pytest.approx(by_hand.score(ASKED[:-1]), abs=1e-4)
    assert math.isnan(endless)
    assert stdev(whole) >= 0.2
    assert found["again"][:3] == found["again"][3:]

    given: dict[str, Any] = {"model": str(tmp_path), "digest": "c", "max_seq_length": LONGEST, "template": "qwen3"}
    other = build_engine(CrossEncoderSpec.model_validate(given))
    assert whole == pytest.approx(other.score(ASKED[:-1], [INSTRUCTION] * (len(ASKED) - 1)), abs=1e-3)

    assert found["suffix"] == pytest.approx(by_hand.score(PAIRS, suffix=""), abs=1e-4)
    assert found["instruction"] == pytest.approx(by_hand.score(PAIRS, None), abs=1e-4)
    for name in ("suffix", "instruction"):
        assert mean(abs(one - two) for one, two in zip(whole, found[name], strict=False)) > 0.05


class Core:
    """Stands in for vLLM: gives each prompt the log-probabilities that the test wants."""

    def __init__(self, no: float, yes: float) -> None:
        self.no, self.yes = no, yes
        self.resets, self.stopped = 0, False
        core = SimpleNamespace(shutdown=lambda: setattr(self, "stopped", True))
        self.llm_engine = SimpleNamespace(engine_core=core)

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    def generate(self, prompts: list[dict[str, list[int]]], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        no, yes = sampling_params.logprob_token_ids
        entry = {no: SimpleNamespace(logprob=self.no), yes: SimpleNamespace(logprob=self.yes)}
        return [SimpleNamespace(outputs=[SimpleNamespace(logprobs=[entry])]) for _ in prompts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranker")
    build_tiny_reranker(folder)
    return folder


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    made = Core(math.log(0.1), math.log(0.3))
    monkeypatch.setattr("infra.engines.rerankers.under_vllm.load_llm", lambda spec: made)
    vllm = SimpleNamespace(SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    return made


def test_p_is_the_share_of_yes_of_the_two_answers(core: Core, folder: Path) -> None:
    engine = VLLMReranker(spec_of(folder))
    scores = engine.score([*PAIRS[:2], ENDLESS])
    assert scores[:2] == pytest.approx([0.75, 0.75])
    assert math.isnan(scores[2])
    assert engine.score([]) == []
    assert core.resets == 2
    engine.close()
    engine.close()
    assert core.stopped


def test_scores_that_are_no_numbers_end_the_engine(core: Core, folder: Path) -> None:
    core.yes = math.nan
    with pytest.raises(RuntimeError, match=r"2 of 2 scores are not numbers; try dtype=float32"):
        VLLMReranker(spec_of(folder)).score(PAIRS[:2])


def test_a_list_of_answers_that_is_too_short_is_refused(
    core: Core, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "generate", lambda *prompts, **how: [])
    with pytest.raises(RuntimeError, match="vLLM gave 0 answers to 2 prompts"):
        VLLMReranker(spec_of(folder)).score(PAIRS[:2])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a folder with the reranker's weights expected, .*none' is none"):
        VLLMReranker(spec_of(tmp_path / "none"))
    assert KINDS["vllm_reranker"].does == "score"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
