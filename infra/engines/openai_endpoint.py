"""Answers by an OpenAI-compatible endpoint: many requests at a time, tried again where that may help."""

import asyncio
import functools
import ipaddress
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import openai

from infra.engines.answers import UNAVAILABLE, Answer, Request
from infra.engines.openai_requests import Reply, Trouble, estimate_tokens, read_completion, request_body, serialise
from infra.engines.rate_limit import RateLimiter, identify
from infra.engines.specs import OpenAISpec

_LOG = logging.getLogger(__name__)
_VENDOR = "https://api.openai.com/v1"
_FIRST_DELAY = 0.5  # seconds; doubled with each try
_LONGEST_DELAY = 30.0
_LONGEST_ASKED = 600.0  # an endpoint that asks for more (a day's limit is used up) is not waited for
_CONNECT_SECONDS = 10.0
_SHORTEST_SECRET = 8  # shorter ones are placeholders ("none", "EMPTY"), which may well stand in an answer
_NO_KEY = "none"
_HIDDEN = "[key]"
_LOOP_LOCK = threading.Lock()
_NOT_ASKED = Answer(finish_reason=f"{UNAVAILABLE}not asked: the endpoint refuses all requests")

Result = TypeVar("Result")


class EndpointError(ValueError):
    """The endpoint cannot be used as configured: a wrong key, model or address; trying again does not help."""


