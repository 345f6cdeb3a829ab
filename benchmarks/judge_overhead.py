"""Measure what the pipeline costs the judge: pairs judged per second through the pipeline, compared with vLLM alone.

Each round judges the same pairs twice. Once through the whole pipeline: a Prefect flow run, one task run per part, the
engine in its Ray actor, inputs from the store, answers into an empty ledger, tables and manifests written. And once by
one call of `vllm.LLM.generate` in an actor of its own, with the same prompts in the same order and the same arguments
of the engine. Both engines are warm and start with an empty prefix cache, and all servers are idle. Time is measured
from the submission of the stage to its last manifest. `ratio` is the median over the rounds of raw seconds / pipeline
seconds. The order of the two alternates.

    python -m benchmarks.judge_overhead --model w8a8:package:qwen2.5-coder-1.5b-instruct

writes benchmarks/results/judge_overhead.json. Run it on a machine that is otherwise idle.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from infra.settings import read_settings, silence_telemetry

silence_telemetry()
RESULT = Path(__file__).parent / "results" / "judge_overhead.json"


def make_tables(folder: Path, queries: int, passages: int) -> dict[str, pl.DataFrame]:
    """Make pairs from documentation: each query with its labelled passage, and other passages as candidates."""
    from tasks.data.demo_corpus import HarvestConfig, harvest
    from tasks.data.ingest import IngestConfig, ingest
    from tasks.schemas import CANDIDATES
    from tasks.texts import combine_hashes, hash_text

    harvest(HarvestConfig(passages=2050), out=folder)
    parts = ingest(IngestConfig(dataset="bench", known_split="known"), source=folder)
    found = {name: pl.concat(parts[name]) for name in ("queries", "positives", "passages")}
    train = found["queries"].filter(pl.col("split") == "train").sort("text_hash").head(queries)
    hashes = found["positives"].group_by("query_id").agg(pl.col("text_hash").sort())
    corpus = found["passages"].sort("text_hash")
    rows = []
    for row in train.join(hashes, on="query_id", suffix="_positives").iter_rows(named=True):
        start = int(hash_text(row["query_id"])[:8], 16) % (corpus.height - passages)
        for rank, passage in enumerate(corpus.slice(start, passages).iter_rows(named=True), start=1):
            ids = ("bench", row["query_id"], passage["doc_id"], passage["text_hash"])
            positives_hash = combine_hashes(row["text_hash_positives"])
            rows.append((*ids, row["text_hash"], positives_hash, "given", rank, None))
    escalated = pl.DataFrame(rows, schema=CANDIDATES.columns, orient="row")
    return {"escalated": escalated.unique(["query_id", "doc_id"], maintain_order=True), **found}


def raw_engine(spec: Any) -> Any:
    """An actor that holds the same engine without the pipeline."""
    import ray

    from infra.engines.kinds import build_engine, environment

    @ray.remote(num_cpus=0)
    class Raw:
        def __init__(self) -> None:
            self.engine = build_engine(spec)

        def prepare(self, chats: list[Any]) -> int:
            tokenizer = self.engine._llm.get_tokenizer()
            texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
            tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            self.prompts = [{"prompt_token_ids": ids} for ids in tokens]
            return sum(map(len, tokens))

        def warm(self) -> None:
            from vllm import SamplingParams

            self.engine._llm.generate(self.prompts[:8], sampling_params=SamplingParams(max_tokens=1), use_tqdm=False)

        def generate(self, max_tokens: int, top: int) -> float:
            from vllm import SamplingParams

            params = SamplingParams(temperature=0.0, max_tokens=max_tokens, logprobs=top, seed=spec.seed)
            self.engine._llm.reset_prefix_cache()
            started = time.monotonic()
            self.engine._llm.generate(self.prompts, sampling_params=params, use_tqdm=False)
            return time.monotonic() - started

    actor = Raw.options(runtime_env={"env_vars": environment(spec)}).remote()
    return actor


class Pipeline:
    """The judging stage over a new store, through an executor whose engine is kept warm."""

    def __init__(self, executor: Any, tables: dict[str, pl.DataFrame], parts: int, batch_size: int, spec: Any) -> None:
        from tasks.judging.config import JudgeConfig

        self.executor, self.tables, self.parts, self.spec = executor, tables, parts, spec
        self.config = JudgeConfig(judge="bench:0/0", batch_size=batch_size, max_attempts=1)

    def run(self, folder: Path) -> tuple[float, Any]:
        """Judge everything in a store of its own; return the seconds and the run of the stage."""
        from flows import stages as st
        from infra.stages.runner import Runner
        from infra.storage.artifacts import Table, write_table
        from infra.storage.store import Store
        from tasks import schemas

        store = Store.open(str(folder))
        self.executor._store = store  # one warm engine, a new store and ledger in each round
        size = -(-self.tables["escalated"].height // self.parts)
        slices = [self.tables["escalated"].slice(n * size, size) for n in range(self.parts)]
        pieces = tuple(write_table(store, "escalated", frame, schemas.CANDIDATES, n) for n, frame in enumerate(slices))
        inputs = {"escalated": Table("escalated", pieces)}
        for name, schema in (
            ("queries", schemas.QUERIES),
            ("positives", schemas.POSITIVES),
            ("passages", schemas.PASSAGES),
        ):
            whole = write_table(store, name, self.tables[name], schema, 0)  # each part reads what has its own index
            inputs[name] = Table(name, tuple(replace(whole, index=n) for n in range(self.parts)))
        runner = Runner(store, self.executor)
        started = time.monotonic()
        runner(st.JUDGE, self.config, engine=self.spec, **inputs)
        return time.monotonic() - started, runner.runs[0]


def chats_in_order(pipeline: Pipeline) -> list[Any]:
    """Return the prompts that the pipeline asks, in its order."""
    from tasks.judging.calls import make_questions
    from tasks.judging.pointwise import make_calls
    from tasks.prompts.prompt import join_texts

    size = -(-pipeline.tables["escalated"].height // pipeline.parts)
    chats: list[Any] = []
    for number in range(pipeline.parts):
        part = pipeline.tables["escalated"].slice(number * size, size)
        texts = {name: pipeline.tables[name] for name in ("queries", "passages", "positives")}
        questions = make_questions(pipeline.config, join_texts(part, **texts))
        chats += [[dict(m) for m in call.chat] for call in make_calls(pipeline.config, questions, 1, 0)]
    return chats


def measure(arguments: argparse.Namespace, folder: Path, spec: Any) -> list[dict[str, float]]:
    import ray
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    from infra.execution.executor import PrefectRayExecutor
    from infra.storage.store import Store

    rounds: list[dict[str, float]] = []

    @flow(name="overhead", task_runner=ThreadPoolTaskRunner(max_workers=32), persist_result=False)
    def run_rounds() -> None:
        tables = make_tables(folder / "source", arguments.queries, arguments.passages)
        with PrefectRayExecutor(Store.open(str(folder / "none")), folder / "scratch") as executor:
            pipeline = Pipeline(executor, tables, arguments.parts, arguments.batch_size, spec)
            raw = raw_engine(spec)
            tokens = ray.get(raw.prepare.remote(chats_in_order(pipeline)))
            print("pairs", tables["escalated"].height, "prompt tokens", tokens, flush=True)
            small = Pipeline(executor, tables | {"escalated": tables["escalated"].head(16)}, 1, 16, spec)
            small.run(folder / "warm")
            ray.get(raw.warm.remote())
            for number in range(arguments.rounds):
                found: dict[str, float] = {}
                for side in ("pipeline", "raw") if number % 2 == 0 else ("raw", "pipeline"):
                    if side == "raw":
                        found["raw"] = ray.get(raw.generate.remote(1, 20))
                        continue
                    found["pipeline"], run = pipeline.run(folder / f"round-{number}")
                    facts = [m.stats["facts"] for m in run.manifests]
                    found["engine_seconds"] = sum(f["engine_seconds"] for f in facts)
                    assert sum(f["calls"] for f in facts) == tables["escalated"].height
                    assert sum(f["prompt_tokens"] for f in facts) == tokens
                found["ratio"] = found["raw"] / found["pipeline"]
                rounds.append({name: round(value, 4) for name, value in found.items()})
                print(rounds[-1], flush=True)

    run_rounds()
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="w8a8:package:qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=12)
    parser.add_argument("--passages", type=int, default=8, help="per query")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--no-write", action="store_true")
    arguments = parser.parse_args()
    from prefect.settings import PREFECT_HOME, temporary_settings

    from infra.cluster.ray_cluster import ray_cluster
    from infra.engines.specs import VLLMSpec
    from infra.models.resolve import resolve
    from infra.prefect_api.client import connected
    from infra.prefect_api.server import PrefectServer

    model = resolve(arguments.model, read_settings().cache)
    spec = VLLMSpec(model=str(model.path), digest=model.digest, max_model_len=1024, threads=os.cpu_count())
    with tempfile.TemporaryDirectory(prefix="reneg-overhead-") as name:
        folder = Path(name)
        server = PrefectServer(folder / "home")
        try:
            home = temporary_settings({PREFECT_HOME: folder / "client"})
            with connected(server.api(server.start())), home, ray_cluster(None):
                rounds = measure(arguments, folder, spec)
        finally:
            server.stop()
    result = {
        "command": "python -m benchmarks.judge_overhead " + f"--model {arguments.model}",
        "device": "CPU, 2 cores" if os.cpu_count() == 2 else f"CPU, {os.cpu_count()} cores",
        "gpu": "not measured",
        **{name: getattr(arguments, name) for name in ("model", "queries", "passages", "parts", "batch_size")},
        "rounds": rounds,
        "ratio": round(statistics.median(r["ratio"] for r in rounds), 4),
    }
    if not arguments.no_write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
