"""Our loop, clients, meter, batches and command line in the shape of the re-typed defects."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints
from unittest import mock

import typer
import yaml

import tasks.prompts.prompt
from flows.cli.__main__ import app, main
from flows.config.curation import CurationConfig
from flows.config.load import parse_config
from flows.config.prices import load_prices
from flows.method.setup import Tier
from infra.engines.openai_batch import OpenAIBatchEngine
from infra.engines.openai_endpoint import OpenAIEngine
from infra.engines.specs import OpenAIBatchSpec, OpenAISpec
from infra.execution.shared_engine import EngineThread, LentEngine
from infra.execution.usage_meter import Budget, Meter
from infra.ledger.ledger import Ledger
from infra.storage.store import Store
from tasks.judging import calls
from tasks.judging.judge import judge
from tests.infra.misbehaving import Asked
from tests.paper.ours import read_rows
from tests.paper.shapes import Row

Texts = Mapping[str, tuple[str, str]]


@contextmanager
def own_prompts(folder: Path) -> Iterator[Callable[[str], None]]:
    """Let `mine.yaml` be a prompt file of the user's; yields what saves it with these words in its question."""
    shutil.copytree(tasks.prompts.prompt.FOLDER, folder)
    prompt = yaml.safe_load((folder / "yes_no.yaml").read_text(encoding="utf-8"))

    def save(words: str) -> None:
        questions = [f"{words} {question}" for question in prompt["questions"]]
        (folder / "mine.yaml").write_text(yaml.safe_dump({**prompt, "name": "mine", "questions": questions}))
        _as_in_a_new_process()

    with mock.patch.object(tasks.prompts.prompt, "FOLDER", folder):
        yield save
    _as_in_a_new_process()


def _as_in_a_new_process() -> None:
    tasks.prompts.prompt.load_prompt.cache_clear()
    calls._digest.cache_clear()


def endpoint_config(url: str, model: str, engine: Mapping[str, Any] | None = None, **changes: Any) -> CurationConfig:
    """A curation whose one judge is an endpoint."""
    spec = {"kind": "openai", "model": model, "base_url": url, **(engine or {})}
    tiers = [{"name": "llm", "engine": spec, "judge": {"prompt": "mine"} if engine is None else {}}]
    return parse_config({"name": "mine", "source": {"path": "rows.jsonl"}, "tiers": tiers, **changes}, "my.yaml")


def judge_all(texts: Texts, model: str, url: str, folder: Path) -> dict[str, str]:
    """Judge one passage of each query with the prompt `mine`, remembering what was paid for in `folder`."""
    rows = {query_id: Row(query, [("", "Known.")], [("", passage)]) for query_id, (query, passage) in texts.items()}
    tables = read_rows(folder / "rows", rows)
    config = endpoint_config(url, model)
    spec = config.tiers[0].engine
    assert isinstance(spec, OpenAISpec)
    tier = Tier.of(config.tiers[0], config, spec, model)
    engine = OpenAIEngine(spec)
    with Ledger(Store.open(str(folder / "store"))) as ledger:
        named = {name: tables[name] for name in ("queries", "passages", "positives")}
        made = judge(tier.judge, escalated=tables["candidates"], **named, engine=engine, ledger=ledger)
    engine.close()
    return dict(made["verdicts"].select("query_id", "state").iter_rows())


def respond_all(url: str, contents: Sequence[str]) -> list[str]:
    """Ask an endpoint; `answered`, or the reason."""
    engine = OpenAIEngine(OpenAISpec(model="judge-1", base_url=url, timeout=0.5))
    answers = engine.answer([Asked(content) for content in contents])
    engine.close()
    return ["answered" if answer.finish_reason == "stop" else answer.finish_reason for answer in answers]


def cost(url: str, model: str, contents: Sequence[str], max_tokens: int) -> tuple[int, int, float]:
    """Ask an endpoint as every part does, and read the run's meter: tokens read, written, and money."""
    config = endpoint_config(url, model, {})
    spec = config.tiers[0].engine
    assert isinstance(spec, OpenAISpec)
    meter = Meter(Budget(), load_prices(config).of_stages(config))
    engine = LentEngine(EngineThread(lambda: OpenAIEngine(spec)), meter, "judge-llm")
    engine.answer([Asked(content, max_tokens, 0) for content in contents])
    used = meter.totals()["judge-llm"]
    return int(used["prompt_tokens"]), int(used["output_tokens"]), used["money"]


def run_batches(url: str, contents: Sequence[str], per_job: int) -> dict[str, str]:
    """Have contents answered by jobs of so many."""
    spec = OpenAIBatchSpec(model="judge-1", base_url=url, poll_seconds=0.01, requests_per_batch=per_job)
    engine = OpenAIBatchEngine(spec)
    answers = engine.answer([Asked(content) for content in contents])
    engine.close()
    return {c: a.text for c, a in zip(contents, answers, strict=True) if a.finish_reason == "stop"}


def command_line(arguments: Sequence[str]) -> None:
    """Run `reneg …` as the shell would, in this process."""
    with mock.patch.object(sys, "argv", ["reneg", *arguments]):
        main()


def commands() -> list[str]:
    """Every command's name, but for the one that serves until it is stopped."""
    return sorted(_functions().keys() - {"serve"})


def arguments_of(name: str, values: Mapping[type, str]) -> list[str]:
    """Everything that a command can be given, with a value of each one's type."""
    hints = get_type_hints(_functions()[name])
    given = [name]
    for parameter in typer.main.get_command(app).commands[name].params:  # type: ignore[attr-defined]
        wanted = set(_types_in(hints[parameter.name]))
        if parameter.param_type_name == "option":
            given.append(parameter.opts[-1])
        if bool not in wanted:
            given.append(next(value for kind, value in values.items() if kind in wanted))
    return given


def _types_in(hint: Any) -> Iterator[Any]:
    yield hint
    for inner in get_args(hint):
        yield from _types_in(inner)


def _functions() -> dict[str, Callable[..., Any]]:
    groups = [group.typer_instance for group in app.registered_groups if not isinstance(group.name, str)]
    known = [(command.name, command.callback) for group in groups for command in group.registered_commands]
    return {name or function.__name__: function for name, function in known if function is not None}