class OpenAIEngine:
    """One endpoint and one model; `counts` holds retries and failures by reason."""

    def __init__(self, spec: OpenAISpec) -> None:
        """Read the key and prepare the client; nothing is sent yet.

        Raises:
            ValueError: the variable that should hold the key is not set, or the address is missing or no HTTP one.
        """
        self._spec = spec
        self._endpoint = Endpoint(spec)
        self._refusal: EndpointError | None = None

    @property
    def counts(self) -> Counter[str]:
        """Retries and failures so far, by reason: `retry_429`, `retry_timeout`, `failed_500`, `refused`, …."""
        return self._endpoint.counts

    def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer requests in their order; one that cannot be answered gets its reason, and the others are not affected.

        Where the endpoint begins to refuse every request, the answers so far are returned, and the next call raises.

        Raises:
            EndpointError: the endpoint refuses the key, the model or our way of asking.
            ConnectionError: the endpoint never answered at all.
        """
        self._raise_refusal()
        answers = run(self._answer(requests))
        if all(answer.finish_reason.startswith(UNAVAILABLE) for answer in answers):
            self._raise_refusal()
        return answers

    def _raise_refusal(self) -> None:
        """Raise the refusal of all requests, once; the call after that asks again."""
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal

    def close(self) -> None:
        """Close the connections; the engine cannot be used afterwards."""
        run(self._endpoint.close())

    async def _answer(self, requests: Sequence[Request]) -> list[Answer]:
        heard = self._endpoint.heard
        answers = await together([self._one(request, heard) for request in requests])
        _LOG.info("%s: %d requests answered; so far %s", self._endpoint.address, len(answers), dict(self.counts))
        return answers

    async def _one(self, request: Request, heard: int) -> Answer:
        body = request_body(self._spec, request)
        written = serialise(body)
        if isinstance(written, Trouble):
            return written.as_answer()
        tokens = estimate_tokens(request)
        async with self._endpoint.slots:
            if self._refusal is not None:
                return _NOT_ASKED
            try:
                result = await self._endpoint.call(lambda: self._endpoint.complete(body), read_completion, tokens)
            except EndpointError as refusal:  # of every request; the answers so far are paid for and are kept
                self._refusal = refusal
                return _NOT_ASKED
        if isinstance(result, Answer) and not result.prompt_tokens:
            # Without usage a budget would never be used up, so the usage is estimated, and the estimate is counted.
            self._endpoint.counts["no_usage"] += 1
            result = replace(result, prompt_tokens=tokens - request.max_tokens, output_tokens=request.max_tokens)
        if isinstance(result, Answer):
            self._endpoint.settle(tokens, result.prompt_tokens + result.output_tokens)
            return result
        if self._endpoint.heard == heard:
            raise ConnectionError(
                f"{self._endpoint.address}: no response to {self._spec.max_retries + 1} tries ({result}); "
                "check base_url, and that the server runs"
            )
        return result.as_answer()


class Endpoint:
    """A client with its key and its rate limit; every retry happens here."""

    def __init__(self, spec: OpenAISpec) -> None:
        """Read the key from the environment and build the client.

        Raises:
            ValueError: the variable that should hold the key is not set, or the address is missing or no HTTP one.
        """
        self._spec = spec
        self.address = _address(spec)
        self._key = _read_key(spec)
        self._client = _build_client(spec, self._key)
        identity = identify(spec.base_url or _VENDOR, self._key)
        self._limiter = RateLimiter(identity, spec.requests_per_minute, spec.tokens_per_minute)
        self.slots = _slots(identity, spec.concurrency)
        self.counts: Counter[str] = Counter()
        self.heard = 0  # responses of any kind

    @property
    def client(self) -> openai.AsyncOpenAI:
        """The vendor's client; it retries nothing and follows no redirection."""
        return self._client

    async def complete(self, body: dict[str, Any]) -> Any:  # noqa: ANN401 - the client's raw response
        """Ask for one chat completion."""
        named = {"model": body["model"], "messages": body["messages"]}
        rest = {name: value for name, value in body.items() if name not in named}
        return await self._client.chat.completions.with_raw_response.create(**named, extra_body=rest)

    async def call(
        self,
        ask: Callable[[], Awaitable[Any]],
        read: Callable[[Reply], Result | Trouble],
        tokens: int | None = None,
        *,
        retries: int | None = None,
        seconds: float | None = None,
    ) -> Result | Trouble:
        """Ask until there is a result, a trouble that does not pass, or no try left.

        tokens: what the request uses of the rate limit; None asks without waiting for it.

        Raises:
            EndpointError: the trouble is fatal to all requests.
        """
        left = self._spec.max_retries if retries is None else retries
        attempt = 0
        while True:
            if tokens is not None:
                await self._limiter.acquire(tokens)
            result = await self._send(ask, read, seconds or self._spec.timeout)
            if not isinstance(result, Trouble):
                return result
            if result.fatal:
                self.counts[f"failed_{result.kind}"] += 1
                raise EndpointError(self._explain(result))
            if attempt >= left or not result.passing or (result.wait or 0.0) > _LONGEST_ASKED:
                self.counts[result.kind if result.kind in ("refused", "too_long") else f"failed_{result.kind}"] += 1
                return result
            self.counts[f"retry_{result.kind}"] += 1
            await self.back_off(attempt, result)
            attempt += 1

    async def back_off(self, attempt: int, trouble: Trouble) -> None:
        """Wait before the next try: at random up to twice as long each time, and at least as long as was asked for."""
        if trouble.wait:
            await self._limiter.block(trouble.wait)
        delay = random.uniform(0.0, min(_LONGEST_DELAY, _FIRST_DELAY * 2**attempt))
        await asyncio.sleep((trouble.wait or 0.0) + delay)

    def settle(self, estimated: int, used: int) -> None:
        """Correct what a request was estimated to use of the limit of tokens."""
        if used:
            self._limiter.settle(estimated, used)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _send(
        self, ask: Callable[[], Awaitable[Any]], read: Callable[[Reply], Result | Trouble], seconds: float
    ) -> Result | Trouble:
        """Send once. No exception of the client leaves this method, because its message may hold secrets."""
        try:
            async with asyncio.timeout(seconds):  # the client's own limit is per read: a trickle of bytes never ends
                response = (await ask()).http_response
        except (TimeoutError, openai.APITimeoutError):
            return Trouble("timeout", f"no response within {seconds:g} s", passing=True)
        except openai.APIStatusError as error:
            response = error.response
        except openai.APIConnectionError as error:
            return Trouble("connection", type(error.__cause__ or error).__name__, passing=True)
        self.heard += 1
        text = response.content.decode("utf-8", errors="replace")
        return read(Reply(response.status_code, self._hide(text), dict(response.headers)))

    def _hide(self, text: str) -> str:
        """Take the key out of a body, also where it stands percent-encoded or with JSON's escaped slashes."""
        if len(self._key) < _SHORTEST_SECRET:
            return text
        for form in (self._key, quote(self._key, safe=""), self._key.replace("/", "\\/")):
            text = text.replace(form, _HIDDEN)
        return text

    def _explain(self, trouble: Trouble) -> str:
        return (
            f"{self.address}: {trouble} (model {self._spec.model!r}, key from {self._spec.api_key_env}); "
            "check the model's name, base_url, the key and its quota, and the fields that the endpoint knows"
        )


