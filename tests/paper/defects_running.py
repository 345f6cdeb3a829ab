"""The paper's defects in running: the loop, the client, its costs, the batches and the command line (7.12 to 7.16).

Re-typed from PAPER section 7 in our own words, as small as it goes; none of it is used anywhere.
"""

import argparse
import functools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openai

Texts = Mapping[str, tuple[str, str]]  # query id: query, passage


@functools.cache
def client_of(url: str, seconds: float = 5.0) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url=url, max_retries=0, timeout=seconds)


def ask_once(url: str, model: str, content: str, seconds: float = 5.0) -> str:
    messages: Any = [{"role": "user", "content": content}]
    answer = client_of(url, seconds).chat.completions.create(model=model, messages=messages)
    return str(answer.choices[0].message.content)


def judge_all(texts: Texts, model: str, words: str, url: str, folder: Path) -> dict[str, str]:
    """7.12: one after the other, nothing caught, and whatever has the query's id in the file is taken for done."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    skip = [row["query_id"] for row in done]
    for query_id, (query, passage) in texts.items():
        if query_id not in skip:
            answer = ask_once(url, model, f"{words}\n{query}\n{passage}")
            done.append({"query_id": query_id, "state": "relevant" if answer == "Yes" else "not_relevant"})
            path.write_text("".join(json.dumps(row) + "\n" for row in done))
    return {row["query_id"]: row["state"] for row in done}


def respond(url: str, content: str) -> str:
    """7.13: two kinds of trouble, tried again without end; the wait is found in words, or nothing is."""
    try:
        return ask_once(url, "judge-1", content, seconds=0.5)
    except openai.RateLimitError as error:
        time.sleep(float(str(error).split("retry after ")[1].split()[0]))
        return respond(url, content)
    except openai.InternalServerError:
        return respond(url, content)


def respond_all(url: str, contents: Sequence[str]) -> list[str]:
    return ["answered" if respond(url, content) else "" for content in contents]


class Tokenizer:
    """Counts as the test server does."""

    def encode(self, text: str) -> list[str]:
        return ["token"] * (len(text) // 4 + 1)


PRICES = {"gpt-4o-mini-2024-07-18": (0.15, 0.60), "gpt-4o-2024-11-20": (2.50, 10.00)}


def cost(url: str, model: str, contents: Sequence[str], max_tokens: int) -> tuple[int, int, float]:
    """7.14: the output is taken to be as long as it may be; a model that is not in the table has no tokenizer."""
    del url
    tokenizer = Tokenizer() if model in PRICES else None
    read = sum(len(tokenizer.encode(content)) for content in contents)  # type: ignore[union-attr]
    price_in, price_out = PRICES[model]
    written = max_tokens * len(contents)
    return read, written, (read * price_in + written * price_out) / 1e6


class StillPolling(Exception):
    """The original would poll for ever; here it ends, so that a test can."""


_PATIENCE = 30  # looks at one job


def run_batches(url: str, contents: Sequence[str], per_job: int, *, download: bool = False) -> dict[str, str]:
    """7.15: one job after the other, until one of three states; nothing is fetched, and nobody counts the rows.

    download: the half that the original lacks altogether, so that the rest can be seen to be missing too.
    """
    client, answers = client_of(url), {}
    for start in range(0, len(contents), per_job):
        lines = [_line(content) for content in contents[start : start + per_job]]
        sent = client.files.create(file=("requests.jsonl", "".join(lines).encode()), purpose="batch")
        job = client.batches.create(input_file_id=sent.id, endpoint="/v1/chat/completions", completion_window="24h")
        looks = 0
        while job.status not in ("completed", "failed", "canceled"):
            if (looks := looks + 1) > _PATIENCE:
                raise StillPolling(job.status)
            job = client.batches.retrieve(job.id)
        if download and job.output_file_id:
            answers |= _read(client.files.content(job.output_file_id).text)
    return answers


def _line(content: str) -> str:
    body = {"model": "judge-1", "messages": [{"role": "user", "content": content}]}
    row = {"custom_id": content, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(row) + "\n"


def _read(text: str) -> dict[str, str]:
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in rows}


def start_batches(dataset: str, output_dir: str) -> None:
    """The function that the command line calls."""
    Path(output_dir, dataset).mkdir(parents=True)


def command_line(arguments: Sequence[str]) -> None:
    """7.16: it reads an argument that was never defined, and passes one that is not accepted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["batch", "again"])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output_dir", default=".")
    given = parser.parse_args(arguments)
    if given.command == "batch":
        start_batches(given.dataset, given.jobs_csv)
    else:
        start_batches(given.dataset, given.output_dir, batch_jobs_csv="jobs.csv")  # type: ignore[call-arg]
