"""Answers by an endpoint's batch interface: files of requests in, hours later files of answers out, in any order.

A job is named by the digest of its file, and the content of a file depends on the requests alone. So an engine that is
started again finds the jobs that were submitted and takes their answers, instead of paying for them a second time.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from infra.engines.answers import ERROR, REFUSED, TOO_LONG, Answer, EndpointError, Request
from infra.engines.openai_endpoint import Endpoint
from infra.engines.openai_requests import (
    Reply,
    Trouble,
    read_completion,
    read_object,
    read_status,
    request_body,
    serialise,
)
from infra.engines.rate_limit import run, together
from infra.engines.refusals import EqualFaults, remedy
from infra.engines.specs import OpenAIBatchSpec

_LOG = logging.getLogger(__name__)
_MARK = "reneg"  # the metadata field that holds the digest
_MOST_BYTES = 150 * 2**20  # of one file; vendors take 200 MB
_PAGE = 100
_KEPT_SECONDS = 30 * 86400  # vendors delete a job's files after so long
_FILE_SECONDS = 900.0  # the least time allowed to send or fetch a file
_NOT_FOUND = 404
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_WORDS = 240  # characters of an endpoint's words in an error
_NO_ROOM = "token_limit_exceeded"  # more is waiting at the vendor than it takes at a time

Batch = Mapping[str, Any]


class OpenAIBatchEngine:
    """One endpoint's batch interface and one model; `counts` holds events by name."""

    def __init__(self, spec: OpenAIBatchSpec) -> None:
        """Read the key and prepare the client; nothing is sent yet.

        Raises:
            ValueError: the variable that should hold the key is not set, or the address is missing or no HTTP one.
        """
        self._spec = spec
        self._endpoint = Endpoint(spec, partial(remedy, spec=spec))
        self._faults = EqualFaults()

    @property
    def counts(self) -> Counter[str]:
        """Events so far: `submitted`, `attached`, `missing_row`, `doubled_row`, `resubmit_500`, …."""
        return self._endpoint.counts

    def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer requests in their order, waiting for the jobs; requests with the same `call_id` are sent once.

        Raises:
            EndpointError: the endpoint refuses the key, the model or our way of asking.
            ConnectionError: the endpoint cannot be reached any more; the jobs are found again by the next call.
        """
        return run(_Work(self._spec, self._endpoint, self._faults, requests).answer()) if requests else []

    def close(self) -> None:
        """Close the connections; submitted jobs go on at the vendor."""
        run(self._endpoint.close())


@dataclass
class _File:
    """Requests of one job: their lines by id, and the vendor's id of the file once it was sent."""

    lines: dict[str, str]
    digest: str = ""
    uploaded: str | None = None
    content: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        self.content = "".join(self.lines.values()).encode()
        self.digest = hashlib.sha256(self.content).hexdigest()