async def together(jobs: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run jobs at the same time; the first that raises ends the others, and its exception is raised.

    Raises:
        Exception: whatever a job raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except BaseExceptionGroup as several:
        error = several.exceptions[0]
    else:
        return [task.result() for task in tasks]
    raise error


def run(job: Coroutine[Any, Any, Result]) -> Result:
    """Run a job on the one event loop that all endpoints of this process share, and wait for it.

    One loop in a thread of its own: engines share the slots and the rate limit, and a caller may run a loop itself.
    """
    with _LOOP_LOCK:
        loop = _loop()
    future = asyncio.run_coroutine_threadsafe(job, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="reneg-endpoints", daemon=True).start()
    return loop


@functools.cache
def _slots(identity: str, concurrency: int) -> asyncio.Semaphore:
    """Return what bounds the requests in flight, over all engines of this process with this key and setting."""
    return asyncio.Semaphore(concurrency)


def _address(spec: OpenAISpec) -> str:
    """Check the endpoint's address; one with secrets in it is refused, since specs and addresses are shown and kept."""
    if spec.base_url is None and spec.api_version is not None:
        raise ValueError("base_url: the Azure resource's address expected with api_version, got none")
    parts = urlsplit(spec.base_url or _VENDOR)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url: an address such as https://host/v1 expected; scheme or host is missing")
    if "@" in parts.netloc or parts.query:
        raise ValueError(f"base_url: no name, password or query expected in it; put the key into {spec.api_key_env}")
    return parts.geturl()


def _read_key(spec: OpenAISpec) -> str:
    key = os.environ.get(spec.api_key_env, "").strip()
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(f"api_key_env: the variable {spec.api_key_env} holds characters that no key can have")
    if key:
        return key
    if _is_loopback(spec.base_url):
        return _NO_KEY
    raise ValueError(f"api_key_env: the variable {spec.api_key_env} should hold the endpoint's key and is not set")


def _is_loopback(base_url: str | None) -> bool:
    host = urlsplit(base_url or _VENDOR).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _build_client(spec: OpenAISpec, key: str) -> openai.AsyncOpenAI:
    timeout = openai.Timeout(spec.timeout, connect=min(_CONNECT_SECONDS, spec.timeout))
    transport = openai.DefaultAsyncHttpxClient(
        timeout=timeout,
        follow_redirects=False,  # texts and key go to the host that was named, and to no other
        trust_env=not _is_loopback(spec.base_url),  # a proxy cannot reach our loopback
    )
    if spec.api_version is not None:
        return openai.AsyncAzureOpenAI(
            azure_endpoint=(spec.base_url or "").rstrip("/"),
            api_version=spec.api_version,
            api_key=key,
            max_retries=0,
            timeout=timeout,
            http_client=transport,
        )
    base_url = spec.base_url or _VENDOR  # not from the client's own variable: the spec alone decides where texts go
    return openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=timeout, http_client=transport)
