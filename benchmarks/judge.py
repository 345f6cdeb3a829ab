"""Measure how well the judges agree with the grades of people (TREC DL 2019): similarity, LLM protocols, fusion.

    python -m benchmarks.judge [--data ../shared/data/trec_dl19] [--prompt yes_no] [--fresh]

Similarity is measured on all judged pairs. The LLM, asked Yes/No and listwise, is measured on one seeded subset of hard
pairs. So are logistic fits on the scores of both, where each query is scored with weights fitted on the other queries.
The script writes benchmarks/results/judge.json and prints its table. Prompts were chosen on half of the queries, so
every judge is also measured on the other half. The weights of similarity were fitted on all judged pairs
(`similarity_trec_dl19`).

Answers are kept in the ledger of `--store`, so a run that was stopped continues. The tokens and seconds of each call
are kept beside them. `--fresh` deletes both. It takes seven minutes for each LLM protocol on two cores.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import judge_measures
from benchmarks.judge_rows import Judged, compare_rows, table
from infra.engines.kinds import build_engine, environment
from infra.engines.specs import VLLMSpec
from infra.ledger.ledger import Ledger
from infra.models.resolve import resolve
from infra.settings import read_settings
from infra.stages import part_keys
from infra.storage.store import Store
from tasks.judging.config import JudgeConfig
from tasks.judging.judge import judge
from tasks.prompts.prompt import prompt_digest

RESULTS = Path(__file__).parent / "results" / "judge.json"
ENCODER = "package:minilm"
MODEL = "w8a8:package:qwen2.5-coder-1.5b-instruct"
TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")
_PAIR = ["dataset", "query_id", "doc_id"]


@dataclass
class Costs:
    """The real cost of each call, over all runs on one store; written after every batch."""

    path: Path
    spent: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Costs":
        """Read the costs of earlier runs."""
        return cls(path, json.loads(path.read_text()) if path.exists() else {})

    def add(self, call_ids: Sequence[str], answers: Sequence[Any], seconds: float) -> None:
        """Write the costs of a batch; each call gets an equal share of its seconds."""
        for call_id, answer in zip(call_ids, answers, strict=True):
            tokens = {name: getattr(answer, name) for name in TOKENS}
            self.spent[call_id] = {**tokens, "seconds": seconds / len(answers)}
        self.path.write_text(json.dumps(self.spent, indent=1) + "\n")

    def total(self, call_ids: Sequence[str]) -> dict[str, float]:
        """Sum up calls."""
        known = [self.spent[call_id] for call_id in call_ids if call_id in self.spent]
        tokens = {name: round(sum(cost[name] for cost in known)) for name in TOKENS}
        return {"calls": len(call_ids), **tokens, "seconds": round(sum(cost["seconds"] for cost in known), 1)}


@dataclass
class Engine:
    """An engine and its costs. It is built at the first question, because the ledger may have all answers."""

    spec: VLLMSpec
    costs: Costs
    built: Any = None

    def answer(self, requests: Sequence[Any]) -> Sequence[Any]:
        """Answer, and count tokens and seconds, without the time to build the engine."""
        self.built = self.built or build_engine(self.spec)
        began = time.perf_counter()
        answers: Sequence[Any] = self.built.answer(requests)
        self.costs.add([request.call_id for request in requests], answers, time.perf_counter() - began)
        return answers


def main() -> None:
    """Measure every judge, write the results and print them."""
    arguments = parse_arguments()
    cache = read_settings().cache
    model = resolve(arguments.model, cache, print)
    spec = VLLMSpec(
        model=str(model.path), digest=model.digest, threads=arguments.threads, max_model_len=4096, cpu_kvcache_gib=2.0
    )
    variables = environment(spec)
    if any(os.environ.get(name) != value for name, value in variables.items()):
        # torch and vLLM read these variables when they are imported, or earlier. So start again with them.
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.judge", *sys.argv[1:]], os.environ | variables)
    if arguments.fresh:
        shutil.rmtree(arguments.store, ignore_errors=True)
    arguments.store.mkdir(parents=True, exist_ok=True)
    engine = Engine(spec, Costs.read(arguments.store / "costs.json"))
    configs = [
        JudgeConfig(protocol="yes_no", prompt=arguments.prompt),
        JudgeConfig(protocol="listwise"),
    ]
    named: dict[str, JudgeConfig] = {config.protocol: name_judge(config, model.name, spec) for config in configs}
    result = compare(arguments, resolve(ENCODER, cache, print).path, named, engine)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the judges with the grades of people on TREC DL 2019")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/trec_dl19"), help="folder of the collection")
    parser.add_argument("--model", default=MODEL, help="reference of the language model")
    parser.add_argument("--prompt", default="yes_no", help="prompt file of the Yes/No judge")
    parser.add_argument("--store", type=Path, default=Path(".reneg/benchmarks/judge"), help="where answers are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="ask everything again")
    return parser.parse_args()


def name_judge(config: JudgeConfig, model: str, spec: VLLMSpec) -> JudgeConfig:
    """Name the judge as a curation does: model, engine, prompt."""
    prompt = prompt_digest(config.prompt_name)
    return config.model_copy(
        update={"judge": f"{model}:{part_keys.digest(part_keys.semantic(spec))[:12]}/{prompt[:12]}"}
    )


def compare(  # imports inside: they load torch, and the environment must be set before
    arguments: argparse.Namespace, encoder: Path, configs: Mapping[str, JudgeConfig], engine: Engine
) -> dict[str, Any]:
    """Judge the collection with every judge, and measure them."""
    from benchmarks.judge_data import (
        HARDEST,
        PER_QUERY,
        SEED,
        hard_pairs,
        queries_tuned_on,
        read_collection,
        similarities,
    )

    collection = read_collection(arguments.data)
    similarity = similarities(collection, encoder)
    hard = hard_pairs(collection.candidates)
    answers: dict[str, pl.DataFrame] = {}
    costs: dict[str, dict[str, float]] = {}
    texts = {"queries": collection.queries, "passages": collection.passages, "positives": collection.positives}
    with Ledger(Store.open(str(arguments.store))) as ledger:
        for name, config in configs.items():
            found = judge(config, escalated=hard, **texts, engine=engine, ledger=ledger)
            answers[name] = found["verdicts"].select(*_PAIR, "score")
            costs[name] = engine.costs.total(found["calls"]["call_id"].to_list())
    judged = Judged(similarity, answers, frozenset(queries_tuned_on(collection.candidates)))
    prompts = {
        name: {"prompt": config.prompt_name, "sha256": prompt_digest(config.prompt_name), "judge": config.judge}
        for name, config in configs.items()
    }
    return {
        "command": "python -m benchmarks.judge",
        "collection": "trec_dl19",
        "model": arguments.model,
        "encoder": ENCODER,
        "threads": arguments.threads,
        "judges": prompts,
        "hard": {"highest_ranked": HARDEST, "drawn_per_query": PER_QUERY, "seed": SEED},
        "bootstrap": {"draws": judge_measures.DRAWS, "seed": judge_measures.SEED, "interval": 0.95},
        **compare_rows(judged, costs),
    }


if __name__ == "__main__":
    main()