class _Jobs:
    """The vendor's files and batches, with a method for each step of a job."""

    def __init__(self, spec: OpenAIBatchSpec, endpoint: Endpoint) -> None:
        self._spec = spec
        self._endpoint = endpoint
        self._used: set[str] = set()  # jobs whose answers this call already took
        self._known: dict[str, list[Batch]] = {}
        self.path = "/chat/completions" if spec.api_version is not None else "/v1/chat/completions"

    async def look(self) -> None:
        """List the jobs at the vendor that may be ours, the oldest first."""
        oldest, after = time.time() - _KEPT_SECONDS, None
        found: list[Batch] = []
        raw = self._endpoint.client.batches.with_raw_response
        while True:
            query: dict[str, Any] = {"limit": _PAGE, **({"after": after} if after else {})}
            page = _need(await self._endpoint.call(partial(raw.list, **query), read_object), "listing the batches")
            batches = page.get("data") or []
            found += [batch for batch in batches if (batch.get("metadata") or {}).get(_MARK)]
            if not batches or not page.get("has_more") or batches[-1].get("created_at", 0) < oldest:
                break
            after = batches[-1]["id"]
        self._known = {}
        found = [batch for batch in found if batch.get("created_at", 0) >= self._spec.not_before]
        for batch in sorted(found, key=lambda batch: (batch.get("created_at", 0), batch["id"])):
            self._known.setdefault(batch["metadata"][_MARK], []).append(batch)

    def attach(self, file: _File) -> Batch | None:
        """Return a job that was submitted for this file before and has answers or may get some, or None."""
        for batch in self._known.get(file.digest, []):
            ended_empty = batch["status"] in ("failed", "cancelled") and not batch.get("output_file_id")
            if batch["id"] not in self._used and not ended_empty:
                self._used.add(batch["id"])
                self._endpoint.counts["attached"] += 1
                return batch
        return None

    async def submit(self, file: _File) -> Batch | Trouble:
        """Send the file and create its job; after a lost response, look first whether the job exists."""
        if file.uploaded is None:
            file.uploaded = await self._upload(file)
        for attempt in range(self._spec.max_retries + 1):
            created = await self._endpoint.call(partial(self._create, file), read_object, retries=0)
            if not isinstance(created, Trouble):
                self._used.add(created["id"])
                self._endpoint.counts["submitted"] += 1
                return created
            if not created.passing:
                return created
            await self._endpoint.back_off(attempt, created)
            await self.look()
            if (batch := self.attach(file)) is not None:
                return batch
        raise ConnectionError(f"creating a batch: {created}; the next attempt finds the jobs submitted so far")

    async def follow(self, batch: Batch) -> Batch:
        """Poll a job until it has ended, and return its last state."""
        ask = partial(self._endpoint.client.batches.with_raw_response.retrieve, batch["id"])
        while batch["status"] not in _ENDED:
            await asyncio.sleep(self._spec.poll_seconds)
            batch = _need(await self._endpoint.call(ask, read_object), "polling a batch")
        return batch

    async def fetch(self, file_id: str | None) -> str:
        """Return the text of a file of answers or errors; empty where the vendor has none or deleted it."""
        if not file_id:
            return ""
        raw = self._endpoint.client.files.with_raw_response
        read = await self._endpoint.call(partial(raw.content, file_id), _read_file, seconds=self._file_seconds)
        return str(_need(read, "fetching a batch's file"))

    async def _upload(self, file: _File) -> str:
        raw = self._endpoint.client.files.with_raw_response
        named = (f"reneg-{file.digest[:16]}.jsonl", file.content)
        sent = await self._endpoint.call(
            lambda: raw.create(file=named, purpose="batch"), read_object, seconds=self._file_seconds
        )
        uploaded = _need(sent, "sending a batch's file")
        while uploaded.get("status") in ("pending", "running"):  # Azure reads a file before a batch may name it
            await asyncio.sleep(self._spec.poll_seconds)
            ask = partial(raw.retrieve, uploaded["id"])
            uploaded = _need(await self._endpoint.call(ask, read_object), "polling a file")
        return str(uploaded["id"])

    async def _create(self, file: _File) -> Any:  # noqa: ANN401 - the client's raw response
        fields: dict[str, Any] = {
            "input_file_id": file.uploaded,
            "endpoint": self.path,
            "completion_window": self._spec.completion_window,
            "metadata": {_MARK: file.digest},
        }
        return await self._endpoint.client.batches.with_raw_response.create(**fields)

    @property
    def _file_seconds(self) -> float:
        return max(_FILE_SECONDS, self._spec.timeout)


class _Work:
    """One call of `answer`: which requests have no answer yet, and why not."""

    def __init__(
        self, spec: OpenAIBatchSpec, endpoint: Endpoint, faults: EqualFaults, requests: Sequence[Request]
    ) -> None:
        self._spec = spec
        self._counts = endpoint.counts
        self._jobs = _Jobs(spec, endpoint)
        self._order = [request.call_id for request in requests]
        self._answers: dict[str, Answer] = {}
        self._reasons: dict[str, str] = {}
        self._fatal: Trouble | None = None
        self._faults = faults
        self._lines = dict(sorted(self._write({request.call_id: request for request in requests})))
        self._slots = asyncio.Semaphore(spec.parallel)
        self._running = self._waiting = self._ended = 0

    async def answer(self) -> list[Answer]:
        """Ask in rounds until every request has its answer or was part of `max_rounds` new jobs."""
        await self._jobs.look()
        rounds = 0
        while rounds < self._spec.max_rounds and (files := list(self._cut())):
            rounds += any(await together([self._job(file) for file in files]))
        if self._fatal is not None and all(a.finish_reason.startswith(ERROR) for a in self._answers.values()):
            said = str(replace(self._fatal, text=self._fatal.text[:_WORDS]))
            advice = remedy(self._fatal.kind, self._fatal.text, self._spec)
            raise EndpointError(f"every request of a batch failed: {said} (model {self._spec.model!r}); {advice}")
        _LOG.info("batches: %d requests answered; so far %s", len(self._order), dict(self._counts))
        return [self._answers.get(call_id) or self._given_up(call_id) for call_id in self._order]

    def _write(self, requests: Mapping[str, Request]) -> Iterator[tuple[str, str]]:
        for call_id, request in requests.items():
            body = request_body(self._spec, request)
            line = serialise({"custom_id": call_id, "method": "POST", "url": self._jobs.path, "body": body})
            if isinstance(line, Trouble):
                self._answers[call_id] = line.as_answer()
            else:
                yield call_id, line + "\n"

    def _cut(self) -> Iterator[_File]:
        """Put the open requests into files; the same ones always make the same files."""
        lines: dict[str, str] = {}
        size = 0
        for call_id, line in self._lines.items():
            if call_id in self._answers:
                continue
            if lines and (len(lines) == self._spec.requests_per_batch or size + len(line.encode()) > _MOST_BYTES):
                yield _File(lines)
                lines, size = {}, 0
            lines[call_id] = line
            size += len(line.encode())
        if lines:
            yield _File(lines)

    async def _job(self, file: _File) -> bool:
        """Have one file answered; returns whether a new job was needed."""
        async with self._slots:
            self._running += 1
            try:
                return await self._follow(file)
            finally:
                self._running -= 1
                self._ended += 1

    async def _follow(self, file: _File) -> bool:
        attached = self._jobs.attach(file)
        waits = 0  # in which no other job of ours ended
        while True:
            batch = attached or await self._jobs.submit(file)
            if isinstance(batch, Trouble):
                self._fail(file, f"batch refused: {batch}")
                return True
            batch = await self._jobs.follow(batch)
            if not _lacks_room(batch) or waits > self._spec.max_retries:
                await self._collect(file, batch, is_earlier=attached is not None)
                return attached is None
            self._counts["no_room"] += 1
            attached = None
            waits += not await self._wait_for_room(waits)

    async def _wait_for_room(self, waits: int) -> bool:
        """Wait until another job of ours has ended, or for a while where none runs; returns whether one ended."""
        ended = self._ended
        self._waiting += 1
        try:
            while self._ended == ended and self._running > self._waiting:
                await asyncio.sleep(self._spec.poll_seconds)
            if self._ended == ended:
                await asyncio.sleep(self._spec.poll_seconds * 2**waits)
        finally:
            self._waiting -= 1
        return self._ended != ended

    async def _collect(self, file: _File, batch: Batch, *, is_earlier: bool) -> None:
        """Take the answers of an ended job; an expired or cancelled one has some, too.

        is_earlier: it was submitted by an earlier call; its refusals may no longer hold, so these requests stay open.
        """
        if batch["status"] == "failed":
            errors = (batch.get("errors") or {}).get("data") or []
            said = "; ".join(str(error.get("message") or error.get("code")) for error in errors[:3])
            self._fail(file, f"batch failed: {said or 'no reason given'}")
            return
        seen: set[str] = set()
        for name in ("output_file_id", "error_file_id"):
            for row in self._rows(await self._jobs.fetch(batch.get(name))):
                call_id = str(row.get("custom_id"))
                if call_id not in file.lines:
                    self._counts["unknown_row"] += 1
                elif call_id in seen:
                    self._counts["doubled_row"] += 1
                else:
                    seen.add(call_id)
                    self._take(call_id, row, is_last=not is_earlier)
        for call_id in file.lines.keys() - seen:
            self._counts["missing_row"] += 1
            self._reasons[call_id] = f"missing from a batch that is {batch['status']}"

    def _rows(self, text: str) -> Iterator[Mapping[str, Any]]:
        for line in text.split("\n"):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                yield row
            else:
                self._counts["unreadable_row"] += 1

    def _take(self, call_id: str, row: Mapping[str, Any], *, is_last: bool) -> None:
        result = _read_row(row)
        if isinstance(result, Answer):
            self._faults.note_answer()
            self._answers[call_id] = result
            return
        if result.passing or not (is_last or result.kind in (REFUSED, TOO_LONG)):
            self._counts[f"resubmit_{result.kind}"] += 1
            self._reasons[call_id] = str(Trouble(result.kind))
            return
        self._counts[result.kind if result.kind in (REFUSED, TOO_LONG) else f"failed_{result.kind}"] += 1
        equal = result.concerns_all and self._faults.add(result.kind, result.text)
        fatal = result.fatal and not self._faults.may_be_of_the_text(result.kind)
        self._fatal = result if fatal or equal else self._fatal
        self._answers[call_id] = result.as_answer()

    def _fail(self, file: _File, reason: str) -> None:
        self._counts["failed_batch"] += 1
        self._answers |= dict.fromkeys(file.lines, Answer(finish_reason=ERROR + reason))

    def _given_up(self, call_id: str) -> Answer:
        self._counts["given_up"] += 1
        return Answer(finish_reason=f"{ERROR}{self._reasons.get(call_id, 'not answered')}")


def _read_row(row: Mapping[str, Any]) -> Answer | Trouble:
    """Read one line of an output or error file."""
    response = row.get("response")
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        body = response.get("body")
        return read_completion(Reply(response["status_code"], body if isinstance(body, str) else json.dumps(body)))
    error = row.get("error")
    code = str(error.get("code") or "row") if isinstance(error, dict) else "row"
    return Trouble(code, passing=True)


def _read_file(reply: Reply) -> str | Trouble:
    return "" if reply.status == _NOT_FOUND else read_status(reply) or reply.text


def _lacks_room(batch: Batch) -> bool:
    errors = (batch.get("errors") or {}).get("data") or []
    return batch["status"] == "failed" and any(error.get("code") == _NO_ROOM for error in errors)


def _need(result: Any, what: str) -> Any:  # noqa: ANN401 - JSON
    """Return a result, which the work needs to go on.

    Raises:
        ConnectionError: there is none, after all tries.
    """
    if isinstance(result, Trouble):
        raise ConnectionError(f"{what}: {result}; the next attempt finds the jobs submitted so far")
    return result
